// Solver::clearance.
#include <cmath>

#include "kernels/cpu/collision_kernels.hpp"
#include "mfik/collision.hpp"
#include "solver/collision/world.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"

namespace mfik {
namespace {

/// Gradient of a shape's signed distance at a point of the base frame.
void shape_gradient(const ShapeView& shape, const double* point, double* gradient) {
    double x[3], g[3] = {};
    for (int i = 0; i < 3; ++i) {
        x[i] = 0.0;
        for (int k = 0; k < 3; ++k) x[i] += shape.T.R[3 * k + i] * (point[k] - shape.T.p[k]);
    }
    const double* size = shape.size;
    if (shape.kind == ShapeKind::kHalfSpace) {
        g[2] = 1.0;
    } else if (shape.kind == ShapeKind::kSphere) {
        for (int i = 0; i < 3; ++i) g[i] = x[i];
    } else if (shape.kind == ShapeKind::kBox) {
        int deepest = 0;
        bool outside = false;
        for (int i = 0; i < 3; ++i) {
            const double past = std::abs(x[i]) - size[i];
            outside = outside || past > 0;
            if (past > 0) g[i] = std::copysign(past, x[i]);
            if (past > std::abs(x[deepest]) - size[deepest]) deepest = i;
        }
        if (!outside) g[deepest] = std::copysign(1.0, x[deepest]);
    } else if (shape.kind == ShapeKind::kCylinder) {
        const double radius = std::hypot(x[0], x[1]);
        const double side = radius - size[0], end = std::abs(x[2]) - size[1];
        const double out[2] = {radius > 0 ? x[0] / radius : 1.0, radius > 0 ? x[1] / radius : 0.0};
        const double along_side = side > 0 || end > 0 ? std::fmax(side, 0.0) : (side >= end ? 1.0 : 0.0);
        const double along_end = side > 0 || end > 0 ? std::fmax(end, 0.0) : (side >= end ? 0.0 : 1.0);
        g[0] = along_side * out[0], g[1] = along_side * out[1], g[2] = std::copysign(along_end, x[2]);
    } else if (shape.kind == ShapeKind::kCapsule) {
        g[0] = x[0], g[1] = x[1];
        g[2] = x[2] - std::fmin(std::fmax(x[2], -size[1]), size[1]);
    } else {
        std::uint32_t n = 0;
        (void)cloud_distance(shape.cloud, x, HUGE_VAL, &n);
        const float* const from[3] = {shape.cloud.x, shape.cloud.y, shape.cloud.z};
        for (int i = 0; i < 3; ++i) g[i] = x[i] - shape.cloud.low[i] - from[i][n];
    }
    const double length = norm3(g);
    if (!(length > 0)) g[0] = 1.0;  // at the centre, any direction leads out
    for (int i = 0; i < 3; ++i) {
        gradient[i] = 0.0;
        for (int k = 0; k < 3; ++k) gradient[i] += shape.T.R[3 * i + k] * g[k] / (length > 0 ? length : 1.0);
    }
}

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

Clearance Solver::clearance(Span<const double> q, const World* world, bool self_collision) const noexcept {
    Clearance clearance{kNaN, nullptr, nullptr, {}};
    if (impl_ == nullptr || q.size() != static_cast<std::size_t>(dof()) || !is_finite(q)) return clearance;
    const Chain& chain = impl_->chain_in_metres();
    const BodyDescription& body = impl_->bundle.robot.body;
    if (body.empty()) return clearance;
    const BodyView view = body.view();
    const WorldView shapes = world == nullptr || world->impl_ == nullptr ? WorldView() : world->impl_->view();
    cpu::Nearest found{};
    cpu::kernels<cpu::CollisionKernels>().nearest(chain, view, shapes, self_collision, q.data(), 1, kInfinity,
                                                  -kInfinity, &found);
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
        shape_gradient(shapes.shape[-1 - second], point, direction);
        clearance.second = world->name(-1 - second);
    }
    add_motion(chain, frame, frame_of(first), point, direction, 1.0, clearance.gradient.data());
    return clearance;
}

Status Solver::is_free(Span<const double> q, const World* world, Span<unsigned char> free, double margin_m,
                       bool self_collision) const noexcept {
    const std::size_t joints = static_cast<std::size_t>(dof());
    if (impl_ == nullptr || impl_->bundle.robot.body.empty() || q.size() != joints * free.size() || !is_finite(q) ||
        !std::isfinite(margin_m)) {
        return Status::kInvalidInput;
    }
    const BodyView view = impl_->bundle.robot.body.view();
    const WorldView shapes = world == nullptr || world->impl_ == nullptr ? WorldView() : world->impl_->view();
    constexpr std::size_t kRows = 64;
    cpu::Nearest found[kRows];
    for (std::size_t begin = 0; begin < free.size(); begin += kRows) {
        const std::size_t rows = begin + kRows < free.size() ? kRows : free.size() - begin;
        cpu::kernels<cpu::CollisionKernels>().nearest(impl_->chain_in_metres(), view, shapes, self_collision,
                                                      q.data() + begin * joints, static_cast<int>(rows), margin_m,
                                                      margin_m, found);
        for (std::size_t row = 0; row < rows; ++row) free[begin + row] = found[row].distance >= margin_m ? 1 : 0;
    }
    return Status::kSolved;
}

}  // namespace mfik
