#include "solver/path/smoothing.hpp"

#include <algorithm>
#include <cmath>

namespace mfik::path {
namespace {

constexpr int kRefinements = 6;      // steps back to the pose
constexpr int kTries = 8;            // of each round, with more and more damping where it fails
constexpr double kLeastGain = 1e-3;  // share of the length that a round has to save, or it was the last but one
constexpr double kDamping = 1e-6;    // of each waypoint's motion, as a share of its stiffness
constexpr double kRaise = 30.0, kLower = 0.3;
constexpr double kLargestMotion = 0.3;            // of a joint in a round [rad] or [length]
constexpr double kCrowded = 0.7;                  // share of max_step beyond which a change is made costlier
constexpr double kSoftness[] = {1.0, 0.5, 0.25};  // of the mean change: smaller ones are spread evenly

/// A symmetric positive definite matrix of at most kMaxJoints, factored in place (Cholesky).
struct Factor {
    double L[kMaxJoints][kMaxJoints];

    void factor(int n) {
        for (int j = 0; j < n; ++j) {
            for (int k = 0; k < j; ++k) {
                for (int i = j; i < n; ++i) L[i][j] -= L[i][k] * L[j][k];
            }
            const double root = std::sqrt(std::max(L[j][j], 1e-300));
            for (int i = j; i < n; ++i) L[i][j] /= root;
        }
    }
    void solve(int n, double* b) const {
        for (int i = 0; i < n; ++i) {
            for (int k = 0; k < i; ++k) b[i] -= L[i][k] * b[k];
            b[i] /= L[i][i];
        }
        for (int i = n - 1; i >= 0; --i) {
            for (int k = i + 1; k < n; ++k) b[i] -= L[k][i] * b[k];
            b[i] /= L[i][i];
        }
    }
};

/// One waypoint of the normal equations.
struct Stage {
    int size;                              // of its null space
    double basis[kMaxJoints][kMaxJoints];  // [size][dof]
    double damping;                        // share of its stiffness
    Factor diagonal;
    double coupling[kMaxJoints][kMaxJoints];  // with the next waypoint, [size][size of that]
    double motion[kMaxJoints];                // along the basis
};

class Smoother {
  public:
    Smoother(Task& task, Rows& q) : task_(task), q_(q), stages_(static_cast<std::size_t>(task.size())) {
        for (Stage& stage : stages_) stage.damping = kDamping;
    }

    /// One round: returns the share of the length that it saved.
    double round(double softness) {
        linearize_all();
        weigh(softness);
        const double before = task_.length(q_);
        for (int attempt = 0; attempt < kTries; ++attempt) {
            solve();
            Rows moved = move();
            std::vector<unsigned char> valid = project(moved);
            const bool all = std::all_of(valid.begin(), valid.end(), [](unsigned char ok) { return ok != 0; });
            const double after = task_.length(moved);
            if (all && after < before) {
                q_ = std::move(moved);
                for (Stage& stage : stages_) stage.damping = std::max(kDamping, kLower * stage.damping);
                return (before - after) / before;
            }
            for (std::size_t i = 0; i < stages_.size(); ++i)
                if (all || valid[i] == 0) stages_[i].damping *= kRaise;
        }
        return 0.0;
    }

  private:
    [[nodiscard]] const double* at(int i) const { return &q_[index(i, 0)]; }
    [[nodiscard]] std::size_t index(int i, int j) const {
        return static_cast<std::size_t>(i) * task_.width() + static_cast<std::size_t>(j);
    }
    [[nodiscard]] double& weight(int i, int j) { return weight_[index(i, j)]; }
    [[nodiscard]] double weight(int i, int j) const { return weight_[index(i, j)]; }
    [[nodiscard]] bool stays(int i) const {
        return (i == 0 && task_.has_start) || (i == task_.size() - 1 && task_.has_goal);
    }

    void linearize_all() {
        for (int i = 0; i < task_.size(); ++i) {
            Stage& stage = stages_[static_cast<std::size_t>(i)];
            stage.size = stays(i) ? 0
                                  : task_.kernels.null_space(*task_.common.chain, task_.common.constraints,
                                                             task_.at(i).T_target, at(i), stage.basis);
        }
    }

    /// Weights of the squared changes whose sum has the gradient of the sum of the changes (iteratively reweighted
    /// least squares; Weiszfeld 1937), but for small ones.
    void weigh(double softness) {
        const int dof = task_.dof();
        const int edges = task_.size() - 1;
        weight_.assign(q_.size(), 0.0);
        const double mean = task_.length(q_) / static_cast<double>(q_.size());
        for (int i = 0; i < edges; ++i) {
            for (int j = 0; j < dof; ++j) {
                const double change = std::fabs(at(i + 1)[j] - at(i)[j]), unit = task_.unit()[j];
                const double least = std::max(softness * mean / unit, 1e-9);
                double w = unit / std::max(change, least);
                const double crowded = change / task_.max_step[j] - kCrowded;
                if (crowded > 0.0) w *= 1.0 + 100.0 * crowded;
                weight(i, j) = w;
            }
        }
    }

    /// The motions that solve the normal equations: block tridiagonal, eliminated from the first waypoint to the last.
    void solve() {
        const int n = task_.size();
        for (int i = 0; i < n; ++i) {
            Stage& stage = stages_[static_cast<std::size_t>(i)];
            assemble(i, stage);
            if (i > 0) eliminate(stages_[static_cast<std::size_t>(i - 1)], stage);
            for (int k = 0; k < stage.size; ++k)
                for (int l = 0; l < k; ++l) stage.diagonal.L[l][k] = 0.0;
            stage.diagonal.factor(stage.size);
        }
        for (int i = n - 1; i >= 0; --i) {
            Stage& stage = stages_[static_cast<std::size_t>(i)];
            if (i + 1 < n) {
                const Stage& next = stages_[static_cast<std::size_t>(i) + 1];
                for (int k = 0; k < stage.size; ++k)
                    for (int l = 0; l < next.size; ++l) stage.motion[k] -= stage.coupling[k][l] * next.motion[l];
            }
            stage.diagonal.solve(stage.size, stage.motion);
        }
    }

    /// Diagonal block, coupling with the next waypoint and right-hand side of a waypoint.
    void assemble(int i, Stage& stage) const {
        const int dof = task_.dof(), n = task_.size();
        for (int k = 0; k < stage.size; ++k) {
            stage.motion[k] = 0.0;
            for (int l = 0; l < stage.size; ++l) stage.diagonal.L[k][l] = 0.0;
            for (int j = 0; j < dof; ++j) {
                double stiffness = 0.0;
                if (i > 0) {
                    const double w = weight(i - 1, j);
                    stiffness += w;
                    stage.motion[k] -= stage.basis[k][j] * w * (at(i)[j] - at(i - 1)[j]);
                }
                if (i + 1 < n) {
                    const double w = weight(i, j);
                    stiffness += w;
                    stage.motion[k] += stage.basis[k][j] * w * (at(i + 1)[j] - at(i)[j]);
                }
                for (int l = 0; l <= k; ++l)
                    stage.diagonal.L[k][l] += stage.basis[k][j] * stiffness * stage.basis[l][j];
            }
            stage.diagonal.L[k][k] *= 1.0 + stage.damping;
        }
        if (i + 1 == n) return;
        const Stage& next = stages_[static_cast<std::size_t>(i) + 1];
        for (int k = 0; k < stage.size; ++k) {
            for (int l = 0; l < next.size; ++l) {
                double sum = 0.0;
                for (int j = 0; j < dof; ++j) sum -= stage.basis[k][j] * weight(i, j) * next.basis[l][j];
                stage.coupling[k][l] = sum;
            }
        }
    }

    /// Take the waypoint before out of the equations of one.
    static void eliminate(const Stage& before, Stage& stage) {
        if (before.size == 0) return;
        double solved[kMaxJoints][kMaxJoints];  // columns of the coupling
        for (int l = 0; l < stage.size; ++l) {
            for (int k = 0; k < before.size; ++k) solved[l][k] = before.coupling[k][l];
            before.diagonal.solve(before.size, solved[l]);
        }
        for (int l = 0; l < stage.size; ++l) {
            for (int m = 0; m <= l; ++m)
                for (int k = 0; k < before.size; ++k) stage.diagonal.L[l][m] -= solved[l][k] * before.coupling[k][m];
            for (int k = 0; k < before.size; ++k) stage.motion[l] -= solved[l][k] * before.motion[k];
        }
    }

    /// The path after the motions.
    [[nodiscard]] Rows move() const {
        const int dof = task_.dof();
        Rows moved = q_;
        double largest = 0.0;
        for (std::size_t i = 0; i < stages_.size(); ++i) {
            for (int j = 0; j < dof; ++j) {
                double change = 0.0;
                for (int k = 0; k < stages_[i].size; ++k) change += stages_[i].motion[k] * stages_[i].basis[k][j];
                moved[i * task_.width() + static_cast<std::size_t>(j)] += change;
                largest = std::max(largest, std::fabs(change));
            }
        }
        if (largest > kLargestMotion)
            for (std::size_t k = 0; k < moved.size(); ++k)
                moved[k] = q_[k] + kLargestMotion / largest * (moved[k] - q_[k]);
        return moved;
    }

    /// Bring every waypoint back to its pose, and tell which of them then keep to everything: one that does not, or
    /// whose connection to a neighbour does not, is 0.
    [[nodiscard]] std::vector<unsigned char> project(Rows& moved) const {
        const int dof = task_.dof(), n = task_.size();
        std::vector<cpu::PathRow> rows;
        rows.reserve(stages_.size());
        for (int i = 0; i < n; ++i) rows.push_back(task_.row(i, &moved[index(i, 0)]));
        task_.refine(rows, kRefinements, 0);
        std::vector<unsigned char> valid(rows.size(), 1);
        for (int i = 0; i < n; ++i) {
            const std::size_t row = static_cast<std::size_t>(i);
            if (stays(i)) continue;
            if (rows[row].converged) {
                std::copy_n(rows[row].q, dof, &moved[index(i, 0)]);
            } else {
                valid[row] = 0;
            }
        }
        const auto q = [&](int i) { return &moved[index(i, 0)]; };
        for (int i = 1; i < n; ++i)
            if (!task_.within_step(q(i - 1), q(i)))
                valid[static_cast<std::size_t>(i - 1)] = valid[static_cast<std::size_t>(i)] = 0;
        if (std::find(valid.begin(), valid.end(), 0) != valid.end()) return valid;
        valid = task_.clear(moved);
        if (std::find(valid.begin(), valid.end(), 0) != valid.end()) return valid;
        for (int i = 1; i < n; ++i)
            if (!task_.edge_is_clear(q(i - 1), q(i)))
                valid[static_cast<std::size_t>(i - 1)] = valid[static_cast<std::size_t>(i)] = 0;
        return valid;
    }

    Task& task_;
    Rows& q_;
    std::vector<Stage> stages_;
    std::vector<double> weight_;  // of the squared changes to the next waypoint, [size, dof]
};

}  // namespace

void smooth(Task& task, int rounds, double done_before, double done_after, Rows& q) {
    if (task.size() < 2 || task.length(q) == 0.0) return;
    Smoother smoother(task, q);
    std::size_t stage = 0;
    for (int round = 0; round < rounds; ++round) {
        if (task.stops(done_before + (done_after - done_before) * round / rounds)) return;
        const double saved = smoother.round(kSoftness[stage]);
        if (saved < kLeastGain && ++stage == std::size(kSoftness)) return;
    }
}

}  // namespace mfik::path
