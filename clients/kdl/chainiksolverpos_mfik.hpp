// mfik behind KDL's interface: hand it to whatever takes a KDL::ChainIkSolverPos.
#pragma once

#include <cmath>
#include <cstddef>
#include <kdl/chain.hpp>
#include <kdl/chainfksolverpos_recursive.hpp>
#include <kdl/chainiksolver.hpp>
#include <mfik/solver.hpp>
#include <string>

/// Position IK of a KDL chain by mfik; one object a thread. The answer is within the bundle's joint limits.
class ChainIkSolverPos_mfik : public KDL::ChainIkSolverPos {
  public:
    /// @param[in] chain  The bundle's robot from its base link to its tip link; must outlive the solver.
    /// @param[in] bundle  Path, see mfik::Solver::load.
    /// @param[in] eps  Largest accepted error [m] and [rad].
    /// @throw mfik::Error  The bundle cannot be used, or is not for this chain.
    ChainIkSolverPos_mfik(const KDL::Chain& chain, const std::string& bundle, double eps = 1e-6)
        : chain_(chain), solver_(mfik::Solver::load(bundle)), workspace_(solver_.make_workspace()) {
        options_.tol_pos_m = options_.tol_rot_rad = eps;
        ChainIkSolverPos_mfik::updateInternalDataStructures();
        if (!fits_)
            throw mfik::Error(bundle + ": is for " + solver_.robot_name() + ", " + solver_.base_link() + " to " +
                              solver_.tip_link() + ", and the chain moves otherwise; give the bundle of this chain");
    }

    /// Find joints that bring the chain's tip to p_in; real-time safe, see mfik::Solver::solve.
    /// @param[in] q_init  Joints to start from [rad or m].
    /// @param[in] p_in  Tip in the base frame.
    /// @param[out] q_out  Joints [rad or m], already of the chain's size.
    /// @return  E_NOERROR, E_NOT_UP_TO_DATE (the chain was changed), E_SIZE_MISMATCH, E_UNDEFINED (not finite),
    ///     E_MAX_ITERATIONS_EXCEEDED or E_NO_CONVERGE.
    int CartToJnt(const KDL::JntArray& q_init, const KDL::Frame& p_in, KDL::JntArray& q_out) override {
        const auto dof = static_cast<std::size_t>(solver_.dof());
        if (!fits_) return error = E_NOT_UP_TO_DATE;
        if (q_init.rows() != dof || q_out.rows() != dof) return error = E_SIZE_MISMATCH;
        mfik::Pose T_base_tip{p_in.p.x(), p_in.p.y(), p_in.p.z()};
        p_in.M.GetQuaternion(T_base_tip[4], T_base_tip[5], T_base_tip[6], T_base_tip[3]);
        switch (solver_.solve(T_base_tip, {q_init.data.data(), dof}, {q_out.data.data(), dof}, workspace_, options_)
                    .status) {
            case mfik::Status::kSolved:
                return error = E_NOERROR;
            case mfik::Status::kInvalidInput:
                return error = E_UNDEFINED;
            case mfik::Status::kNotConverged:
                return error = E_MAX_ITERATIONS_EXCEEDED;
            default:
                return error = E_NO_CONVERGE;
        }
    }

    /// Compare the chain with the bundle's robot again, after a change of the chain.
    void updateInternalDataStructures() override {
        const auto dof = static_cast<unsigned>(solver_.dof());
        fits_ = chain_.getNrOfJoints() == dof;
        // Two rigid chains of the same joints agree everywhere if they do at zero and with each joint moved alone.
        KDL::ChainFkSolverPos_recursive fk(chain_);
        for (unsigned moved = 0; fits_ && moved <= dof; ++moved) {
            KDL::JntArray q(dof);
            if (moved < dof) q(moved) = 1;
            KDL::Frame tip;
            fk.JntToCart(q, tip);
            const mfik::Pose p = solver_.fk(mfik::Span<const double>(q.data.data(), dof));
            const KDL::Frame ours(KDL::Rotation::Quaternion(p[4], p[5], p[6], p[3]), KDL::Vector(p[0], p[1], p[2]));
            const KDL::Twist difference = KDL::diff(tip, ours);
            fits_ = difference.vel.Norm() < kSame && difference.rot.Norm() < kSame;
        }
    }

  private:
    static constexpr double kSame = 1e-6;  // of two descriptions of a robot [m] and [rad]

    const KDL::Chain& chain_;
    mfik::Solver solver_;
    mfik::Workspace workspace_;
    mfik::Options options_;
    bool fits_ = false;
};
