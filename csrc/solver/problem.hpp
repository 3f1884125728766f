// Input of a call, checked, as the kernels take it.
#pragma once

#include "kernels/contacts.hpp"
#include "mfik/solver.hpp"

namespace mfik {

struct Core;
struct Scratch;

constexpr int kPoseSize = 7;
/// Distance from each limit, in shares of a joint's range, to which tracking leads joints in the null space.
constexpr double kFromLimits = 0.3;
/// Largest such motion, in shares of how far the target has moved [robot's units and rad]: where it rests, so do the
/// joints, and a path is led as fast as it goes, whatever the time of a sample. (Shares of how far the joints move were
/// fed back by the posture, and swung beside singularities.)
constexpr double kLeadingShare = 0.35;

/// Everything in the robot's own units; it refers to itself, and stays where it is.
struct Problem {
    Problem() = default;
    Problem(const Problem&) = delete;
    Problem& operator=(const Problem&) = delete;

    const char* error = nullptr;  // why the input is refused, else null
    Options options{};
    double q_ref[kMaxJoints]{}, q_preferred[kMaxJoints]{};
    double weight[kMaxJoints]{};   // of the joints in the distance from q_ref, the largest [rad] or [m] counts 1
    const Chain* chain = nullptr;  // to the tool
    Constraints constraints{};     // without the null-space posture: a search omits it, as it slows convergence
    Transform T_target{};          // of the tool
    Transform T_tip{};             // of the tip, which seeds and network know
    double tip_pose[kPoseSize]{};
    bool too_far = false;      // beyond the reach of the arm
    bool keeps_clear = false;  // of the obstacles
    Obstacles obstacles{};
    bool tip_collides = false;  // at the target, whatever the joints
};

/// Check what every call takes.
/// @param[in,out] scratch  Receives the chain to the tool; null is refused.
void read_problem(const Core& core, const Pose& T_base_tool, Span<const double> q_ref, const Options& given,
                  Scratch* scratch, Problem& problem);

/// Options in the robot's own units; where there is a null-space posture, it is put into `q_preferred` [dof].
[[nodiscard]] Options options_in_units(const Core& core, const Options& options, double* q_preferred);

/// Why options, as callers give them, are refused, the tool's rotation aside; else null.
[[nodiscard]] const char* refusal(const Options& options, std::size_t dof);

/// Chain to the tool of the options: the robot's own, or `scratch.tool_chain`.
[[nodiscard]] const Chain& chain_to_tool(const Core& core, const Options& options, const Transform& T_tip_tool,
                                         Scratch& scratch);

/// Whether a target of the tip is beyond the reach of the arm.
[[nodiscard]] bool is_too_far(const Core& core, const Options& options, const Transform& T_tip);

/// The constraints with the null-space posture of the options.
[[nodiscard]] Constraints with_posture(const Constraints& constraints, const Options& options);

/// The constraints of a path's next sample from q [dof]: with the null-space posture of the options, or, where they
/// name none and joints can move without the tool, with the one next to q that keeps kFromLimits, if q does not.
/// @param[out] posture  Memory for it, [dof].
[[nodiscard]] Constraints with_path_posture(const Constraints& constraints, const Chain& chain, const Options& options,
                                            const double* q, double* posture);

/// Target of the tool, and of the tip that carries it, in own units; false where the pose, in metres, is not finite or
/// its quaternion is no unit.
[[nodiscard]] bool read_target(const Core& core, const double* pose, const Transform& T_tip_tool, Transform& T_target,
                               Transform& T_tip);

/// Transform of a pose [7]; false where it is not finite or its quaternion is no unit (kQuatNormTolerance).
[[nodiscard]] bool read_pose(const double* pose, Transform& T);

/// Transform of the options' tool; false where it is no pose.
[[nodiscard]] bool read_tool(const Options& options, Transform& T_tip_tool);

[[nodiscard]] bool is_finite(Span<const double> values);

}  // namespace mfik
