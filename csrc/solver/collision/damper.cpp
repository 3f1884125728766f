#include "solver/collision/damper.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "solver/collision/obstacles.hpp"
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
/// How much nearer than the margin something may come between two of them [m].
constexpr double kBetween = 1e-3;
/// The same where a motion begins close to the margin [m].
constexpr double kBetweenNear = 1e-4;
/// Pieces of a step out of collision, with so many places each; a step that is too long for them is shortened.
constexpr int kPieces = 8;
/// How closely a place is looked for where a step has to end: to 1/7, 1/49, 1/343 and 1/2401 of its length.
constexpr int kDeepest = 3;
/// How many stretches of a step are looked at more closely; one that takes more is shortened.
constexpr int kLooks = 12;
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

    /// Whether nothing is nearer than `least` [m] where the step begins, in a small part of the time of clearances.
    [[nodiscard]] bool begins_beyond(double least) const {
        Obstacles farther = obstacles;
        farther.margin = least;
        return is_clear(core, farther, from);
    }

    [[nodiscard]] static double place(int i) { return static_cast<double>(i) / (kPlaces - 1); }
    [[nodiscard]] double at(double share, int j) const {
        return share <= 0.0 ? from[j] : share >= 1.0 ? to[j] : from[j] + share * (to[j] - from[j]);
    }
};

/// Bound of how far any sphere moves along a step from `from` to `to`, as others see it [m].
double longest_way(const Obstacles& obstacles, const double* from, const double* to) {
    const Chain& chain = *obstacles.chain;
    double way = 0.0, lever = obstacles.body.rows.extent;  // from the joint's axis to what it moves
    for (int j = chain.dof - 1; j >= 0; --j) {
        const bool slides = chain.kind[j] == JointKind::kPrismatic;
        const double* o = chain.origin[j];
        way += std::fabs(to[j] - from[j]) * obstacles.unit[j] * (slides ? 1.0 : lever);
        lever += std::sqrt(o[3] * o[3] + o[7] * o[7] + o[11] * o[11]);
        if (slides) lever += std::max(std::fabs(from[j]), std::fabs(to[j])) * obstacles.unit[j];
    }
    return way;
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

/// A step in pieces so short that what is clear at two places, and comes nearer between them by half of the way from
/// one to the other at most, is `closer` [m] nearer at most. What is too long for kPieces of them is left out.
struct Pieces {
    int count;
    double end;  // share of the step that they cover

    Pieces(double way, double closer) {
        const double needed = way / (2.0 * (kPlaces - 1) * closer);
        count = static_cast<int>(std::ceil(std::clamp(needed, 1.0, static_cast<double>(kPieces))));
        end = needed <= kPieces ? 1.0 : kPieces / needed;
    }
    [[nodiscard]] double begin_of(int piece) const { return end * piece / count; }
};

/// Looks for the share of a step that may be taken.
struct Lookout {
    const Step& step;
    double way;      // bound of how far any sphere moves along the whole step [m]
    double least;    // clearance at the places that are looked at [m]
    double between;  // and between two of them
    int looks = kLooks;

    /// A part of the step whose beginning is clear, and the clearance at the places along it.
    struct Stretch {
        double low, high;  // shares of the step
        std::array<double, kPlaces> clearance;
        int next;  // place at which the next look ends
    };

    /// The share up to which all of the step is clear, whose beginning is. Between two places with clearances a and b,
    /// a distance w apart, none is less than (a + b - w) / 2, as no sphere comes nearer to anything faster than it
    /// moves. Where that does not tell, the stretch between the two is looked at in turn.
    /// @param[in] whole  Clearance at the places along the whole step [m].
    [[nodiscard]] double clear_until(const std::array<double, kPlaces>& whole) {
        std::array<Stretch, kDeepest + 1> within;  // each lies between two places of the one before
        within[0] = {0.0, 1.0, whole, 1};
        for (std::size_t depth = 0;;) {
            Stretch& stretch = within[depth];
            if (stretch.next == kPlaces) {
                if (depth == 0) return 1.0;
                --depth;
                continue;
            }
            const int i = stretch.next++;
            const double begin = stretch.low + (stretch.high - stretch.low) * Step::place(i - 1);
            const double end = stretch.low + (stretch.high - stretch.low) * Step::place(i);
            const double a = stretch.clearance[static_cast<std::size_t>(i - 1)];
            const double b = stretch.clearance[static_cast<std::size_t>(i)];
            if (b >= least && a + b - way * (end - begin) >= 2.0 * between) continue;
            if (depth == kDeepest || looks == 0) return begin;
            --looks;
            within[++depth] = {begin, end, step.clearances(begin, end), 1};
        }
    }
};

/// The share of a step that leads out: to the margin, or as far as it gets, never deeper than `depth`, the clearance
/// where it begins.
double share_outwards(const Step& step, double way, double depth) {
    const Pieces pieces(way, kBetween);
    double best = 0.0, farthest = depth;
    for (int piece = 0; piece < pieces.count; ++piece) {
        const double low = pieces.begin_of(piece), high = pieces.begin_of(piece + 1);
        const std::array<double, kPlaces> outwards = step.clearances(low, high);
        for (int i = 0; i < kPlaces; ++i) {
            const double clearance = outwards[static_cast<std::size_t>(i)];
            if (!(clearance >= depth)) return best;
            if (clearance > farthest) best = low + (high - low) * Step::place(i), farthest = clearance;
            if (clearance >= step.obstacles.margin) return best;
        }
    }
    return best;
}

}  // namespace

Damping damp(const Core& core, const Obstacles& obstacles, const Constraints& constraints, const StepBounds& bounds,
             const double* q_prev, double* q, double room) {
    const int dof = obstacles.chain->dof;
    double to[kMaxJoints];
    std::copy_n(q, dof, to);
    const Step step{core, obstacles, q_prev, to};
    const double way = longest_way(obstacles, q_prev, to), margin = obstacles.margin;
    if (step.begins_beyond(margin + room + way / kApproach)) return Damping::kNone;  // whatever is in the way
    const std::array<double, kPlaces> whole = step.clearances(0.0, 1.0);
    const double clearance = whole[0];
    const auto move = [&](double share) {
        for (int j = 0; j < dof; ++j) q[j] = std::clamp(step.at(share, j), bounds.low[j], bounds.high[j]);
    };
    if (clearance >= margin) {
        const double kept = clearance >= margin + 0.5 * room ? std::min(clearance, margin + room) : margin;
        const double least = kept + (1.0 - kApproach) * (clearance - kept);
        Lookout lookout{step, way, least, std::min(margin, least - kBetween)};
        const double share = lookout.clear_until(whole);
        if (share == 1.0) return Damping::kNone;
        move(share);
        return Damping::kSlowed;
    }
    step_out(obstacles, constraints, bounds, q_prev, to);
    for (int j = 0; j < dof; ++j) to[j] = std::clamp(q_prev[j] + to[j], bounds.low[j], bounds.high[j]);
    move(share_outwards(step, longest_way(obstacles, q_prev, to), clearance));
    return Damping::kLeadOut;
}

const char* reason_of(Damping damping) {
    return damping == Damping::kSlowed ? "the motion is slowed down to keep the margin"
                                       : "the joints are nearer to something than the margin, and on the way out, if "
                                         "there is one";
}

ClearWay clear_way(const Core& core, const Obstacles& obstacles, const double* from, const double* to) {
    const Step step{core, obstacles, from, to};
    const double way = longest_way(obstacles, from, to), margin = obstacles.margin;
    if (step.begins_beyond(margin + way)) return {1.0, true};
    const std::array<double, kPlaces> whole = step.clearances(0.0, 1.0);
    const double begin = whole[0];
    Lookout lookout{step, way, margin, margin - kBetweenNear};
    if (begin < margin) {
        lookout.least = begin, lookout.between = begin - kBetween;
    } else if (begin >= margin + 0.5 * kRoom) {
        lookout.least = margin + (begin >= margin + kRoom ? kRoom : 0.5 * kRoom), lookout.between = margin;
    }
    return {lookout.clear_until(whole), false};
}

}  // namespace mfik
