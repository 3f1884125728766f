#include "solver/collision/world.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "solver/problem.hpp"

namespace mfik {

namespace {

/// Fill in the shape in single precision.
void set_single(ShapeView& shape) {
    SingleShape& single = shape.single;
    const bool round =
        shape.kind == ShapeKind::kSphere || shape.kind == ShapeKind::kCapsule || shape.kind == ShapeKind::kPointCloud;
    double extent = norm3(shape.T.p) + shape.size[0] + shape.size[1] + shape.size[2];
    for (int i = 0; i < 3; ++i) {
        double along = shape.T.p[0] * shape.T.R[i] + shape.T.p[1] * shape.T.R[3 + i] + shape.T.p[2] * shape.T.R[6 + i];
        if (shape.kind == ShapeKind::kPointCloud) {
            along += shape.cloud.low[i];
            extent += std::fabs(shape.cloud.low[i]) + (shape.cloud.high[i] - shape.cloud.low[i]);
        }
        single.along[i] = static_cast<float>(along);
        single.size[i] = static_cast<float>(shape.size[i]);
    }
    for (int i = 0; i < 9; ++i) single.R[i] = static_cast<float>(shape.T.R[i]);
    single.radius = round ? static_cast<float>(shape.size[0]) : 0.0f;
    single.extent = static_cast<float>(extent);
}

}  // namespace

World::World() : impl_(std::make_unique<Impl>()) {}
World::World(World&&) noexcept = default;
World& World::operator=(World&&) noexcept = default;
World::~World() = default;

int World::Impl::add(const std::string& name, ShapeKind kind, const std::vector<double>& size, const Pose& T_base_shape,
                     std::unique_ptr<const PointCloud> cloud) {
    if (std::find(names.begin(), names.end(), name) != names.end()) {
        throw Error("world: shape '" + name + "': expected a name of its own, got one twice; rename one");
    }
    for (const double value : size) {
        if (!(std::isfinite(value) && value > 0)) {
            throw Error("world: shape '" + name + "': expected sizes that are finite and above 0 [m], got " +
                        std::to_string(value) + "; correct it");
        }
    }
    ShapeView shape{};
    shape.kind = kind;
    std::copy(size.begin(), size.end(), shape.size);
    if (!read_pose(T_base_shape.data(), shape.T)) {
        throw Error("world: shape '" + name +
                    "': pose: expected seven finite numbers with a unit quaternion [x, y, z, qw, qx, qy, qz]; "
                    "normalise it");
    }
    if (cloud != nullptr) shape.cloud = cloud->view();
    set_single(shape);
    names.reserve(names.size() + 1);
    clouds.reserve(clouds.size() + 1);
    shapes.push_back(shape);
    names.push_back(name);
    clouds.push_back(std::move(cloud));
    return static_cast<int>(shapes.size()) - 1;
}

int World::add_sphere(const std::string& name, double radius_m, const Pose& T_base_shape) {
    if (impl_ == nullptr) *this = World();
    return impl_->add(name, ShapeKind::kSphere, {radius_m}, T_base_shape);
}

int World::add_box(const std::string& name, const std::array<double, 3>& size_m, const Pose& T_base_shape) {
    if (impl_ == nullptr) *this = World();
    return impl_->add(name, ShapeKind::kBox, {0.5 * size_m[0], 0.5 * size_m[1], 0.5 * size_m[2]}, T_base_shape);
}

int World::add_cylinder(const std::string& name, double radius_m, double length_m, const Pose& T_base_shape) {
    if (impl_ == nullptr) *this = World();
    return impl_->add(name, ShapeKind::kCylinder, {radius_m, 0.5 * length_m}, T_base_shape);
}

int World::add_capsule(const std::string& name, double radius_m, double length_m, const Pose& T_base_shape) {
    if (impl_ == nullptr) *this = World();
    return impl_->add(name, ShapeKind::kCapsule, {radius_m, 0.5 * length_m}, T_base_shape);
}

int World::add_half_space(const std::string& name, const Pose& T_base_shape) {
    if (impl_ == nullptr) *this = World();
    return impl_->add(name, ShapeKind::kHalfSpace, {}, T_base_shape);
}

int World::add_point_cloud(const std::string& name, Span<const double> points_m, double radius_m,
                           const Pose& T_base_shape) {
    if (points_m.empty() || points_m.size() % 3 != 0 || points_m.size() / 3 > (1u << 28) || !is_finite(points_m)) {
        throw Error("world: shape '" + name +
                    "': points: expected [x, y, z] of at least one point, finite [m]; leave out what is not");
    }
    if (impl_ == nullptr) *this = World();
    return impl_->add(name, ShapeKind::kPointCloud, {radius_m}, T_base_shape,
                      std::make_unique<const PointCloud>(points_m));
}

Status World::set_pose(int shape, const Pose& T_base_shape) noexcept {
    Transform T;
    if (shape < 0 || shape >= size() || !read_pose(T_base_shape.data(), T)) return Status::kInvalidInput;
    ShapeView& moved = impl_->shapes[static_cast<std::size_t>(shape)];
    moved.T = T;
    set_single(moved);
    return Status::kSolved;
}

int World::find(const char* name) const noexcept {
    for (int i = 0; i < size(); ++i)
        if (std::strcmp(impl_->names[static_cast<std::size_t>(i)].c_str(), name) == 0) return i;
    return -1;
}

int World::size() const noexcept {
    return impl_ == nullptr ? 0 : static_cast<int>(impl_->shapes.size());
}

const char* World::name(int i) const noexcept {
    return i < 0 || i >= size() ? nullptr : impl_->names[static_cast<std::size_t>(i)].c_str();
}

}  // namespace mfik
