/// @file
/// Times the CPU kernels of `fk`, `jacobian` and one step of `refine` from C++, on one thread.
///
///     mfik_bench_kinematics fk|jacobian|step IN OUT REPEATS
///
/// writes poses [N, 7], Jacobians [N, 6, J] or joints [N, J] of q_ref, then the time of each repeat over all rows [us].
/// benchmarks/kinematics.py builds and calls it; exchange.hpp describes the files, which the loop on Pinocchio takes
/// too.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "exchange.hpp"
#include "kernels/kernels.hpp"

namespace {

mfik::Chain read_chain(const Problem& problem) {
    mfik::Chain chain;
    chain.dof = static_cast<int>(problem.dof);
    for (std::size_t j = 0; j < problem.dof; ++j) {
        const bool free = std::isinf(problem.lower[j]);
        chain.kind[j] = problem.slides[j] != 0.0 ? mfik::JointKind::kPrismatic
                        : free                   ? mfik::JointKind::kContinuous
                                                 : mfik::JointKind::kRevolute;
        chain.lower[j] = free ? -mfik::kPi : problem.lower[j];
        chain.upper[j] = free ? mfik::kPi : problem.upper[j];
    }
    for (std::size_t j = 0; j <= problem.dof; ++j) std::copy_n(&problem.origins[12 * j], 12, chain.origin[j]);
    return chain;
}

}  // namespace

int main(int argc, char** argv) try {
    const std::string mode = argc > 1 ? argv[1] : "";
    if (argc != 5 || (mode != "fk" && mode != "jacobian" && mode != "step")) {
        std::cerr << "usage: mfik_bench_kinematics fk|jacobian|step IN OUT REPEATS\n";
        return 2;
    }
    const Problem problem = read_problem(argv[2]);
    const mfik::Chain chain = read_chain(problem);
    const auto n = static_cast<std::int64_t>(problem.rows);
    const std::size_t width = mode == "fk" ? 7 : mode == "jacobian" ? 6 * problem.dof : problem.dof;
    std::vector<double> out(problem.rows * width), us;
    std::vector<std::int32_t> iterations(problem.rows);
    const std::unique_ptr<bool[]> converged(new bool[problem.rows]);
    for (int repeat = 0; repeat < std::stoi(argv[4]); ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        if (mode == "fk") {
            mfik::cpu::fk(chain, mfik::FkArgs<double>{problem.q_ref.data(), out.data(), n}, 1);
        } else if (mode == "jacobian") {
            mfik::cpu::jacobian(chain, mfik::JacobianArgs<double>{problem.q_ref.data(), out.data(), n}, 1);
        } else {
            mfik::cpu::refine(chain,
                              mfik::RefineArgs<double>{problem.q_ref.data(), problem.pose.data(), out.data(),
                                                       converged.get(), iterations.data(), n, 1, 0.0, 0.0},
                              1);
        }
        const std::chrono::duration<double, std::micro> elapsed = std::chrono::steady_clock::now() - start;
        us.push_back(elapsed.count());
    }
    write_answers(argv[3], out, us);
    return 0;
} catch (const std::exception& error) {
    std::cerr << "mfik_bench_kinematics: " << error.what() << "\n";
    return 1;
}
