// solve() takes no memory, whatever the outcome: counted by replacing the global operator new.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <limits>
#include <new>
#include <vector>

#include "golden.hpp"
#include "mfik/solver.hpp"

namespace {

thread_local long allocations = 0;

void* allocate(std::size_t size, std::size_t alignment) {
    ++allocations;
    // aligned_alloc wants a multiple of the alignment.
    void* p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}

}  // namespace

// Every form, as sanitizers bring their own of those that are left out.
void* operator new(std::size_t size) {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new[](std::size_t size) {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept {
    std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
    std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
    std::free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
    std::free(p);
}
void operator delete[](void* p) noexcept {
    std::free(p);
}
void operator delete[](void* p, std::size_t) noexcept {
    std::free(p);
}
void operator delete[](void* p, std::align_val_t) noexcept {
    std::free(p);
}
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept {
    std::free(p);
}

namespace mfik::testing {
namespace {

TEST(RealTime, NoCallTakesMemoryWhateverTheOutcome) {
    const Solver solver = Solver::load(golden_bundle());
    Workspace workspace = solver.make_workspace();
    const Golden& rows = golden();
    constexpr double kInf = std::numeric_limits<double>::infinity();
    std::array<double, 7> q;
    std::array<double, 7 * 8> all;
    const long before_new = allocations;
    std::vector<double> counted(3);
    ASSERT_GT(allocations, before_new) << "the counter does not count";

    const long before = allocations;
    std::array<int, 6> seen{};
    const auto saw = [&seen](const Result& result) { ++seen[static_cast<std::size_t>(result.status)]; };
    const auto every_call = [&](const Pose& pose, Span<const double> q_ref, const Options& options) {
        saw(solver.solve(pose, q_ref, q, workspace, options));
        saw(solver.track(pose, q_ref, 0.05, q, workspace, options));
        saw(solver.solve_all(pose, q_ref, all, workspace, 0.1, options));
    };
    for (std::size_t i = 0; i < rows.q_ref.size(); ++i) {
        Pose pose;
        for (std::size_t k = 0; k < pose.size(); ++k) pose[k] = rows.target_pose[i][k];
        const Span<const double> q_ref = rows.q_ref[i];
        Options options;
        every_call(pose, q_ref, options);
        for (const Seed seed : {Seed::kNetwork, Seed::kMiddle, Seed::kTurned}) {
            options.seed = seed;
            every_call(pose, q_ref, options);
            options.max_iterations = 0;
            every_call(pose, q_ref, options);
            options.max_iterations = 1, options.max_attempts = 1;
            every_call(pose, q_ref, options);
            options = {};
        }
        options.nearest = true;
        options.T_tip_tool = {0, 0, 0.1, 1, 0, 0, 0};
        options.slack = {0, 0.01, 0, 0, 0, kInf};
        options.locked = 1u << 2;
        options.q_preferred = q_ref;
        every_call(pose, q_ref, options);
        every_call({9, 0, 0, 1, 0, 0, 0}, q_ref, {});       // out of reach
        every_call({0.05, 0, 1.1, 0, 1, 0, 0}, q_ref, {});  // within reach, but not so turned
        pose[i % 7] = std::numeric_limits<double>::quiet_NaN();
        every_call(pose, q_ref, {});
        every_call({0.5, 0, 0.5, 1, 0, 0, 0}, {}, {});
        (void)solver.fk(q_ref);
    }
    EXPECT_EQ(allocations, before);
    for (std::size_t status = 0; status < seen.size(); ++status) {
        EXPECT_GT(seen[status], 0) << to_string(static_cast<Status>(status)) << " was not tried";
    }
}

}  // namespace
}  // namespace mfik::testing
