// What the handles of mfik.h hold, and what the functions on them share.
#pragma once

#include <cstddef>

#include "mfik/collision.hpp"
#include "mfik/mfik.h"
#include "mfik/solver.hpp"

struct mfik_solver {
    mfik::Solver solver;
};

struct mfik_workspace {
    mfik::Workspace workspace;
};

struct mfik_attachments {
    mfik::Attachments attachments;
};

struct mfik_world {
    mfik::World world;
};

namespace mfik::c {

/// Read options of the caller, or the defaults for null, into `out`; returns why they are refused, or null.
const char* read_options(const mfik_options* given, std::size_t dof, Options& out);

/// Copy text into a C string of `size` bytes, cut where it does not fit.
void copy_text(const char* text, char* out, std::size_t size);

}  // namespace mfik::c
