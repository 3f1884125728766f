// The solver in a program that is compiled without exceptions and run-time types.
#include <cstdio>
#include <mfik/solver.hpp>
#include <vector>
#ifdef CONSUMER_USES_torchscript
#include <mfik/torchscript.hpp>
#endif
#ifdef CONSUMER_USES_onnx
#include <mfik/onnx.hpp>
#endif

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: consumer BUNDLE\n"), 2;
#if defined(CONSUMER_USES_torchscript)
    const mfik::Solver solver = mfik::Solver::load(argv[1], mfik::load_torchscript(argv[1]));
#elif defined(CONSUMER_USES_onnx)
    const mfik::Solver solver = mfik::Solver::load(argv[1], mfik::load_onnx(argv[1]));
#else
    const mfik::Solver solver = mfik::Solver::load(argv[1]);
#endif
    mfik::Workspace workspace = solver.make_workspace();
    // The midpoint of the limits, a pose next to it, and back.
    std::vector<double> q_ref, q_near, q(static_cast<std::size_t>(solver.dof()));
    for (std::size_t j = 0; j < q.size(); ++j) {
        q_ref.push_back(0.5 * (solver.lower()[j] + solver.upper()[j]));
        q_near.push_back(q_ref[j] + 0.1);
    }
    const mfik::Pose pose = solver.fk(q_near);
    mfik::Options options;
    if (solver.num_parameters() > 0) options.seed = mfik::Seed::kNetwork;  // so that the engine works
    const mfik::Result result = solver.solve(pose, q_ref, q, workspace, options);
    std::printf("%s after %d iterations\n", mfik::to_string(result.status), result.iterations);
    const mfik::Result next = solver.track(pose, q_near, 0.01, q, workspace);
    return result.status == mfik::Status::kSolved && next.status == mfik::Status::kSolved ? 0 : 1;
}
