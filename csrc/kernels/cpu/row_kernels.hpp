// Kernels of the batched ops (mfik/ops): rows [begin, end) of their arguments, on the calling thread.
#pragma once

#include <cstdint>

#include "kernels/cpu/dispatch.hpp"
#include "kernels/kernels.hpp"

namespace mfik::cpu {

/// kernels/kernels.hpp says what each function computes.
template <class T>
struct RowKernelsOf {
    void (*adaptive_weight)(const AdaptiveWeightArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    /// Returns the first row whose index is out of range, `end` when there is none.
    std::int64_t (*sample_batch)(const SampleBatchArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*draw_batch)(const Chain&, const DrawBatchArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*weighted_residual_loss)(const WeightedResidualArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*weighted_residual_loss_backward)(const WeightedResidualBackwardArgs<T>&, std::int64_t begin,
                                            std::int64_t end) noexcept;
    void (*fk)(const Chain&, const FkArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*jacobian)(const Chain&, const JacobianArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*fk_error)(const Chain&, const FkErrorArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*refine)(const Chain&, const RefineArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*solve)(const Chain&, const SolveArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*geometry)(const Geometry&, const GeometryArgs<T>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*geometry_backward)(const Geometry&, const GeometryBackwardArgs<T>&, std::int64_t begin,
                              std::int64_t end) noexcept;
};

struct RowKernels {
    const char* isa;  // see kIsa
    RowKernelsOf<float> float32;
    RowKernelsOf<double> float64;
};
MFIK_DECLARE_KERNELS(RowKernels);

}  // namespace mfik::cpu
