// The solution nearest to a configuration: the nearest that a search has found slide along the null space of the
// target, one in each lane. For solver_kernels.cpp alone.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/cpu/stored_seeds.hpp"

namespace mfik::cpu {
namespace {

/// Solutions that slide.
constexpr int kSlides = 8;
/// Two solutions that differ by less than this in every joint [rad] or [m] slide to the same one.
constexpr double kSameSlide = 0.1;
/// Steps of a slide, of which the last ones are kept for the return to the target.
constexpr int kSlideSteps = 24, kReturnSteps = 4;
/// Steps back to the target after each step along the null space, before that step counts as too long.
constexpr int kCorrections = 3;
/// Squared error [m^2 + rad^2] at which a slide goes on: 1 mm or 1 mrad.
constexpr double kOnTarget2 = 1e-6;
/// Largest motion of a joint in one step along the null space [rad] or [m].
constexpr double kLargestSlide = 0.5;
/// A step that does not lead nearer is shortened to this share, up to so many times.
constexpr double kShortened = 0.3;
constexpr int kShortenings = 3;
/// Bounds of how much longer the next step is, by the curvature of the distance along the last one.
constexpr double kLeastGrowth = 0.25, kLargestGrowth = 4.0;
/// A slide ends where the next step would lessen the squared distance by less than this share.
constexpr double kWorthwhile = 1e-3;

/// The nearest solutions of a search.
struct NearSolutions {
    int size = 0;
    double distance[kSlides];
    double q[kSlides][kMaxJoints];
};

MFIK_INLINE void add(const SearchTask& task, const double* q, double distance, NearSolutions& near) {
    int place = near.size;
    for (int i = 0; i < near.size && place == near.size; ++i)
        if (posture_difference(*task.chain, task.weight, q, near.q[i]) < kSameSlide) place = i;
    if (place == kSlides)
        place = static_cast<int>(std::max_element(near.distance, near.distance + kSlides) - near.distance);
    if (place < near.size && near.distance[place] <= distance) return;
    near.size = std::max(near.size, place + 1);
    near.distance[place] = distance;
    for (int j = 0; j < task.chain->dof; ++j) near.q[place][j] = nearest_turn(*task.chain, j, q[j], task.q_near[j]);
}

/// Stored configurations in the order in which attempts that look for the nearest solution begin at them: least first
/// the sum of what the joints have to move from q_near to them, and of what the tip then has to move and turn to the
/// target. In any order, twice as many answers for the Panda end more than 1 % above the nearest solution.
class NearSeeds {
  public:
    MFIK_INLINE void score(const SearchTask& task) {
        const Chain& chain = *task.chain;
        const SeedTable& table = *task.table;
        for (int begin = 0; begin < SeedTable::kSize; begin += kLanes) {
            Lanes moves = {}, apart = {}, along = {};
            for (int j = 0; j < chain.dof; ++j) {
                Lanes q;
                for (int lane = 0; lane < kLanes; ++lane) q[lane] = table.q[begin + lane][j];
                if (j == 0) q = brought_to_place<Lanes>(table, load(table.offset + begin), task.feature.place);
                Lanes d = q - task.q_near[j];
                if (makes_full_turns(chain, j)) d = wrap_angle(d);
                d *= task.weight[j];
                moves += d * d;
            }
            for (int k = 0; k < 3; ++k) {
                const Lanes d = load(table.feature[k] + begin) - task.feature.value[k];
                apart += d * d;
            }
            for (int k = 3; k < 7; ++k) along += load(table.feature[k] + begin) * task.feature.value[k];
            const Lanes turn2 = 4.0 * (1.0 - along * along);  // square of twice the sine of half the angle
            apart = square_root(moves) + square_root(apart * (table.half_size * table.half_size) + turn2);
            for (int lane = 0; lane < kLanes; ++lane) score_[begin + lane] = apart[lane];
        }
    }

    /// The next row of the table; row 0 once all are taken.
    MFIK_INLINE int take() {
        Lanes least = splat<Lanes>(HUGE_VAL), chunks = {};
        for (int chunk = 0; chunk < SeedTable::kSize / kLanes; ++chunk) {
            const Lanes score = load(score_ + chunk * kLanes);
            const LaneMask less = score < least;
            least = select(less, score, least);
            chunks = select(less, splat<Lanes>(chunk), chunks);
        }
        int lane = 0;
        for (int other = 1; other < kLanes; ++other)
            if (least[other] < least[lane]) lane = other;
        const int row = static_cast<int>(chunks[lane]) * kLanes + lane;
        score_[row] = HUGE_VAL;
        return row;
    }

  private:
    double score_[SeedTable::kSize];
};

/// Constraints of steps that are pulled down the gradient of half the squared distance from q_preferred, in each lane
/// by its `gain`.
template <class E>
struct Pulled : E {
    Lanes gain{};
    double weight2[kMaxJoints];

    Pulled(const E& constraints, const SearchTask& task) : E(constraints) {
        this->q_preferred = task.q_near;
        for (int j = 0; j < task.chain->dof; ++j) weight2[j] = task.weight[j] * task.weight[j];
    }
    /// What the gradient of half the squared distance is at joint j, downwards.
    [[nodiscard]] double pull(int j, double q) const { return weight2[j] * (this->q_preferred[j] - q); }
};

template <class E>
MFIK_INLINE Lanes posture_motion(const Pulled<E>& constraints, int j, const Lanes& q) {
    return constraints.gain * constraints.weight2[j] * (constraints.q_preferred[j] - q);
}

/// A slide in its lane.
struct Slide {
    double q[kMaxJoints];     // where it is: on the target, but for kOnTarget2
    double distance;          // of q
    double step[kMaxJoints];  // along the null space from there
    double share;             // of the step that is tried
    double slope;             // how fast half the squared distance falls along the step; 0: there is none yet
    double gain;              // length of the next step, in gradients
    int corrections, shortenings;
    bool returning;  // to the target, from q, for good
};

/// Slides, one in each lane.
template <class E>
class Slides {
  public:
    Slides(const SearchTask& task, const E& constraints, const TransformOf<Lanes>& T_target, const NearSolutions& near,
           int first)
        : task_(task), pulled_(constraints, task), T_target_(T_target), n_(task.chain->dof) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const int own = first + lane < near.size ? first + lane : first;
            Slide& slide = slides_[lane] = {};
            std::copy_n(near.q[own], n_, slide.q);
            slide.distance = HUGE_VAL;
            slide.gain = first_gain(slide.q);
            put(lane, slide.q);
            if (own == first + lane) busy_ |= 1u << lane;
        }
    }

    /// Slide; `result` gets the nearest. `free(at, lanes)` tells which of the lanes keep clear of obstacles.
    template <class Free>
    MFIK_INLINE void run(SearchResult& result, double& nearest, const Free& free) {
        for (int step = 0; step < kSlideSteps && busy_ != 0; ++step, ++result.iterations) {
            linearize(*task_.chain, pulled_, T_target_, at_);
            unsigned on_target = 0, correcting = 0, going_on = 0;
            for (int lane = 0; lane < kLanes; ++lane)
                if (at_.pos2[lane] + at_.rot2[lane] <= kOnTarget2) on_target |= 1u << lane;
            const unsigned clear = free(at_, on_target & busy_);
            for (int lane = 0; lane < kLanes; ++lane) {
                if (!(busy_ >> lane & 1u)) continue;
                const bool arrived = clear >> lane & 1u;
                Slide& slide = slides_[lane];
                if (slide.returning) {
                    if (!is_solved(lane))
                        correcting |= 1u << lane;
                    else
                        finish(lane, arrived, result, nearest);
                } else if (!(on_target >> lane & 1u) && slide.corrections++ < kCorrections) {
                    correcting |= 1u << lane;
                } else if (arrived && accept(lane)) {
                    going_on |= 1u << lane;
                } else {
                    shorten(lane);
                }
                if (step == kSlideSteps - kReturnSteps && !slide.returning) {
                    slide.returning = true;
                    correcting &= ~(1u << lane), going_on &= ~(1u << lane);
                    put(lane, slide.q);
                }
                pulled_.gain[lane] = going_on >> lane & 1u ? slide.gain : 0.0;
            }
            advance(correcting, going_on);
        }
    }

  private:
    const SearchTask& task_;
    Pulled<E> pulled_;
    const TransformOf<Lanes>& T_target_;
    const int n_;
    Iterate<Lanes> at_;
    Slide slides_[kLanes];
    unsigned busy_ = 0;  // bit of each lane

    MFIK_INLINE void put(int lane, const double* q) {
        for (int j = 0; j < n_; ++j) at_.q[j][lane] = q[j];
    }

    MFIK_INLINE bool is_solved(int lane) const {
        const double pos = kInside * task_.tol_pos_m, rot = kInside * task_.tol_rot_rad;
        return at_.pos2[lane] <= pos * pos && at_.rot2[lane] <= rot * rot;
    }

    /// The step from q that minimizes the distance where the target lets all of its gradient pass.
    MFIK_INLINE double first_gain(const double* q) const {
        double along = 0.0, curved = 0.0;
        for (int j = 0; j < n_; ++j) {
            const double pull = pulled_.pull(j, q[j]);
            along += pull * pull;
            curved += pull * pull * pulled_.weight2[j];
        }
        return curved > 0.0 ? along / curved : 1.0;
    }

    MFIK_INLINE double slope_along(const double* q, const double* step) const {
        double slope = 0.0;
        for (int j = 0; j < n_; ++j) slope += step[j] * pulled_.pull(j, q[j]);
        return slope;
    }

    MFIK_INLINE double joints(int lane, double* q) const {
        for (int j = 0; j < n_; ++j) q[j] = at_.q[j][lane];
        return distance_to_reference(*task_.chain, task_.weight, q, task_.q_near);
    }

    /// Keep the joints of a lane if they are nearer than before. The next step is as long as the curvature along the
    /// last one says, in which the target's own is.
    MFIK_INLINE bool accept(int lane) {
        Slide& slide = slides_[lane];
        double q[kMaxJoints];
        const double distance = joints(lane, q);
        if (!(distance < slide.distance)) return false;
        if (slide.slope > 0.0) {
            const double fallen = slide.slope - slope_along(q, slide.step);
            const double growth = fallen > 0.0 ? slide.share * slide.slope / fallen : kLargestGrowth;
            slide.gain *= std::clamp(growth, kLeastGrowth, kLargestGrowth);
        }
        std::copy_n(q, n_, slide.q);
        slide.distance = distance;
        return true;
    }

    /// Try less of the last step.
    MFIK_INLINE void shorten(int lane) {
        Slide& slide = slides_[lane];
        slide.corrections = 0;
        slide.share *= kShortened;
        slide.returning = slide.slope == 0.0 || ++slide.shortenings > kShortenings;
        place(lane);
    }

    /// Put a lane to the share of its step that is tried, or, returning, to where the step began.
    MFIK_INLINE void place(int lane) {
        const Slide& slide = slides_[lane];
        const double share = slide.returning ? 0.0 : slide.share;
        double q[kMaxJoints];
        for (int j = 0; j < n_; ++j)
            q[j] = std::clamp(slide.q[j] + share * slide.step[j], pulled_.lower[j], pulled_.upper[j]);
        put(lane, q);
    }

    MFIK_INLINE void finish(int lane, bool clear, SearchResult& result, double& nearest) {
        busy_ &= ~(1u << lane);
        double q[kMaxJoints];
        const double distance = joints(lane, q);
        if (!clear || !(distance < nearest)) return;
        nearest = distance;
        std::copy_n(q, n_, result.q);
    }

    /// The step of each lane: back to the target where it is `correcting`, along the null space where it is
    /// `going_on`.
    MFIK_INLINE void advance(unsigned correcting, unsigned going_on) {
        if ((correcting | going_on) == 0) return;
        Lanes dq[kMaxJoints], q[kMaxJoints];
        dls_step(*task_.chain, pulled_, T_target_, at_, dq);
        for (int j = 0; j < n_; ++j) q[j] = at_.q[j];
        move(pulled_, n_, dq, q);
        for (int lane = 0; lane < kLanes; ++lane) {
            if (correcting >> lane & 1u)
                for (int j = 0; j < n_; ++j) at_.q[j][lane] = q[j][lane];
            if (going_on >> lane & 1u) begin_step(lane, dq);
        }
    }

    MFIK_INLINE void begin_step(int lane, const Lanes* dq) {
        Slide& slide = slides_[lane];
        double largest = 0.0;
        for (int j = 0; j < n_; ++j) {
            slide.step[j] = dq[j][lane];
            largest = std::fmax(largest, std::fabs(slide.step[j]));
        }
        const double cut = largest > kLargestSlide ? kLargestSlide / largest : 1.0;
        for (int j = 0; j < n_; ++j) slide.step[j] *= cut;
        slide.gain *= cut;
        slide.slope = slope_along(slide.q, slide.step);
        slide.share = 1.0;
        slide.corrections = slide.shortenings = 0;
        slide.returning = !(slide.slope > kWorthwhile * slide.distance * slide.distance);
        place(lane);
    }
};

}  // namespace
}  // namespace mfik::cpu
