#include "solver/networks/v2.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "solver/networks/network_kernels.hpp"
#include "solver/networks/v2_layers.hpp"

namespace mfik::v2 {
namespace {

constexpr int kMaxPasses = 64;              // that a file may ask for; the same in mfik/model/v2/config.py
constexpr double kLimitMargin = 0x1.0p-23;  // LIMIT_MARGIN in mfik/model/v2/network.py
constexpr float kNear2 = 1e-9f;             // NEAR2 there

std::string block_name(int i) {
    return "blocks." + std::to_string(i) + ".";
}

struct Size {
    int width, num_blocks, passes;
};

Layers pack(const Chain& chain, const Size& size, const Tensors& weights) {
    const int width = size.width;
    Layers layers{Geometry(chain), width, size.passes, {}, {}, {}, {}, {}};
    for (int j = 0; j < chain.dof; ++j) {
        const double lower = chain.lower[j], upper = chain.upper[j];
        const double margin = kLimitMargin * (upper - lower + std::max(std::abs(lower), std::abs(upper)));
        const bool endless = chain.kind[j] == JointKind::kContinuous;
        layers.lower[j] = endless ? -HUGE_VALF : static_cast<float>(lower + margin);
        layers.upper[j] = endless ? HUGE_VALF : static_cast<float>(upper - margin);
    }
    layers.input = pack_linear(weights, "input", 0, layers.geometry.size, kPanel, {0.0, 1.0});
    for (int i = 0; i < size.num_blocks; ++i) {
        layers.blocks.push_back({pack_linear(weights, block_name(i) + "linear1", 0, width, kPanel),
                                 pack_linear(weights, block_name(i) + "linear2", 0, width, kPanel)});
    }
    layers.head = pack_linear(weights, "head", 0, width, kHeadPanel);
    return layers;
}

class Network final : public Engine {
  public:
    Network(Layers layers, cpu::InstructionSet instructions)
        : layers_(std::move(layers)),
          kernels_(cpu::kernels<cpu::NetworkKernels>(instructions)),
          kernels_of_one_(cpu::kernels<cpu::NetworkKernels>(std::min(instructions, cpu::InstructionSet::kAvx2))) {}

    [[nodiscard]] std::size_t scratch_size(int rows) const noexcept override {
        return Buffers(layers_, std::min(rows, kMaxRows), nullptr).size;
    }

    void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                  float* scratch) const noexcept override {
        const Buffers buffers(layers_, std::min(rows, kMaxRows), scratch);
        const auto piece = [&](int count, const float* its_q, const float* its_poses, int its_num_poses, float* its_u) {
            evaluate_piece(buffers, count, its_q, its_poses, its_num_poses, its_u);
        };
        in_pieces(rows, layers_.geometry.chain.dof, q, poses, num_poses, u, piece);
    }

  private:
    /// Rows that are under way, first in the buffers and here.
    struct UnderWay {
        int count;
        int row[kMaxRows];      // of the piece
        float least[kMaxRows];  // squared pose error of the best so far
        float poses[kMaxRows * kPoseSize];
        int num_poses;
    };

    void evaluate_piece(const Buffers& buffers, int rows, const float* q, const float* poses, int num_poses,
                        float* u) const noexcept {
        const int dof = layers_.geometry.chain.dof, step = stride(layers_.geometry.size);
        UnderWay under_way;
        under_way.count = rows;
        under_way.num_poses = num_poses;
        std::copy_n(poses, num_poses * kPoseSize, under_way.poses);
        for (int r = 0; r < rows; ++r) {
            under_way.row[r] = r;
            under_way.least[r] = HUGE_VALF;
            for (int j = 0; j < dof; ++j)
                buffers.at[r * dof + j] = std::clamp(q[r * dof + j], layers_.lower[j], layers_.upper[j]);
        }
        float* best = u;
        std::copy_n(buffers.at, rows * dof, best);
        for (int pass = 0; under_way.count > 0; ++pass) {
            const cpu::NetworkKernels& by_rows = under_way.count == 1 ? kernels_of_one_ : kernels_;
            by_rows.features(layers_.geometry, under_way.count, buffers.at, under_way.poses, under_way.num_poses,
                             buffers.features, step, buffers.error2);
            judge(buffers, under_way, best);
            if (pass == layers_.passes) break;
            kernels_.pass_v2(layers_, buffers, under_way.count);
        }
        std::transform(best, best + rows * dof, q, u, std::minus<>());
    }

    /// Keep what is best so far, and leave out the rows whose features show the pose nearly reached: the step leads to
    /// it, and the gate is below 1e-7.
    void judge(const Buffers& buffers, UnderWay& under_way, float* best) const noexcept {
        const int dof = layers_.geometry.chain.dof, size = layers_.geometry.size, step = stride(size);
        for (int r = 0; r < under_way.count;) {
            const float error2 = buffers.error2[r], *at = buffers.at + r * dof;
            float* own = best + under_way.row[r] * dof;
            if (error2 <= kNear2) {
                const float* ahead = buffers.features + r * step + size - dof;
                for (int j = 0; j < dof; ++j) own[j] = std::clamp(at[j] + ahead[j], layers_.lower[j], layers_.upper[j]);
                move_row(buffers, under_way, --under_way.count, r);
                continue;
            }
            if (!(error2 >= under_way.least[r])) {  // also what is no number
                std::copy_n(at, dof, own);
                under_way.least[r] = error2;
            }
            ++r;
        }
    }

    void move_row(const Buffers& buffers, UnderWay& under_way, int from, int to) const noexcept {
        if (from == to) return;
        const int dof = layers_.geometry.chain.dof, size = layers_.geometry.size, step = stride(size);
        under_way.row[to] = under_way.row[from];
        under_way.least[to] = under_way.least[from];
        if (under_way.num_poses > 1)
            std::copy_n(under_way.poses + from * kPoseSize, kPoseSize, under_way.poses + to * kPoseSize);
        std::copy_n(buffers.at + from * dof, dof, buffers.at + to * dof);
        std::copy_n(buffers.features + from * step, size, buffers.features + to * step);
        buffers.error2[to] = buffers.error2[from];
    }

    Layers layers_;
    const cpu::NetworkKernels& kernels_;
    // The same bits. The features of a single row take 0.41 us on half of a register of AVX-512, 0.58 us on a whole one
    // (Zen 4).
    const cpu::NetworkKernels& kernels_of_one_;
};

class Description final : public NetworkDescription {
  public:
    Description(const Chain& chain, const Size& size) : chain_(chain), size_(size) {}

    [[nodiscard]] Shapes tensors() const override {
        Shapes tensors;
        add_linear(tensors, "input", size_.width, Geometry(chain_).size + 2);  // and r, t
        for (int i = 0; i < size_.num_blocks; ++i) {
            add_linear(tensors, block_name(i) + "linear1", size_.width, size_.width);
            add_linear(tensors, block_name(i) + "linear2", size_.width, size_.width);
        }
        add_linear(tensors, "head", chain_.dof, size_.width);
        return tensors;
    }

    [[nodiscard]] bool is_trained(const std::string&) const override { return true; }

    [[nodiscard]] std::unique_ptr<const Engine> make_engine(const Tensors& weights,
                                                            cpu::InstructionSet instructions) const override {
        return std::make_unique<const Network>(pack(chain_, size_, weights), instructions);
    }

  private:
    Chain chain_;
    Size size_;
};

}  // namespace

Buffers::Buffers(const Layers& layers, int rows, float* scratch) {
    ScratchParts parts{scratch, rows};
    features = parts.take(stride(layers.geometry.size));
    for (float** buffer : {&x, &activated, &h, &sum}) *buffer = parts.take(stride(layers.width));
    head = parts.take(kHeadPanel);
    at = parts.take(kMaxJoints);
    error2 = parts.take(1);
    size = parts.size;
}

std::unique_ptr<const NetworkDescription> read(const JsonReader& reader, const Json& model, const Chain& chain) {
    const int width = reader.integer(model, "width", "model", 1, kMaxWidth);
    const int num_blocks = reader.integer(model, "num_blocks", "model", 1, kMaxBlocks);
    const int passes = reader.integer(model, "passes", "model", 1, kMaxPasses);
    if (std::isinf(Geometry(chain).scale)) reader.fail("robot", "links that have a length", "none");
    return std::make_unique<const Description>(chain, Size{width, num_blocks, passes});
}

}  // namespace mfik::v2
