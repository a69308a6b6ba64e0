# CMake writes _build_info.py (from _build_info.py.in) when the package is built.
VERSION: str
CUDA_BUILT: bool
CUDA_REASON: str
CUDA_TARGETS: str
ONEDNN: str
COMPILER: str
