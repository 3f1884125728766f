#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/adaptive_weight.hpp"

namespace mfik::cpu {

/// Weights of `count` squared distances, with the choice of the formula outside the loop: it vectorises.
template <typename T>
MFIK_INLINE void weigh(const T* distance_sq, T* __restrict__ weight, std::int64_t count, T c, T p) {
    if (p == T(0.5)) {
        for (std::int64_t k = 0; k < count; ++k) weight[k] = T(1) / std::sqrt(distance_sq[k] + c);
    } else {
        for (std::int64_t k = 0; k < count; ++k) weight[k] = weight_of_distance(distance_sq[k], c, p);
    }
}

}  // namespace mfik::cpu
