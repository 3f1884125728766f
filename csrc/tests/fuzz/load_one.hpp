// What the fuzzer tries on each file, and what bundle_test.cpp tries again on the files that it kept.
#pragma once

#include <filesystem>
#include <string>

namespace mfik::testing {

/// Give a file that is long enough the checksum that its other bytes ask for.
void seal(std::string& bytes);

/// Load the bytes as a bundle after sealing them; if they make a solver, use it once. Aborts when an answer breaks the
/// solver's promises; whatever but Error is thrown passes through.
/// @param[in] file  Where to write them.
/// @return Whether they made a solver.
bool load_one(std::string bytes, const std::filesystem::path& file);

}  // namespace mfik::testing
