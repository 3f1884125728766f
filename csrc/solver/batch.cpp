// Solver::solve_batch.
#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "solver/collision/obstacles.hpp"
#include "solver/core.hpp"
#include "solver/problem.hpp"
#include "solver/verdict.hpp"

namespace mfik {
namespace {

/// Rows that a thread takes at a time. With throughput more of them, so that lanes seldom idle behind the last ones.
constexpr std::size_t kChunk = kNetworkRows, kThroughputChunk = 4 * kChunk;

/// A batch of rows and where their results go.
struct Batch {
    Span<const double> poses, q_ref;
    Span<double> q_out;
    Span<Result> results;
    Span<double> time_us;
    const Options& options;      // as given
    const Options& own_options;  // in own units
    std::size_t dof;
    bool together;    // the network answers kNetworkRows rows together
    bool throughput;  // a row in each lane

    [[nodiscard]] Pose pose(std::size_t i) const {
        Pose pose{};
        std::copy_n(poses.data() + i * kPoseSize, kPoseSize, pose.begin());
        return pose;
    }
};

/// Memory of one thread.
struct ThreadMemory {
    ThreadMemory(const Core& core, const Batch& batch)
        : scratch(core.scratch_size(1)),
          network(batch.together ? core.scratch_size(kNetworkRows) : 0),
          seeds((batch.throughput ? kThroughputChunk : kChunk) * kMaxJoints),
          rows(batch.throughput ? kThroughputChunk : 0) {}

    Scratch scratch;
    AlignedBuffer network;      // of the evaluation of kNetworkRows rows together
    std::vector<double> seeds;  // answers of the network, [rows, dof]
    std::vector<SearchRow> rows;
    std::array<std::size_t, kThroughputChunk> index{};  // of each SearchRow
};

/// Answers of the network to rows [begin, end), together.
void seed_rows(const Core& core, const Batch& batch, std::size_t begin, std::size_t end, ThreadMemory& memory) {
    double tip_poses[kNetworkRows * kPoseSize], q_ref[kNetworkRows * kMaxJoints];
    Transform T_tip_tool;
    if (!read_tool(batch.own_options, T_tip_tool)) return;  // every row will be refused
    for (std::size_t first = begin; first < end; first += kNetworkRows) {
        const std::size_t rows = std::min<std::size_t>(kNetworkRows, end - first);
        for (std::size_t i = 0; i < rows; ++i) {
            Transform T_target, T_tip = T_tip_tool;  // a row that is no pose will be refused
            (void)read_target(core, batch.poses.data() + (first + i) * kPoseSize, T_tip_tool, T_target, T_tip);
            to_pose(T_tip, tip_poses + i * kPoseSize);
            to_units(core.units, batch.q_ref.subspan((first + i) * batch.dof, batch.dof), q_ref + i * batch.dof);
        }
        network_seeds(core, static_cast<int>(rows), q_ref, tip_poses, memory.network.data(),
                      memory.seeds.data() + (first - begin) * batch.dof);
    }
}

/// Row i as solve() does it.
void solve_row(const Core& core, const Batch& batch, std::size_t i, const double* network_seed, ThreadMemory& memory) {
    batch.results[i] =
        solve_pose(core, batch.pose(i), batch.q_ref.subspan(i * batch.dof, batch.dof),
                   batch.q_out.subspan(i * batch.dof, batch.dof), &memory.scratch, batch.options, network_seed);
}

/// Make row i ready for the lanes; false where solve() has to refuse it, or to say that it is out of reach.
bool read_row(const Core& core, const Batch& batch, std::size_t i, const Transform& T_tip_tool,
              const double* network_seed, SearchRow& row) {
    const Chain& chain = core.chain();
    const Options& options = batch.own_options;
    if (!is_finite(batch.q_ref.subspan(i * batch.dof, batch.dof))) return false;
    double q_ref[kMaxJoints];
    to_units(core.units, batch.q_ref.subspan(i * batch.dof, batch.dof), q_ref);
    if (!read_target(core, batch.poses.data() + i * kPoseSize, T_tip_tool, row.T_target, row.T_tip)) return false;
    if (is_too_far(core, options, row.T_tip)) return false;
    for (std::size_t j = 0; j < batch.dof; ++j) {
        const bool free = chain.kind[j] == JointKind::kContinuous;
        row.q_ref[j] = free ? q_ref[j] : std::clamp(q_ref[j], chain.lower[j], chain.upper[j]);
        if (options.locked >> j & 1u && row.q_ref[j] != q_ref[j]) return false;
    }
    row.feature = seed_feature(chain, core.table.half_size, row.T_tip);
    row.has_first_seed = options.seed != Seed::kReference;
    if (options.seed == Seed::kNetwork) {
        std::copy_n(network_seed, batch.dof, row.first_seed);
    } else if (row.has_first_seed) {
        analytic_seed(core, row.T_tip, row.q_ref, options.seed, row.first_seed);
    }
    return true;
}

/// Hand out a row that went through the lanes.
void hand_out(const Core& core, const Batch& batch, std::size_t i, const SearchRow& row, ThreadMemory& memory) {
    const Span<const double> given = batch.q_ref.subspan(i * batch.dof, batch.dof);
    double q[kMaxJoints], q_ref[kMaxJoints];
    std::copy_n(row.q, batch.dof, q);
    Result& result = batch.results[i];
    if (row.solved) {
        to_units(core.units, given, q_ref);
        unwind(core.chain(), q_ref, q);
        const double pos_error_m = row.pos_error_m * core.units.length;
        result = {Status::kSolved, pos_error_m, row.rot_error_rad, row.iterations, row.attempts, 1, 0.0, kSolvedReason,
                  nullptr,         nullptr};
    } else {
        Problem problem;
        read_problem(core, batch.pose(i), given, batch.options, &memory.scratch, problem);
        SearchResult found{};
        found.iterations = row.iterations;
        found.attempts = row.attempts;
        result = conclude(core, problem, found, q);
    }
    from_units(core.units, q, batch.q_out.subspan(i * batch.dof, batch.dof));
}

/// Rows [begin, end), a row in each lane.
/// @param[in] start  When the work on them began.
void solve_in_lanes(const Core& core, const Batch& batch, std::size_t begin, std::size_t end, Clock::time_point start,
                    ThreadMemory& memory) {
    const Options& options = batch.own_options;
    Transform T_tip_tool;
    const bool refused = refusal(batch.options, batch.dof) != nullptr || !read_tool(options, T_tip_tool);
    std::size_t count = 0;
    for (std::size_t i = begin; i < end; ++i) {
        const double* network_seed = batch.together ? memory.seeds.data() + (i - begin) * batch.dof : nullptr;
        if (!refused && read_row(core, batch, i, T_tip_tool, network_seed, memory.rows[count])) {
            memory.index[count++] = i;
        } else {
            solve_row(core, batch, i, network_seed, memory);
        }
    }
    if (count > 0) {
        const bool has_slack = options.slack != Options{}.slack;
        const BatchTask task{&core.chain(),       &chain_to_tool(core, options, T_tip_tool, memory.scratch),
                             &core.table,         has_slack ? options.slack.data() : nullptr,
                             options.locked,      options.tol_pos_m,
                             options.tol_rot_rad, options.max_iterations,
                             options.max_attempts};
        core.kernels.search_rows(task, memory.rows.data(), static_cast<int>(count));
    }
    for (std::size_t k = 0; k < count; ++k) hand_out(core, batch, memory.index[k], memory.rows[k], memory);
    const double share = microseconds_since(start) / static_cast<double>(end - begin);
    for (std::size_t i = begin; i < end; ++i)
        if (batch.results[i].status != Status::kInvalidInput) batch.results[i].time_us = share;
}

/// Rows [begin, end).
void solve_chunk(const Core& core, const Batch& batch, std::size_t begin, std::size_t end, ThreadMemory& memory) {
    const Clock::time_point start = Clock::now();
    if (batch.together) seed_rows(core, batch, begin, end, memory);
    if (batch.throughput) {
        solve_in_lanes(core, batch, begin, end, start, memory);
    } else {
        for (std::size_t i = begin; i < end; ++i) {
            solve_row(core, batch, i, batch.together ? memory.seeds.data() + (i - begin) * batch.dof : nullptr, memory);
        }
    }
    for (std::size_t i = begin; i < end && !batch.time_us.empty(); ++i) batch.time_us[i] = batch.results[i].time_us;
}

}  // namespace

Status Solver::solve_batch(Span<const double> poses, Span<const double> q_ref, Span<double> q_out, Span<Result> results,
                           Span<double> time_us, const Options& options, int threads) const {
    const std::size_t rows = results.size(), dof = static_cast<std::size_t>(this->dof());
    if (impl_ == nullptr || threads < 1 || poses.size() != rows * kPoseSize || q_ref.size() != rows * dof ||
        q_out.size() != rows * dof || !(time_us.empty() || time_us.size() == rows)) {
        return Status::kInvalidInput;
    }
    const Core& core = *impl_;
    const bool has_network = core.engine != nullptr, seeds = options.seed == Seed::kNetwork && has_network;
    const bool throughput = options.throughput && !options.nearest && options.q_preferred.empty() &&
                            !asks_for_collision(options) && options.max_iterations > 0 &&
                            (options.seed != Seed::kNetwork || has_network);
    const bool together = seeds && (throughput || time_us.empty());
    double q_preferred[kMaxJoints];
    const Options own_options = options_in_units(core, options, q_preferred);
    const Batch batch{poses, q_ref, q_out, results, time_us, options, own_options, dof, together, throughput};
    const std::size_t chunk = throughput ? kThroughputChunk : kChunk;
    std::atomic<std::size_t> next{0};
    const auto work = [&](ThreadMemory& memory) noexcept {
        for (std::size_t begin = 0; (begin = next.fetch_add(chunk, std::memory_order_relaxed)) < rows;)
            solve_chunk(core, batch, begin, std::min(begin + chunk, rows), memory);
    };
    const std::size_t workers =
        std::min(static_cast<std::size_t>(threads), std::max<std::size_t>(1, (rows + chunk - 1) / chunk));
    std::vector<std::unique_ptr<ThreadMemory>> memories;
    memories.reserve(workers);
    for (std::size_t i = 0; i < workers; ++i) memories.push_back(std::make_unique<ThreadMemory>(core, batch));
    std::vector<std::thread> helpers;
    helpers.reserve(workers - 1);
    try {
        for (std::size_t i = 1; i < workers; ++i) helpers.emplace_back(work, std::ref(*memories[i]));
    } catch (const std::system_error&) {
        // Fewer threads are to be had: those that run take all rows.
    }
    work(*memories[0]);
    for (std::thread& helper : helpers) helper.join();
    const auto failed = std::find_if(results.begin(), results.end(),
                                     [](const Result& result) { return result.status != Status::kSolved; });
    return failed == results.end() ? Status::kSolved : failed->status;
}

}  // namespace mfik
