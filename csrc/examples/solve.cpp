// Load a bundle, move the tool 5 cm up from the middle of the joint limits, print the joints.
//
//     mfik_solve BUNDLE
#include <cstdio>
#include <mfik/solver.hpp>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s BUNDLE\n", argv[0]);
        return 2;
    }
    try {
        // At start-up: read and check the bundle, take all memory.
        const mfik::Solver solver = mfik::Solver::load(argv[1]);
        mfik::Workspace workspace = solver.make_workspace();
        std::printf("%s, %d joints, %s -> %s\n", solver.robot_name().c_str(), solver.dof(), solver.base_link().c_str(),
                    solver.tip_link().c_str());

        std::vector<double> q_now, q_next(static_cast<std::size_t>(solver.dof()));
        for (std::size_t j = 0; j < q_next.size(); ++j) q_now.push_back(0.5 * (solver.lower()[j] + solver.upper()[j]));
        mfik::Pose T_base_tool = solver.fk(q_now);
        T_base_tool[2] += 0.05;  // [m]

        // In the control loop: nothing here allocates, locks or throws.
        const mfik::Result result = solver.solve(T_base_tool, q_now, q_next, workspace);
        std::printf("%s after %d iterations: %.2e m, %.2e rad\n", mfik::to_string(result.status), result.iterations,
                    result.pos_error_m, result.rot_error_rad);
        for (std::size_t j = 0; j < q_next.size(); ++j) {
            std::printf("  %-16s %+.4f\n", solver.joint_names()[j].c_str(), q_next[j]);
        }
        return result.status == mfik::Status::kSolved ? 0 : 1;
    } catch (const mfik::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
