"""Runs block_sum.cu, compiled to a library, on the virtual GPU: python block_sum.py LIBRARY."""

import ctypes
import sys

import convnet._vgpu
import numpy as np

ctypes.CDLL(convnet._vgpu.__file__, ctypes.RTLD_GLOBAL)  # the runtime API, for the library
block_sums = ctypes.CDLL(sys.argv[1]).block_sums
block_sums.restype = ctypes.c_char_p

x = np.arange(1000, dtype=np.float32)
y = np.zeros(8, np.float32)
error = block_sums(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), x.size)
print(error.decode(), y)
