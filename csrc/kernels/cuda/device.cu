#include "kernels/cuda/launch.cuh"
#include "kernels/kernels.hpp"

namespace mfik::cuda {
namespace {

__global__ void nothing() {}

}  // namespace

std::string problem() {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, nothing);
    static_cast<void>(cudaGetLastError());  // told here, and not to who asks next
    return status == cudaSuccess ? std::string() : cudaGetErrorString(status);
}

}  // namespace mfik::cuda
