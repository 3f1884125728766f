// model.ts in libtorch agrees with the golden set: the other way to run a bundle from C++.
#include <gtest/gtest.h>
#include <torch/script.h>

#include <cstdlib>

#include "golden.hpp"

namespace mfik::testing {
namespace {

torch::Tensor to_tensor(const Rows& rows) {
    torch::Tensor tensor = torch::empty({static_cast<long>(rows.size()), static_cast<long>(rows[0].size())});
    auto values = tensor.accessor<float, 2>();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t j = 0; j < rows[i].size(); ++j) {
            values[static_cast<long>(i)][static_cast<long>(j)] = static_cast<float>(rows[i][j]);
        }
    }
    return tensor;
}

TEST(TorchScript, AgreesWithGolden) {
    const char* path = std::getenv("MFIK_TEST_TS");
    if (path == nullptr) GTEST_SKIP() << "set MFIK_TEST_TS to the model.ts of the golden network";
    const torch::NoGradGuard no_grad;
    torch::jit::Module module = torch::jit::load(path);
    const auto run = [&](const torch::Tensor& q_ref, const torch::Tensor& pose) {
        return module.forward({q_ref, pose}).toTensor();
    };
    const torch::Tensor q_ref = to_tensor(golden().q_ref), pose = to_tensor(golden().target_pose);
    const torch::Tensor q_solution = to_tensor(golden().q_solution);
    EXPECT_LT((run(q_ref, pose) - q_solution).abs().max().item<float>(), 1e-5f);  // [rad]
    EXPECT_LT((run(q_ref.slice(0, 0, 1), pose.slice(0, 0, 1)) - q_solution.slice(0, 0, 1)).abs().max().item<float>(),
              1e-5f);
}

}  // namespace
}  // namespace mfik::testing
