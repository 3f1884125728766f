// Kernels of collision: several configurations side by side, one in each lane of a vector register.
#pragma once

#include "kernels/collision.hpp"
#include "kernels/cpu/dispatch.hpp"

namespace mfik::cpu {

using Nearest = NearestOf<double>;

struct CollisionKernels {
    const char* isa;  // see kIsa
    int lanes;        // configurations that are worked on side by side
    /// The nearest pair of each of `rows` configurations q [rows, dof]; see nearest() in kernels/collision.hpp.
    void (*nearest)(const Chain& chain, const BodyView& body, const WorldView& world, bool self, const double* q,
                    int rows, double cutoff, double enough, Nearest* out) noexcept;
    /// Whether each of `rows` configurations q [rows, dof] keeps a margin [m]: 1 or 0.
    void (*free)(const Chain& chain, const BodyView& body, const WorldView& world, bool self, const double* q, int rows,
                 double margin, unsigned char* out) noexcept;
    /// Whether what moves with the last joint is nearer to the world than a margin [m] for certain, with the frame of
    /// that joint at T.
    bool (*last_frame_collides)(const BodyView& body, const WorldView& world, const Transform& T, int dof,
                                double margin) noexcept;
};
MFIK_DECLARE_KERNELS(CollisionKernels);

}  // namespace mfik::cpu
