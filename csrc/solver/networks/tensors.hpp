// Weights by name.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

namespace mfik {

using Shape = std::vector<std::uint64_t>;
using Shapes = std::map<std::string, Shape>;
using Tensors = std::unordered_map<std::string, std::vector<float>>;  // row-major

}  // namespace mfik
