"""Caffe's nets: definitions in text and weights in the wire format, read without Caffe."""
