#include "kernels/geometry.hpp"

#include <cmath>

namespace mfik {

Geometry::Geometry(const Chain& of) : chain(of) {
    double length = 0.0;
    for (int j = 0; j <= chain.dof; ++j)
        length += std::sqrt(chain.origin[j][3] * chain.origin[j][3] + chain.origin[j][7] * chain.origin[j][7] +
                            chain.origin[j][11] * chain.origin[j][11]);
    scale = 2.0 / length;
    int turning = 0;
    for (int j = 0; j < chain.dof; ++j) {
        midpoint[j] = 0.5 * (chain.lower[j] + chain.upper[j]);
        per_range[j] = chain.kind[j] == JointKind::kContinuous ? 0.0 : 2.0 / (chain.upper[j] - chain.lower[j]);
        turning += j + 1 < chain.dof && chain.kind[j] != JointKind::kPrismatic;
    }
    size = 2 * chain.dof + 2 * turning + 30;
}

}  // namespace mfik
