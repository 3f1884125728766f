// Solve 1,000 random poses through KDL's interface and judge every answer by KDL's own forward kinematics.
//
//     mfik_kdl_check BUNDLE URDF
//
// Poses are those of joints drawn uniformly within the limits, and so are the joints to start from. Exit status 0 if
// all are solved within the limits and 1e-5 m and rad, 1 if not, 2 if the files cannot be used.
#include <algorithm>
#include <cstdio>
#include <kdl/chainfksolverpos_recursive.hpp>
#include <kdl/tree.hpp>
#include <kdl_parser/kdl_parser.hpp>
#include <memory>
#include <mfik/solver.hpp>
#include <random>

#include "chainiksolverpos_mfik.hpp"

namespace {

constexpr int kPoses = 1000;
constexpr double kTolerance = 1e-5;  // [m] and [rad]

int run(const char* bundle, const char* urdf) {
    const mfik::Solver robot = mfik::Solver::load(bundle);  // names and limits
    KDL::Tree tree;
    KDL::Chain chain;
    if (!kdl_parser::treeFromFile(urdf, tree) || !tree.getChain(robot.base_link(), robot.tip_link(), chain)) {
        std::fprintf(stderr, "%s: has no chain from %s to %s, which the bundle is for\n", urdf,
                     robot.base_link().c_str(), robot.tip_link().c_str());
        return 2;
    }
    const std::unique_ptr<KDL::ChainIkSolverPos> ik = std::make_unique<ChainIkSolverPos_mfik>(chain, bundle);
    KDL::ChainFkSolverPos_recursive fk(chain);

    std::mt19937_64 generator(1);
    const auto draw = [&](KDL::JntArray& q) {
        for (unsigned j = 0; j < q.rows(); ++j)
            q(j) = std::uniform_real_distribution<>(robot.lower()[j], robot.upper()[j])(generator);
    };
    int solved = 0, within = 0;
    double max_position = 0, max_rotation = 0;
    for (int i = 0; i < kPoses; ++i) {
        KDL::JntArray q_true(chain.getNrOfJoints()), q_init(q_true), q(q_true);
        KDL::Frame target, reached;
        draw(q_true);
        draw(q_init);
        fk.JntToCart(q_true, target);
        if (ik->CartToJnt(q_init, target, q) != KDL::SolverI::E_NOERROR) continue;
        ++solved;
        fk.JntToCart(q, reached);
        const KDL::Twist difference = KDL::diff(reached, target);
        bool good = difference.vel.Norm() <= kTolerance && difference.rot.Norm() <= kTolerance;
        for (unsigned j = 0; j < q.rows(); ++j) good = good && q(j) >= robot.lower()[j] && q(j) <= robot.upper()[j];
        within += good;
        max_position = std::max(max_position, difference.vel.Norm());
        max_rotation = std::max(max_rotation, difference.rot.Norm());
    }
    std::printf("%s: %d of %d poses solved, %d right by KDL's kinematics: at most %.1e m and %.1e rad off\n",
                robot.robot_name().c_str(), solved, kPoses, within, max_position, max_rotation);
    return within == kPoses ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return std::fprintf(stderr, "usage: %s BUNDLE URDF\n", argv[0]), 2;
    try {
        return run(argv[1], argv[2]);
    } catch (const mfik::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
