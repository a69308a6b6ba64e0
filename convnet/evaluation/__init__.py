"""What a trained net knows: its error on a data set, its prediction for an image."""
