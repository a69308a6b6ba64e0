"""Nets: the graph of layers, and its passes as programs that are traced, rewritten and run."""
