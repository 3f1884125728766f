// Stored configurations as seeds, for the sources that are compiled for each instruction set alone.
#pragma once

#include <cmath>

#include "kernels/cpu/lanes.hpp"
#include "kernels/search.hpp"

namespace mfik::cpu {

/// The rows of the table that are nearest to the target, one among those of each lane, and how far they are: the
/// squared distance [half_size^2] plus the squared sine of half the angle between the poses.
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
        // Beyond its limits the first joint would be cut short: the tip, along a rail, by as much.
        const Lanes first = brought_to_place<Lanes>(table, load(table.offset + begin), target.place) - table.midpoint0;
        const LaneMask above = first > table.half0, below = first < -table.half0;
        if (table.turns) {
            distance += select(above | below, splat<Lanes>(1.0), Lanes{});
        } else {
            const Lanes cut = select(above, first - table.half0, select(below, first + table.half0, Lanes{}));
            distance += cut * cut * (1.0 / (table.half_size * table.half_size));
        }
        const Lanes score = distance + (1.0 - along * along);
        const LaneMask better = score < scores;
        scores = select(better, score, scores);
        best_chunk = select(better, splat<Lanes>(chunk), best_chunk);
    }
    for (int lane = 0; lane < kLanes; ++lane) rows[lane] = static_cast<int>(best_chunk[lane]) * kLanes + lane;
}

/// Stored configuration `row`, brought to the place of the target by the first joint.
MFIK_INLINE void row_at(const Chain& chain, const SeedTable& table, int row, double place, double* q) {
    for (int j = 0; j < chain.dof; ++j) q[j] = table.q[row][j];
    q[0] = brought_to_place<double>(table, table.offset[row], place);
}

}  // namespace mfik::cpu
