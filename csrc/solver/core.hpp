// What a solver and a workspace consist of, for the sources of the solver.
#pragma once

#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>

#include "kernels/cpu/collision_kernels.hpp"
#include "kernels/cpu/solver_kernels.hpp"
#include "kernels/search.hpp"
#include "mfik/solver.hpp"
#include "solver/aligned_buffer.hpp"
#include "solver/bundle.hpp"
#include "solver/seeds.hpp"
#include "solver/units.hpp"

namespace mfik {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// A joint this close to a limit counts as being at it [rad] or [units of length].
constexpr double kAtLimit = 1e-9;

using Clock = std::chrono::steady_clock;

inline double microseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

/// The answer to input that is refused.
inline Result invalid(const char* reason) {
    return {Status::kInvalidInput, kNaN, kNaN, 0, 0, 0, 0.0, reason, nullptr, nullptr};
}

struct Problem;

/// A loaded solver. Immutable.
struct Core {
    Core(std::unique_ptr<const Engine> evaluator, Bundle read)
        : engine(std::move(evaluator)),
          bundle(std::move(read)),
          units(own_units(bundle.robot.chain)),
          own_chain(in_units(bundle.robot.chain, units)),
          table(make_seed_table(own_chain)) {
        bundle.tensors.clear();
    }

    std::unique_ptr<const Engine> engine;  // null: the bundle has no network
    Bundle bundle;                         // without the tensors, which the engine has packed
    Units units;                           // of all that is computed
    Chain own_chain;                       // in them
    SeedTable table;                       // likewise
    const cpu::SolverKernels& kernels = cpu::kernels<cpu::SolverKernels>();
    const cpu::CollisionKernels& collision = cpu::kernels<cpu::CollisionKernels>();

    [[nodiscard]] const Chain& chain() const { return own_chain; }
    [[nodiscard]] const Chain& chain_in_metres() const { return bundle.robot.chain; }
    [[nodiscard]] std::size_t scratch_size(int rows) const {
        return engine == nullptr ? 0 : engine->scratch_size(rows);
    }
};

/// Memory of one call.
struct Scratch {
    explicit Scratch(std::size_t network_size) : size(network_size), network(network_size) {}

    std::size_t size;       // of `network`, by which a workspace of another solver is known
    AlignedBuffer network;  // of its evaluation of one row
    Chain tool_chain;       // of the last call with a tool
    SolutionPool pool{};
};

struct Solver::Impl : Core {
    using Core::Core;
};

struct Workspace::Impl : Scratch {
    using Scratch::Scratch;
};

/// Solve one pose, given as callers give it. Real-time safe.
/// @param[in] network_seed  Answer of the network, [dof], in own units, where it is at hand already; else null.
[[nodiscard]] Result solve_pose(const Core& core, const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out,
                                Scratch* scratch, const Options& options, const double* network_seed);

/// Conclude a search: refine further towards the null-space posture or, where it failed, to the end of the best
/// attempt; turn the joints; and judge.
/// @param[in,out] q  Joints that the search found, then those that are handed out.
[[nodiscard]] Result conclude(const Core& core, const Problem& problem, SearchResult found, double* q);

/// Turn each joint of q by full turns to the one within the limits that is nearest to q_ref.
void unwind(const Chain& chain, const double* q_ref, double* q);

}  // namespace mfik
