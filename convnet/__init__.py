"""convnet: hand-written CUDA kernels for convolutional nets, with Python bindings."""
