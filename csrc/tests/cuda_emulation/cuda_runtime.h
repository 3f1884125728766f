// What the kernels use of CUDA, for a C++ compiler: their sources, compiled with this folder before CUDA's, run on the
// CPU. Launches wait in their stream's queue until it is synchronised; then each thread of a block is a fiber, which
// gives way at barriers (emulation.cpp). Given to the compiler by -include, as nvcc does with its own.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>

#if defined(__SANITIZE_THREAD__)
#define MFIK_SHARED static thread_local  // two blocks run at a time, each on a thread of its own
#else
#define MFIK_SHARED \
    static  // one block at a time; AddressSanitizer guards its bounds, which it does not for thread_local
#endif

#define __CUDACC__
#define __CUDA_ARCH__ 900
#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __shared__ MFIK_SHARED
// As many one-byte instructions that do nothing before the kernel: `launch_bound` in emulation.cpp counts them.
#define __launch_bounds__(threads) \
    __attribute__((patchable_function_entry(sizeof(char[threads]), sizeof(char[threads]))))
#define __syncthreads() emulation::sync_threads(__LINE__)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
using cudaStream_t = struct CUstream_st*;

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
};

namespace emulation {

struct Index {
    unsigned x;
};

extern int multiprocessors;  // of the device

void sync_threads(int line);

/// Queue `thread`, which runs one thread of a kernel, or say what the hardware would refuse.
cudaError_t enqueue(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread);

}  // namespace emulation

// Of one block and thread; variables of each processor thread, as two of them run blocks under ThreadSanitizer.
extern __thread emulation::Index threadIdx, blockIdx, blockDim, gridDim;

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), const Args&... args) {
    static_assert((std::is_trivially_copyable_v<Params> && ...), "arguments are copied as bytes");
    static_assert((sizeof(Params) + ... + 0) <= 4096, "every device and driver takes 4 KB of arguments");
    const std::tuple<Params...> copies(args...);
    return emulation::enqueue(*config, reinterpret_cast<const void*>(kernel),
                              [kernel, copies] { std::apply(kernel, copies); });
}

template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int /*block*/, std::size_t /*shared*/) {
    *blocks = 1;
    return cudaSuccess;
}

struct cudaFuncAttributes {};
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

inline int atomicAdd(int* address, int value) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
