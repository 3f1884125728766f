// Compiled once for each instruction set (kernels/cpu/dispatch.hpp).
#include "kernels/cpu/collision_kernels.hpp"

#include "kernels/cpu/lanes.hpp"

namespace mfik::cpu {
namespace {

void nearest_one(const Chain& chain, const BodyView& body, const WorldView& world, bool self, const double* q,
                 double cutoff, double enough, Nearest& out) noexcept {
    Transform frame[kMaxJoints + 1];
    frames_of(chain, q, frame);
    out = nearest(body, world, self, frame, cutoff, enough);
}

void nearest_rows(const Chain& chain, const BodyView& body, const WorldView& world, bool self, const double* q,
                  int rows, double cutoff, double enough, Nearest* out) noexcept {
    if (rows == 1) return nearest_one(chain, body, world, self, q, cutoff, enough, *out);
    TransformOf<Lanes> frame[kMaxJoints + 1];
    for (int begin = 0; begin < rows; begin += kLanes) {
        const int count = rows - begin < kLanes ? rows - begin : kLanes;
        Lanes joints[kMaxJoints];
        for (int lane = 0; lane < kLanes; ++lane) {
            const double* row = q + (begin + (lane < count ? lane : 0)) * chain.dof;
            for (int j = 0; j < chain.dof; ++j) joints[j][lane] = row[j];
        }
        frames_of(chain, joints, frame);
        const NearestOf<Lanes> found = nearest(body, world, self, frame, cutoff, enough);
        for (int lane = 0; lane < count; ++lane)
            out[begin + lane] = {found.distance[lane], found.first[lane], found.second[lane]};
    }
}

}  // namespace

template <>
const CollisionKernels& compiled_kernels<CollisionKernels, InstructionSet::MFIK_ISA>() noexcept {
    static constexpr CollisionKernels kTable{kIsa, kLanes, nearest_rows};
    return kTable;
}

}  // namespace mfik::cpu
