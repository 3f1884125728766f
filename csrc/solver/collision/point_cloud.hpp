// The grid of a point cloud.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/point_cloud.hpp"
#include "mfik/solver.hpp"

namespace mfik {

/// Points sorted by voxel, and each voxel's distance to the next one with points. Owns what its view refers to.
struct PointCloud {
    /// @param[in] points  [x, y, z] of each [m], finite, at least one.
    explicit PointCloud(Span<const double> points);

    [[nodiscard]] CloudView view() const noexcept;

  private:
    double low_[3], high_[3], voxel_;
    int size_[3];
    std::vector<float> distance_, x_, y_, z_;
    std::vector<std::uint32_t> begin_;
};

}  // namespace mfik
