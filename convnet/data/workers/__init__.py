"""Processes that decode pictures ahead of training."""
