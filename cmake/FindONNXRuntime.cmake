# ONNX Runtime's library and, where they are, its C headers: Debian libonnxruntime-dev, the archives of its releases, or
# the library of PyPI's onnxruntime (onnxruntime/capi) with headers from elsewhere.
#
# Reads   ONNXRuntime_ROOT, or ONNXRuntime_INCLUDE_DIR and ONNXRuntime_LIBRARY
# Defines ONNXRuntime_FOUND (the library), ONNXRuntime_INCLUDE_DIR, target ONNXRuntime::ONNXRuntime
find_path(ONNXRuntime_INCLUDE_DIR onnxruntime_c_api.h PATH_SUFFIXES onnxruntime onnxruntime/core/session
          DOC "Folder that holds onnxruntime_c_api.h")
find_library(ONNXRuntime_LIBRARY NAMES onnxruntime libonnxruntime.so.1 DOC "ONNX Runtime's library")
mark_as_advanced(ONNXRuntime_INCLUDE_DIR ONNXRuntime_LIBRARY)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ONNXRuntime REQUIRED_VARS ONNXRuntime_LIBRARY)
if(ONNXRuntime_FOUND AND NOT TARGET ONNXRuntime::ONNXRuntime)
  add_library(ONNXRuntime::ONNXRuntime UNKNOWN IMPORTED)
  set_target_properties(ONNXRuntime::ONNXRuntime PROPERTIES IMPORTED_LOCATION "${ONNXRuntime_LIBRARY}")
  if(ONNXRuntime_INCLUDE_DIR)
    set_target_properties(ONNXRuntime::ONNXRuntime PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${ONNXRuntime_INCLUDE_DIR}")
  endif()
endif()
