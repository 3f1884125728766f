/// @file
/// ONNX Runtime as the engine of a solver: CMake component `onnx`, target mfik::onnx.
#pragma once

#include <memory>
#include <string>

#include "mfik/solver.hpp"

namespace mfik {

/// Read the ONNX network of a bundle, for Solver::load(path, engine). It runs on the calling thread alone.
/// Not real-time safe: ONNX Runtime allocates and locks in every evaluation.
/// Rows evaluated together may differ by float32 rounding from rows evaluated alone.
/// @param[in] path  Bundle folder, or the model.onnx in it.
/// @throw Error  The file is missing, is no ONNX, or was not written by mfik; or the ONNX Runtime that is linked is
///     older than the headers that mfik was built with.
[[nodiscard]] std::unique_ptr<const Engine> load_onnx(const std::string& path);

}  // namespace mfik
