// The golden set of tests/golden/make_golden.py.
#pragma once

#include <string>
#include <vector>

namespace mfik::testing {

using Rows = std::vector<std::vector<double>>;

struct Golden {
    Rows q_ref, target_pose, q_solution;
};

/// Path of the golden network's bundle file.
std::string golden_bundle();

/// The golden set, read when it is first asked for.
const Golden& golden();

}  // namespace mfik::testing
