#include "solver/networks/v2.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "solver/networks/network_kernels.hpp"
#include "solver/networks/v2_layers.hpp"

namespace mfik::v2 {
namespace {

constexpr int kMaxPasses = 64, kMaxStarts = 16;  // that a file may ask for; the same in mfik/model/v2/config.py
constexpr double kLimitMargin = 0x1.0p-23;       // LIMIT_MARGIN in mfik/model/v2/network.py
constexpr float kNear2 = 1e-9f;                  // NEAR2 there

std::string block_name(int i) {
    return "blocks." + std::to_string(i) + ".";
}

struct Size {
    int width, num_blocks, passes, starts;
};

Layers pack(const Chain& chain, const Size& size, const Tensors& weights) {
    const int width = size.width;
    Layers layers{Geometry(chain), width, size.passes, size.starts, {}, {}, {}, {}, {}, {}, {}};
    double span[kMaxJoints];
    for (int j = 0; j < chain.dof; ++j) {
        const double lower = chain.lower[j], upper = chain.upper[j];
        const double margin = kLimitMargin * (upper - lower + std::max(std::abs(lower), std::abs(upper)));
        const bool endless = chain.kind[j] == JointKind::kContinuous;
        layers.lower[j] = endless ? -HUGE_VALF : static_cast<float>(lower + margin);
        layers.upper[j] = endless ? HUGE_VALF : static_cast<float>(upper - margin);
        span[j] = endless ? 2.0 * kPi : (upper - margin) - (lower + margin);
        layers.span[j] = static_cast<float>(span[j]);
    }
    for (int start = 0; start < size.starts; ++start) {
        const double share = static_cast<double>(start) / size.starts, turned = share > 0.5 ? share - 1.0 : share;
        for (int j = 0; j < chain.dof; ++j) layers.shifts.push_back(static_cast<float>(turned * span[j]));
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
        const int dof = layers_.geometry.chain.dof;
        UnderWay under_way;
        under_way.count = rows;
        under_way.num_poses = num_poses;
        std::copy_n(poses, num_poses * kPoseSize, under_way.poses);
        for (int r = 0; r < rows; ++r) {
            under_way.row[r] = r;
            under_way.least[r] = HUGE_VALF;
            layers_.begin(0, q + r * dof, u + r * dof);
        }
        float* best = u;
        for (int start = 0; start < layers_.starts && under_way.count > 0; ++start) {
            for (int r = 0; r < under_way.count; ++r)
                layers_.begin(start, q + under_way.row[r] * dof, buffers.at + r * dof);
            look_from_start(buffers, under_way, best);
        }
        std::transform(best, best + rows * dof, q, u, std::minus<>());
    }

    /// Look from where the rows are until they have settled, or the passes are over.
    void look_from_start(const Buffers& buffers, UnderWay& under_way, float* best) const noexcept {
        for (int pass = 0; under_way.count > 0; ++pass) {
            features(buffers, under_way, 0, under_way.count);
            judge(buffers, under_way, best, pass < layers_.passes);
            if (pass == layers_.passes) return;
            kernels_.pass_v2(layers_, buffers, under_way.count);
        }
    }

    /// Keep what is best so far, and leave out the rows that are as near to the pose as kNear2, with one more step that
    /// is judged (the gate is below 1e-7 there) if `may_step`.
    void judge(const Buffers& buffers, UnderWay& under_way, float* best, bool may_step) const noexcept {
        const int dof = layers_.geometry.chain.dof, step = stride(layers_.geometry.size);
        const int before = under_way.count;
        for (int r = 0; r < under_way.count;) {
            keep_better(buffers, under_way, r, best);
            if (under_way.least[r] <= kNear2) {
                swap_rows(buffers, under_way, --under_way.count, r);
            } else {
                ++r;
            }
        }
        const int settled = before - under_way.count, first = under_way.count;
        if (settled == 0 || !may_step) return;
        for (int r = first; r < before; ++r) {
            const float* ahead = buffers.features + r * step + layers_.geometry.size - dof;
            float* at = buffers.at + r * dof;
            for (int j = 0; j < dof; ++j) at[j] = std::clamp(at[j] + ahead[j], layers_.lower[j], layers_.upper[j]);
        }
        features(buffers, under_way, first, settled);
        for (int r = first; r < before; ++r) keep_better(buffers, under_way, r, best);
    }

    /// Where row r is better than what is best so far, keep that.
    void keep_better(const Buffers& buffers, UnderWay& under_way, int r, float* best) const noexcept {
        if (buffers.error2[r] >= under_way.least[r]) return;  // not so what is no number
        const int dof = layers_.geometry.chain.dof;
        std::copy_n(buffers.at + r * dof, dof, best + under_way.row[r] * dof);
        under_way.least[r] = buffers.error2[r];
    }

    void features(const Buffers& buffers, const UnderWay& under_way, int first, int count) const noexcept {
        const int dof = layers_.geometry.chain.dof, step = stride(layers_.geometry.size);
        const float* poses = under_way.poses + (under_way.num_poses == 1 ? 0 : first * kPoseSize);
        const cpu::NetworkKernels& by_rows = count == 1 ? kernels_of_one_ : kernels_;
        by_rows.features(layers_.geometry, count, buffers.at + first * dof, poses, under_way.num_poses,
                         buffers.features + first * step, step, buffers.error2 + first);
    }

    void swap_rows(const Buffers& buffers, UnderWay& under_way, int a, int b) const noexcept {
        if (a == b) return;
        const int dof = layers_.geometry.chain.dof, size = layers_.geometry.size, step = stride(size);
        const auto swap = [a, b](float* rows, int width, int distance) {
            std::swap_ranges(rows + a * distance, rows + a * distance + width, rows + b * distance);
        };
        std::swap(under_way.row[a], under_way.row[b]);
        swap(under_way.least, 1, 1);
        if (under_way.num_poses > 1) swap(under_way.poses, kPoseSize, kPoseSize);
        swap(buffers.at, dof, dof);
        swap(buffers.features, size, step);
        swap(buffers.error2, 1, 1);
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

void Layers::begin(int start, const float* q, float* at) const noexcept {
    const int dof = geometry.chain.dof;
    for (int j = 0; j < dof; ++j) {
        float there = std::clamp(q[j], lower[j], upper[j]) + shifts[start * dof + j];
        there = there > upper[j] ? there - span[j] : there < lower[j] ? there + span[j] : there;
        at[j] = std::clamp(there, lower[j], upper[j]);
    }
}

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
    const int starts = reader.integer(model, "starts", "model", 1, kMaxStarts);
    if (std::isinf(Geometry(chain).scale)) reader.fail("robot", "links that have a length", "none");
    return std::make_unique<const Description>(chain, Size{width, num_blocks, passes, starts});
}

}  // namespace mfik::v2
