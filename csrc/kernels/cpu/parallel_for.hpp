#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace mfik::cpu {

/// Call body(begin, end) on chunks that cover [0, n), on up to `max_threads` threads with at least `grain` rows each;
/// on the calling thread alone when n < 2 * grain. Threads are not kept, so that forked processes are safe.
/// `body` must not throw.
template <typename Body>
void parallel_for(std::int64_t n, std::int64_t grain, int max_threads, const Body& body) {
    const std::int64_t threads = std::clamp<std::int64_t>(n / grain, 1, std::max(max_threads, 1));
    const std::int64_t chunk = (n + threads - 1) / threads;
    std::vector<std::thread> workers;
    workers.reserve(static_cast<std::size_t>(threads - 1));
    for (std::int64_t begin = chunk; begin < n; begin += chunk) {
        const std::int64_t end = std::min(begin + chunk, n);
        try {
            workers.emplace_back([&body, begin, end] { body(begin, end); });
        } catch (const std::system_error&) {  // no thread to be had
            body(begin, end);
        }
    }
    if (n > 0) body(std::int64_t{0}, std::min(chunk, n));
    for (std::thread& worker : workers) worker.join();
}

}  // namespace mfik::cpu
