# Links the shared libraries of a wheel for every Linux since 2018 (manylinux_2_28), whatever the age of this machine:
#   CMAKE_TOOLCHAIN_FILE=$PWD/cmake/manylinux.cmake pip wheel . && auditwheel repair --plat manylinux_2_28_x86_64 *.whl
# libstdc++ goes into them; from glibc they take what 2.28 has, in its versions, as glibc_stubs.py offers nothing else.
# Nothing is compiled differently, so objects serve both ways of linking. Programs are linked as ever.
set(_stubs ${CMAKE_CURRENT_LIST_DIR}/../build/glibc-2.28)
cmake_path(NORMAL_PATH _stubs)
if(NOT EXISTS ${_stubs}/libc.so)
  find_program(MFIK_PYTHON NAMES python3 python REQUIRED)
  execute_process(COMMAND ${MFIK_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/glibc_stubs.py 2.28 ${_stubs}
    COMMAND_ERROR_IS_FATAL ANY)
endif()
string(CONCAT _flags "-L${_stubs} -static-libstdc++ -Wl,--exclude-libs,libstdc++.a -Wl,--gc-sections "
  "${_stubs}/newer.o -Wl,--push-state,--no-as-needed,-l:libpthread.so.0,--pop-state")
set(CMAKE_MODULE_LINKER_FLAGS_INIT "${_flags}")
set(CMAKE_SHARED_LINKER_FLAGS_INIT "${_flags} -Wl,-z,defs")
