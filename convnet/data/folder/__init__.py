"""Images in folders of classes, in ImageNet's layout, or listed in a file."""
