# Debian packages, libmfik and libmfik-dev: cpack -G DEB in the build folder.
set(CPACK_PACKAGE_CONTACT "mfik maintainers <maintainers@mfik.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Inverse kinematics for robot controllers")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL runtime dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64") # else this machine's
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
endif()
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON) # and the loader learns of the library
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME libmfik)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libmfik-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libmfik (= ${PROJECT_VERSION})")
if(CMAKE_CROSSCOMPILING) # dpkg-shlibdeps knows the libraries of this machine
  set(CPACK_DEBIAN_RUNTIME_PACKAGE_DEPENDS "libc6, libstdc++6, libgcc-s1")
else()
  set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
endif()
include(CPack)
