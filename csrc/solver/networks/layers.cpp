#include "solver/networks/layers.hpp"

namespace mfik {

Linear pack_linear(const Tensors& weights, const std::string& name, int begin, int in, int panel,
                   const std::vector<double>& constants) {
    const std::vector<float>& weight = weights.at(name + ".weight");
    const std::vector<float>& bias = weights.at(name + ".bias");
    const std::size_t out = bias.size(), columns = weight.size() / out;
    const std::size_t inputs = static_cast<std::size_t>(in), lanes = static_cast<std::size_t>(panel);
    const std::size_t outputs = (out + lanes - 1) / lanes * lanes;
    Linear layer{in, static_cast<int>(out), AlignedBuffer(outputs * inputs), AlignedBuffer(outputs)};
    for (std::size_t o = 0; o < out; ++o) {
        const float* row = weight.data() + o * columns + begin;
        float* packed = layer.weight.data() + o / lanes * lanes * inputs + o % lanes;
        for (std::size_t i = 0; i < inputs; ++i) packed[i * lanes] = row[i];
        double constant = bias[o];
        for (std::size_t i = 0; i < constants.size(); ++i) constant += constants[i] * row[inputs + i];
        layer.bias.data()[o] = static_cast<float>(constant);
    }
    return layer;
}

void add_linear(Shapes& tensors, const std::string& name, int out, int in) {
    tensors[name + ".weight"] = {static_cast<std::uint64_t>(out), static_cast<std::uint64_t>(in)};
    tensors[name + ".bias"] = {static_cast<std::uint64_t>(out)};
}

void add_norm(Shapes& tensors, const std::string& name, int width) {
    tensors[name + ".weight"] = tensors[name + ".bias"] = {static_cast<std::uint64_t>(width)};
}

}  // namespace mfik
