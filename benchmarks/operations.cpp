// Count the floating-point operations of a row of each kernel: the kernels' own source, run on a number that counts.
//
// Additions, multiplications, divisions, roots and powers count as one each, comparisons and choices not at all.
// benchmarks/roofline.py compiles and reads it.
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "kernels/lanes.hpp"

namespace mfik {

/// A float that counts what is done with it.
struct Counted {
    static inline std::int64_t count = 0;
    float value = 0;

    Counted() = default;
    Counted(double x) : value(static_cast<float>(x)) {}
    explicit operator double() const { return value; }

    static Counted counted(double x) {
        ++count;
        return x;
    }
    friend Counted operator+(Counted a, Counted b) { return counted(a.value + b.value); }
    friend Counted operator-(Counted a, Counted b) { return counted(a.value - b.value); }
    friend Counted operator*(Counted a, Counted b) { return counted(a.value * b.value); }
    friend Counted operator/(Counted a, Counted b) { return counted(a.value / b.value); }
    friend Counted operator-(Counted a) { return -a.value; }
    friend bool operator<(Counted a, Counted b) { return a.value < b.value; }
    friend bool operator>(Counted a, Counted b) { return a.value > b.value; }
    friend bool operator<=(Counted a, Counted b) { return a.value <= b.value; }
    friend bool operator>=(Counted a, Counted b) { return a.value >= b.value; }
    friend bool operator==(Counted a, Counted b) { return a.value == b.value; }
    Counted& operator+=(Counted b) { return *this = *this + b; }
    Counted& operator-=(Counted b) { return *this = *this - b; }
    Counted& operator*=(Counted b) { return *this = *this * b; }
};

constexpr int kSineCosine = 31;  // operations of sine_cosine(Single) in kernels/lanes.hpp
constexpr int kAngle = 20;       // of an arc tangent, about: a quotient and a polynomial

inline Counted select(bool mask, Counted a, Counted b) {
    return mask ? a : b;
}
inline Counted square_root(Counted x) {
    return Counted::counted(std::sqrt(x.value));
}
inline Counted nearest_integer(Counted x) {
    return std::nearbyint(x.value);
}
inline void sine_cosine(Counted x, Counted& sine, Counted& cosine) {
    Counted::count += kSineCosine;
    sine = std::sin(x.value), cosine = std::cos(x.value);
}
inline Counted half_plane_angle(Counted y, Counted x) {
    Counted::count += kAngle;
    return std::atan2(y.value, x.value);
}

}  // namespace mfik

namespace std {  // kernels of several types of rows call these by this name
inline mfik::Counted sqrt(mfik::Counted x) {
    return mfik::square_root(x);
}
inline mfik::Counted pow(mfik::Counted x, mfik::Counted y) {
    return mfik::Counted::counted(std::pow(x.value, y.value));
}
}  // namespace std

#include "kernels/adaptive_weight.hpp"
#include "kernels/chain.hpp"
#include "kernels/fk_error.hpp"
#include "kernels/kinematics.hpp"
#include "kernels/refine.hpp"
#include "kernels/sample_batch.hpp"
#include "kernels/weighted_residual_loss.hpp"

namespace mfik {
namespace {

/// Limits, as SingleLimits.
struct Limits {
    Counted lower[kMaxJoints], upper[kMaxJoints];
    static constexpr const double* slack = nullptr;
    static constexpr const double* q_preferred = nullptr;
    static constexpr double preference_gain = 0.0;
    bool locked(int) const { return false; }
};

template <class Body>
void report(const char* name, int dof, const Body& body) {
    Counted::count = 0;
    body();
    std::printf("%s %d %lld\n", name, dof, static_cast<long long>(Counted::count));
}

template <int kDof>
void count() {
    FixedChain<Counted, kDof> chain{};
    Limits limits;
    for (int j = 0; j <= kDof; ++j)
        for (int k = 0; k < 12; ++k) chain.origin[j][k] = k % 5 == 0 ? 1.0 : 0.1 * (k + j);
    for (int j = 0; j < kDof; ++j) limits.lower[j] = -100.0, limits.upper[j] = 100.0;  // none is reached

    Counted q[kMaxJoints], q_target[kMaxJoints], pose[7], out[64], gradient[kMaxJoints];
    for (int j = 0; j < kDof; ++j) q[j] = 0.1 * (j + 1), q_target[j] = 0.2 * j;
    report("fk", kDof, [&] { to_pose(forward(chain, q), pose); });
    report("jacobian", kDof, [&] {
        Counted axis[kMaxJoints][3], point[kMaxJoints][3], column[6];
        const TransformOf<Counted> tip = forward(chain, q, axis, point);
        for (int j = 0; j < kDof; ++j) joint_column(chain, j, axis, point, tip.p, column);
    });
    report("fk_error", kDof, [&] { fk_error(chain, q, pose, gradient); });
    TransformOf<Counted> T_target = forward(chain, q_target);
    Iterate<Counted> at;
    for (int j = 0; j < kDof; ++j) at.q[j] = q[j];
    report("look", kDof, [&] { linearize(chain, limits, T_target, at); });
    report("step", kDof, [&] {
        Counted dq[kMaxJoints];
        linearize(chain, limits, T_target, at);
        dls_step(chain, limits, T_target, at, dq);
        move(limits, kDof, dq, at.q);
    });

    const Counted c = 1e-4, p = 0.5, half = 0.5, one = 1.0;
    Counted weight, loss, squared, r = 0.2, t = 0.7;
    report("adaptive_weight", kDof, [&] {
        const AdaptiveWeightArgs<Counted> args{q, q_target, &weight, 1, kDof, c, p};
        weight = weight_of_distance(row_distance_sq<kDof>(args, 0), c, p);
    });
    report("sample_batch", kDof, [&] {
        Counted v[kMaxJoints], state[kMaxJoints], target[kMaxJoints], pose_out[7], r_out, t_out;
        SampleBatchArgs<Counted> args{};
        args.q = q, args.q_target = q_target, args.target_pose = pose, args.r = &r, args.rows = 1, args.dof = kDof;
        args.out = {state, pose_out, target, &r_out, &t_out, v, &weight};
        bool ok;
        weight = weight_of_distance(sample_row<kDof>(args, 0, Times{0.1f, 0.5f}, &ok), c, p);
    });
    report("weighted_residual_loss", kDof, [&] {
        const WeightedResidualArgs<Counted> args{q,        q_target, out,  &r, &t,  &weight, &loss, &squared,
                                                 out + 16, 1,        kDof, 1,  0.0, c,       p};
        weighted_residual_row<kDof>(args, 0);
    });
    report("weighted_residual_loss_backward", kDof, [&] {
        const WeightedResidualBackwardArgs<Counted> args{&one, q, &half, &weight, gradient, 1, kDof, c, p};
        weighted_residual_backward_row<kDof>(args, 0);
    });
}

}  // namespace
}  // namespace mfik

int main() {
    mfik::count<6>();
    mfik::count<7>();
}
