#include "solver/seeds.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/philox.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"

namespace mfik {
namespace {

constexpr std::uint64_t kTableSeed =
    0x6d66696b;  // of the stored configurations' random numbers: any, but always the same

}  // namespace

SeedTable make_seed_table(const Chain& chain) {
    SeedTable table{};
    const double size = reach_beside_rail(chain);
    table.reach = size + rail_length(chain);
    table.half_size = size > 0.0 ? 0.5 * size : 1.0;
    table.turns = chain.kind[0] != JointKind::kPrismatic;
    table.midpoint0 = 0.5 * (chain.lower[0] + chain.upper[0]);
    table.half0 = chain.kind[0] == JointKind::kContinuous ? kInfinity : 0.5 * (chain.upper[0] - chain.lower[0]);
    for (int i = 0; i < SeedTable::kSize; ++i) {
        double* q = table.q[i];
        for (int j = 0; j < chain.dof; ++j) {
            const Philox4 draw =
                philox4x32_10({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j), 0, 0}, kTableSeed);
            // A joint that can turn more than once needs one turn only.
            const double midpoint = 0.5 * (chain.lower[j] + chain.upper[j]), range = chain.upper[j] - chain.lower[j];
            const double width = chain.kind[j] == JointKind::kPrismatic ? range : std::min(range, 2 * kPi);
            q[j] = midpoint + width * (static_cast<double>(uniform24(draw.x0)) - 0.5);
        }
        const SeedFeature feature = seed_feature(chain, table.half_size, forward(chain, q));
        table.offset[i] = q[0] - feature.place;
        for (int k = 0; k < 7; ++k) table.feature[k][i] = feature.value[k];
    }
    return table;
}

void analytic_seed(const Core& core, const Transform& T_tip, const double* q_ref, Seed seed, double* q) {
    const Chain& chain = core.chain();
    std::copy_n(q_ref, chain.dof, q);
    if (seed == Seed::kReference) return;
    for (int j = 0; j < chain.dof; ++j) q[j] = 0.5 * (chain.lower[j] + chain.upper[j]);
    if (seed == Seed::kAzimuth && chain.kind[0] != JointKind::kPrismatic) {
        const SeedFeature midpoint = seed_feature(chain, core.table.half_size, forward(chain, q));
        const SeedFeature target = seed_feature(chain, core.table.half_size, T_tip);
        q[0] = brought_to_place<double>(core.table, q[0] - midpoint.place, target.place);
    }
}

void network_seeds(const Core& core, int rows, const double* q_ref, const double* tip_poses, float* scratch,
                   double* seeds) {
    const Chain& chain = core.chain();
    const int dof = chain.dof;
    float q[kNetworkRows * kMaxJoints], poses[kNetworkRows * kPoseSize], u[kNetworkRows * kMaxJoints];
    if (rows < 1 || dof < 1) return;
    const double* unit = core.units.joint;
    for (int i = 0; i < rows * dof; ++i) {
        const int j = i % dof;
        const bool endless = chain.kind[j] == JointKind::kContinuous;
        seeds[i] = endless ? q_ref[i] : std::clamp(q_ref[i], chain.lower[j], chain.upper[j]);
        q[i] = static_cast<float>(unit[j] * seeds[i]);
    }
    for (int i = 0; i < rows * kPoseSize; ++i)
        poses[i] = static_cast<float>((i % kPoseSize < 3 ? core.units.length : 1.0) * tip_poses[i]);
    core.engine->evaluate(rows, q, poses, rows, u, scratch);
    // Inputs of absurd size overflow float32.
    for (int i = 0; i < rows * dof; ++i)
        if (std::isfinite(u[i])) seeds[i] += static_cast<double>(u[i]) / unit[i % dof];
}

}  // namespace mfik
