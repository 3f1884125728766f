// Compiled once for each instruction set (kernels/cpu/dispatch.hpp).
#include "kernels/cpu/collision_kernels.hpp"

#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/sphere_check.hpp"

namespace mfik::cpu {
namespace {

void nearest_one(const Chain& chain, const BodyView& body, const WorldView& world, bool self, const double* q,
                 double cutoff, double enough, Nearest& out) noexcept {
    Transform frame[kMaxJoints + 1];
    frames_of(chain, q, frame);
    out = nearest(body, world, self, frame, cutoff, enough);
}

/// Joints of rows side by side; behind the last one the first one again.
/// @param[in] q  [count, dof]
MFIK_INLINE void place_rows(const Chain& chain, const double* q, int count, TransformOf<Lanes>* frame) {
    Lanes joints[kMaxJoints];
    for (int lane = 0; lane < kLanes; ++lane)
        for (int j = 0; j < chain.dof; ++j) joints[j][lane] = q[(lane < count ? lane : 0) * chain.dof + j];
    frames_of(chain, joints, frame);
}

void nearest_rows(const Chain& chain, const BodyView& body, const WorldView& world, bool self, const double* q,
                  int rows, double cutoff, double enough, Nearest* out) noexcept {
    if (rows == 1) return nearest_one(chain, body, world, self, q, cutoff, enough, *out);
    TransformOf<Lanes> frame[kMaxJoints + 1];
    for (int begin = 0; begin < rows; begin += kLanes) {
        const int count = rows - begin < kLanes ? rows - begin : kLanes;
        place_rows(chain, q + begin * chain.dof, count, frame);
        const NearestOf<Lanes> found = nearest(body, world, self, frame, cutoff, enough);
        for (int lane = 0; lane < count; ++lane)
            out[begin + lane] = {found.distance[lane], found.first[lane], found.second[lane]};
    }
}

void free_rows(const Chain& chain, const BodyView& body, const WorldView& world, bool self, const double* q, int rows,
               double margin, unsigned char* free) noexcept {
    TransformOf<Lanes> frame[kMaxJoints + 1];
    SingleFrames singles;
    for (int begin = 0; begin < rows; begin += kSingles) {
        const double* const first = q + begin * chain.dof;
        const int count = rows - begin < kSingles ? rows - begin : kSingles;
        place_rows(chain, first, count, frame);
        to_single(frame, chain.dof + 1, singles);
        if (count == 1) {
            free[begin] = keeps_margin(body, world, self, margin, frame, singles, chain.dof, 0) ? 1 : 0;
            return;
        }
        if (count > kLanes) place_rows(chain, first + kLanes * chain.dof, count - kLanes, frame);
        to_single(frame, chain.dof + 1, singles, kLanes);  // the first half again where there is no second one
        const SphereCheck::Found found = SphereCheck(body, world, margin, singles).find_all(count, self);
        for (int lane = 0; lane < count; ++lane) {
            free[begin + lane] = (found.some >> lane & 1u) == 0;
            if ((found.too_close >> lane & 1u) == 0) continue;
            Nearest exact;
            nearest_one(chain, body, world, self, first + lane * chain.dof, margin, margin, exact);
            free[begin + lane] = exact.distance >= margin ? 1 : 0;
        }
    }
}

bool last_frame_collides(const BodyView& body, const WorldView& world, const Transform& T, int dof,
                         double margin) noexcept {
    SingleFrames frames;
    for (int i = 0; i < 9; ++i) frames.value[dof][i][0] = static_cast<float>(T.R[i]);
    for (int i = 0; i < 3; ++i) frames.value[dof][9 + i][0] = static_cast<float>(T.p[i]);
    return SphereCheck(body, world, margin, frames).find(0, dof, false) == Collision::kSome;
}

}  // namespace

template <>
const CollisionKernels& compiled_kernels<CollisionKernels, InstructionSet::MFIK_ISA>() noexcept {
    static constexpr CollisionKernels kTable{kIsa, kLanes, nearest_rows, free_rows, last_frame_collides};
    return kTable;
}

}  // namespace mfik::cpu
