#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace mfik::cuda {

constexpr int kBlock = 256;
constexpr int kTile = 128;  // rows of a block that stages them in shared memory: 28 kB at most, of 48 kB
constexpr std::int64_t kMaxGrid = 65536;

inline unsigned grid_size(std::int64_t n, int block) {
    return static_cast<unsigned>(std::min((n + block - 1) / block, kMaxGrid));
}

/// Launch kernel(args...) on the current device; throws std::runtime_error, which begins with `name`, where CUDA
/// refuses.
///
/// By a function where `<<<>>>` would do: the tests run the same lines on the CPU (csrc/tests/cuda_emulation).
template <typename... Params, typename... Args>
void launch(const char* name, void (*kernel)(Params...), unsigned grid, int block, std::intptr_t stream,
            const Args&... args) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(grid);
    config.blockDim = dim3(static_cast<unsigned>(block));
    config.stream = reinterpret_cast<cudaStream_t>(stream);
    const cudaError_t status = cudaLaunchKernelEx(&config, kernel, args...);
    static_cast<void>(cudaGetLastError());  // reported here, and not to who asks next
    if (status != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(status));
}

template <typename Row, typename Args>
__global__ void for_each_row(const __grid_constant__ Args args, std::int64_t n) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        Row()(args, i);
}

/// Launch Row()(args, i) for i in [0, n), one thread a row, on the current device.
template <typename Row, typename Args>
void launch_rows(const char* name, const Args& args, std::int64_t n, std::intptr_t stream) {
    if (n == 0) return;
    launch(name, for_each_row<Row, Args>, grid_size(n, kBlock), kBlock, stream, args, n);
}

template <typename Tile, typename Args>
__global__ void for_each_tile(const __grid_constant__ Args args, std::int64_t n) {
    for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile; first < n;
         first += static_cast<std::int64_t>(gridDim.x) * kTile) {
        Tile()(args, first, static_cast<int>(n - first < kTile ? n - first : kTile));
        __syncthreads();  // before the next tile overwrites what is staged
    }
}

/// Launch Tile()(args, first, rows) for runs of up to kTile rows that cover [0, n), one block of kTile threads each.
///
/// Rows of 6 or 7 numbers written by one thread each would cost a memory transaction a number: a tile goes through
/// shared memory, so that neighbouring threads touch neighbouring numbers of device memory.
template <typename Tile, typename Args>
void launch_tiles(const char* name, const Args& args, std::int64_t n, std::intptr_t stream) {
    if (n == 0) return;
    launch(name, for_each_tile<Tile, Args>, grid_size(n, kTile), kTile, stream, args, n);
}

/// Copy `count` numbers with all threads of a block.
template <typename T>
__device__ void copy_tile(T* to, const T* from, int count) {
    for (int k = static_cast<int>(threadIdx.x); k < count; k += kTile) to[k] = from[k];
}

}  // namespace mfik::cuda
