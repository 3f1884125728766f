#include "kernels/cuda/launch.cuh"
#include "kernels/kernels.hpp"
#include "kernels/sample_batch.hpp"

namespace mfik::cuda {

struct SampleRow {
    template <typename T>
    __device__ void operator()(const SampleBatchArgs<T>& args, std::int64_t i) const {
        sample_row(args, i);
    }
};

template <typename T>
void sample_batch(const SampleBatchArgs<T>& args, std::intptr_t stream) {
    launch_rows<SampleRow>("sample_batch", args, args.batch, stream);
}

template void sample_batch(const SampleBatchArgs<float>&, std::intptr_t);
template void sample_batch(const SampleBatchArgs<double>&, std::intptr_t);

}  // namespace mfik::cuda
