# The target _cuda, included where a CUDA compiler was found (CMakeLists.txt).
#
# CONVNET_CUDA_ARCHS   GPU architectures to compile for: numbers such as "80;90" (commas will do),
#                      "native" for the GPU that is present, or "all" for 75 80 86 89 90 100 120 as
#                      far as this nvcc knows them. Default: native where a GPU is found, else 80 and
#                      90 (where CONVNET_CUDA=on asks for it).
#
# PTX is made for 75, 80, 90a and 100 only, and machine code for 86, 89 and 120 from that of the one
# before: it is the same code, and half of the time of a build is that of the step to PTX. The newest PTX
# but for 90a is also stored: the driver compiles it for GPUs that come later.

execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch
                OUTPUT_VARIABLE known_archs ERROR_VARIABLE nvcc_error RESULT_VARIABLE nvcc_result)
if(NOT nvcc_result EQUAL 0)
  message(FATAL_ERROR "convnet: ${CMAKE_CUDA_COMPILER} --list-gpu-arch failed: ${nvcc_error}\n"
                      "CONVNET_CUDA=off builds without the CUDA backend.")
endif()
string(REGEX MATCHALL "[0-9]+" known_archs "${known_archs}")
list(FILTER known_archs EXCLUDE REGEX "^([0-6].|7[0-4])$")  # Turing is the oldest that we support

string(REGEX REPLACE "[ ,]+" ";" archs "${CONVNET_CUDA_ARCHS}")
if(archs STREQUAL "all")
  set(archs 75 80 86 89 90 100 120)
  foreach(arch ${archs})
    if(NOT arch IN_LIST known_archs)
      list(REMOVE_ITEM archs ${arch})
    endif()
  endforeach()
elseif(archs STREQUAL "native")
  set(archs ${native_archs})
  if(NOT archs)
    message(FATAL_ERROR "convnet: CONVNET_CUDA_ARCHS=native, but nvidia-smi finds no GPU here")
  endif()
elseif(archs STREQUAL "")
  set(archs ${native_archs})
  foreach(arch ${archs})
    if(NOT arch IN_LIST known_archs)
      message(STATUS "convnet: this nvcc does not know the GPU's sm_${arch}")
      set(archs "")
    endif()
  endforeach()
  if(NOT archs)
    set(archs 80 90)
  endif()
endif()
foreach(arch ${archs})
  if(NOT arch IN_LIST known_archs)
    string(REPLACE ";" " " known_text "${known_archs}")
    message(FATAL_ERROR "convnet: CONVNET_CUDA_ARCHS: expected all, native or some of ${known_text}, "
                        "got ${arch}")
  endif()
endforeach()
list(SORT archs COMPARE NATURAL)

# What machine code is made from, for each PTX. wgmma and TMA are of sm_90a alone, and stay there.
foreach(arch ${archs})
  set(stored_ptx 75)
  foreach(newer 80 100)
    if(arch GREATER_EQUAL newer)
      set(stored_ptx ${newer})
    endif()
  endforeach()
  if(arch EQUAL 90)
    list(APPEND made_of_90a sm_90a)
  else()
    list(APPEND made_of_${stored_ptx} sm_${arch})
  endif()
endforeach()
list(APPEND made_of_${stored_ptx} compute_${stored_ptx})
foreach(ptx 75 80 90a 100)
  if(made_of_${ptx})
    list(JOIN made_of_${ptx} "," code)
    list(APPEND generate "--generate-code=arch=compute_${ptx},code=[${code}]")
  endif()
endforeach()

convnet_add_backend(_cuda ${kernels})
set_target_properties(_cuda PROPERTIES
  CUDA_ARCHITECTURES OFF
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
  CUDA_RUNTIME_LIBRARY Static
  CUDA_VISIBILITY_PRESET hidden)
# check_build.py compiles with the same options. -lineinfo costs nothing and lets profilers and
# compute-sanitizer name lines.
target_compile_options(_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-O3;-lineinfo;${generate}>")

list(TRANSFORM archs PREPEND "sm_" OUTPUT_VARIABLE targets)
list(JOIN targets " " targets)
set(targets "${targets} PTX ${stored_ptx}")
target_compile_definitions(_cuda PRIVATE CONVNET_CUDA_ARCHS="${targets}")
message(STATUS "convnet: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, ${targets}")
if(CONVNET_CUDA STREQUAL "pypi")
  set(reason "nvcc ${CMAKE_CUDA_COMPILER_VERSION} from PyPI")
else()
  set(reason "nvcc ${CMAKE_CUDA_COMPILER_VERSION}: ${CMAKE_CUDA_COMPILER}")
endif()
set(CONVNET_CUDA_TARGETS "${targets}" PARENT_SCOPE)
