"""PyTorch's state dicts, read and written without PyTorch."""
