// Kernels that evaluate networks.
#pragma once

#include "kernels/cpu/dispatch.hpp"
#include "kernels/geometry.hpp"

namespace mfik {

namespace v1 {
struct Layers;
struct Buffers;
}  // namespace v1
namespace v2 {
struct Layers;
struct Buffers;
}  // namespace v2

namespace cpu {

/// Up to kMaxRows rows; with num_poses == 1 all rows have one pose.
struct NetworkKernels {
    const char* isa;  // see kIsa
    void (*evaluate_v1)(const v1::Layers& layers, const v1::Buffers& buffers, int rows, const float* q,
                        const float* poses, int num_poses, float* u) noexcept;
    /// Features of rows, `step` floats apart in `out`, and their squared pose errors.
    void (*features)(const Geometry& geometry, int rows, const float* q, const float* poses, int num_poses, float* out,
                     int step, float* error2) noexcept;
    /// Moves buffers.at by what the network makes of buffers.features and buffers.error2.
    void (*pass_v2)(const v2::Layers& layers, const v2::Buffers& buffers, int rows) noexcept;
};
MFIK_DECLARE_KERNELS(NetworkKernels);

}  // namespace cpu
}  // namespace mfik
