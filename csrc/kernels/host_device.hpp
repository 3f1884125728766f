// Marks functions that run on the host and, when compiled by nvcc, on the device too.
#pragma once

#ifdef __CUDACC__
#define MFIK_HOST_DEVICE __host__ __device__
#else
#define MFIK_HOST_DEVICE
#endif
