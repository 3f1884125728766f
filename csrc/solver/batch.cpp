// Solver::solve_batch.
#include <algorithm>
#include <atomic>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "solver/core.hpp"
#include "solver/problem.hpp"

namespace mfik {
namespace {

/// Memory of one thread.
struct ThreadMemory {
    ThreadMemory(const Core& core, bool together)
        : scratch(core.scratch_size(1)), network(together ? core.scratch_size(kNetworkRows) : 0) {}

    Scratch scratch;
    AlignedBuffer network;  // of the evaluation of kNetworkRows rows together
    double seeds[kNetworkRows * kMaxJoints];
};

/// Answers of the network to up to kNetworkRows rows, together.
void seed_rows(const Core& core, int rows, const double* poses, const double* q_ref, const Options& options,
               ThreadMemory& memory) {
    double tip_poses[kNetworkRows * kPoseSize];
    Transform T_tip_tool;
    if (!read_pose(options.T_tip_tool.data(), T_tip_tool)) return;  // every row will be refused
    for (int i = 0; i < rows; ++i) {
        Transform T_target, T_tip = T_tip_tool;  // a row that is no pose will be refused
        (void)read_target(poses + i * kPoseSize, T_tip_tool, T_target, T_tip);
        to_pose(T_tip, tip_poses + i * kPoseSize);
    }
    network_seeds(core, rows, q_ref, tip_poses, memory.network.data(), memory.seeds);
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
    constexpr std::size_t kChunk = kNetworkRows;  // rows that a thread takes at a time
    const bool together = options.seed == Seed::kNetwork && core.engine != nullptr && time_us.empty();
    std::atomic<std::size_t> next{0};
    const auto work = [&](ThreadMemory& memory) noexcept {
        for (std::size_t begin; (begin = next.fetch_add(kChunk, std::memory_order_relaxed)) < rows;) {
            const std::size_t size = std::min(kChunk, rows - begin);
            if (together) {
                seed_rows(core, static_cast<int>(size), poses.data() + begin * kPoseSize, q_ref.data() + begin * dof,
                          options, memory);
            }
            for (std::size_t i = begin; i < begin + size; ++i) {
                Pose pose;
                std::copy_n(poses.data() + i * kPoseSize, kPoseSize, pose.begin());
                results[i] =
                    solve_pose(core, pose, q_ref.subspan(i * dof, dof), q_out.subspan(i * dof, dof), &memory.scratch,
                               options, together ? memory.seeds + (i - begin) * dof : nullptr);
                if (!time_us.empty()) time_us[i] = results[i].time_us;
            }
        }
    };
    const std::size_t workers =
        std::min(static_cast<std::size_t>(threads), std::max<std::size_t>(1, (rows + kChunk - 1) / kChunk));
    std::vector<std::unique_ptr<ThreadMemory>> memories;
    for (std::size_t i = 0; i < workers; ++i) memories.push_back(std::make_unique<ThreadMemory>(core, together));
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
