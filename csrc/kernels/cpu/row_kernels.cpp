// Compiled once for each instruction set (kernels/cpu/dispatch.hpp).
#include "kernels/cpu/row_kernels.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/training_rows.hpp"

namespace mfik::cpu {
namespace {

// Kinematics and refinement, a row in each lane.

/// Hand out row i: joints as T, and whether these, rounded, still are within tolerance.
template <class T>
MFIK_INLINE void finish_row(const Chain& chain, const RefineArgs<T>& args, std::int64_t i, double* q,
                            const Transform& T_target, bool converged, int iterations) {
    bool exact = true;
    for (int j = 0; j < chain.dof; ++j) {
        if (chain.kind[j] == JointKind::kContinuous) q[j] = wrap_angle(q[j]);
        const T rounded = round_inside<T>(q[j], chain.lower[j], chain.upper[j]);
        exact = exact && rounded == q[j];
        args.q_out[i * chain.dof + j] = rounded;
        q[j] = rounded;
    }
    if (converged && !exact) {
        double error[6];
        pose_error(T_target, forward(chain, q), error);
        converged = norm3(error) <= args.tol_pos_m && norm3(error + 3) <= args.tol_rot_rad;
    }
    args.converged[i] = converged;
    args.iterations[i] = iterations;
}

/// Joints of row i, within the limits, and its target. A row that is none is handed out as NaN: false.
template <class T>
MFIK_INLINE bool read_row(const Chain& chain, const Constraints& constraints, const RefineArgs<T>& args, std::int64_t i,
                          double* q, Transform& T_target) {
    const int n = chain.dof;
    double pose[7];
    bool valid = true;
    for (int j = 0; j < n; ++j) {
        q[j] = args.q[i * n + j];
        valid = valid && std::isfinite(q[j]);
        q[j] = q[j] < constraints.lower[j]   ? constraints.lower[j]
               : q[j] > constraints.upper[j] ? constraints.upper[j]
                                             : q[j];
    }
    for (int k = 0; k < 7; ++k) pose[k] = args.target_pose[i * 7 + k];
    if (!valid || !normalize_pose(pose, pose)) {
        for (int j = 0; j < n; ++j) args.q_out[i * n + j] = std::numeric_limits<T>::quiet_NaN();
        args.converged[i] = false;
        args.iterations[i] = 0;
        return false;
    }
    T_target = from_pose(pose);
    return true;
}

/// One row by itself: half the time of a register with one lane in use.
template <class T>
MFIK_INLINE void refine_row(const Chain& chain, const RefineArgs<T>& args, std::int64_t i) {
    WithoutSlack constraints;
    set_limits(chain, constraints);
    double q[kMaxJoints];
    Transform T_target;
    if (!read_row(chain, constraints, args, i, q, T_target)) return;
    const RefineOutcome outcome =
        refine(chain, constraints, T_target, q, args.max_iterations, args.tol_pos_m, args.tol_rot_rad);
    finish_row(chain, args, i, q, T_target, outcome.converged, outcome.iterations);
}

template <class T>
MFIK_INLINE void refine_rows(const Chain& chain, const RefineArgs<T>& args, std::int64_t begin, std::int64_t end) {
    const int n = chain.dof;
    WithoutSlack constraints;
    set_limits(chain, constraints);
    const double pos2 = args.tol_pos_m * args.tol_pos_m, rot2 = args.tol_rot_rad * args.tol_rot_rad;
    Iterate<Lanes> at;
    TransformOf<Lanes> T_target;
    Transform targets[kLanes];
    std::int64_t row[kLanes], next = begin;  // row -1: the lane idles
    int age[kLanes] = {};
    double q[kMaxJoints];
    const Transform identity{{1, 0, 0, 0, 1, 0, 0, 0, 1}, {0, 0, 0}};
    for (int lane = 0; lane < kLanes; ++lane) row[lane] = -1;
    for (bool first = true;; first = false) {
        // Lanes without a row take the next one that is valid.
        int busy = 0;
        for (int lane = 0; lane < kLanes; ++lane) {
            while (row[lane] < 0 && next < end) {
                const std::int64_t i = next++;
                if (!read_row(chain, constraints, args, i, q, targets[lane])) continue;
                row[lane] = i;
                age[lane] = 0;
                set_lane(targets[lane], lane, T_target);
                for (int j = 0; j < n; ++j) at.q[j][lane] = q[j];
            }
            busy += row[lane] >= 0;
            if (first && row[lane] < 0) {
                set_lane(identity, lane, T_target);
                for (int j = 0; j < n; ++j) at.q[j][lane] = 0.0;
            }
        }
        if (busy == 0) return;
        linearize(chain, constraints, T_target, at);
        for (int lane = 0; lane < kLanes; ++lane) {
            if (row[lane] < 0) continue;
            const bool converged = at.pos2[lane] <= pos2 && at.rot2[lane] <= rot2;
            if (!converged && age[lane] < args.max_iterations) continue;
            for (int j = 0; j < n; ++j) q[j] = at.q[j][lane];
            finish_row(chain, args, row[lane], q, targets[lane], converged, age[lane]);
            row[lane] = -1;
            --busy;
        }
        if (busy == 0 && next == end) return;
        Lanes dq[kMaxJoints];
        dls_step(chain, constraints, T_target, at, dq);
        move(constraints, n, dq, at.q);
        for (int lane = 0; lane < kLanes; ++lane) ++age[lane];
    }
}

/// Rows i, i + 1, ... of an array [.., n]; beyond the last row that one again.
template <class T>
MFIK_INLINE void load_rows(const T* from, int n, std::int64_t i, std::int64_t end, Lanes* q) {
    for (int lane = 0; lane < kLanes; ++lane) {
        const std::int64_t row = i + lane < end ? i + lane : end - 1;
        for (int j = 0; j < n; ++j) q[j][lane] = from[row * n + j];
    }
}

template <class T>
MFIK_INLINE void fk_rows(const Chain& chain, const FkArgs<T>& args, std::int64_t begin, std::int64_t end) {
    Lanes q[kMaxJoints], pose[7];
    for (std::int64_t i = begin; i < end; i += kLanes) {
        load_rows(args.q, chain.dof, i, end, q);
        to_pose(forward(chain, q), pose);
        for (int lane = 0; lane < kLanes && i + lane < end; ++lane)
            for (int k = 0; k < 7; ++k) args.pose[(i + lane) * 7 + k] = static_cast<T>(pose[k][lane]);
    }
}

template <class T>
MFIK_INLINE void jacobian_rows(const Chain& chain, const JacobianArgs<T>& args, std::int64_t begin, std::int64_t end) {
    const int n = chain.dof;
    Lanes q[kMaxJoints], axis[kMaxJoints][3], point[kMaxJoints][3], column[6];
    for (std::int64_t i = begin; i < end; i += kLanes) {
        load_rows(args.q, n, i, end, q);
        const TransformOf<Lanes> tip = forward(chain, q, axis, point);
        for (int j = 0; j < n; ++j) {
            joint_column(chain, j, axis, point, tip.p, column);
            for (int lane = 0; lane < kLanes && i + lane < end; ++lane)
                for (int a = 0; a < 6; ++a)
                    args.jacobian[((i + lane) * 6 + a) * n + j] = static_cast<T>(column[a][lane]);
        }
    }
}

template <class T>
MFIK_INLINE void fk_error_rows(const Chain& chain, const FkErrorArgs<T>& args, std::int64_t begin, std::int64_t end) {
    const int n = chain.dof;
    Lanes q[kMaxJoints], pose[7] = {}, gradient[kMaxJoints];
    for (std::int64_t i = begin; i < end; i += kLanes) {
        load_rows(args.q, n, i, end, q);
        load_rows(args.target_pose, 7, i, end, pose);
        const Lanes error = fk_error(chain, q, pose, gradient);
        for (int lane = 0; lane < kLanes && i + lane < end; ++lane) {
            args.error[i + lane] = static_cast<T>(error[lane]);
            for (int j = 0; j < n; ++j) args.gradient[(i + lane) * n + j] = static_cast<T>(gradient[j][lane]);
        }
    }
}

template <class T>
MFIK_INLINE void geometry_rows(const Geometry& geometry, const GeometryArgs<T>& args, std::int64_t begin,
                               std::int64_t end) {
    Lanes q[kMaxJoints], pose[7] = {}, features[kMaxFeatures];
    for (std::int64_t i = begin; i < end; i += kLanes) {
        load_rows(args.q, geometry.chain.dof, i, end, q);
        load_rows(args.target_pose, 7, i, end, pose);
        const Look<Lanes> look(geometry, q, pose);
        look.features(q, features);
        for (int lane = 0; lane < kLanes && i + lane < end; ++lane) {
            for (int f = 0; f < geometry.size; ++f)
                args.features[(i + lane) * geometry.size + f] = static_cast<T>(features[f][lane]);
            args.error2[i + lane] = static_cast<T>(look.step.error2[lane]);
        }
    }
}

template <class T>
MFIK_INLINE void geometry_backward_rows(const Geometry& geometry, const GeometryBackwardArgs<T>& args,
                                        std::int64_t begin, std::int64_t end) {
    const int n = geometry.chain.dof;
    Lanes q[kMaxJoints], pose[7] = {}, by_features[kMaxFeatures], by_error2 = {}, by_q[kMaxJoints];
    for (std::int64_t i = begin; i < end; i += kLanes) {
        load_rows(args.q, n, i, end, q);
        load_rows(args.target_pose, 7, i, end, pose);
        load_rows(args.by_features, geometry.size, i, end, by_features);
        load_rows(args.by_error2, 1, i, end, &by_error2);
        Look<Lanes>(geometry, q, pose).backward(by_features, by_error2, by_q);
        for (int lane = 0; lane < kLanes && i + lane < end; ++lane)
            for (int j = 0; j < n; ++j) args.by_q[(i + lane) * n + j] = static_cast<T>(by_q[j][lane]);
    }
}

/// Rows for `search_rows`, one after the other.
struct RowRange {
    std::int64_t next, end, past;

    MFIK_INLINE std::int64_t operator()() { return next < end ? next++ : past; }
};

template <int kDof, class T>
MFIK_INLINE void solve_rows(const Chain& chain, const SolveArgs<T>& args, std::int64_t begin, std::int64_t end) {
    const SearchRobot<kDof> robot{fixed_chain<Single, kDof>(chain), single_limits(chain)};
    RowRange rows{begin, end, args.n};
    search_rows(robot, args, rows);
}

// The table: numbers of joints that loops are unrolled for, then any other.

template <class T>
void adaptive_weight(const AdaptiveWeightArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    if (args.dof == 7) return weight_rows<7>(args, begin, end);
    if (args.dof == 6) return weight_rows<6>(args, begin, end);
    weight_rows<0>(args, begin, end);
}

template <class T>
std::int64_t sample_batch(const SampleBatchArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    if (args.dof == 7) return sample_rows<7>(args, begin, end);
    if (args.dof == 6) return sample_rows<6>(args, begin, end);
    return sample_rows<0>(args, begin, end);
}

template <class T>
void draw_batch(const Chain& chain, const DrawBatchArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    for (std::int64_t i = begin; i < end; ++i) draw_row(chain, args, i);
}

template <class T>
void weighted_residual_loss(const WeightedResidualArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    if (args.dof == 7) return loss_rows<7>(args, begin, end);
    if (args.dof == 6) return loss_rows<6>(args, begin, end);
    loss_rows<0>(args, begin, end);
}

template <class T>
void weighted_residual_loss_backward(const WeightedResidualBackwardArgs<T>& args, std::int64_t begin,
                                     std::int64_t end) noexcept {
    if (args.dof == 7) return loss_backward_rows<7>(args, begin, end);
    if (args.dof == 6) return loss_backward_rows<6>(args, begin, end);
    loss_backward_rows<0>(args, begin, end);
}

template <class T>
void fk(const Chain& chain, const FkArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    fk_rows(chain, args, begin, end);
}

template <class T>
void jacobian(const Chain& chain, const JacobianArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    jacobian_rows(chain, args, begin, end);
}

template <class T>
void fk_error(const Chain& chain, const FkErrorArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    fk_error_rows(chain, args, begin, end);
}

template <class T>
void refine(const Chain& chain, const RefineArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    if (end - begin == 1) return refine_row(chain, args, begin);
    refine_rows(chain, args, begin, end);
}

template <class T>
void solve(const Chain& chain, const SolveArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    const int dof = fixed_dof(chain);
    if (dof == 7) {
        solve_rows<7>(chain, args, begin, end);
    } else if (dof == 6) {
        solve_rows<6>(chain, args, begin, end);
    } else {
        solve_rows<0>(chain, args, begin, end);
    }
    for (std::int64_t i = begin; i < end; ++i) finish_row(chain, args, i);
}

template <class T>
void geometry(const Geometry& geometry, const GeometryArgs<T>& args, std::int64_t begin, std::int64_t end) noexcept {
    geometry_rows(geometry, args, begin, end);
}

template <class T>
void geometry_backward(const Geometry& geometry, const GeometryBackwardArgs<T>& args, std::int64_t begin,
                       std::int64_t end) noexcept {
    geometry_backward_rows(geometry, args, begin, end);
}

template <class T>
constexpr RowKernelsOf<T> kRows{adaptive_weight<T>,
                                sample_batch<T>,
                                draw_batch<T>,
                                weighted_residual_loss<T>,
                                weighted_residual_loss_backward<T>,
                                fk<T>,
                                jacobian<T>,
                                fk_error<T>,
                                refine<T>,
                                solve<T>,
                                geometry<T>,
                                geometry_backward<T>};

}  // namespace

template <>
const RowKernels& compiled_kernels<RowKernels, InstructionSet::MFIK_ISA>() noexcept {
    static constexpr RowKernels kTable{kIsa, kRows<float>, kRows<double>};
    return kTable;
}

}  // namespace mfik::cpu
