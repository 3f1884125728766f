// Points side by side in a register, in single precision, and how far they are from shapes.
#pragma once

#include <cstring>

#include "kernels/collision.hpp"

namespace mfik::cpu {

constexpr int kSingles = 2 * kLanes;
using Singles = float __attribute__((vector_size(kSingles * sizeof(float))));
using Integers = std::int32_t __attribute__((vector_size(kSingles * sizeof(std::int32_t))));
static_assert(kSingles <= kMaxSingles, "arrays of spheres are padded for registers");

#if defined(__AVX512F__)
/// Of intrinsics with a mask: GCC 12 warns of what those without one leave uninitialised inside.
constexpr __mmask16 kAll = 0xffff;
#endif

MFIK_INLINE Singles load(const float* from) {
    Singles out;
    std::memcpy(&out, from, sizeof(out));
    return out;
}
MFIK_INLINE void store(const Singles& from, float* to) {
    std::memcpy(to, &from, sizeof(from));
}
MFIK_INLINE Singles larger_of(const Singles& a, const Singles& b) {
#if defined(__AVX512F__)
    return _mm512_mask_max_ps(a, kAll, a, b);
#else
    return a > b ? a : b;
#endif
}
MFIK_INLINE Singles smaller_of(const Singles& a, const Singles& b) {
#if defined(__AVX512F__)
    return _mm512_mask_min_ps(a, kAll, a, b);
#else
    return a < b ? a : b;
#endif
}
/// x in all of a register.
MFIK_INLINE Singles singles(float x) {
    return x - Singles();
}
MFIK_INLINE Singles absolute(const Singles& x) {
    return larger_of(x, -x);
}
MFIK_INLINE Singles square_root(const Singles& x) {
    Singles y;
    for (int i = 0; i < kSingles; ++i) y[i] = __builtin_sqrtf(x[i]);
    return y;
}
MFIK_INLINE Singles gather(const float* from, const Integers& index) {
#if defined(__AVX512F__)
    return _mm512_mask_i32gather_ps(Singles(), kAll, reinterpret_cast<const __m512i&>(index), from, sizeof(float));
#else
    Singles out;
    for (int i = 0; i < kSingles; ++i) out[i] = from[index[i]];
    return out;
#endif
}
/// Bit i: a[i] < b[i].
MFIK_INLINE unsigned less(const Singles& a, const Singles& b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
#elif defined(__AVX__)
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)));
#elif defined(__x86_64__)
    return static_cast<unsigned>(_mm_movemask_ps(_mm_cmplt_ps(a, b)));
#else
    unsigned bits = 0;
    for (int i = 0; i < kSingles; ++i) bits |= a[i] < b[i] ? 1u << i : 0u;
    return bits;
#endif
}
/// The first `count` bits, all of a register at most.
MFIK_INLINE unsigned first_bits(int count) {
    return count >= kSingles ? (1u << kSingles) - 1u : (1u << count) - 1u;
}
/// x |x|: compares as x does, and with squares of lengths.
MFIK_INLINE Singles signed_square(const Singles& x) {
    return x * absolute(x);
}

/// Points side by side.
struct Points {
    Singles x, y, z;
};

MFIK_INLINE Singles squared_length(const Points& at) {
    return at.x * at.x + at.y * at.y + at.z * at.z;
}

/// Points in the frame of a shape.
MFIK_INLINE Points to_frame(const SingleShape& shape, const Points& at) {
    const float* R = shape.R;
    return {at.x * R[0] + at.y * R[3] + at.z * R[6] - shape.along[0],
            at.x * R[1] + at.y * R[4] + at.z * R[7] - shape.along[1],
            at.x * R[2] + at.y * R[5] + at.z * R[8] - shape.along[2]};
}

/// Squared distance of points to a shape but a cloud; to its centre or axis where it has a radius about it.
MFIK_INLINE Singles squared_distance(const ShapeView& shape, const Points& from_base) {
    const Points at = to_frame(shape.single, from_base);
    const float* size = shape.single.size;
    const Singles zero = Singles();
    if (shape.kind == ShapeKind::kSphere) return squared_length(at);
    if (shape.kind == ShapeKind::kHalfSpace) return squared_length({zero, zero, larger_of(at.z, zero)});
    if (shape.kind == ShapeKind::kBox) {
        return squared_length({larger_of(absolute(at.x) - size[0], zero), larger_of(absolute(at.y) - size[1], zero),
                               larger_of(absolute(at.z) - size[2], zero)});
    }
    const Singles end = larger_of(absolute(at.z) - size[1], zero);
    if (shape.kind == ShapeKind::kCapsule) return squared_length({at.x, at.y, end});
    return squared_length({larger_of(square_root(at.x * at.x + at.y * at.y) - size[0], zero), end, zero});
}

/// Distances between which those of points to the nearest point of a cloud lie.
struct Bounds {
    Singles lower, upper;
};

/// @param[in] at  From the corner of the grid on.
MFIK_INLINE Bounds cloud_bounds(const CloudView& cloud, const Points& at) {
    const Singles* const x[3] = {&at.x, &at.y, &at.z};
    const float per_voxel = static_cast<float>(1.0 / cloud.voxel);
    Singles outside2 = Singles();
    Integers cell[3];
    for (int i = 0; i < 3; ++i) {
        const Singles length = singles(static_cast<float>(cloud.high[i] - cloud.low[i]));
        const Singles inside = smaller_of(larger_of(*x[i], Singles()), length), beyond = *x[i] - inside;
        outside2 += beyond * beyond;
        cell[i] = __builtin_convertvector(
            smaller_of(inside * per_voxel, singles(static_cast<float>(cloud.size[i]) - 0.5f)), Integers);
    }
    const Singles between = gather(cloud.distance, (cell[2] * cloud.size[1] + cell[1]) * cloud.size[0] + cell[0]);
    const Singles outside = square_root(outside2);  // so far from the grid, and from every point at least
    const Singles beyond = outside + static_cast<float>(kVoxelDiagonal * cloud.voxel);
    return {larger_of(outside, between - beyond), between + beyond};
}

}  // namespace mfik::cpu
