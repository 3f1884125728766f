// Compiled several times, with MFIK_ISA naming the instruction set, as kernels/cpu/solver_kernels.cpp.
#include <initializer_list>

#include "solver/networks/geometry.hpp"

namespace mfik::MFIK_ISA {

FeaturesOfRows features_of_rows;  // also where the header does not declare it

void features_of_rows(const Geometry& geometry, int rows, const float* q, const float* poses, int num_poses, float* out,
                      int step) noexcept {
    const int dof = geometry.chain.dof;
    Lanes lane_q[kMaxJoints], lane_pose[7], feature[kMaxFeatures];
    for (int begin = 0; begin < rows; begin += kLanes) {
        const int count = rows - begin < kLanes ? rows - begin : kLanes;
        for (int lane = 0; lane < kLanes; ++lane) {
            const int row = begin + (lane < count ? lane : count - 1);  // beyond the last row that one again
            for (int j = 0; j < dof; ++j) lane_q[j][lane] = q[row * dof + j];
            for (int k = 0; k < 7; ++k) lane_pose[k][lane] = poses[(num_poses == 1 ? 0 : row) * 7 + k];
        }
        features(geometry, lane_q, lane_pose, feature);
        for (int lane = 0; lane < count; ++lane)
            for (int f = 0; f < geometry.size; ++f)
                out[(begin + lane) * step + f] = static_cast<float>(feature[f][lane]);
    }
}

}  // namespace mfik::MFIK_ISA
