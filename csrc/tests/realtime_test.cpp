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

TEST(RealTime, SolveTakesNoMemory) {
    const Solver solver = Solver::load(golden_bundle());
    Workspace workspace = solver.make_workspace();
    const Golden& rows = golden();
    std::array<double, 7> q;
    const long before_new = allocations;
    std::vector<double> counted(3);
    ASSERT_GT(allocations, before_new) << "the counter does not count";

    const long before = allocations;
    std::array<int, 4> seen{};
    const auto solve = [&](const Pose& pose, Span<const double> q_ref, const Options& options) {
        ++seen[static_cast<std::size_t>(solver.solve(pose, q_ref, q, workspace, options).status)];
    };
    for (std::size_t i = 0; i < rows.q_ref.size(); ++i) {
        Pose pose;
        for (std::size_t k = 0; k < pose.size(); ++k) pose[k] = rows.target_pose[i][k];
        solve(pose, rows.q_ref[i], {});
        Options options;
        options.max_iterations = 0;
        solve(pose, rows.q_ref[i], options);
        options.max_iterations = 50;
        solve({9, 0, 0, 1, 0, 0, 0}, rows.q_ref[i], options);  // unreachable
        pose[i % 7] = std::numeric_limits<double>::quiet_NaN();
        solve(pose, rows.q_ref[i], {});
        solve({0.5, 0, 0.5, 1, 0, 0, 0}, {}, {});
        (void)solver.fk(rows.q_ref[i]);
    }
    EXPECT_EQ(allocations, before);
    for (const int count : seen) EXPECT_GT(count, 0) << "an outcome was not tried";
}

}  // namespace
}  // namespace mfik::testing
