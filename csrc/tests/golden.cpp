#include "golden.hpp"

#include <fstream>
#include <nlohmann/json.hpp>

namespace mfik::testing {

std::string golden_bundle(const std::string& version) {
    return std::string(MFIK_GOLDEN_DIR) + "/" + version + ".safetensors";
}

const Golden& golden(const std::string& version) {
    const auto read = [](const std::string& name) {
        std::ifstream stream(std::string(MFIK_GOLDEN_DIR) + "/" + name + ".json");
        const auto document = nlohmann::json::parse(stream);
        return Golden{document.at("q_ref").get<Rows>(), document.at("target_pose").get<Rows>(),
                      document.at("q_solution").get<Rows>()};
    };
    static const Golden v1 = read("v1"), v2 = read("v2");
    return version == "v1" ? v1 : v2;
}

}  // namespace mfik::testing
