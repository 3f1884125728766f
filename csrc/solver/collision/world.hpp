// What a world consists of, for the sources of the solver.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/collision.hpp"
#include "mfik/collision.hpp"
#include "solver/collision/point_cloud.hpp"

namespace mfik {

struct World::Impl {
    std::vector<ShapeView> shapes;
    std::vector<std::string> names;
    std::vector<std::unique_ptr<const PointCloud>> clouds;

    [[nodiscard]] WorldView view() const noexcept { return {shapes.data(), static_cast<int>(shapes.size())}; }

    /// Add a shape, all or nothing.
    int add(const std::string& name, ShapeKind kind, const std::vector<double>& size, const Pose& T_base_shape,
            std::unique_ptr<const PointCloud> cloud = nullptr);
};

/// What the solver reads of a world.
struct WorldAccess {
    /// Its shapes; none of null or of a world that was moved from.
    static WorldView view(const World* world) noexcept {
        return world == nullptr || world->impl_ == nullptr ? WorldView() : world->impl_->view();
    }
};

}  // namespace mfik
