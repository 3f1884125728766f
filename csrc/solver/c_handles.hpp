// What the handles of mfik.h hold.
#pragma once

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
