"""Measuring trained nets: the error on a data set, predictions for images."""
