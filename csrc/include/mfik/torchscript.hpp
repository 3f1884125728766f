/// @file
/// TorchScript as the engine of a solver: CMake component `torchscript`, target mfik::torchscript (libtorch).
#pragma once

#include <memory>
#include <string>

#include "mfik/solver.hpp"

namespace mfik {

/// Read the TorchScript network of a bundle, for Solver::load(path, engine).
/// Not real-time safe: libtorch allocates and locks in every evaluation, and uses its own threads (OMP_NUM_THREADS).
/// Rows evaluated together may differ by float32 rounding from rows evaluated alone.
/// @param[in] path  Bundle folder, or the model.ts in it.
/// @throw Error  The file is missing, is no TorchScript, was not written by mfik, or is of another version.
[[nodiscard]] std::unique_ptr<const Engine> load_torchscript(const std::string& path);

}  // namespace mfik
