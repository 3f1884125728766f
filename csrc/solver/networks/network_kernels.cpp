// Compiled once for each instruction set (kernels/cpu/dispatch.hpp).
#include "solver/networks/network_kernels.hpp"

#include "solver/networks/v1_rows.hpp"
#include "solver/networks/v2_rows.hpp"

namespace mfik::cpu {
namespace {

void evaluate_v1(const v1::Layers& layers, const v1::Buffers& buffers, int rows, const float* q, const float* poses,
                 int num_poses, float* u) noexcept {
    v1::evaluate_rows(layers, buffers, rows, q, poses, num_poses, u);
}

void pass_v2(const v2::Layers& layers, const v2::Buffers& buffers, int rows) noexcept {
    v2::pass_rows(layers, buffers, rows);
}

void features_of_rows(const Geometry& geometry, int rows, const float* q, const float* poses, int num_poses, float* out,
                      int step, float* error2) noexcept {
    const int dof = geometry.chain.dof;
    Lanes lane_q[kMaxJoints], lane_pose[kPoseSize], feature[kMaxFeatures];
    for (int begin = 0; begin < rows; begin += kLanes) {
        const int count = rows - begin < kLanes ? rows - begin : kLanes;
        for (int lane = 0; lane < kLanes; ++lane) {
            const int row = begin + (lane < count ? lane : count - 1);  // beyond the last row that one again
            for (int j = 0; j < dof; ++j) lane_q[j][lane] = q[row * dof + j];
            for (int k = 0; k < kPoseSize; ++k) lane_pose[k][lane] = poses[(num_poses == 1 ? 0 : row) * kPoseSize + k];
        }
        const Look<Lanes> look(geometry, lane_q, lane_pose);
        look.features(lane_q, feature);
        for (int lane = 0; lane < count; ++lane) error2[begin + lane] = static_cast<float>(look.step.error2[lane]);
        for (int lane = 0; lane < count; ++lane)
            for (int f = 0; f < geometry.size; ++f)
                out[(begin + lane) * step + f] = static_cast<float>(feature[f][lane]);
    }
}

}  // namespace

template <>
const NetworkKernels& compiled_kernels<NetworkKernels, InstructionSet::MFIK_ISA>() noexcept {
    static constexpr NetworkKernels kTable{kIsa, evaluate_v1, features_of_rows, pass_v2};
    return kTable;
}

}  // namespace mfik::cpu
