// Where attempts begin.
#pragma once

#include "kernels/search.hpp"
#include "mfik/solver.hpp"

namespace mfik {

struct Core;

/// Rows that the network answers together in solve_batch().
constexpr int kNetworkRows = 64;

/// Stored configurations of a chain.
[[nodiscard]] SeedTable make_seed_table(const Chain& chain);

/// Seed computed without the network: any but Seed::kNetwork, for a target of the tip. q [dof].
void analytic_seed(const Core& core, const Transform& T_tip, const double* q_ref, Seed seed, double* q);

/// Answers of the network, q + u(q, 0, 1), to up to kNetworkRows references [rows, dof] and tip poses [rows, 7]; q is
/// the reference clamped to the limits, as networks are trained on: far beyond them float32 would round its answer out.
/// @param[in,out] scratch  engine->scratch_size(rows) floats.
/// @param[out] seeds  [rows, dof]; q itself where the network's answer is not finite.
void network_seeds(const Core& core, int rows, const double* q_ref, const double* tip_poses, float* scratch,
                   double* seeds);

}  // namespace mfik
