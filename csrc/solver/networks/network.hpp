// Networks: what a bundle says of one, the tensors that it has, and the built-in engine that evaluates it. Each type is
// a source of its own; the registry in network.cpp lists them.
#pragma once

#include <memory>
#include <string>

#include "kernels/chain.hpp"
#include "kernels/cpu/dispatch.hpp"
#include "mfik/solver.hpp"
#include "solver/json_reader.hpp"
#include "solver/networks/tensors.hpp"

namespace mfik {

/// A network without its weights.
class NetworkDescription {
  public:
    virtual ~NetworkDescription() = default;

    /// Every tensor of the network: the names and shapes of its PyTorch module's state.
    [[nodiscard]] virtual Shapes tensors() const = 0;

    /// Whether a tensor counts among the trained parameters.
    [[nodiscard]] virtual bool is_trained(const std::string& tensor) const = 0;

    /// The built-in engine, at r = 0 and t = 1, the only times that solving uses. Real-time safe; the weights are
    /// packed once and read once for up to kMaxRows rows.
    /// @param[in] weights  All of tensors(), in their shapes.
    [[nodiscard]] virtual std::unique_ptr<const Engine> make_engine(
        const Tensors& weights, cpu::InstructionSet instructions = cpu::best_instruction_set()) const = 0;
};

/// Read a bundle's `model` object.
/// @throw Error  It is of no known type, or its sizes are out of bounds or not for the robot.
[[nodiscard]] std::unique_ptr<const NetworkDescription> read_network(const JsonReader& reader, const Json& model,
                                                                     const Chain& chain);

}  // namespace mfik
