#include "mfik/torchscript.hpp"

#include <torch/script.h>

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <vector>

#include "engines/model_file.hpp"

namespace mfik {
namespace {

constexpr int kPoseSize = 7;

class TorchScriptEngine final : public Engine {
  public:
    TorchScriptEngine(const torch::jit::Module& module, int dof) : forward_(module.get_method("forward")), dof_(dof) {
        // One row, which libtorch evaluates on this thread alone. MKL chooses its kernels in a function's first call,
        // and where two threads make that call together one of them may compute with low accuracy, 3e-5 rad off in the
        // golden set (https://github.com/pytorch/pytorch/issues/188792).
        const std::vector<float> q(static_cast<std::size_t>(dof)), pose{0, 0, 0, 1, 0, 0, 0};
        std::vector<float> u(q.size());
        evaluate(1, q.data(), pose.data(), 1, u.data(), nullptr);
    }

    [[nodiscard]] std::size_t scratch_size(int) const noexcept override { return 0; }

    void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                  float*) const noexcept override {
        const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(rows) * dof_;
        try {
            const c10::InferenceMode inference;
            // from_blob takes no const memory; the graph only reads its inputs.
            const torch::Tensor q_ref = torch::from_blob(const_cast<float*>(q), {rows, dof_});
            const torch::Tensor pose = torch::from_blob(const_cast<float*>(poses), {num_poses, kPoseSize});
            const torch::Tensor q_solution = forward_({q_ref, pose.expand({rows, kPoseSize})}).toTensor().contiguous();
            if (q_solution.sizes() != q_ref.sizes() || q_solution.scalar_type() != torch::kFloat) {
                throw Error("q_solution: of another shape or type");
            }
            const float* solution = q_solution.const_data_ptr<float>();
            std::transform(solution, solution + size, q, u, [](float end, float start) { return end - start; });
        } catch (...) {
            std::fill_n(u, size, std::numeric_limits<float>::quiet_NaN());
        }
    }

  private:
    torch::jit::Method forward_;  // holds the module
    int dof_;
};

}  // namespace

std::unique_ptr<const Engine> load_torchscript(const std::string& path) {
    const std::string file = find_model_file(path, "model.ts");
    std::unordered_map<std::string, std::string> extra{{"mfik", ""}};
    try {
        const torch::jit::Module module = torch::jit::load(file, torch::kCPU, extra);
        return std::make_unique<const TorchScriptEngine>(module, read_dof(file, extra["mfik"]));
    } catch (const c10::Error& error) {
        throw Error(file + ": not a readable TorchScript file (" + error.what_without_backtrace() +
                    "); export it again");
    }
}

}  // namespace mfik
