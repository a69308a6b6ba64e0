"""Pictures of a run: curves, filters, predictions, confusion."""
