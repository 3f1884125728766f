// Weight of a training row: w = 1 / (||q_target - q||^2 + c)^p.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/inline.hpp"

namespace mfik {

/// Weight of a squared distance [rad^2]. The default p = 0.5 takes a square root, which is several times faster.
template <typename T>
MFIK_INLINE T weight_of_distance(T distance_sq, T c, T p) {
    const T x = distance_sq + c;
    return p == T(0.5) ? T(1) / std::sqrt(x) : std::pow(x, -p);
}

template <typename T>
struct AdaptiveWeightArgs {
    const T* __restrict__ q;         // [n, dof]
    const T* __restrict__ q_target;  // [n, dof]
    T* __restrict__ weight;          // [n, 1]
    std::int64_t n;
    std::int64_t dof;
    T c;
    T p;
};

/// ||q_target - q||^2 of row i. kDof > 0 fixes the number of joints at compile time; 0 reads args.dof.
template <int kDof, typename T>
MFIK_INLINE T row_distance_sq(const AdaptiveWeightArgs<T>& args, std::int64_t i) {
    const std::int64_t dof = kDof > 0 ? kDof : args.dof;
    const T* q = args.q + i * dof;
    const T* q_target = args.q_target + i * dof;
    T distance_sq = 0;
    for (std::int64_t j = 0; j < dof; ++j) {
        const T d = q_target[j] - q[j];
        distance_sq += d * d;
    }
    return distance_sq;
}

}  // namespace mfik
