#include "solver/collision/point_cloud.hpp"

#include <algorithm>
#include <cmath>

namespace mfik {
namespace {

/// Voxels of a grid, about: 100,000 points of surfaces then lie ten to a voxel, and the distances fit into a cache.
constexpr double kVoxels = 150e3;
/// Voxels along an axis at most.
constexpr double kMaxAlong = 256.0;

/// Squared distance to the nearest zero along one line of voxels (Felzenszwalb and Huttenlocher 2012: the lower
/// envelope of parabolas), in place; scratch of the line's length each, `bound` one longer.
void transform_line(float* line, int stride, int count, std::vector<float>& value, std::vector<int>& vertex,
                    std::vector<float>& bound) {
    for (int i = 0; i < count; ++i) value[static_cast<std::size_t>(i)] = line[i * stride];
    const auto at = [&value](int i) { return value[static_cast<std::size_t>(i)]; };
    std::size_t k = 0;
    vertex[0] = 0;
    bound[0] = -HUGE_VALF, bound[1] = HUGE_VALF;
    for (int i = 1; i < count; ++i) {
        float meet = 0.0f;
        for (;; --k) {
            const int v = vertex[k];
            meet = ((at(i) + static_cast<float>(i * i)) - (at(v) + static_cast<float>(v * v))) /
                   static_cast<float>(2 * (i - v));
            if (k == 0 || meet > bound[k]) break;
        }
        if (meet <= bound[k]) {
            vertex[k] = i;  // only the first parabola is left, and it lies above
        } else {
            vertex[++k] = i;
            bound[k] = meet;
        }
        bound[k + 1] = HUGE_VALF;
    }
    k = 0;
    for (int i = 0; i < count; ++i) {
        while (bound[k + 1] < static_cast<float>(i)) ++k;
        const int offset = i - vertex[k];
        line[i * stride] = at(vertex[k]) + static_cast<float>(offset * offset);
    }
}

}  // namespace

PointCloud::PointCloud(Span<const double> points) {
    const std::size_t count = points.size() / 3;
    for (int i = 0; i < 3; ++i) low_[i] = high_[i] = points[static_cast<std::size_t>(i)];
    for (std::size_t n = 0; n < count; ++n) {
        for (std::size_t i = 0; i < 3; ++i) {
            low_[i] = std::min(low_[i], points[3 * n + i]);
            high_[i] = std::max(high_[i], points[3 * n + i]);
        }
    }
    // A voxel's edge from the volume, the area or the length that the points span, whichever needs the largest.
    double extent[3];
    for (int i = 0; i < 3; ++i) extent[i] = high_[i] - low_[i];
    std::sort(extent, extent + 3);
    voxel_ = std::max({std::cbrt(extent[0] * extent[1] * extent[2] / kVoxels), extent[2] / kMaxAlong, 1e-6});
    std::size_t voxels = 1;
    for (int i = 0; i < 3; ++i) {
        size_[i] = std::max(1, static_cast<int>(std::ceil((high_[i] - low_[i]) / voxel_)));
        voxels *= static_cast<std::size_t>(size_[i]);
    }

    std::vector<std::uint32_t> place(count);
    begin_.assign(voxels + 1, 0);
    for (std::size_t n = 0; n < count; ++n) {
        int cell[3];
        for (int i = 0; i < 3; ++i) {
            cell[i] = clamp_index((points[3 * n + static_cast<std::size_t>(i)] - low_[i]) / voxel_, size_[i]);
        }
        place[n] = static_cast<std::uint32_t>((cell[2] * size_[1] + cell[1]) * size_[0] + cell[0]);
        ++begin_[place[n] + 1];
    }
    distance_.resize(voxels);
    constexpr float kFar = 1e9f;  // beyond any grid, in voxels squared
    for (std::size_t v = 0; v < voxels; ++v) {
        distance_[v] = begin_[v + 1] > 0 ? 0.0f : kFar;
    }
    for (std::size_t v = 0; v < voxels; ++v) begin_[v + 1] += begin_[v];
    std::vector<std::uint32_t> next(begin_.begin(), begin_.end() - 1);
    for (auto* column : {&x_, &y_, &z_}) column->resize(count + kMaxSingles, HUGE_VALF);  // no points: for registers
    for (std::size_t n = 0; n < count; ++n) {
        const std::uint32_t slot = next[place[n]]++;
        x_[slot] = static_cast<float>(points[3 * n] - low_[0]);
        y_[slot] = static_cast<float>(points[3 * n + 1] - low_[1]);
        z_[slot] = static_cast<float>(points[3 * n + 2] - low_[2]);
    }

    const std::size_t longest = static_cast<std::size_t>(std::max({size_[0], size_[1], size_[2]}));
    std::vector<float> value(longest), bound(longest + 1);
    std::vector<int> vertex(longest);
    const int stride[3] = {1, size_[0], size_[0] * size_[1]};
    for (int axis = 0; axis < 3; ++axis) {
        const int b = (axis + 1) % 3, c = (axis + 2) % 3;
        for (int j = 0; j < size_[b]; ++j) {
            for (int k = 0; k < size_[c]; ++k) {
                transform_line(distance_.data() + j * stride[b] + k * stride[c], stride[axis], size_[axis], value,
                               vertex, bound);
            }
        }
    }
    for (float& distance : distance_) distance = std::sqrt(distance) * static_cast<float>(voxel_);
}

CloudView PointCloud::view() const noexcept {
    CloudView view{};
    std::copy_n(low_, 3, view.low);
    std::copy_n(high_, 3, view.high);
    std::copy_n(size_, 3, view.size);
    view.voxel = voxel_;
    view.distance = distance_.data();
    view.begin = begin_.data();
    view.x = x_.data(), view.y = y_.data(), view.z = z_.data();
    return view;
}

}  // namespace mfik
