#include "solver/networks/v2.hpp"

#include <algorithm>
#include <cmath>

#include "solver/networks/network_kernels.hpp"
#include "solver/networks/v2_layers.hpp"

namespace mfik::v2 {
namespace {

std::string block_name(int i) {
    return "blocks." + std::to_string(i) + ".";
}

Layers pack(const Chain& chain, int width, int num_blocks, const Tensors& weights) {
    Layers layers{Geometry(chain), width, {}, {}, {}};
    layers.input = pack_linear(weights, "input", 0, layers.geometry.size, kPanel, {0.0, 1.0});
    for (int i = 0; i < num_blocks; ++i) {
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
        const int step = stride(layers_.geometry.size);
        const auto piece = [&](int count, const float* its_q, const float* its_poses, int its_num_poses, float* its_u) {
            const cpu::NetworkKernels& by_rows = count == 1 ? kernels_of_one_ : kernels_;
            by_rows.features(layers_.geometry, count, its_q, its_poses, its_num_poses, buffers.features, step);
            kernels_.evaluate_v2(layers_, buffers, count, its_u);
        };
        in_pieces(rows, layers_.geometry.chain.dof, q, poses, num_poses, u, piece);
    }

  private:
    Layers layers_;
    const cpu::NetworkKernels& kernels_;
    // The same bits. The features of a single row take 0.41 us on half of a register of AVX-512, 0.58 us on a whole one
    // (Zen 4).
    const cpu::NetworkKernels& kernels_of_one_;
};

class Description final : public NetworkDescription {
  public:
    Description(const Chain& chain, int width, int num_blocks)
        : chain_(chain), width_(width), num_blocks_(num_blocks) {}

    [[nodiscard]] Shapes tensors() const override {
        Shapes tensors;
        add_linear(tensors, "input", width_, Geometry(chain_).size + 2);  // and r, t
        for (int i = 0; i < num_blocks_; ++i) {
            add_linear(tensors, block_name(i) + "linear1", width_, width_);
            add_linear(tensors, block_name(i) + "linear2", width_, width_);
        }
        add_linear(tensors, "head", chain_.dof, width_);
        return tensors;
    }

    [[nodiscard]] bool is_trained(const std::string&) const override { return true; }

    [[nodiscard]] std::unique_ptr<const Engine> make_engine(const Tensors& weights,
                                                            cpu::InstructionSet instructions) const override {
        return std::make_unique<const Network>(pack(chain_, width_, num_blocks_, weights), instructions);
    }

  private:
    Chain chain_;
    int width_, num_blocks_;
};

}  // namespace

Buffers::Buffers(const Layers& layers, int rows, float* scratch) {
    ScratchParts parts{scratch, rows};
    features = parts.take(stride(layers.geometry.size));
    for (float** buffer : {&x, &activated, &h, &sum}) *buffer = parts.take(stride(layers.width));
    head = parts.take(kHeadPanel);
    size = parts.size;
}

std::unique_ptr<const NetworkDescription> read(const JsonReader& reader, const Json& model, const Chain& chain) {
    const int width = reader.integer(model, "width", "model", 1, kMaxWidth);
    const int num_blocks = reader.integer(model, "num_blocks", "model", 1, kMaxBlocks);
    if (std::isinf(Geometry(chain).scale)) reader.fail("robot", "links that have a length", "none");
    return std::make_unique<const Description>(chain, width, num_blocks);
}

}  // namespace mfik::v2
