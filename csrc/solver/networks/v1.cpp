#include "solver/networks/v1.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "solver/networks/network_kernels.hpp"
#include "solver/networks/v1_layers.hpp"

namespace mfik::v1 {
namespace {

constexpr char kFrequencies[] = "encoding.frequencies";

std::string block_name(int i) {
    return "blocks." + std::to_string(i) + ".";
}

AlignedBuffer copy(const std::vector<float>& values) {
    AlignedBuffer buffer(values.size());
    std::copy(values.begin(), values.end(), buffer.data());
    return buffer;
}

LayerNorm copy_norm(const Tensors& weights, const std::string& name) {
    return {copy(weights.at(name + ".weight")), copy(weights.at(name + ".bias"))};
}

Layers pack(const Sizes& sizes, const Tensors& weights) {
    Layers layers;
    layers.sizes = sizes;
    std::vector<double> times{0.0, 1.0};  // r, t
    int features = 1;                     // of each input scalar
    if (sizes.encoding_dim > 0) {
        const std::vector<float>& frequencies = weights.at(kFrequencies);
        layers.frequencies = copy(frequencies);
        features = sizes.encoding_dim;
        times.clear();
        for (const float time : {0.0f, 1.0f}) {
            for (const float frequency : frequencies) times.push_back(std::sin(double{time * frequency}));
            for (const float frequency : frequencies) times.push_back(std::cos(double{time * frequency}));
        }
    }
    // Columns of the input layer: joints, pose, times.
    layers.input_q = pack_linear(weights, "input", 0, sizes.dof * features, kPanel);
    layers.input_pose = pack_linear(weights, "input", sizes.dof * features, kPoseSize * features, kPanel, times);
    layers.condition = pack_linear(weights, "condition", 0, kPoseSize, kPanel, {0.0, 1.0});
    for (int i = 0; i < sizes.num_blocks; ++i) {
        const std::string name = block_name(i);
        layers.blocks.push_back({copy_norm(weights, name + "norm1"), copy_norm(weights, name + "norm2"),
                                 pack_linear(weights, name + "linear1", 0, sizes.width, kPanel),
                                 pack_linear(weights, name + "linear2", 0, sizes.width, kPanel),
                                 pack_linear(weights, name + "film", 0, sizes.cond_dim, kPanel)});
    }
    layers.norm = copy_norm(weights, "norm");
    layers.head = pack_linear(weights, "head", 0, sizes.width, kHeadPanel);
    return layers;
}

class Network final : public Engine {
  public:
    Network(const Sizes& sizes, const Tensors& weights, cpu::InstructionSet instructions)
        : layers_(pack(sizes, weights)), evaluate_(cpu::kernels<cpu::NetworkKernels>(instructions).evaluate_v1) {}

    [[nodiscard]] std::size_t scratch_size(int rows) const noexcept override {
        return Buffers(layers_.sizes, std::min(rows, kMaxRows), nullptr).size;
    }

    /// With num_poses == 1, what depends on the pose alone is computed once for up to kMaxRows rows.
    void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                  float* scratch) const noexcept override {
        const Buffers buffers(layers_.sizes, std::min(rows, kMaxRows), scratch);
        const auto piece = [&](auto... args) { evaluate_(layers_, buffers, args...); };
        in_pieces(rows, layers_.sizes.dof, q, poses, num_poses, u, piece);
    }

  private:
    Layers layers_;
    decltype(cpu::NetworkKernels::evaluate_v1) evaluate_;
};

class Description final : public NetworkDescription {
  public:
    explicit Description(const Sizes& sizes) : sizes_(sizes) {}

    [[nodiscard]] Shapes tensors() const override {
        const int features = std::max(sizes_.encoding_dim, 1), width = sizes_.width;
        Shapes tensors;
        if (sizes_.encoding_dim > 0) tensors[kFrequencies] = {static_cast<std::uint64_t>(sizes_.encoding_dim / 2)};
        add_linear(tensors, "input", width, (sizes_.dof + kPoseSize + 2) * features);  // and r, t
        add_linear(tensors, "condition", sizes_.cond_dim, kPoseSize + 2);
        for (int i = 0; i < sizes_.num_blocks; ++i) {
            const std::string name = block_name(i);
            add_norm(tensors, name + "norm1", width);
            add_norm(tensors, name + "norm2", width);
            add_linear(tensors, name + "linear1", width, width);
            add_linear(tensors, name + "linear2", width, width);
            add_linear(tensors, name + "film", 2 * width, sizes_.cond_dim);
        }
        add_norm(tensors, "norm", width);
        add_linear(tensors, "head", sizes_.dof, width);
        return tensors;
    }

    [[nodiscard]] bool is_trained(const std::string& tensor) const override { return tensor != kFrequencies; }

    [[nodiscard]] std::unique_ptr<const Engine> make_engine(const Tensors& weights,
                                                            cpu::InstructionSet instructions) const override {
        return std::make_unique<const Network>(sizes_, weights, instructions);
    }

  private:
    Sizes sizes_;
};

}  // namespace

Buffers::Buffers(const Sizes& sizes, int rows, float* scratch)
    : features_step(stride(std::max(sizes.dof, kPoseSize) * sizes.encoding_dim)) {
    ScratchParts parts{scratch, rows};
    features = parts.take(sizes.encoding_dim > 0 ? features_step : 0);
    condition = parts.take(stride(sizes.cond_dim));
    for (float** buffer : {&pose_share, &x, &h, &normed}) *buffer = parts.take(stride(sizes.width));
    film = parts.take(stride(2 * sizes.width));
    head = parts.take(kHeadPanel);
    size = parts.size;
}

std::unique_ptr<const NetworkDescription> read(const JsonReader& reader, const Json& model, const Chain& chain) {
    Sizes sizes;
    sizes.dof = chain.dof;
    sizes.width = reader.integer(model, "width", "model", 1, kMaxWidth);
    sizes.num_blocks = reader.integer(model, "num_blocks", "model", 1, kMaxBlocks);
    sizes.cond_dim = reader.integer(model, "cond_dim", "model", 1, kMaxWidth);
    const std::string encoding = reader.string(model, "encoding", "model");
    if (encoding == "sinusoidal" || encoding == "fourier") {
        sizes.encoding_dim = reader.integer(model, "encoding_dim", "model", 4, kMaxWidth);
        if (sizes.encoding_dim % 2 != 0) {
            reader.fail("model.encoding_dim", "an even number", std::to_string(sizes.encoding_dim));
        }
    } else if (encoding != "none") {
        reader.fail("model.encoding", "'sinusoidal', 'fourier' or 'none'", JsonReader::quote(encoding),
                    JsonReader::kUpdate);
    }
    return std::make_unique<const Description>(sizes);
}

}  // namespace mfik::v1
