"""Images of a run: curves, filters, predictions, confusion."""
