// The golden set of tests/golden/make_golden.py.
#pragma once

#include <string>
#include <vector>

namespace mfik::testing {

using Rows = std::vector<std::vector<double>>;

struct Golden {
    Rows q_ref, target_pose, q_solution;
};

/// The versions of the network, each with a golden set.
constexpr const char* kVersions[] = {"v1", "v2"};

/// Path of the golden network's bundle file.
std::string golden_bundle(const std::string& version = "v1");

/// The golden set of a version, read when it is first asked for.
const Golden& golden(const std::string& version = "v1");

}  // namespace mfik::testing
