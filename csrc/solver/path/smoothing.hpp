// Smoothing: the whole path made shorter along the null space of its poses.
#pragma once

#include <algorithm>
#include <vector>

#include "solver/path/task.hpp"

namespace mfik::path {

/// Shortens a path that keeps to everything, which it does afterwards, too. q_start and q_goal stay where they are.
class Smoother {
  public:
    /// @param[in] q       [size, dof]
    /// @param[in] stride  1: the path itself. More: every so many waypoints of it, and the last one, with steps so many
    ///                    times as large and nothing checked in between: what a path will come to, in less time.
    Smoother(Task& task, const Rows& q, int stride = 1);

    /// Move as the same path did whose waypoints were looked at in part, in between by the line, if that keeps to all.
    void follow(const Smoother& trial);
    /// Take `rounds` at most, fewer where it no longer pays.
    void run(int rounds, double done_before, double done_after);
    [[nodiscard]] const Rows& q() const { return q_; }
    [[nodiscard]] double length() const { return task_->length(q_); }

  private:
    /// A matrix of at most kMaxJoints, of which the lower triangle is factored (Cholesky).
    struct Factor {
        double L[kMaxJoints][kMaxJoints];

        void factor(int n);
        void solve(int n, double* b) const;
    };
    /// One waypoint of the normal equations.
    struct Stage {
        int size = 0;                          // of its null space
        double basis[kMaxJoints][kMaxJoints];  // [size][dof]
        double moved = kInfinity;              // largest motion of a joint since the basis was computed
        double damping;                        // share of its stiffness
        Factor diagonal;
        double coupling[kMaxJoints][kMaxJoints];  // with the next waypoint, [size][size of that]
        double motion[kMaxJoints];                // along the basis
    };

    [[nodiscard]] std::size_t index(int i, int j) const {
        return static_cast<std::size_t>(i) * task_->width() + static_cast<std::size_t>(j);
    }
    [[nodiscard]] double& weight(int i, int j) { return weight_[index(i, j)]; }
    [[nodiscard]] double weight(int i, int j) const { return weight_[index(i, j)]; }
    [[nodiscard]] const double* at(int i) const { return &q_[index(i, 0)]; }
    [[nodiscard]] int waypoint(int i) const { return std::min(i * stride_, task_->size() - 1); }
    [[nodiscard]] bool stays(int i) const;
    [[nodiscard]] bool within_step(const double* a, const double* b) const;

    double round(double softness);
    bool find_bases();
    void weigh(double softness);
    void solve();
    void assemble(int i, Stage& stage) const;
    static void eliminate(const Stage& before, Stage& stage);
    [[nodiscard]] Rows move() const;
    [[nodiscard]] std::vector<unsigned char> project(Rows& moved) const;
    void find_colliding(const Rows& moved, std::vector<unsigned char>& valid) const;
    void accept(Rows moved);

    Task* task_;
    int stride_, size_;  // size_: waypoints that are looked at
    double max_step_[kMaxJoints]{};
    Rows q_;
    std::vector<Stage> stages_;
    std::vector<double> weight_;  // of the squared changes to the next waypoint, [size, dof]
    std::size_t softness_ = 0;    // index of the one that is in use
};

}  // namespace mfik::path
