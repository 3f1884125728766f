#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace mfik::cuda {

constexpr int kBlock = 256;
constexpr std::int64_t kMaxGrid = 65536;

template <typename Row, typename Args>
__global__ void for_each_row(const Args args, std::int64_t n) {
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
    for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
        Row()(args, i);
}

/// Launch Row()(args, i) for i in [0, n), one thread a row, on the current device.
template <typename Row, typename Args>
void launch_rows(const char* name, const Args& args, std::int64_t n, std::intptr_t stream) {
    if (n == 0) return;
    const auto grid = static_cast<unsigned>(std::min((n + kBlock - 1) / kBlock, kMaxGrid));
    for_each_row<Row><<<grid, kBlock, 0, reinterpret_cast<cudaStream_t>(stream)>>>(args, n);
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(status));
}

}  // namespace mfik::cuda
