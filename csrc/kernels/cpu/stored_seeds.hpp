// Stored configurations as seeds, for the sources that are compiled for each instruction set alone.
#pragma once

#include <cmath>

#include "kernels/cpu/lanes.hpp"
#include "kernels/search.hpp"

namespace mfik::cpu {

/// The rows of the table that are nearest to the target, one among those of each lane, and how far they are: the
/// squared distance [(reach / 2)^2] plus the squared sine of half the angle between the poses.
MFIK_INLINE void nearest_rows(const SeedTable& table, const SeedFeature& target, int* rows, Lanes& scores) {
    Lanes best_chunk = {};
    scores = splat<Lanes>(HUGE_VAL);
    for (int chunk = 0; chunk < SeedTable::kSize / kLanes; ++chunk) {
        const int begin = chunk * kLanes;
        Lanes distance = {}, along = {};
        for (int k = 0; k < 3; ++k) {
            const Lanes d = load(table.feature[k] + begin) - target.value[k];
            distance += d * d;
        }
        for (int k = 3; k < 7; ++k) along += load(table.feature[k] + begin) * target.value[k];
        // Beyond its limits the first joint would be cut short.
        const Lanes first = turned_to_azimuth<Lanes>(table, load(table.turn + begin), target.azimuth) - table.midpoint0;
        const LaneMask beyond = (first > table.half0) | (first < -table.half0);
        const Lanes score = distance + (1.0 - along * along) + select(beyond, splat<Lanes>(1.0), Lanes{});
        const LaneMask better = score < scores;
        scores = select(better, score, scores);
        best_chunk = select(better, splat<Lanes>(chunk), best_chunk);
    }
    for (int lane = 0; lane < kLanes; ++lane) rows[lane] = static_cast<int>(best_chunk[lane]) * kLanes + lane;
}

/// Stored configuration `row`, the first joint turned to an azimuth.
MFIK_INLINE void turned_row(const Chain& chain, const SeedTable& table, int row, double azimuth, double* q) {
    for (int j = 0; j < chain.dof; ++j) q[j] = table.q[row][j];
    if (chain.kind[0] != JointKind::kPrismatic) q[0] = turned_to_azimuth<double>(table, table.turn[row], azimuth);
}

}  // namespace mfik::cpu
