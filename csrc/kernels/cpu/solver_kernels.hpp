// Kernels on vector registers, compiled once for each instruction set and chosen when the program runs.
#pragma once

#include <cstdint>

#include "kernels/kernels.hpp"
#include "kernels/search.hpp"

namespace mfik::cpu {

/// Every function works on rows [begin, end) of its arguments, on the calling thread; `search` on one pose.
struct LaneKernels {
    int lanes;  // problems that are worked on side by side
    void (*search)(const SearchTask& task, SearchResult& result, SolutionPool* pool) noexcept;
    RefineOutcome (*refine_one)(const Chain& chain, const Terms& terms, const Transform& T_target, double* q,
                                int max_iterations, double tol_pos_m, double tol_rot_rad, int leaning_steps) noexcept;
    void (*refine_float)(const Chain&, const RefineArgs<float>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*refine_double)(const Chain&, const RefineArgs<double>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*fk_float)(const Chain&, const FkArgs<float>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*fk_double)(const Chain&, const FkArgs<double>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*jacobian_float)(const Chain&, const FkArgs<float>&, std::int64_t begin, std::int64_t end) noexcept;
    void (*jacobian_double)(const Chain&, const FkArgs<double>&, std::int64_t begin, std::int64_t end) noexcept;
};

namespace baseline {
extern const LaneKernels kKernels;
}
#ifdef MFIK_HAS_X86_LEVELS
namespace avx2 {
extern const LaneKernels kKernels;
}
namespace avx512 {
extern const LaneKernels kKernels;
}
#endif

/// The widest that this machine runs.
const LaneKernels& lane_kernels() noexcept;

}  // namespace mfik::cpu
