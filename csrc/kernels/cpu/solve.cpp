#include <cstdint>

#include "kernels/cpu/parallel_for.hpp"
#include "kernels/kernels.hpp"

namespace mfik::cpu {
namespace {

constexpr std::int64_t kGrain = 64;  // rows a thread: a row takes some 10 us

struct Range {
    std::int64_t next, end, past;

    std::int64_t operator()() { return next < end ? next++ : past; }
};

template <int kDof, typename T>
void search_all(const Chain& chain, const SolveArgs<T>& args, int max_threads) {
    const SearchRobot<kDof> robot{fixed_chain<Single, kDof>(chain), single_limits(chain)};
    parallel_for(args.n, kGrain, max_threads, [&](std::int64_t begin, std::int64_t end) {
        Range rows{begin, end, args.n};
        search_rows(robot, args, rows);
        for (std::int64_t i = begin; i < end; ++i) finish_row(chain, args, i);
    });
}

}  // namespace

template <typename T>
void solve(const Chain& chain, const SolveArgs<T>& args, int max_threads) {
    const int dof = fixed_dof(chain);
    if (dof == 6) return search_all<6>(chain, args, max_threads);
    if (dof == 7) return search_all<7>(chain, args, max_threads);
    search_all<0>(chain, args, max_threads);
}

template void solve(const Chain&, const SolveArgs<float>&, int);
template void solve(const Chain&, const SolveArgs<double>&, int);

}  // namespace mfik::cpu
