#include "solver/path/task.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "solver/collision/obstacles.hpp"
#include "solver/verdict.hpp"

namespace mfik::path {
namespace {

constexpr double kProgressPeriodUs = 1e5;
constexpr double kMostPieces = 1e6;  // of one edge

bool all_positive(Span<const double> values) {
    return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value) && value > 0; });
}

/// Joints that a path counts from where the caller gives none.
std::vector<double> reference(const Core& core, const PathOptions& path) {
    for (const Span<const double> given : {path.q_ref, path.q_start, path.q_goal})
        if (!given.empty()) return {given.begin(), given.end()};
    const Chain& chain = core.chain_in_metres();
    std::vector<double> q(static_cast<std::size_t>(chain.dof));
    for (std::size_t j = 0; j < q.size(); ++j) q[j] = 0.5 * (chain.lower[j] + chain.upper[j]);
    return q;
}

}  // namespace

Task::Task(const Core& of, Span<const double> given_poses, const PathOptions& given_path, const Options& options)
    : core(of),
      poses(given_poses),
      given(options),
      path(given_path),
      scratch(of.scratch_size(1)),
      q_ref_(reference(of, given_path)) {
    if (poses.empty() || poses.size() % kPoseSize != 0) {
        error = "poses: expected [N, 7] values, N at least 1";
    } else if (const char* refused = refusal_of_path()) {
        error = refused;
    } else {
        read_problem(core, pose(0), q_ref_, options, &scratch, common);
        if (common.error != nullptr) {
            error = common.error;
        } else {
            read_path();
        }
    }
}

Pose Task::pose(int i) const {
    Pose pose;
    std::copy_n(poses.data() + static_cast<std::size_t>(i) * kPoseSize, kPoseSize, pose.begin());
    return pose;
}

const char* Task::refusal_of_path() const {
    const std::size_t n = width();
    if ((path.max_step.size() != 1 && path.max_step.size() != n) || !all_positive(path.max_step))
        return "max_step: expected a finite number above 0, or dof() of them";
    if (!(std::isfinite(path.edge_check) && path.edge_check > 0)) return "edge_check: expected a finite number above 0";
    if (!(path.time_limit_s > 0)) return "time_limit: expected a number above 0";
    for (const auto& [name, q] : {std::pair("q_start: expected dof() finite values or none", path.q_start),
                                  std::pair("q_goal: expected dof() finite values or none", path.q_goal),
                                  std::pair("q_ref: expected dof() finite values or none", path.q_ref)})
        if (!q.empty() && (q.size() != n || !is_finite(q))) return name;
    return nullptr;
}

void Task::read_path() {
    for (std::size_t j = 0; j < width(); ++j) {
        max_step[j] = path.max_step[path.max_step.size() == 1 ? 0 : j] / unit()[j];
        edge_check[j] = path.edge_check / unit()[j];
    }
    read_waypoints();
    if (!error.empty()) return;
    has_start = !path.q_start.empty();
    has_goal = !path.q_goal.empty();
    if (has_start && !read_end("q_start", 0, path.q_start, q_start)) return;
    if (has_goal) (void)read_end("q_goal", size() - 1, path.q_goal, q_goal);
}

void Task::read_waypoints() {
    const Options& options = common.options;
    Transform T_tip_tool;
    (void)read_tool(options, T_tip_tool);  // read_problem() has seen it
    const double slop = options.tol_pos_m + options.tol_rot_rad * core.table.reach;
    const std::size_t count = poses.size() / kPoseSize;
    for (std::size_t i = 0; i < count; ++i) {
        Waypoint waypoint{};
        if (!read_target(core, poses.data() + i * kPoseSize, T_tip_tool, waypoint.T_target, waypoint.T_tip)) {
            error = "poses[" + std::to_string(i) + "]: expected finite values with a unit quaternion in the last four";
            return;
        }
        waypoint.too_far = is_too_far(core, options, waypoint.T_tip);
        waypoint.tip_collides = common.keeps_clear && options.slack == Options{}.slack &&
                                tip_collides(core, common.obstacles, waypoint.T_tip, slop);
        waypoints.push_back(waypoint);
    }
}

/// Read the joints of the first or the last waypoint, which have to solve its pose.
bool Task::read_end(const char* name, int waypoint, Span<const double> joints, double* q) {
    to_units(core.units, joints, q);
    const Constraints& constraints = common.constraints;
    for (int j = 0; j < dof(); ++j) {
        if (q[j] >= constraints.lower[j] && q[j] <= constraints.upper[j]) continue;
        error = std::string(name) + "[" + std::to_string(j) +
                "]: expected joints within their limits, and locked ones " + "as in q_ref, got " +
                std::to_string(joints[static_cast<std::size_t>(j)]) + " for '" +
                core.bundle.robot.joint_names[static_cast<std::size_t>(j)] + "'";
        return false;
    }
    Iterate<double> at;
    std::copy_n(q, dof(), at.q);
    linearize(*common.chain, constraints, this->at(waypoint).T_target, at);
    const double pos = std::sqrt(at.pos2), rot = std::sqrt(at.rot2);
    if (pos <= common.options.tol_pos_m && rot <= common.options.tol_rot_rad) return true;
    char text[160];
    std::snprintf(
        text, sizeof(text),
        ": expected joints that solve poses[%d] within the tolerances, got %.3g m and %.3g rad from it; solve "
        "it first, or leave them out",
        waypoint, pos * core.units.length, rot);
    error = name + std::string(text);
    return false;
}

bool Task::stops(double done) {
    if (stopped_) return true;
    const Clock::time_point now = Clock::now();
    const auto since = [now](Clock::time_point begin) {
        return std::chrono::duration<double, std::micro>(now - begin).count();
    };
    stopped_ = since(start_) > 1e6 * path.time_limit_s;
    if (!stopped_ && path.progress && since(asked_) > kProgressPeriodUs) {
        asked_ = now;
        done_ = std::clamp(done, done_, 1.0);  // where a step is done again, progress waits
        cancelled_ = stopped_ = path.progress(done_);
    }
    return stopped_;
}

std::vector<unsigned char> Task::clear(const Rows& rows) const {
    const std::size_t count = rows.size() / width();
    std::vector<unsigned char> free(count, 1);
    if (!common.keeps_clear || count == 0) return free;
    Rows metres(rows.size());
    for (std::size_t k = 0; k < rows.size(); ++k) metres[k] = rows[k] * unit()[k % width()];
    const Obstacles& obstacles = common.obstacles;
    core.collision.free(*obstacles.chain, obstacles.body, obstacles.world, obstacles.self, metres.data(),
                        static_cast<int>(count), obstacles.margin, free.data());
    return free;
}

void Task::add_between(const double* a, const double* b, Rows& rows) const {
    double pieces = 1.0;
    for (int j = 0; j < dof(); ++j) pieces = std::max(pieces, std::ceil(std::fabs(b[j] - a[j]) / edge_check[j]));
    const int count = static_cast<int>(std::min(pieces, kMostPieces));
    for (int k = 1; k < count; ++k)
        for (int j = 0; j < dof(); ++j) rows.push_back(a[j] + k * (b[j] - a[j]) / count);
}

bool Task::edge_is_clear(const double* a, const double* b, Rows* where) const {
    if (!common.keeps_clear) return true;
    Rows between;
    add_between(a, b, between);
    const std::vector<unsigned char> free = clear(between);
    const auto hit = std::find(free.begin(), free.end(), 0);
    if (hit == free.end()) return true;
    const auto begin = between.begin() + (hit - free.begin()) * dof();
    if (where != nullptr) where->assign(begin, begin + dof());
    return false;
}

double Task::distance(const double* a, const double* b) const {
    double sum = 0.0;
    for (int j = 0; j < dof(); ++j) sum += unit()[j] * std::fabs(b[j] - a[j]);
    return sum;
}

double Task::length(const Rows& rows) const {
    double sum = 0.0;
    for (std::size_t k = width(); k < rows.size(); k += width()) sum += distance(&rows[k - width()], &rows[k]);
    return sum;
}

cpu::PathRow Task::row(int waypoint, const double* q) const {
    cpu::PathRow row{};
    row.T_target = at(waypoint).T_target;
    for (int j = 0; j < dof(); ++j) {
        row.q[j] = q[j];
        row.lower[j] = common.constraints.lower[j];
        row.upper[j] = common.constraints.upper[j];
    }
    return row;
}

void Task::refine(std::vector<cpu::PathRow>& rows, int max_iterations, int posture_steps) const {
    const Options& options = common.options;
    const cpu::PathRefinement how{common.chain,
                                  common.constraints.slack,
                                  options.locked,
                                  kInside * options.tol_pos_m,
                                  kInside * options.tol_rot_rad,
                                  max_iterations,
                                  posture_steps};
    kernels.refine_rows(how, rows.data(), static_cast<int>(rows.size()));
}

}  // namespace mfik::path
