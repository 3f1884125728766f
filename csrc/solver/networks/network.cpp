#include "solver/networks/network.hpp"

#include <algorithm>

#include "solver/networks/layers.hpp"

namespace mfik {

AlignedBuffer::AlignedBuffer(std::size_t size)
    : data_(static_cast<float*>(::operator new[](size * sizeof(float), std::align_val_t{kAlignment}))) {
    std::fill_n(data_.get(), size, 0.0f);
}

Linear pack_linear(const Bundle& bundle, const std::string& name, int begin, int in, int panel,
                   const std::vector<double>& constants) {
    const std::vector<float>& weight = bundle.tensors.at(name + ".weight");
    const std::vector<float>& bias = bundle.tensors.at(name + ".bias");
    const std::size_t out = bias.size(), columns = weight.size() / out;
    const std::size_t inputs = static_cast<std::size_t>(in), lanes = static_cast<std::size_t>(panel);
    const std::size_t padded = (out + lanes - 1) / lanes * lanes;
    Linear layer{in, static_cast<int>(out), AlignedBuffer(padded * inputs), AlignedBuffer(padded)};
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

InstructionSet best_instruction_set() noexcept {
#ifdef MFIK_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        return avx512 ? InstructionSet::kAvx512 : InstructionSet::kAvx2;
    }
#endif
    return InstructionSet::kBaseline;
}

std::unique_ptr<const Engine> make_network(const Bundle& bundle, InstructionSet instructions) {
    return bundle.config.version == 1 ? make_network_v1(bundle, instructions) : make_network_v2(bundle, instructions);
}

}  // namespace mfik
