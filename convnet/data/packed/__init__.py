"""Images packed into a few large files, decoded and scaled once."""
