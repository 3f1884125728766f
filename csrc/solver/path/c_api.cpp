// Whole paths in C.
#include <algorithm>
#include <cstring>
#include <exception>

#include "mfik/path.hpp"
#include "solver/c_handles.hpp"

namespace {

using mfik::Span;

mfik_status refused(const char* why, mfik_path_result* result, char* reason, std::size_t reason_size) {
    mfik::c::copy_text(why, reason, reason_size);
    if (result != nullptr) *result = {MFIK_INVALID_INPUT, 0, 0, 0.0, 0.0};
    return MFIK_INVALID_INPUT;
}

/// What the caller asks of a path; why it is refused, or null.
const char* read_path(const mfik_path_options* given, std::size_t dof, mfik::PathOptions& out) {
    if (given == nullptr) return "path: expected no NULL, as max_step has no default";
    if (given->size != sizeof(mfik_path_options)) {
        return "path.size: expected sizeof(mfik_path_options) of this library; use mfik_path_options_init";
    }
    if (given->max_step == nullptr) return "path.max_step: expected no NULL; give the bound of each joint's step";
    const auto joints = [dof](const double* q) { return q == nullptr ? Span<const double>() : Span(q, dof); };
    out.max_step = joints(given->max_step);
    out.q_start = joints(given->q_start);
    out.q_goal = joints(given->q_goal);
    out.q_ref = joints(given->q_ref);
    out.edge_check = given->edge_check;
    out.time_limit_s = given->time_limit_s;
    out.random_seed = given->random_seed;
    if (given->progress != nullptr) {
        out.progress = [given](double share) { return given->progress(share, given->progress_data) != 0; };
    }
    return nullptr;
}

}  // namespace

void mfik_path_options_init(mfik_path_options* options, size_t size) noexcept {
    if (options == nullptr) return;
    const mfik::PathOptions defaults;
    mfik_path_options out;
    std::memset(&out, 0, sizeof(out));
    out.size = static_cast<uint32_t>(std::min(size, sizeof(out)));
    out.edge_check = defaults.edge_check;
    out.time_limit_s = defaults.time_limit_s;
    out.random_seed = defaults.random_seed;
    std::memcpy(options, &out, out.size);
}

mfik_status mfik_solve_path(const mfik_solver* solver, size_t n, const double* poses, double* q_out,
                            const mfik_path_options* path, const mfik_options* options, mfik_path_result* result,
                            char* reason, size_t reason_size) noexcept {
    if (solver == nullptr || poses == nullptr || q_out == nullptr) {
        return refused("solver, poses and q_out: expected no NULL", result, reason, reason_size);
    }
    const std::size_t dof = static_cast<std::size_t>(solver->solver.dof());
    mfik::Options read_options;
    mfik::PathOptions read;
    const char* error = mfik::c::read_options(options, dof, read_options);
    if (error == nullptr) error = read_path(path, dof, read);
    if (error != nullptr) return refused(error, result, reason, reason_size);
    try {
        const mfik::PathResult found = solver->solver.solve_path({poses, n * 7}, read, read_options);
        std::copy(found.q.begin(), found.q.end(), q_out);
        mfik::c::copy_text(found.reason.c_str(), reason, reason_size);
        const mfik_status status = static_cast<mfik_status>(found.status);
        if (result != nullptr) *result = {status, found.attempts, found.reached, found.length, found.time_us};
        return status;
    } catch (const std::exception&) {
        return MFIK_OUT_OF_MEMORY;  // std::bad_alloc, or a size that no vector has
    }
}
