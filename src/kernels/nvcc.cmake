# Finds nvcc for _cuda (src/kernels) and for _vgpu (src/vgpu), and enables the language.
#
# It is the one on the PATH or in CUDACXX. With CONVNET_CUDA=pypi, or where only _vgpu wants one and
# there is none, it is that of the package nvidia-cuda-nvcc, which is then a build requirement
# (build_backend.py). Sets CMAKE_CUDA_COMPILER and CONVNET_NVCC_FROM_PYPI.

if("${CONVNET_CUDA}" STREQUAL "")  # not NOT: "off" counts as false
  set(CONVNET_CUDA auto)
endif()
string(TOLOWER ${CONVNET_CUDA} CONVNET_CUDA)
if(NOT CONVNET_CUDA MATCHES "^(auto|on|off|pypi)$")
  message(FATAL_ERROR "convnet: CONVNET_CUDA: expected auto, on, off or pypi, got ${CONVNET_CUDA}")
endif()

function(find_pypi_nvcc result)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c [[
import importlib.metadata as m, pathlib
try:
    files = m.files("nvidia-cuda-nvcc") or []
except m.PackageNotFoundError:
    files = []
print(*[pathlib.Path(f.locate()).resolve().as_posix() for f in files if f.name == "nvcc"][:1])
]]
    OUTPUT_VARIABLE nvcc OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(${result} "${nvcc}" PARENT_SCOPE)
endfunction()

set(CONVNET_NVCC_FROM_PYPI OFF)
include(CheckLanguage)
if(CONVNET_CUDA MATCHES "^(auto|on)$" OR (CONVNET_VGPU AND NOT CONVNET_CUDA STREQUAL "pypi"))
  check_language(CUDA)
endif()
if(NOT CMAKE_CUDA_COMPILER AND (CONVNET_CUDA STREQUAL "pypi" OR CONVNET_VGPU))
  find_pypi_nvcc(CMAKE_CUDA_COMPILER)
  set(CONVNET_NVCC_FROM_PYPI ON)
endif()

if(CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # of the compiler's test; targets say theirs
  enable_language(CUDA)
elseif(CONVNET_CUDA STREQUAL "pypi")
  message(FATAL_ERROR "convnet: CONVNET_CUDA=pypi, but the package nvidia-cuda-nvcc is not "
                      "installed for ${Python_EXECUTABLE}")
elseif(CONVNET_CUDA STREQUAL "on")
  message(FATAL_ERROR "convnet: CONVNET_CUDA=on, but nvcc is neither on PATH nor in CUDACXX")
elseif(CONVNET_VGPU)
  message(FATAL_ERROR "convnet: CONVNET_VGPU=on, but nvcc is neither on PATH nor in CUDACXX, and "
                      "the package nvidia-cuda-nvcc is not installed for ${Python_EXECUTABLE}")
endif()
