#include "kernels/sample_batch.hpp"

#include <atomic>

#include "kernels/cpu/parallel_for.hpp"
#include "kernels/kernels.hpp"

namespace mfik::cpu {

constexpr std::int64_t kGrain = 8192;  // rows a thread, at some 50 ns each

template <typename T>
std::int64_t sample_batch(const SampleBatchArgs<T>& args, int max_threads) {
    std::atomic<std::int64_t> first_bad{args.batch};
    parallel_for(args.batch, kGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            if (sample_row(args, i)) continue;
            std::int64_t seen = first_bad.load();
            while (i < seen && !first_bad.compare_exchange_weak(seen, i)) {
            }
            return;
        }
    });
    return first_bad == args.batch ? -1 : first_bad.load();
}

template std::int64_t sample_batch(const SampleBatchArgs<float>&, int);
template std::int64_t sample_batch(const SampleBatchArgs<double>&, int);

}  // namespace mfik::cpu
