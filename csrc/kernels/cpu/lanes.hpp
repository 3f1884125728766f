// What the sources that work in lanes have in common. For those that are compiled for each instruction set alone.
#pragma once

#include <cstring>

#include "kernels/chain.hpp"

namespace mfik::cpu {

MFIK_INLINE Lanes load(const double* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof(lanes));
    return lanes;
}

MFIK_INLINE void set_lane(const Transform& T, int lane, TransformOf<Lanes>& lanes) {
    for (int i = 0; i < 9; ++i) lanes.R[i][lane] = T.R[i];
    for (int i = 0; i < 3; ++i) lanes.p[i][lane] = T.p[i];
}

}  // namespace mfik::cpu
