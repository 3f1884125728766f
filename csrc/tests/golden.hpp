// The golden set of tests/golden/make_golden.py.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace mfik::testing {

using Rows = std::vector<std::vector<double>>;

struct Golden {
    Rows q_ref, target_pose, q_solution;
};

inline std::string golden_bundle() {
    return std::string(MFIK_GOLDEN_DIR) + "/v1.safetensors";
}

inline const Golden& golden() {
    static const Golden instance = [] {
        std::ifstream stream(std::string(MFIK_GOLDEN_DIR) + "/v1.json");
        const auto document = nlohmann::json::parse(stream);
        return Golden{document.at("q_ref").get<Rows>(), document.at("target_pose").get<Rows>(),
                      document.at("q_solution").get<Rows>()};
    }();
    return instance;
}

}  // namespace mfik::testing
