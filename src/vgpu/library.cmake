# convnet/vgpu/libcuda.so.1: the virtual GPU as a driver's library, the runtime API in it too; and a
# convnet._cuda that is linked with it. For the real CuPy (tests/support/cupy_on_vgpu.py).
#
# Wants convnet_vgpu, an object library of all that is in this folder; convnet_vgpu_kernels, one of
# the kernels as PTX without backend.cu; and `include`, the folder of the toolkit's headers.

enable_language(C)
set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
set(stubs ${generated}/cuda_stubs.c ${generated}/cuda_names.c ${generated}/cudart_stubs.c)
add_custom_command(
  OUTPUT ${stubs}
  COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/api/gen_stubs.py ${include} ${generated}
  DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/api/gen_stubs.py
  VERBATIM)
set_source_files_properties(${stubs} PROPERTIES COMPILE_OPTIONS -w)

add_library(vgpu_libcuda SHARED $<TARGET_OBJECTS:convnet_vgpu> ${stubs})
set_target_properties(vgpu_libcuda PROPERTIES OUTPUT_NAME cuda SOVERSION 1)
target_link_libraries(vgpu_libcuda PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(vgpu_libcuda PRIVATE LINKER:-Bsymbolic)
install(TARGETS vgpu_libcuda LIBRARY DESTINATION convnet/vgpu NAMELINK_SKIP)

convnet_add_module(vgpu_cuda _cuda ${PROJECT_SOURCE_DIR}/src/kernels/backend.cu)
set_target_properties(vgpu_cuda PROPERTIES
  INSTALL_RPATH "$ORIGIN"
  CUDA_ARCHITECTURES "${virtual}"
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
  CUDA_RUNTIME_LIBRARY None)
target_compile_definitions(vgpu_cuda PRIVATE CONVNET_CUDA_ARCHS="PTX ${targets}")
target_link_libraries(vgpu_cuda PRIVATE convnet_vgpu_kernels vgpu_libcuda)
install(TARGETS vgpu_cuda LIBRARY DESTINATION convnet/vgpu)
