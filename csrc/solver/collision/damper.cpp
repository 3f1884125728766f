#include "solver/collision/damper.hpp"

#include <algorithm>
#include <array>

#include "solver/core.hpp"

namespace mfik {
namespace {

/// Largest share of the clearance beyond the margin that one sample may take: a sample's motion is slowed down at five
/// times its length.
constexpr double kApproach = 0.2;
/// Clearance beyond the margin that counts [m]; more is as good.
constexpr double kInfluence = 0.1;
/// Places on a step where the clearance is asked for, the beginning among them: a multiple of the lanes.
constexpr int kPlaces = 8;
/// How often a step that is too long is looked at more closely: to 1/7, 1/49, 1/343 and 1/2401 of its length.
constexpr int kLooks = 3;
/// Contacts that push the joints out reach so far beyond the margin [m].
constexpr double kOutwards = 1e-3;

/// A step, and the clearances along it.
struct Step {
    const Core& core;
    const Obstacles& obstacles;
    const double* from;  // [dof]
    const double* to;    // [dof]

    /// Clearances [m] after shares from `low` to `high` of the step, up to kInfluence beyond the margin. All go through
    /// lanes, so that the same joints always have the same clearance, to the last bit.
    [[nodiscard]] std::array<double, kPlaces> clearances(double low, double high) const {
        double q[kPlaces * kMaxJoints];
        cpu::Nearest found[kPlaces];
        const int dof = obstacles.chain->dof;
        for (int i = 0; i < kPlaces; ++i)
            for (int j = 0; j < dof; ++j) q[i * dof + j] = at(low + (high - low) * place(i), j) * obstacles.unit[j];
        const double cutoff = obstacles.margin + kInfluence;
        core.collision.nearest(*obstacles.chain, obstacles.body, obstacles.world, obstacles.self, q, kPlaces, cutoff,
                               -kInfinity, found);
        std::array<double, kPlaces> clearance{};
        for (std::size_t i = 0; i < kPlaces; ++i) clearance[i] = found[i].distance;
        return clearance;
    }

    [[nodiscard]] static double place(int i) { return static_cast<double>(i) / (kPlaces - 1); }
    [[nodiscard]] double at(double share, int j) const {
        return share <= 0.0 ? from[j] : share >= 1.0 ? to[j] : from[j] + share * (to[j] - from[j]);
    }
};

/// The first place on a step that is nearer than `least`, or kPlaces.
int first_below(const std::array<double, kPlaces>& clearance, double least) {
    return static_cast<int>(
        std::find_if(clearance.begin(), clearance.end(), [least](double c) { return !(c >= least); }) -
        clearance.begin());
}

/// Step dq [dof] that pushes the joints at q out of what is within the margin.
void step_out(const Obstacles& obstacles, const Constraints& constraints, const StepBounds& bounds, const double* q,
              double* dq) {
    const int dof = obstacles.chain->dof;
    double metres[kMaxJoints];
    Transform frame[kMaxJoints + 1];
    for (int j = 0; j < dof; ++j) metres[j] = q[j] * obstacles.unit[j];
    frames_of(*obstacles.chain, metres, frame);
    const ContactsOf<double> found = contacts(obstacles, frame, obstacles.margin + kOutwards);
    pushed(obstacles, frame, found, dq);
    double squared = 0.0;
    for (int j = 0; j < dof; ++j) {
        const bool at_limit = dq[j] > 0.0 ? !(q[j] < constraints.upper[j]) : !(q[j] > constraints.lower[j]);
        if (constraints.locked(j) || at_limit) dq[j] = 0.0;
        squared += dq[j] * dq[j];
    }
    const double scale = squared > 0.0 ? found.squared / squared : 0.0;
    StepBounds within = bounds;
    for (int j = 0; j < dof; ++j) {
        dq[j] *= scale;
        within.low[j] = std::max(bounds.low[j], std::min(q[j], constraints.lower[j]));
        within.high[j] = std::min(bounds.high[j], std::max(q[j], constraints.upper[j]));
    }
    const double share = share_within(within, dof, q, dq);
    for (int j = 0; j < dof; ++j) dq[j] *= share;
}

}  // namespace

Damping damp(const Core& core, const Obstacles& obstacles, const Constraints& constraints, const StepBounds& bounds,
             const double* q_prev, double* q) {
    const int dof = obstacles.chain->dof;
    double to[kMaxJoints];
    std::copy_n(q, dof, to);
    const Step step{core, obstacles, q_prev, to};
    const std::array<double, kPlaces> along = step.clearances(0.0, 1.0);
    const double margin = obstacles.margin;
    const auto move = [&](double share) {
        for (int j = 0; j < dof; ++j) q[j] = std::clamp(step.at(share, j), bounds.low[j], bounds.high[j]);
    };
    if (along[0] >= margin) {
        const double least = margin + (1.0 - kApproach) * (along[0] - margin);
        const int below = first_below(along, least);
        if (below == kPlaces) return Damping::kNone;
        // The beginning is far enough; look closer and closer at what lies before the first place that is not.
        double low = Step::place(below - 1), high = Step::place(below);
        for (int look = 0; look < kLooks; ++look) {
            const int closer = std::clamp(first_below(step.clearances(low, high), least), 1, kPlaces - 1);
            const double length = high - low;
            high = low + length * Step::place(closer);
            low += length * Step::place(closer - 1);
        }
        move(low);
        return Damping::kSlowed;
    }
    step_out(obstacles, constraints, bounds, q_prev, to);
    for (int j = 0; j < dof; ++j) to[j] = std::clamp(q_prev[j] + to[j], bounds.low[j], bounds.high[j]);
    const std::array<double, kPlaces> outwards = step.clearances(0.0, 1.0);
    const auto farthest = std::max_element(outwards.begin(), outwards.end());
    const auto out = std::find_if(outwards.begin(), outwards.end(), [&](double c) { return c >= margin; });
    move(Step::place(static_cast<int>((out == outwards.end() ? farthest : out) - outwards.begin())));
    return Damping::kLeadOut;
}

}  // namespace mfik
