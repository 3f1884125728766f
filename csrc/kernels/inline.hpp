// Marks functions that run on the host and, when compiled by nvcc, on the device too.
#pragma once

#if defined(__CUDACC__)
#define MFIK_INLINE __host__ __device__ inline
#elif defined(__GNUC__) && !defined(MFIK_ONE_INSTRUCTION_SET)
// Inlined always: each caller is compiled for the instruction set that it runs on (kernels/cpu/dispatch.hpp).
#define MFIK_INLINE inline __attribute__((always_inline))
#else
#define MFIK_INLINE inline
#endif
