// Arithmetic that kernels need beyond + - * /, for one number or for several problems side by side: the same kernel
// source runs on double, on Single (float, for GPUs) and on Lanes, a vector register of doubles. Sources that use Lanes
// are compiled once for each instruction set (cpu/dispatch.hpp).
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/inline.hpp"

namespace mfik {

constexpr double kPi = 3.14159265358979323846;

/// x in every lane.
template <class V, class S>
MFIK_INLINE V splat(const S& x) {
    return x - V();
}

MFIK_INLINE double select(bool mask, double a, double b) {
    return mask ? a : b;
}
MFIK_INLINE bool any(bool mask) {
    return mask;
}
/// a and not b.
MFIK_INLINE bool and_not(bool a, bool b) {
    return a && !b;
}
MFIK_INLINE double square_root(double x) {
    return std::sqrt(x);
}
MFIK_INLINE void sine_cosine(double x, double& sine, double& cosine) {
    sine = std::sin(x), cosine = std::cos(x);
}
MFIK_INLINE double nearest_integer(double x) {
    return std::nearbyint(x);
}
/// Angle [rad] of the point (x, y), y >= 0.
MFIK_INLINE double half_plane_angle(double y, double x) {
    return std::atan2(y, x);
}

/// A float that takes part in arithmetic with double constants without becoming a double: the constants are rounded
/// when the kernel is compiled, where `float * double` would be done in double, at half to a 64th of the rate on a GPU.
struct Single {
    float value;

    Single() = default;
    MFIK_INLINE constexpr Single(float x) : value(x) {}
    MFIK_INLINE constexpr Single(double x) : value(static_cast<float>(x)) {}
    MFIK_INLINE constexpr Single(int x) : value(static_cast<float>(x)) {}

    friend MFIK_INLINE Single operator+(Single a, Single b) { return a.value + b.value; }
    friend MFIK_INLINE Single operator-(Single a, Single b) { return a.value - b.value; }
    friend MFIK_INLINE Single operator*(Single a, Single b) { return a.value * b.value; }
    friend MFIK_INLINE Single operator/(Single a, Single b) { return a.value / b.value; }
    friend MFIK_INLINE Single operator-(Single a) { return -a.value; }
    friend MFIK_INLINE bool operator<(Single a, Single b) { return a.value < b.value; }
    friend MFIK_INLINE bool operator>(Single a, Single b) { return a.value > b.value; }
    friend MFIK_INLINE bool operator<=(Single a, Single b) { return a.value <= b.value; }
    friend MFIK_INLINE bool operator>=(Single a, Single b) { return a.value >= b.value; }
    MFIK_INLINE Single& operator+=(Single b) { return *this = *this + b; }
    MFIK_INLINE Single& operator-=(Single b) { return *this = *this - b; }
    MFIK_INLINE Single& operator*=(Single b) { return *this = *this * b; }
};

MFIK_INLINE Single select(bool mask, Single a, Single b) {
    return mask ? a : b;
}
MFIK_INLINE Single square_root(Single x) {
    return std::sqrt(x.value);
}
MFIK_INLINE Single nearest_integer(Single x) {
    return std::nearbyint(x.value);
}
/// Absolute error 1e-7 up to |x| = 1e3, growing with |x| past it; NaN where not finite. Reduction by multiples of pi/2
/// in three parts, then the polynomials of Cephes sinf.c (Moshier 1992).
MFIK_INLINE void sine_cosine(Single x, Single& sine, Single& cosine) {
    const float quarters = std::nearbyint(x.value * 0.636619772f);
    float r = x.value - quarters * 1.5703125f;  // 8 bits of pi/2: the product is exact up to 2^16 quarters
    r -= quarters * 4.837512969970703125e-4f;
    r -= quarters * 7.54978995489188216e-8f;
    const float z = r * r;
    const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    const float c =
        ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    const float fours = 4.0f * std::nearbyint(0.25f * quarters);
    const float k = quarters - fours;  // -2, -1, 0, 1 or 2
    const bool odd = k * k == 1.0f, half = k * k == 4.0f;
    const float unsigned_sine = odd ? c : s, unsigned_cosine = odd ? s : c;
    sine = k == -1.0f || half ? -unsigned_sine : unsigned_sine;
    cosine = k == 1.0f || half ? -unsigned_cosine : unsigned_cosine;
}
MFIK_INLINE Single half_plane_angle(Single y, Single x) {
    return std::atan2(y.value, x.value);
}

/// The number in a V that is one problem.
MFIK_INLINE double number(double x) {
    return x;
}
MFIK_INLINE float number(Single x) {
    return x.value;
}

/// What comparing two V gives.
template <class V>
using Mask = decltype(V() < V());

#ifndef __CUDACC__

#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif
using Lanes = double __attribute__((vector_size(kLanes * sizeof(double))));
using LaneMask = Mask<Lanes>;  // all bits of a lane set or none

MFIK_INLINE Lanes select(const LaneMask& mask, const Lanes& a, const Lanes& b) {
    return mask ? a : b;
}
MFIK_INLINE bool any(const LaneMask& mask) {
    std::int64_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= mask[i];
    return bits != 0;
}
MFIK_INLINE LaneMask and_not(const LaneMask& a, const LaneMask& b) {
    return a & ~b;
}
/// Up to |x| = 2^51.
MFIK_INLINE Lanes nearest_integer(const Lanes& x) {
    constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: a sum of this size has no fraction
    return (x + kRound) - kRound;
}
MFIK_INLINE Lanes square_root(const Lanes& x) {
    Lanes y;
    for (int i = 0; i < kLanes; ++i) y[i] = __builtin_sqrt(x[i]);
    return y;
}

/// Absolute error 2e-16 up to |x| = 1e5, NaN where not finite. Reduction by multiples of pi/2 in two parts, then the
/// polynomials of Cephes sin.c (Moshier 1984).
MFIK_INLINE void sine_cosine(const Lanes& x, Lanes& sine, Lanes& cosine) {
    const Lanes quarters = nearest_integer(x * 0.63661977236758134308);
    Lanes r = x - quarters * 1.57079632673412561417;  // the first 33 bits of pi/2: the product is exact
    r = r - quarters * 6.07710050650619224932e-11;    // the rest
    const Lanes z = r * r;
    Lanes s = z * 1.58962301576546568060e-10 - 2.50507477628578072866e-8;
    s = s * z + 2.75573136213857245213e-6;
    s = s * z - 1.98412698295895385996e-4;
    s = s * z + 8.33333333332211858878e-3;
    s = s * z - 1.66666666666666307295e-1;
    s = s * z * r + r;
    Lanes c = z * -1.13585365213876817300e-11 + 2.08757008419747316778e-9;
    c = c * z - 2.75573141792967388112e-7;
    c = c * z + 2.48015872888517045348e-5;
    c = c * z - 1.38888888888730564116e-3;
    c = c * z + 4.16666666666665929218e-2;
    c = c * z * z - 0.5 * z + 1.0;
    const Lanes fours = nearest_integer(0.25 * quarters);
    const Lanes k = quarters - 4.0 * fours;  // -2, -1, 0, 1 or 2
    const LaneMask odd = k * k == 1.0, half = k * k == 4.0;
    const Lanes unsigned_sine = select(odd, c, s), unsigned_cosine = select(odd, s, c);
    sine = select((k == -1.0) | half, -unsigned_sine, unsigned_sine);
    cosine = select((k == 1.0) | half, -unsigned_cosine, unsigned_cosine);
}

/// Sines and cosines of n numbers, as many as there are lanes side by side. All arrays have room for a register more.
MFIK_INLINE void sines_cosines(const double* x, int n, double* sine, double* cosine) {
    constexpr double kLargest = 1e5;  // up to which sine_cosine of lanes is exact
    for (int i = 0; i < n; i += kLanes) {
        Lanes angle, s, c;
        __builtin_memcpy(&angle, x + i, sizeof(angle));
        if (any(select(angle < 0.0, -angle, angle) > kLargest)) {
            for (int k = i; k < i + kLanes; ++k) sine_cosine(x[k], sine[k], cosine[k]);
            continue;
        }
        sine_cosine(angle, s, c);
        __builtin_memcpy(sine + i, &s, sizeof(s));
        __builtin_memcpy(cosine + i, &c, sizeof(c));
    }
}

/// Absolute error 4e-16. Reduction to [0, 1] and by pi/4, then the rational function of Cephes atan.c (Moshier 1984).
MFIK_INLINE Lanes half_plane_angle(const Lanes& y, const Lanes& x) {
    const Lanes width = select(x < 0.0, -x, x);
    const LaneMask steep = y > width;
    const Lanes small = select(steep, width, y), large = select(steep, y, width);
    // atan(a) = pi/4 + atan((a - 1) / (a + 1)) where a = small / large is above tan(pi/8).
    const LaneMask upper = small > 0.41421356237309504880 * large;
    const Lanes numerator = select(upper, small - large, small), denominator = select(upper, small + large, large);
    const Lanes a = numerator / select(denominator == 0.0, denominator + 1.0, denominator);
    const Lanes z = a * a;
    Lanes p = z * -8.750608600031904122785e-1 - 1.615753718733365076637e1;
    p = p * z - 7.500855792314704667340e1;
    p = p * z - 1.228866684490136173410e2;
    p = p * z - 6.485021904942025371773e1;
    Lanes d = z + 2.485846490142306297962e1;
    d = d * z + 1.650270098316988542046e2;
    d = d * z + 4.328810604912902668951e2;
    d = d * z + 4.853903996359136964868e2;
    d = d * z + 1.945506571482613964425e2;
    Lanes angle = a + a * z * p / d;
    angle = select(upper, angle + 0.78539816339744830962, angle);
    angle = select(steep, 1.57079632679489661923 - angle, angle);
    return select(x < 0.0, 3.14159265358979323846 - angle, angle);
}

#endif

}  // namespace mfik
