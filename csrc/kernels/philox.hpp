// Philox4x32-10, the counter-based generator of Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3":
// a draw is a pure function of (key, counter), so it is the same on every device and for every number of threads.
#pragma once

#include <cstdint>

#include "kernels/inline.hpp"

namespace mfik {

struct Philox4 {
    std::uint32_t x0, x1, x2, x3;
};

MFIK_INLINE Philox4 philox4x32_10(Philox4 counter, std::uint64_t key) {
    std::uint32_t key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = 0xD2511F53ull * counter.x0, b = 0xCD9E8D57ull * counter.x2;
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter.x1 ^ key0, static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter.x3 ^ key1, static_cast<std::uint32_t>(a)};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

/// Uniform number in [0, 1): a multiple of 2^-24, exact in float.
MFIK_INLINE float uniform24(std::uint32_t x) {
    // By way of a signed number, which every vector unit converts.
    return static_cast<float>(static_cast<std::int32_t>(x >> 8)) * 0x1p-24f;
}

}  // namespace mfik
