// No call enters the kernel, takes memory from the C library, or takes a lock: the calls run in a process that the
// kernel kills at its first system call (seccomp), with malloc and the lock functions replaced by ones that count.
// RealtimeSanitizer watches for the same, but needs clang 20; this needs Linux and glibc.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>

#include "every_call.hpp"
#include "mfik/mfik.h"

namespace {

// Calls of this process since it began; other threads have none while a child runs.
std::atomic<long> memory_calls{0}, lock_calls{0};

template <class Function>
Function* next(const char* name) {
    return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// Visible, so that shared libraries call these too. The C library's allocator under other names, as dlsym takes memory.
#pragma GCC visibility push(default)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t size) {
    ++memory_calls;
    return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
    ++memory_calls;
    return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t size) {
    ++memory_calls;
    return __libc_realloc(p, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
    ++memory_calls;
    return __libc_memalign(alignment, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
    ++memory_calls;
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t size) {
    ++memory_calls;
    *p = __libc_memalign(alignment, size);
    return *p == nullptr ? ENOMEM : 0;
}
void free(void* p) {
    ++memory_calls;
    __libc_free(p);
}

#define MFIK_COUNT_LOCK(NAME, TYPE)                           \
    int NAME(TYPE* lock) noexcept {                           \
        static const auto original = next<int(TYPE*)>(#NAME); \
        ++lock_calls;                                         \
        return original(lock);                                \
    }
MFIK_COUNT_LOCK(pthread_mutex_lock, pthread_mutex_t)
MFIK_COUNT_LOCK(pthread_mutex_trylock, pthread_mutex_t)
MFIK_COUNT_LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
MFIK_COUNT_LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
}
#pragma GCC visibility pop

namespace mfik::testing {
namespace {

/// From here on, a system call ends the process with SIGSYS. Allowed are the end of the process, and clock_gettime,
/// which the vDSO answers without a system call where the machine's clock lets it.
bool forbid_system_calls() {
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const sock_fprog program{sizeof(filter) / sizeof(filter[0]), filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// What a child counted, in memory that it shares with the test.
struct Count {
    long memory_calls, lock_calls;
    Seen seen;
};

/// Run `body(count)` in a child without system calls; its wait status, 0 when it came to its end.
template <class Body>
int run_watched(Count& count, Body body) {
    void* shared = mmap(nullptr, sizeof(Count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return -1;
    Count& child_count = *new (shared) Count{};
    const pid_t child = fork();
    if (child == 0) {
        if (!forbid_system_calls()) _exit(3);
        const long memory_before = memory_calls, locks_before = lock_calls;
        body(child_count);
        child_count.memory_calls = memory_calls - memory_before;
        child_count.lock_calls = lock_calls - locks_before;
        _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) return -1;
    count = child_count;
    munmap(shared, sizeof(Count));
    return status;
}

TEST(SystemCalls, TheWatchSeesThem) {
    Count count;
    const int status = run_watched(count, [](Count&) { (void)syscall(SYS_getppid); });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
    const auto take_and_lock = [](Count&) {
        std::mutex mutex;
        const std::lock_guard<std::mutex> lock(mutex);
        void* volatile small = std::malloc(8);  // small enough to need no system call
        std::free(small);
        double* volatile number = new double(1.0);
        delete number;
    };
    EXPECT_EQ(run_watched(count, take_and_lock), 0);
    EXPECT_EQ(count.memory_calls, 4);
    EXPECT_EQ(count.lock_calls, 1);
}

/// The C functions, once with a good target and once with a bad one.
void c_calls(const mfik_solver* solver, mfik_workspace* workspace, mfik_tracker* tracker) {
    double q[7], all[14];
    mfik_options options;
    mfik_result result;
    mfik_options_init(&options, sizeof(options));
    for (const double* pose : {golden().target_pose[0].data(), static_cast<const double*>(nullptr)}) {
        const double* q_ref = golden().q_ref[0].data();
        mfik_solve(solver, pose, q_ref, q, workspace, &options, &result);
        mfik_track(solver, pose, q_ref, 0.05, q, workspace, &options, &result);
        const double max_step[7] = {0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07};
        mfik_track_joints(solver, pose, q_ref, max_step, q, workspace, &options, &result);
        mfik_tracker_step(tracker, pose, &options, &result);
        mfik_tracker_step(tracker, pose, nullptr, nullptr);
        mfik_solve_all(solver, pose, q_ref, 2, all, 0.1, workspace, &options, &result);
        mfik_fk(solver, q_ref, all);
    }
}

class SystemCallsOf : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Versions, SystemCallsOf, ::testing::ValuesIn(kVersions));

TEST_P(SystemCallsOf, NoCallEntersTheKernelTakesMemoryOrLocks) {
    const std::string bundle = golden_bundle(GetParam());
    const Solver solver = Solver::load(bundle);
    Workspace workspace = solver.make_workspace();
    const std::size_t rows = golden().q_ref.size();
    mfik_solver* const c_solver = mfik_load(bundle.c_str(), nullptr, 0);
    ASSERT_NE(c_solver, nullptr);
    mfik_workspace* const c_workspace = mfik_workspace_create(c_solver);
    const std::vector<double> bounds(7, 1.0);
    mfik_tracker* const c_tracker =
        mfik_tracker_create(c_solver, golden().q_ref[0].data(), 1e-3, bounds.data(), bounds.data(), nullptr, 0);
    ASSERT_NE(c_tracker, nullptr);
    Count count;
    const int status = run_watched(count, [&](Count& counted) {
        for (std::size_t row = 0; row < rows; ++row) {
            every_call(solver, workspace, row,
                       [&](const Result& result, int) { ++counted.seen[static_cast<std::size_t>(result.status)]; });
        }
        c_calls(c_solver, c_workspace, c_tracker);
    });
    mfik_tracker_destroy(c_tracker);
    mfik_workspace_destroy(c_workspace);
    mfik_destroy(c_solver);
    EXPECT_EQ(status, 0) << (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? "a system call was made" : "");
    EXPECT_EQ(count.memory_calls, 0);
    EXPECT_EQ(count.lock_calls, 0);
    for (std::size_t i = 0; i < count.seen.size(); ++i) {
        if (static_cast<Status>(i) == Status::kInCollision) continue;  // needs spheres: see below
        EXPECT_GT(count.seen[i], 0) << to_string(static_cast<Status>(i)) << " was not tried";
    }
}

TEST(SystemCalls, NoCallBesideObstaclesMakesOneTakesMemoryOrLocks) {
    const Solver solver = two_balls();
    Workspace workspace = solver.make_workspace();
    Tracker tracker = tracker_of_two_balls(solver);
    World world = around_two_balls();
    Attachments held = held_by_two_balls(solver);
    Count count;
    const int status = run_watched(count, [&](Count& counted) {
        calls_beside_obstacles(solver, workspace, tracker, world, held, [&](const Result& result, auto...) {
            ++counted.seen[static_cast<std::size_t>(result.status)];
        });
        std::array<unsigned char, 2> free;
        (void)solver.is_free(std::array<double, 4>{}, &world, free, 0.0, true, &held);
        (void)solver.clearance(std::array<double, 2>{}, &world, true, &held);
    });
    EXPECT_EQ(status, 0) << (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? "a system call was made" : "");
    EXPECT_EQ(count.memory_calls, 0);
    EXPECT_EQ(count.lock_calls, 0);
    EXPECT_GT(count.seen[static_cast<std::size_t>(Status::kInCollision)], 0);
}

}  // namespace
}  // namespace mfik::testing
