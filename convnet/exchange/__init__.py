"""Nets of other programs: definitions and weights, read and written without those programs."""
