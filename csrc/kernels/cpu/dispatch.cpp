#include "kernels/cpu/dispatch.hpp"

namespace mfik::cpu {

InstructionSet best_instruction_set() noexcept {
#ifdef MFIK_HAS_X86_LEVELS
    // Members of x86-64-v3 and x86-64-v4 that every processor of these levels has, and no older one has them all.
    const bool has_v3 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (has_v4) return InstructionSet::kAvx512;
    if (has_v3) return InstructionSet::kAvx2;
#endif
    return InstructionSet::kBaseline;
}

}  // namespace mfik::cpu
