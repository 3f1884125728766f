#include "kernels/cpu/solver_kernels.hpp"

namespace mfik::cpu {

const LaneKernels& lane_kernels() noexcept {
#ifdef MFIK_HAS_X86_LEVELS
    // The members of x86-64-v4 and x86-64-v3 that these kernels use.
    const bool has_v3 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (has_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        return avx512::kKernels;
    }
    if (has_v3) return avx2::kKernels;
#endif
    return baseline::kKernels;
}

}  // namespace mfik::cpu
