// Marks functions that run on the host and, when compiled by nvcc, on the device too.
#pragma once

#if defined(__CUDACC__)
#define MFIK_HOST_DEVICE __host__ __device__
#elif defined(__GNUC__)
// Inlined always, so that each is compiled for the instruction set of the function that uses it.
#define MFIK_HOST_DEVICE __attribute__((always_inline))
#else
#define MFIK_HOST_DEVICE
#endif

// For what a CPU loop calls for each row: it has to be compiled as part of each of the loop's target clones.
#if defined(__GNUC__) || defined(__clang__)
#define MFIK_HOST_DEVICE_INLINE MFIK_HOST_DEVICE inline __attribute__((always_inline))
#else
#define MFIK_HOST_DEVICE_INLINE MFIK_HOST_DEVICE inline
#endif
