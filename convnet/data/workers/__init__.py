"""Processes that decode images ahead of training."""
