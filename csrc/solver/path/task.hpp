// A whole path, checked, as the sources in this folder take it. Everything in the robot's own units.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/path_kernels.hpp"
#include "mfik/path.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"

namespace mfik::path {

struct Waypoint {
    Transform T_target;  // of the tool
    Transform T_tip;     // of the tip that carries it
    bool too_far;        // beyond the reach of the arm
    bool tip_collides;   // whatever the joints
};

/// Joints of waypoints one after the other, [count, dof].
using Rows = std::vector<double>;

/// What the whole path has in common, its waypoints, and the clock. It refers to itself, and stays where it is.
class Task {
  public:
    /// Read what callers give; `error` says what is refused.
    Task(const Core& of, Span<const double> given_poses, const PathOptions& given_path, const Options& options);
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

    std::string error;
    const Core& core;
    const cpu::PathKernels& kernels = cpu::kernels<cpu::PathKernels>();
    Span<const double> poses;  // as given
    const Options& given;      // likewise
    const PathOptions& path;   // likewise
    Scratch scratch;
    Problem common;  // of the first waypoint; what is not of a waypoint holds for all
    std::vector<Waypoint> waypoints;
    double max_step[kMaxJoints]{}, edge_check[kMaxJoints]{};
    double q_start[kMaxJoints]{}, q_goal[kMaxJoints]{};
    bool has_start = false, has_goal = false;
    int attempts = 0;

    [[nodiscard]] int dof() const { return core.chain().dof; }
    [[nodiscard]] std::size_t width() const { return static_cast<std::size_t>(core.chain().dof); }
    [[nodiscard]] int size() const { return static_cast<int>(waypoints.size()); }
    [[nodiscard]] const Waypoint& at(int i) const { return waypoints[static_cast<std::size_t>(i)]; }
    [[nodiscard]] Pose pose(int i) const;
    [[nodiscard]] const double* unit() const { return core.units.joint; }

    /// Whether time is up or the caller ends the search; `done` is the share of the work that is behind, 0 to 1.
    [[nodiscard]] bool stops(double done);
    [[nodiscard]] bool was_cancelled() const { return cancelled_; }
    [[nodiscard]] bool was_stopped() const { return stopped_; }
    [[nodiscard]] double time_us() const { return microseconds_since(start_); }

    /// Which of the rows keep clear, where that is asked for; [rows.size() / dof].
    [[nodiscard]] std::vector<unsigned char> clear(const Rows& rows) const;
    /// Add the configurations that are checked between a and b to rows.
    void add_between(const double* a, const double* b, Rows& rows) const;
    /// Whether the straight line of the joints from a to b keeps clear between the two.
    [[nodiscard]] bool edge_is_clear(const double* a, const double* b, Rows* where = nullptr) const;
    /// Sum of the changes of all joints [rad and m].
    [[nodiscard]] double distance(const double* a, const double* b) const;
    [[nodiscard]] double length(const Rows& rows) const;
    /// A row of the kernel at a waypoint, within the limits alone.
    [[nodiscard]] cpu::PathRow row(int waypoint, const double* q) const;
    void refine(std::vector<cpu::PathRow>& rows, int max_iterations, int posture_steps) const;

  private:
    void read_path();
    void read_waypoints();
    bool read_end(const char* name, int waypoint, Span<const double> joints, double* q);
    const char* refusal_of_path() const;

    Clock::time_point start_ = Clock::now(), asked_ = start_;
    bool cancelled_ = false, stopped_ = false;
    double done_ = 0.0;          // share of the work that was told last
    std::vector<double> q_ref_;  // as read_problem() takes it
};

}  // namespace mfik::path
