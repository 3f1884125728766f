// Distance of a point to a cloud of points: a grid of voxels that know how far the next point is at least, and which
// hold their points side by side.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/inline.hpp"

namespace mfik {

/// A cloud (solver/collision/point_cloud.cpp makes it). Voxel (i, j, k) has the index (k * size[1] + j) * size[0] + i,
/// so that the points of voxels with neighbouring i lie together.
struct CloudView {
    double low[3];               // corner of the grid, in the cloud's frame [m]
    double high[3];              // the opposite corner
    double voxel;                // edge [m]
    int size[3];                 // voxels along each axis
    const float* distance;       // from each voxel's centre to that of the nearest one with points [m]
    const std::uint32_t* begin;  // first point of each voxel, and one past the last point of all
    const float* x;              // points from `low` on [m]; behind them kMaxSingles that are infinite
    const float* y;
    const float* z;
};

/// Floats of the widest register. Arrays that are read by registers go on for so many behind their end.
constexpr int kMaxSingles = 16;
/// Lanes of floats that one loop works on.
constexpr int kCloudLanes = 8;

/// Of a voxel, as a share of its edge.
constexpr double kVoxelDiagonal = 1.7320508075688773;

MFIK_INLINE int clamp_index(double value, int size) {
    const int index = static_cast<int>(value);
    return index < 0 ? 0 : (index >= size ? size - 1 : index);
}

/// Distance of a point to the nearest point of a cloud [m], exact where it is below `cutoff`, else at least that or
/// infinite.
/// @param[in] at  In the cloud's frame [m], finite.
/// @param[out] nearest  Index of that point, or null.
inline __attribute__((always_inline)) double cloud_distance(const CloudView& cloud, const double* at, double cutoff,
                                                            std::uint32_t* nearest = nullptr) {
    double outside2 = 0.0, point[3];
    int cell[3];
    for (int i = 0; i < 3; ++i) {
        const double inside = at[i] < cloud.low[i] ? cloud.low[i] : (at[i] > cloud.high[i] ? cloud.high[i] : at[i]);
        outside2 += (at[i] - inside) * (at[i] - inside);
        cell[i] = clamp_index((inside - cloud.low[i]) / cloud.voxel, cloud.size[i]);
        point[i] = at[i] - cloud.low[i];
    }
    if (cutoff <= 0.0 || outside2 >= cutoff * cutoff) return HUGE_VAL;
    const double outside = std::sqrt(outside2), diagonal = kVoxelDiagonal * cloud.voxel;
    const double between = cloud.distance[(cell[2] * cloud.size[1] + cell[1]) * cloud.size[0] + cell[0]];
    if (between - diagonal - outside >= cutoff) return HUGE_VAL;
    const double most = between + diagonal + outside;  // some point is not farther away
    const double reach = most < cutoff ? most : cutoff;
    int first[3], last[3];
    for (int i = 0; i < 3; ++i) {
        first[i] = clamp_index((point[i] - reach) / cloud.voxel, cloud.size[i]);
        last[i] = clamp_index((point[i] + reach) / cloud.voxel, cloud.size[i]);
    }
    float best = HUGE_VALF;
    const float px = static_cast<float>(point[0]), py = static_cast<float>(point[1]), pz = static_cast<float>(point[2]);
    const float reach2 = static_cast<float>(reach * reach * 1.0001 + 1e-12);
    for (int k = first[2]; k <= last[2]; ++k) {
        const double z0 = k * cloud.voxel - point[2], z1 = -z0 - cloud.voxel;
        const double dz = z0 > 0 ? z0 : (z1 > 0 ? z1 : 0.0);
        for (int j = first[1]; j <= last[1]; ++j) {
            const double y0 = j * cloud.voxel - point[1], y1 = -y0 - cloud.voxel;
            const double dy = y0 > 0 ? y0 : (y1 > 0 ? y1 : 0.0);
            const double row2 = dz * dz + dy * dy;
            if (row2 > reach2 || row2 >= best) continue;
            const int row = (k * cloud.size[1] + j) * cloud.size[0];
            const std::uint32_t end = cloud.begin[row + last[0] + 1];
            std::uint32_t n = cloud.begin[row + first[0]];
            if (nearest == nullptr) {
                float lanes[kCloudLanes];
                for (int lane = 0; lane < kCloudLanes; ++lane) lanes[lane] = best;
                for (; n + kCloudLanes <= end; n += kCloudLanes) {
                    for (int lane = 0; lane < kCloudLanes; ++lane) {
                        const float dx = cloud.x[n + lane] - px, ey = cloud.y[n + lane] - py,
                                    ez = cloud.z[n + lane] - pz;
                        const float squared = dx * dx + ey * ey + ez * ez;
                        lanes[lane] = squared < lanes[lane] ? squared : lanes[lane];
                    }
                }
                for (int lane = 0; lane < kCloudLanes; ++lane) best = lanes[lane] < best ? lanes[lane] : best;
            }
            for (; n < end; ++n) {
                const float dx = cloud.x[n] - px, ey = cloud.y[n] - py, ez = cloud.z[n] - pz;
                const float squared = dx * dx + ey * ey + ez * ez;
                if (squared < best) {
                    best = squared;
                    if (nearest != nullptr) *nearest = n;
                }
            }
        }
    }
    return std::sqrt(static_cast<double>(best));
}

}  // namespace mfik
