#include "solver/networks/network.hpp"

#include "solver/networks/v1.hpp"
#include "solver/networks/v2.hpp"

namespace mfik {
namespace {

struct NetworkType {
    const char* name;  // `type` of a bundle's `model`
    std::unique_ptr<const NetworkDescription> (*read)(const JsonReader& reader, const Json& model, const Chain& chain);
};

constexpr NetworkType kNetworkTypes[] = {{"v1", v1::read}, {"v2", v2::read}};

}  // namespace

std::unique_ptr<const NetworkDescription> read_network(const JsonReader& reader, const Json& model,
                                                       const Chain& chain) {
    const std::string name = reader.string(model, "type", "model");
    std::string known;
    for (const NetworkType& type : kNetworkTypes) {
        if (name == type.name) {
            const int dof = reader.integer(model, "dof", "model", 1, kMaxJoints);
            if (dof != chain.dof) {
                reader.fail("model.dof", std::to_string(chain.dof) + " (the robot's joints)", std::to_string(dof));
            }
            return type.read(reader, model, chain);
        }
        known += (known.empty() ? "'" : " or '") + std::string(type.name) + "'";
    }
    reader.fail("model.type", known, JsonReader::quote(name), JsonReader::kUpdate);
}

}  // namespace mfik
