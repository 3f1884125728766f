// One row of the training loss: l = w ||u - (v + (t - r) D)||^2, and its gradient with respect to u.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/adaptive_weight.hpp"
#include "kernels/inline.hpp"

namespace mfik {

template <typename T>
struct WeightedResidualArgs {
    const T* __restrict__ u;           // [n, dof]
    const T* __restrict__ v;           // [n, dof]
    const T* __restrict__ derivative;  // [num_jvp, dof], of the first rows; the others have t = r
    const T* __restrict__ r;           // [n, 1]
    const T* __restrict__ t;           // [n, 1]
    const T* __restrict__ weight;      // [n, 1], null: (||residual||^2 + c)^-p
    T* __restrict__ loss;              // [n, 1]
    T* __restrict__ squared;           // [n, 1], ||residual||^2
    T* __restrict__ residual;          // [n, dof]
    std::int64_t n;
    std::int64_t dof;
    std::int64_t num_jvp;
    T clip;  // largest norm of (t - r) D in units of ||v||; 0: none
    T c;
    T p;
};

template <int kDof, typename T>
MFIK_INLINE void weighted_residual_row(const WeightedResidualArgs<T>& args, std::int64_t i) {
    const std::int64_t dof = kDof > 0 ? kDof : args.dof;
    const T* u = args.u + i * dof;
    const T* v = args.v + i * dof;
    T* residual = args.residual + i * dof;
    T squared = 0;
    if (i < args.num_jvp) {
        const T* derivative = args.derivative + i * dof;
        T elapsed = args.t[i] - args.r[i];
        if (args.clip > T(0)) {
            T v_sq = 0, d_sq = 0;
            for (std::int64_t j = 0; j < dof; ++j) v_sq += v[j] * v[j], d_sq += derivative[j] * derivative[j];
            const T largest = args.clip * std::sqrt(v_sq), norm = elapsed * std::sqrt(d_sq);
            if (norm > largest) elapsed *= largest / norm;
        }
        for (std::int64_t j = 0; j < dof; ++j) {
            residual[j] = u[j] - (v[j] + elapsed * derivative[j]);
            squared += residual[j] * residual[j];
        }
    } else {
        for (std::int64_t j = 0; j < dof; ++j) {
            residual[j] = u[j] - v[j];
            squared += residual[j] * residual[j];
        }
    }
    const T weight = args.weight != nullptr ? args.weight[i] : weight_of_distance(squared, args.c, args.p);
    args.loss[i] = weight * squared;
    args.squared[i] = squared;
}

template <typename T>
struct WeightedResidualBackwardArgs {
    const T* __restrict__ loss_gradient;  // [n, 1]
    const T* __restrict__ residual;       // [n, dof]
    const T* __restrict__ squared;        // [n, 1]
    const T* __restrict__ weight;         // [n, 1] or null, as in the forward pass
    T* __restrict__ u_gradient;           // [n, dof]
    std::int64_t n;
    std::int64_t dof;
    T c;
    T p;
};

/// d loss / d residual = scale * residual; the weight is a constant to the gradient, the one of the residual too.
template <typename T>
MFIK_INLINE T residual_gradient_scale(const WeightedResidualBackwardArgs<T>& args, std::int64_t i) {
    const T weight = args.weight != nullptr ? args.weight[i] : weight_of_distance(args.squared[i], args.c, args.p);
    return T(2) * weight * args.loss_gradient[i];
}

template <int kDof, typename T>
MFIK_INLINE void weighted_residual_backward_row(const WeightedResidualBackwardArgs<T>& args, std::int64_t i) {
    const std::int64_t dof = kDof > 0 ? kDof : args.dof;
    const T scale = residual_gradient_scale(args, i);
    for (std::int64_t j = 0; j < dof; ++j) args.u_gradient[i * dof + j] = scale * args.residual[i * dof + j];
}

}  // namespace mfik
