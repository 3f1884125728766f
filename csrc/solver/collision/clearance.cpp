// Solver::clearance.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/collision_kernels.hpp"
#include "mfik/collision.hpp"
#include "solver/collision/attachments.hpp"
#include "solver/collision/world.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"

namespace mfik {
namespace {

/// Add the motion of a point that moves with a frame, along a direction, to the gradient.
void add_motion(const Chain& chain, const Transform* frame, int of_frame, const double* point, const double* direction,
                double sign, double* gradient) {
    for (int j = 0; j < of_frame; ++j) {
        // A joint moves about or along its frame's z axis, which its own motion leaves where it is.
        const Transform& T = frame[j + 1];
        const double axis[3] = {T.R[2], T.R[5], T.R[8]};
        double column[6];
        jacobian_column(chain.kind[j], axis, T.p, point, column);
        for (int i = 0; i < 3; ++i) gradient[j] += sign * direction[i] * column[i];
    }
}

}  // namespace

Clearance Solver::clearance(Span<const double> q, const World* world, bool self_collision,
                            const Attachments* attached) const noexcept {
    Clearance clearance{kNaN, nullptr, nullptr, {}};
    if (impl_ == nullptr || q.size() != static_cast<std::size_t>(dof()) || !is_finite(q) ||
        !AttachmentsAccess::fit(*impl_, attached)) {
        return clearance;
    }
    const Chain& chain = impl_->chain_in_metres();
    const BodyDescription& body = AttachmentsAccess::body(*impl_, attached);
    if (body.empty()) return clearance;
    const BodyView view = body.view();
    const WorldView shapes = WorldAccess::view(world);
    cpu::Nearest found{};
    impl_->collision.nearest(chain, view, shapes, self_collision, q.data(), 1, kInfinity, -kInfinity, &found);
    clearance.distance_m = found.distance;
    if (!(found.first >= 0)) return clearance;  // nothing to compare

    const int first = static_cast<int>(found.first), second = static_cast<int>(found.second);
    Transform frame[kMaxJoints + 1];
    frames_of(chain, q.data(), frame);
    const auto link_of = [&body](int sphere) { return body.link_of[static_cast<std::size_t>(sphere)]; };
    const auto name_of = [&](int sphere) { return body.names[static_cast<std::size_t>(link_of(sphere))].c_str(); };
    const auto frame_of = [&](int sphere) { return view.link[link_of(sphere)].frame; };
    double point[3], direction[3];
    place(frame[frame_of(first)], view.sphere[first], point);
    clearance.first = name_of(first);
    if (second >= 0) {
        double other[3];
        place(frame[frame_of(second)], view.sphere[second], other);
        for (int i = 0; i < 3; ++i) direction[i] = point[i] - other[i];
        const double length = norm3(direction);
        for (int i = 0; i < 3; ++i) direction[i] = length > 0 ? direction[i] / length : (i == 0 ? 1.0 : 0.0);
        add_motion(chain, frame, frame_of(second), other, direction, -1.0, clearance.gradient.data());
        clearance.second = name_of(second);
    } else {
        shape_gradient(shapes.shape[-1 - second], point, kInfinity, direction);
        clearance.second = world->name(-1 - second);
    }
    add_motion(chain, frame, frame_of(first), point, direction, 1.0, clearance.gradient.data());
    return clearance;
}

Status Solver::is_free(Span<const double> q, const World* world, Span<unsigned char> free, double margin_m,
                       bool self_collision, const Attachments* attached) const noexcept {
    const std::size_t joints = static_cast<std::size_t>(dof());
    if (impl_ == nullptr || q.size() != joints * free.size() || !is_finite(q) || !std::isfinite(margin_m) ||
        !AttachmentsAccess::fit(*impl_, attached)) {
        return Status::kInvalidInput;
    }
    const BodyDescription& body = AttachmentsAccess::body(*impl_, attached);
    if (body.empty()) return Status::kInvalidInput;
    const BodyView view = body.view(margin_m);
    const WorldView shapes = WorldAccess::view(world);
    constexpr std::size_t kRows = 1 << 20;  // an int counts them
    for (std::size_t begin = 0; begin < free.size(); begin += kRows) {
        const std::size_t rows = std::min(kRows, free.size() - begin);
        impl_->collision.free(impl_->chain_in_metres(), view, shapes, self_collision, q.data() + begin * joints,
                              static_cast<int>(rows), margin_m, free.data() + begin);
    }
    return Status::kSolved;
}

}  // namespace mfik
