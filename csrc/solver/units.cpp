#include "solver/units.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/search.hpp"

namespace mfik {
namespace {

/// Least reach in its own unit, below twice that: with it the unit of arms like Panda (0.99 m) and UR10 (1.75 m), for
/// which the solver's constants were chosen, is the metre.
constexpr double kLeastReach = 0.9;

}  // namespace

Units own_units(const Chain& chain) {
    const double beside = reach_beside_rail(chain), size = beside > 0.0 ? beside : rail_length(chain);
    Units units{};
    units.length = size > 0.0 ? std::exp2(std::floor(std::log2(size / kLeastReach))) : 1.0;
    for (int j = 0; j < chain.dof; ++j) units.joint[j] = chain.kind[j] == JointKind::kPrismatic ? units.length : 1.0;
    return units;
}

Chain in_units(const Chain& chain, const Units& units) {
    Chain own = chain;
    for (int f = 0; f <= num_frames(chain); ++f)
        for (int i = 0; i < 3; ++i) own.origin[f][4 * i + 3] /= units.length;
    for (MovingFrame& frame : own.frame)
        frame.ratio *= units.joint[frame.joint] / (frame.kind == JointKind::kPrismatic ? units.length : 1.0);
    for (int j = 0; j < chain.dof; ++j) own.lower[j] /= units.joint[j], own.upper[j] /= units.joint[j];
    return own;
}

void to_units(const Units& units, Span<const double> q, double* out) {
    for (std::size_t j = 0; j < q.size(); ++j) out[j] = q[j] / units.joint[j];
}

void from_units(const Units& units, const double* q, Span<double> out) {
    for (std::size_t j = 0; j < out.size(); ++j) out[j] = q[j] * units.joint[j];
}

void pose_to_units(const Units& units, const double* pose, double* out) {
    for (int k = 0; k < 7; ++k) out[k] = k < 3 ? pose[k] / units.length : pose[k];
}

}  // namespace mfik
