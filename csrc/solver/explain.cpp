// Statuses and results in words.
#include <cstdio>

#include "solver/core.hpp"

namespace mfik {

const char* to_string(Status status) noexcept {
    switch (status) {
        case Status::kSolved:
            return "solved";
        case Status::kNotConverged:
            return "not converged";
        case Status::kUnreachable:
            return "unreachable";
        case Status::kAtLimits:
            return "at limits";
        case Status::kJumpBound:
            return "jump bound";
        case Status::kInvalidInput:
            return "invalid input";
        case Status::kInCollision:
            return "in collision";
    }
    return "unknown status";
}

std::string Solver::explain(const Result& result, Span<const double> q_out) const {
    std::string text = std::string(to_string(result.status)) + ": " + result.reason;
    if (result.status == Status::kInvalidInput || impl_ == nullptr) return text;
    if (result.first != nullptr && result.second != nullptr)
        text += std::string("; '") + result.first + "' and '" + result.second + "'";
    char numbers[160];
    std::snprintf(numbers, sizeof(numbers),
                  "; position error %.3g mm, rotation error %.3g deg after %d steps, %d attempt%s",
                  1e3 * result.pos_error_m, result.rot_error_rad * 180.0 / kPi, result.iterations, result.attempts,
                  result.attempts == 1 ? "" : "s");
    text += numbers;
    const Chain& chain = impl_->chain_in_metres();
    if (q_out.size() != static_cast<std::size_t>(chain.dof)) return text;
    std::string at;
    for (std::size_t j = 0; j < q_out.size(); ++j) {
        if (chain.kind[j] == JointKind::kContinuous) continue;
        const double at_limit = kAtLimit * impl_->units.joint[j];
        const bool low = q_out[j] <= chain.lower[j] + at_limit, high = q_out[j] >= chain.upper[j] - at_limit;
        if (!low && !high) continue;
        std::snprintf(numbers, sizeof(numbers), " %s limit (%.4g)", low ? "lower" : "upper",
                      low ? chain.lower[j] : chain.upper[j]);
        at += (at.empty() ? "" : ", ") + impl_->bundle.robot.joint_names[j] + numbers;
    }
    if (!at.empty()) text += "; at or beyond: " + at;
    return text;
}

}  // namespace mfik
