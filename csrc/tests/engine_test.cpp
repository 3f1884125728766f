// Every engine that is built answers the golden set, and keeps the promises of mfik::Engine.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "golden.hpp"
#include "mfik/solver.hpp"
#include "solver/aligned_buffer.hpp"
#include "solver/bundle.hpp"
#ifdef MFIK_HAS_TORCHSCRIPT
#include "mfik/torchscript.hpp"
#endif
#ifdef MFIK_HAS_ONNX
#include "mfik/onnx.hpp"
#endif

namespace mfik::testing {
namespace {

constexpr int kDof = 7, kPoseSize = 7;
constexpr float kTolerance = 1e-5f;  // [rad], as of the golden set in Python: float32 rounding

using EnginePtr = std::unique_ptr<const Engine>;

struct Case {
    std::string name, version;
    std::function<EnginePtr()> load;
    bool exact;  // row by row the same bits, whatever the number of rows
};

std::ostream& operator<<(std::ostream& stream, const Case& engine) {
    return stream << engine.name;
}

[[maybe_unused]] std::string exported_bundle(const std::string& version) {
    const char* path = std::getenv("MFIK_TEST_BUNDLES");
    if (path == nullptr)
        throw std::runtime_error("set MFIK_TEST_BUNDLES to a folder with the golden bundles v1 and v2");
    return path + ("/" + version);
}

EnginePtr built_in(const std::string& version, cpu::InstructionSet instructions) {
    const Bundle bundle = read_bundle(golden_bundle(version));
    return bundle.network->make_engine(bundle.tensors, instructions);
}

/// The built-in engine for each instruction set of this machine, and the others that are built.
std::vector<Case> engines() {
    std::vector<Case> cases;
    for (const std::string version : kVersions) {
        const auto add = [&](const std::string& name, std::function<EnginePtr()> load, bool exact) {
            cases.push_back({name + "_" + version, version, std::move(load), exact});
        };
        const auto add_native = [&](const std::string& name, cpu::InstructionSet instructions) {
            if (cpu::best_instruction_set() < instructions) return;
            add(name, [=] { return built_in(version, instructions); }, true);
        };
        add_native("native", cpu::InstructionSet::kBaseline);
        add_native("native_avx2", cpu::InstructionSet::kAvx2);
        add_native("native_avx512", cpu::InstructionSet::kAvx512);
#ifdef MFIK_HAS_TORCHSCRIPT
        add("torchscript", [=] { return load_torchscript(exported_bundle(version)); }, false);
#endif
#ifdef MFIK_HAS_ONNX
        add("onnx", [=] { return load_onnx(exported_bundle(version)); }, false);
#endif
    }
    return cases;
}

struct Inputs {
    std::vector<float> q, poses;
};

/// `rows` rows of the golden set, repeated as need be; quaternions with qw >= 0.
Inputs golden_inputs(const Golden& golden, int rows) {
    Inputs inputs;
    for (int i = 0; i < rows; ++i) {
        const std::size_t row = static_cast<std::size_t>(i) % golden.q_ref.size();
        const std::vector<double>& pose = golden.target_pose[row];
        for (const double value : golden.q_ref[row]) inputs.q.push_back(static_cast<float>(value));
        for (std::size_t k = 0; k < kPoseSize; ++k) {
            inputs.poses.push_back(static_cast<float>(k >= 3 && pose[3] < 0 ? -pose[k] : pose[k]));
        }
    }
    return inputs;
}

std::vector<float> evaluate(const Engine& engine, int rows, const float* q, const float* poses, int num_poses) {
    std::vector<float> u(static_cast<std::size_t>(rows) * kDof, std::numeric_limits<float>::quiet_NaN());
    const AlignedBuffer scratch(engine.scratch_size(rows));
    engine.evaluate(rows, q, poses, num_poses, u.data(), scratch.data());
    return u;
}

class EngineTest : public ::testing::TestWithParam<Case> {
  protected:
    void expect_same(const std::vector<float>& a, const std::vector<float>& b) const {
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t i = 0; i < a.size(); ++i) {
            if (GetParam().exact) {
                ASSERT_EQ(a[i], b[i]) << "row " << i / kDof;
            } else {
                ASSERT_NEAR(a[i], b[i], kTolerance) << "row " << i / kDof;
            }
        }
    }

    EnginePtr engine_ = GetParam().load();
    const Golden& golden_ = golden(GetParam().version);
};

TEST_P(EngineTest, AgreesWithGolden) {
    const int rows = static_cast<int>(golden_.q_ref.size());
    const Inputs inputs = golden_inputs(golden_, rows);
    const std::vector<float> u = evaluate(*engine_, rows, inputs.q.data(), inputs.poses.data(), rows);
    for (std::size_t i = 0; i < u.size(); ++i) {
        EXPECT_NEAR(inputs.q[i] + u[i], golden_.q_solution[i / kDof][i % kDof], kTolerance) << "row " << i / kDof;
    }
}

TEST_P(EngineTest, RowsTogetherAreRowsAlone) {
    for (const int rows : {1, 2, 3, 5, 8, 15, 64, 65, 200}) {
        const Inputs inputs = golden_inputs(golden_, rows);
        std::vector<float> alone;
        for (int i = 0; i < rows; ++i) {
            const auto u = evaluate(*engine_, 1, &inputs.q[static_cast<std::size_t>(i * kDof)],
                                    &inputs.poses[static_cast<std::size_t>(i * kPoseSize)], 1);
            alone.insert(alone.end(), u.begin(), u.end());
        }
        expect_same(evaluate(*engine_, rows, inputs.q.data(), inputs.poses.data(), rows), alone);
    }
}

TEST_P(EngineTest, OnePoseIsThatPoseInEveryRow) {
    for (const int rows : {2, 7, 64, 130}) {
        Inputs inputs = golden_inputs(golden_, rows);
        const std::vector<float> pose(inputs.poses.begin() + kPoseSize, inputs.poses.begin() + 2 * kPoseSize);
        for (int i = 0; i < rows; ++i) std::copy_n(pose.data(), kPoseSize, inputs.poses.data() + i * kPoseSize);
        expect_same(evaluate(*engine_, rows, inputs.q.data(), pose.data(), 1),
                    evaluate(*engine_, rows, inputs.q.data(), inputs.poses.data(), rows));
    }
}

TEST_P(EngineTest, SolvesAsTheBuiltInOneDoes) {
    const std::string bundle = golden_bundle(GetParam().version);
    const Solver own = Solver::load(bundle), other = Solver::load(bundle, std::move(engine_));
    Workspace own_workspace = own.make_workspace(), other_workspace = other.make_workspace();
    for (std::size_t i = 0; i < golden_.q_ref.size(); ++i) {
        Pose pose;
        std::copy_n(golden_.target_pose[i].begin(), pose.size(), pose.begin());
        std::array<double, kDof> q_own{}, q_other{};
        Options options;
        options.seed = Seed::kNetwork;
        options.max_iterations = 0;
        const Result a = own.solve(pose, golden_.q_ref[i], q_own, own_workspace, options);
        const Result b = other.solve(pose, golden_.q_ref[i], q_other, other_workspace, options);
        EXPECT_NEAR(a.pos_error_m, b.pos_error_m, 1e-4);
        for (std::size_t j = 0; j < kDof; ++j) EXPECT_NEAR(q_own[j], q_other[j], 2 * kTolerance);
    }
}

INSTANTIATE_TEST_SUITE_P(Engines, EngineTest, ::testing::ValuesIn(engines()),
                         [](const auto& engine) { return engine.param.name; });

/// Answers as many joints as it is told to.
class Fake final : public Engine {
  public:
    explicit Fake(int dof, float value = 0.0f) : dof_(dof), value_(value) {}
    [[nodiscard]] std::size_t scratch_size(int) const noexcept override { return 0; }
    void evaluate(int rows, const float*, const float*, int, float* u, float*) const noexcept override {
        std::fill_n(u, rows * dof_, value_);
    }

  private:
    int dof_;
    float value_;
};

TEST(EngineOfSolver, MustFitTheBundle) {
    EXPECT_EQ(Solver::load(golden_bundle(), std::make_unique<const Fake>(7)).dof(), 7);
    EXPECT_THROW((void)Solver::load(golden_bundle(), nullptr), Error);
    EXPECT_THROW((void)Solver::load(golden_bundle(), std::make_unique<const Fake>(6)), Error);
    EXPECT_THROW((void)Solver::load(golden_bundle(), std::make_unique<const Fake>(8)), Error);
    EXPECT_THROW(
        (void)Solver::load(golden_bundle(), std::make_unique<const Fake>(7, std::numeric_limits<float>::quiet_NaN())),
        Error);
}

TEST(EngineFile, ThatCannotBeUsedIsRefused) {
    std::vector<EnginePtr (*)(const std::string&)> loaders;
#ifdef MFIK_HAS_TORCHSCRIPT
    loaders.push_back(&load_torchscript);
#endif
#ifdef MFIK_HAS_ONNX
    loaders.push_back(&load_onnx);
#endif
    const std::string file = ::testing::TempDir() + "mfik_no_model";
    std::ofstream(file) << "no model";
    for (const auto load : loaders) {
        EXPECT_THROW((void)load(file + "_missing"), Error);
        EXPECT_THROW((void)load(file), Error);
        EXPECT_THROW((void)load(golden_bundle()), Error);
    }
}

}  // namespace
}  // namespace mfik::testing
