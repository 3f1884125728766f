// Blocks and threads on the CPU. Compiled without a sanitizer, so that what it does itself is not looked at; it tells
// them which fiber runs (-DMFIK_ADDRESS_SANITIZER, -DMFIK_THREAD_SANITIZER).
#include <sys/mman.h>
#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

#ifdef MFIK_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef MFIK_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

__thread emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

int multiprocessors = 2;

namespace {

constexpr std::size_t kStack = std::size_t{512} << 10;  // of local memory, as a thread of the hardware has at most
constexpr unsigned kWarp = 32, kMaxBlock = 1024, kMaxGrid = 0x7fffffff;
constexpr std::size_t kMaxShared = std::size_t{48} << 10;  // unless a kernel asks for more, which none does

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "emulation: %s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
    std::abort();
}

struct Launch {
    unsigned grid, block;
    std::function<void()> thread;
};

/// A place to run: the scheduler's own, or a stack.
struct Context {
    ucontext_t state;
    std::jmp_buf jump;
    const void* stack = nullptr;  // what AddressSanitizer is told
    std::size_t size = 0;
    void* fake_stack = nullptr;
    void* fiber = nullptr;  // what ThreadSanitizer calls it
};

struct Fiber : Context {
    bool started = false;
    int waits_at = 0;  // line of a barrier
    bool done = false;
};

/// Runs blocks one after the other, on the processor thread that calls it. Its fibers serve one launch after another.
class Worker {
  public:
    /// Blocks first, first + stride, ... of a launch.
    void run(const Launch& launch, unsigned first, unsigned stride);
    void wait(int line);

  private:
    void prepare(Fiber& fiber);
    static void begin();
    void run_block(const Launch& launch);
    void run(Fiber& fiber);
    static void change(Context& from, Context& to, bool first);
    static void arrived(Context& at, Context& from);
    void release(char& point) const;
    void acquire(char& point) const;

    const std::function<void()>* thread_ = nullptr;
    Context scheduler_;
    std::vector<std::unique_ptr<Fiber>> fibers_;
    Fiber* running_ = nullptr;
    bool forwards_ = true;
    // Points that ThreadSanitizer orders by; barriers in turn, as one thread may wait at the next where another has yet
    // to leave the last.
    char block_begins_ = 0, block_ends_ = 0, barrier_[2] = {};
};

thread_local Worker* worker = nullptr;

void Worker::prepare(Fiber& fiber) {
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) fail("no memory for stacks");
    fiber.stack = stack, fiber.size = kStack;
    getcontext(&fiber.state);
    fiber.state.uc_stack.ss_sp = stack, fiber.state.uc_stack.ss_size = kStack;
    makecontext(&fiber.state, begin, 0);
#ifdef MFIK_THREAD_SANITIZER
    fiber.fiber = __tsan_create_fiber(0);
#endif
}

void Worker::run(const Launch& launch, unsigned first, unsigned stride) {
    worker = this;
    thread_ = &launch.thread;
    blockDim.x = launch.block, gridDim.x = launch.grid;
#ifdef MFIK_THREAD_SANITIZER
    scheduler_.fiber = __tsan_get_current_fiber();
#endif
    while (fibers_.size() < launch.block) {
        fibers_.push_back(std::make_unique<Fiber>());
        prepare(*fibers_.back());
    }
    for (std::uint64_t block = first; block < launch.grid; block += stride) {
        blockIdx.x = static_cast<unsigned>(block);
        run_block(launch);
    }
}

void Worker::release([[maybe_unused]] char& point) const {
#ifdef MFIK_THREAD_SANITIZER
    __tsan_release(&point);
#endif
}

void Worker::acquire([[maybe_unused]] char& point) const {
#ifdef MFIK_THREAD_SANITIZER
    __tsan_acquire(&point);
#endif
}

/// Go on in `to`; returns when something goes back to `from`. ThreadSanitizer is told that it orders nothing.
void Worker::change(Context& from, Context& to, [[maybe_unused]] bool first) {
#ifdef MFIK_THREAD_SANITIZER
    __tsan_switch_to_fiber(to.fiber, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef MFIK_ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.size);
#endif
#if defined(MFIK_THREAD_SANITIZER) || defined(MFIK_ADDRESS_SANITIZER)
    swapcontext(&from.state, &to.state);
#else  // without the system calls of swapcontext: a tenth of the time
    if (_setjmp(from.jump) == 0) {
        if (first) setcontext(&to.state);
        _longjmp(to.jump, 1);
    }
#endif
    arrived(from, to);
}

/// Running again, in `at`: the stack that was left is learnt of.
void Worker::arrived([[maybe_unused]] Context& at, [[maybe_unused]] Context& from) {
#ifdef MFIK_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(at.fake_stack, &from.stack, &from.size);
#endif
}

void Worker::begin() {
    Worker& self = *worker;
    Fiber& fiber = *self.running_;
    arrived(fiber, self.scheduler_);
    for (;;) {
        self.acquire(self.block_begins_);
        (*self.thread_)();
        fiber.done = true;
        self.release(self.block_ends_);
        change(fiber, self.scheduler_, false);
    }
}

void Worker::wait(int line) {
    Fiber& fiber = *running_;
    fiber.waits_at = line;
    char& barrier = barrier_[forwards_];
    release(barrier);
    change(fiber, scheduler_, false);
    acquire(barrier);
}

void Worker::run(Fiber& fiber) {
    running_ = &fiber;
    change(scheduler_, fiber, !std::exchange(fiber.started, true));
}

/// All threads from barrier to barrier, forwards and backwards in turn.
void Worker::run_block(const Launch& launch) {
    for (unsigned i = 0; i < launch.block; ++i) fibers_[i]->done = false;
    release(block_begins_);
    for (;; forwards_ = !forwards_) {
        unsigned done = 0;
        for (unsigned i = 0; i < launch.block; ++i) {
            threadIdx.x = forwards_ ? i : launch.block - 1 - i;
            Fiber& fiber = *fibers_[threadIdx.x];
            run(fiber);
            done += fiber.done;
        }
        if (done == launch.block) break;
        if (done != 0) fail("a barrier that not every thread of the block reaches");
        for (unsigned i = 1; i < launch.block; ++i)
            if (fibers_[i]->waits_at != fibers_[0]->waits_at) fail("threads of a block wait at two barriers");
    }
    acquire(block_ends_);
}

/// Threads of a block that the kernel was compiled for at most, by the instructions of one byte before it.
unsigned launch_bound(const void* kernel) {
    constexpr unsigned char kNop = 0x90;
    const auto* code = static_cast<const unsigned char*>(kernel);
    unsigned count = 0;
    while (count < kMaxBlock && code[-1 - static_cast<int>(count)] == kNop) ++count;
    count -= count % kWarp;  // fewer fill the space between functions
    return count == 0 ? kMaxBlock : count;
}

void run(const Launch& launch) {
#ifdef MFIK_THREAD_SANITIZER
    constexpr unsigned kWorkers = 2;  // which nothing orders: neighbouring blocks that meet in memory are a race
#else
    constexpr unsigned kWorkers = 1;
#endif
    static Worker workers[kWorkers];
    std::vector<std::thread> threads;
    for (unsigned first = 0; first < kWorkers; ++first)
        threads.emplace_back([&launch, first] { workers[first].run(launch, first, kWorkers); });
    for (std::thread& thread : threads) thread.join();
}

std::map<cudaStream_t, std::vector<Launch>>& queues() {
    static std::map<cudaStream_t, std::vector<Launch>> all;
    return all;
}

}  // namespace

void sync_threads(int line) {
    worker->wait(line);
}

cudaError_t enqueue(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
    const dim3 &grid = config.gridDim, &block = config.blockDim;
    if (grid.x == 0 || grid.x > kMaxGrid || block.x == 0 || block.x > kMaxBlock) return cudaErrorInvalidConfiguration;
    if (grid.y != 1 || grid.z != 1 || block.y != 1 || block.z != 1)
        fail("grids and blocks of one dimension are emulated");
    if (config.dynamicSmemBytes > kMaxShared || block.x > launch_bound(kernel)) return cudaErrorInvalidValue;
    queues()[config.stream].push_back({grid.x, block.x, std::move(thread)});
    return cudaSuccess;
}

}  // namespace emulation

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    for (const emulation::Launch& launch : std::exchange(emulation::queues()[stream], {})) emulation::run(launch);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = emulation::multiprocessors;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaGetLastError() {
    return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "invalid argument";
}
