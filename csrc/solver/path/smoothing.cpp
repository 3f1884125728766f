#include "solver/path/smoothing.hpp"

#include <algorithm>
#include <cmath>

namespace mfik::path {
namespace {

constexpr int kRefinements = 6;       // steps back to the pose
constexpr int kTries = 6;             // of each round, with more and more damping where it fails
constexpr double kLeastGain = 3e-3;   // share of the length that a round has to save, or a softer one is the next
constexpr double kDamping = 1e-6;     // of each waypoint's motion, as a share of its stiffness
constexpr double kFirstRaise = 1e-2;  // the same at least where a waypoint did not keep to something
constexpr double kRaise = 30.0, kLower = 0.4;
constexpr double kLargestMotion = 0.3;  // of a joint in a round [rad] or [length]
constexpr double kSameBasis = 0.05;     // motion of a joint below which a waypoint keeps its basis [rad] or [length]
constexpr double kCrowded = 0.7;        // share of max_step beyond which a change is made costlier
constexpr double kSoftness[] = {1.0, 0.5, 0.25};  // of the mean change: smaller ones are spread evenly

}  // namespace

void Smoother::Factor::factor(int n) {
    for (int j = 0; j < n; ++j) {
        for (int k = 0; k < j; ++k)
            for (int i = j; i < n; ++i) L[i][j] -= L[i][k] * L[j][k];
        const double root = std::sqrt(std::max(L[j][j], 1e-300));
        for (int i = j; i < n; ++i) L[i][j] /= root;
    }
}

void Smoother::Factor::solve(int n, double* b) const {
    for (int i = 0; i < n; ++i) {
        for (int k = 0; k < i; ++k) b[i] -= L[i][k] * b[k];
        b[i] /= L[i][i];
    }
    for (int i = n - 1; i >= 0; --i) {
        for (int k = i + 1; k < n; ++k) b[i] -= L[k][i] * b[k];
        b[i] /= L[i][i];
    }
}

Smoother::Smoother(Task& task, const Rows& q, int stride)
    : task_(&task), stride_(stride), size_(1 + (task.size() - 2 + stride) / stride) {
    for (int i = 0; i < size_; ++i) {
        const auto row = q.begin() + static_cast<std::ptrdiff_t>(waypoint(i)) * task.dof();
        q_.insert(q_.end(), row, row + task.dof());
    }
    for (int j = 0; j < task.dof(); ++j) max_step_[j] = stride * task.max_step[j];
    stages_.resize(static_cast<std::size_t>(size_));
    for (Stage& stage : stages_) stage.damping = kDamping;
}

bool Smoother::stays(int i) const {
    return (i == 0 && task_->has_start) || (i == size_ - 1 && task_->has_goal);
}

/// Whether no joint changes by more than it may from a to b.
bool Smoother::within_step(const double* a, const double* b) const {
    for (int j = 0; j < task_->dof(); ++j)
        if (!(std::fabs(b[j] - a[j]) <= max_step_[j])) return false;
    return true;
}

void Smoother::run(int rounds, double done_before, double done_after) {
    if (size_ < 2) return;
    for (int round = 0; round < rounds && softness_ < std::size(kSoftness); ++round) {
        if (task_->stops(done_before + (done_after - done_before) * round / rounds)) return;
        if (this->round(kSoftness[softness_]) < kLeastGain) ++softness_;
    }
}

void Smoother::follow(const Smoother& trial) {
    const std::size_t dof = task_->width();
    Rows moved = q_;
    for (int k = 1; k < trial.size_; ++k) {
        const int from = trial.waypoint(k - 1), to = trial.waypoint(k);
        for (int i = k == 1 ? from : from + 1; i <= to; ++i) {
            const double share = static_cast<double>(i - from) / (to - from);
            for (std::size_t j = 0; j < dof; ++j) {
                const double before = trial.at(k - 1)[j] - at(from)[j], behind = trial.at(k)[j] - at(to)[j];
                moved[index(i, 0) + j] += (1.0 - share) * before + share * behind;
            }
        }
    }
    const std::vector<unsigned char> valid = project(moved);
    const bool all = std::find(valid.begin(), valid.end(), 0) == valid.end();
    if (all && task_->length(moved) < length()) accept(std::move(moved));
}

/// One round: returns the share of the length that it saved.
double Smoother::round(double softness) {
    const double before = length();
    if (!find_bases() || before == 0.0) return 0.0;
    weigh(softness);
    for (int attempt = 0; attempt < kTries; ++attempt) {
        solve();
        Rows moved = move();
        const std::vector<unsigned char> valid = project(moved);
        const bool all = std::find(valid.begin(), valid.end(), 0) == valid.end();
        const double after = task_->length(moved);
        if (all && after < before) {
            accept(std::move(moved));
            return (before - after) / before;
        }
        for (std::size_t i = 0; i < stages_.size(); ++i)
            if (all || valid[i] == 0) stages_[i].damping = std::max(kFirstRaise, kRaise * stages_[i].damping);
    }
    return 0.0;
}

void Smoother::accept(Rows moved) {
    for (std::size_t i = 0; i < stages_.size(); ++i) {
        double largest = 0.0;
        for (std::size_t k = i * task_->width(); k < (i + 1) * task_->width(); ++k)
            largest = std::max(largest, std::fabs(moved[k] - q_[k]));
        stages_[i].moved += largest;
        stages_[i].damping = std::max(kDamping, kLower * stages_[i].damping);
    }
    q_ = std::move(moved);
}

/// Bases of the null spaces; false where all of them are empty.
bool Smoother::find_bases() {
    bool any = false;
    for (int i = 0; i < size_; ++i) {
        Stage& stage = stages_[static_cast<std::size_t>(i)];
        if (stage.moved > kSameBasis && !stays(i)) {
            stage.size = task_->kernels.null_space(*task_->common.chain, task_->common.constraints,
                                                   task_->at(waypoint(i)).T_target, at(i), stage.basis);
            stage.moved = 0.0;
        }
        any = any || stage.size > 0;
    }
    return any;
}

/// Weights of the squared changes whose sum has the gradient of the sum of the changes (iteratively reweighted
/// least squares; Weiszfeld 1937), but for small ones.
void Smoother::weigh(double softness) {
    const int dof = task_->dof();
    const int edges = size_ - 1;
    weight_.assign(q_.size(), 0.0);
    const double mean = task_->length(q_) / static_cast<double>(q_.size());
    for (int i = 0; i < edges; ++i) {
        for (int j = 0; j < dof; ++j) {
            const double change = std::fabs(at(i + 1)[j] - at(i)[j]), unit = task_->unit()[j];
            const double least = std::max(softness * mean / unit, 1e-9);
            double w = unit / std::max(change, least);
            const double crowded = change / max_step_[j] - kCrowded;
            if (crowded > 0.0) w *= 1.0 + 100.0 * crowded;
            weight(i, j) = w;
        }
    }
}

/// The motions that solve the normal equations: block tridiagonal, eliminated from the first waypoint to the last.
void Smoother::solve() {
    const int n = size_;
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
void Smoother::assemble(int i, Stage& stage) const {
    const int dof = task_->dof(), n = size_;
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
            for (int l = 0; l <= k; ++l) stage.diagonal.L[k][l] += stage.basis[k][j] * stiffness * stage.basis[l][j];
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
void Smoother::eliminate(const Stage& before, Stage& stage) {
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
Rows Smoother::move() const {
    const int dof = task_->dof();
    Rows moved = q_;
    double largest = 0.0;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
        for (int j = 0; j < dof; ++j) {
            double change = 0.0;
            for (int k = 0; k < stages_[i].size; ++k) change += stages_[i].motion[k] * stages_[i].basis[k][j];
            moved[i * task_->width() + static_cast<std::size_t>(j)] += change;
            largest = std::max(largest, std::fabs(change));
        }
    }
    if (largest > kLargestMotion)
        for (std::size_t k = 0; k < moved.size(); ++k) moved[k] = q_[k] + kLargestMotion / largest * (moved[k] - q_[k]);
    return moved;
}

/// Bring every waypoint back to its pose, and tell which of them then keep to everything: one that does not, or whose
/// connection to a neighbour does not, is 0.
std::vector<unsigned char> Smoother::project(Rows& moved) const {
    const int n = size_;
    std::vector<cpu::PathRow> rows;
    rows.reserve(stages_.size());
    for (int i = 0; i < n; ++i) rows.push_back(task_->row(waypoint(i), &moved[index(i, 0)]));
    task_->refine(rows, kRefinements, 0);
    std::vector<unsigned char> valid(rows.size(), 1);
    bool all = true;
    for (int i = 0; i < n; ++i) {
        const std::size_t row = static_cast<std::size_t>(i);
        if (stays(i)) continue;
        if (rows[row].converged) std::copy_n(rows[row].q, task_->dof(), &moved[index(i, 0)]);
        valid[row] = rows[row].converged ? 1 : 0;
        all = all && rows[row].converged;
    }
    for (int i = 1; i < n; ++i) {
        if (within_step(&moved[index(i - 1, 0)], &moved[index(i, 0)])) continue;
        valid[static_cast<std::size_t>(i) - 1] = valid[static_cast<std::size_t>(i)] = 0;
        all = false;
    }
    if (all) find_colliding(moved, valid);
    return valid;
}

/// Mark waypoints that collide, or, where none does and none is left out, those whose connections do.
void Smoother::find_colliding(const Rows& moved, std::vector<unsigned char>& valid) const {
    if (!task_->common.keeps_clear) return;
    valid = task_->clear(moved);
    if (stride_ > 1 || std::find(valid.begin(), valid.end(), 0) != valid.end()) return;
    Rows between;
    std::vector<std::size_t> behind;  // waypoint behind each row
    for (int i = 1; i < size_; ++i) {
        task_->add_between(&moved[index(i - 1, 0)], &moved[index(i, 0)], between);
        behind.resize(between.size() / task_->width(), static_cast<std::size_t>(i));
    }
    const std::vector<unsigned char> free = task_->clear(between);
    for (std::size_t k = 0; k < free.size(); ++k)
        if (free[k] == 0) valid[behind[k]] = valid[behind[k] - 1] = 0;
}

}  // namespace mfik::path
