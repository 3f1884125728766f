// Checks of configurations say the same on every instruction set, and what the nearest pair in double precision says.
#include "mfik/collision.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "golden.hpp"
#include "kernels/cpu/collision_kernels.hpp"
#include "kernels/lanes.hpp"
#include "solver/bundle.hpp"
#include "solver/collision/world.hpp"

namespace mfik::testing {
namespace {

World all_shapes(std::mt19937& random) {
    std::uniform_real_distribution<double> place(-0.8, 0.8), up(0.0, 1.0);
    World world;
    world.add_sphere("ball", 0.1, {0.5, 0.2, 0.6, 1, 0, 0, 0});
    world.add_box("box", {0.3, 0.2, 0.4}, {0.5, -0.4, 0.3, 0.8, 0.6, 0, 0});
    world.add_cylinder("cylinder", 0.1, 0.5, {-0.4, 0.5, 0.5, 0.6, 0, 0.8, 0});
    world.add_capsule("capsule", 0.05, 0.4, {-0.5, -0.3, 0.7, 1, 0, 0, 0});
    world.add_half_space("floor", {0, 0, -0.2, 1, 0, 0, 0});
    std::vector<double> points;
    for (int i = 0; i < 50; ++i) points.insert(points.end(), {place(random), place(random), up(random)});
    world.add_point_cloud("cloud", points, 0.01);
    return world;
}

TEST(SphereCheck, EveryInstructionSetAgreesWithTheNearestPairHoweverNearTheMarginIs) {
    const Bundle bundle = read_bundle(golden_bundle("v2"));
    const Chain& chain = bundle.robot.chain;
    std::mt19937 random(1);
    const World world = all_shapes(random);
    const WorldView shapes = WorldAccess::view(&world);
    constexpr int kRows = 501;  // no multiple of the lanes
    const std::size_t dof = static_cast<std::size_t>(chain.dof);
    std::vector<double> q(kRows * dof);
    for (std::size_t i = 0; i < q.size(); ++i)
        q[i] = std::uniform_real_distribution<double>(chain.lower[i % dof], chain.upper[i % dof])(random);

    for (const double margin : {-0.01, 0.0, 0.03}) {
        const BodyView body = bundle.robot.body.view(margin);
        std::vector<cpu::Nearest> nearest(kRows);
        cpu::kernels<cpu::CollisionKernels>(cpu::InstructionSet::kBaseline)
            .nearest(chain, body, shapes, true, q.data(), kRows, HUGE_VAL, -HUGE_VAL, nearest.data());
        for (int set = 0; set <= static_cast<int>(cpu::best_instruction_set()); ++set) {
            const auto& kernels = cpu::kernels<cpu::CollisionKernels>(static_cast<cpu::InstructionSet>(set));
            std::vector<unsigned char> free(kRows);
            kernels.free(chain, body, shapes, true, q.data(), kRows, margin, free.data());
            for (std::size_t i = 0; i < kRows; ++i) {
                EXPECT_EQ(free[i] != 0, nearest[i].distance >= margin) << "set " << set << ", row " << i;
                // Points of a cloud, the last shape, are compared in single precision.
                const double beside = nearest[i].second == -world.size() ? 1e-6 : 1e-9;
                for (const bool kept : {false, true}) {
                    unsigned char is_free = 2;
                    kernels.free(chain, body, shapes, true, &q[i * dof], 1,
                                 nearest[i].distance + (kept ? -beside : beside), &is_free);
                    EXPECT_EQ(is_free != 0, kept) << "set " << set << ", row " << i;
                }
            }
            const auto count = std::count(free.begin(), free.end(), 1);
            EXPECT_TRUE(count > 20 && count < kRows - 20) << "of both kinds, not " << count;
        }
    }
}

}  // namespace
}  // namespace mfik::testing
