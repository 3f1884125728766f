#include "golden.hpp"

#include <fstream>
#include <nlohmann/json.hpp>

namespace mfik::testing {

std::string golden_bundle() {
    return std::string(MFIK_GOLDEN_DIR) + "/v1.safetensors";
}

const Golden& golden() {
    static const Golden instance = [] {
        std::ifstream stream(std::string(MFIK_GOLDEN_DIR) + "/v1.json");
        const auto document = nlohmann::json::parse(stream);
        return Golden{document.at("q_ref").get<Rows>(), document.at("target_pose").get<Rows>(),
                      document.at("q_solution").get<Rows>()};
    }();
    return instance;
}

}  // namespace mfik::testing
