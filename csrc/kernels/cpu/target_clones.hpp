// One compilation of a function per instruction set, chosen when the library is loaded: portable builds use the vectors
// of the machine they run on. CMake finds out whether the toolchain can.
#pragma once

#ifdef MFIK_HAS_TARGET_CLONES
#define MFIK_TARGET_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MFIK_TARGET_CLONES
#endif
