/* Every function of mfik.h, from C99. */
#include <math.h>
#include <mfik/mfik.h>
#include <stdio.h>
#include <string.h>

enum { kMaxJoints = 32, kRows = 40, kWanted = 8 };

static int failures = 0;

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            ++failures;                                                     \
        }                                                                   \
    } while (0)

static void check_load(const char* path) {
    char error[200], cut[8];
    CHECK(mfik_load("/no/such/bundle", error, sizeof(error)) == NULL);
    CHECK(strstr(error, "/no/such/bundle") != NULL);
    CHECK(mfik_load("/no/such/bundle", cut, sizeof(cut)) == NULL);
    CHECK(strlen(cut) == sizeof(cut) - 1 && strncmp(cut, error, sizeof(cut) - 1) == 0);
    CHECK(mfik_load("/no/such/bundle", NULL, 0) == NULL);
    CHECK(mfik_load(NULL, error, sizeof(error)) == NULL && strstr(error, "path") != NULL);
    mfik_destroy(mfik_load(path, NULL, 0));
    mfik_destroy(NULL);
    mfik_workspace_destroy(NULL);
    CHECK(mfik_workspace_create(NULL) == NULL);
}

static void check_description(const mfik_solver* solver) {
    const int dof = mfik_dof(solver);
    int j;
    CHECK(dof > 0 && dof <= kMaxJoints);
    for (j = 0; j < dof; ++j) {
        CHECK(strlen(mfik_joint_name(solver, j)) > 0);
        CHECK(mfik_lower(solver)[j] < mfik_upper(solver)[j]);
    }
    CHECK(mfik_joint_name(solver, -1) == NULL && mfik_joint_name(solver, dof) == NULL);
    CHECK(strlen(mfik_robot_name(solver)) > 0 && strlen(mfik_base_link(solver)) > 0);
    CHECK(strlen(mfik_tip_link(solver)) > 0 && mfik_metadata_json(solver)[0] == '{');
    CHECK(mfik_lanes(solver) >= 1 && mfik_num_parameters(solver) > 0);
    CHECK(mfik_dof(NULL) == 0 && mfik_lower(NULL) == NULL && mfik_robot_name(NULL) == NULL);
    CHECK(strlen(mfik_version()) >= 5);
    CHECK(strcmp(mfik_status_name(MFIK_SOLVED), "solved") == 0);
    CHECK(strcmp(mfik_status_name(MFIK_JUMP_BOUND), "jump bound") == 0);
    CHECK(strcmp(mfik_status_name(MFIK_OUT_OF_MEMORY), "out of memory") == 0);
    CHECK(strcmp(mfik_status_name(99), "unknown status") == 0);
}

static double largest_difference(const double* a, const double* b, int dof) {
    double largest = 0.0;
    int j;
    for (j = 0; j < dof; ++j) {
        const double difference = a[j] < b[j] ? b[j] - a[j] : a[j] - b[j];
        if (difference > largest) largest = difference;
    }
    return largest;
}

/* Joints at the midpoint of the limits, and others close by. */
static void midpoint_of(const mfik_solver* solver, double* midpoint, double* near_midpoint) {
    int j;
    for (j = 0; j < mfik_dof(solver); ++j) {
        midpoint[j] = 0.5 * (mfik_lower(solver)[j] + mfik_upper(solver)[j]);
        near_midpoint[j] = midpoint[j] + 0.1;
    }
}

static void check_solve(const mfik_solver* solver, mfik_workspace* workspace) {
    const int dof = mfik_dof(solver);
    double midpoint[kMaxJoints], near_midpoint[kMaxJoints], q[kMaxJoints], again[kMaxJoints], pose[7], reached[7];
    char text[300];
    mfik_result result;
    mfik_options options;
    size_t length;
    midpoint_of(solver, midpoint, near_midpoint);
    CHECK(mfik_fk(solver, near_midpoint, pose) == MFIK_SOLVED);

    CHECK(mfik_solve(solver, pose, midpoint, q, workspace, NULL, &result) == MFIK_SOLVED);
    printf("%s after %d iterations\n", mfik_status_name(result.status), result.iterations);
    CHECK(result.status == MFIK_SOLVED && result.attempts >= 1 && result.time_us > 0.0);
    CHECK(result.pos_error_m <= 1e-5 && result.rot_error_rad <= 1e-5);
    CHECK(mfik_fk(solver, q, reached) == MFIK_SOLVED && largest_difference(pose, reached, 3) <= 1e-5);
    mfik_options_init(&options, sizeof(options));
    CHECK(options.size == sizeof(options) && options.q_preferred == NULL && options.T_tip_tool[3] == 1.0);
    CHECK(mfik_solve(solver, pose, midpoint, again, workspace, &options, NULL) == MFIK_SOLVED);
    CHECK(memcmp(q, again, sizeof(double) * (size_t)dof) == 0);

    length = mfik_explain(solver, &result, q, text, sizeof(text));
    CHECK(length == strlen(text) && strncmp(text, "solved", 6) == 0);
    CHECK(mfik_explain(solver, &result, q, text, 4) == length && strcmp(text, "sol") == 0);
    CHECK(mfik_explain(solver, &result, q, NULL, 0) == length);
}

static void check_track_and_solve_all(const mfik_solver* solver, mfik_workspace* workspace) {
    const int dof = mfik_dof(solver);
    double midpoint[kMaxJoints], near_midpoint[kMaxJoints], q[kMaxJoints], pose[7], reached[7];
    double all[kWanted * kMaxJoints];
    mfik_result result;
    int i;
    midpoint_of(solver, midpoint, near_midpoint);
    CHECK(mfik_fk(solver, near_midpoint, pose) == MFIK_SOLVED);
    CHECK(mfik_track(solver, pose, near_midpoint, 0.01, q, workspace, NULL, NULL) == MFIK_SOLVED);
    CHECK(mfik_track(solver, pose, midpoint, 0.01, q, workspace, NULL, &result) == MFIK_JUMP_BOUND);
    CHECK(result.status == MFIK_JUMP_BOUND && largest_difference(q, midpoint, dof) <= 0.01);
    CHECK(strlen(result.reason) > 0);

    CHECK(mfik_solve_all(solver, pose, midpoint, kWanted, all, 0.1, workspace, NULL, &result) == MFIK_SOLVED);
    CHECK(result.solutions >= 1 && result.solutions <= kWanted);
    for (i = 0; i < result.solutions; ++i) {
        CHECK(mfik_fk(solver, all + i * dof, reached) == MFIK_SOLVED && largest_difference(pose, reached, 3) <= 1e-5);
    }
}

/* Options take effect, and wrong ones are refused. */
static void check_options(const mfik_solver* solver, mfik_workspace* workspace) {
    double midpoint[kMaxJoints], near_midpoint[kMaxJoints], q[kMaxJoints], pose[7], reached[7];
    mfik_result result;
    mfik_options options;
    midpoint_of(solver, midpoint, near_midpoint);
    CHECK(mfik_fk(solver, near_midpoint, pose) == MFIK_SOLVED);
    mfik_options_init(&options, sizeof(options));
    options.locked = 1u << 1;
    mfik_solve(solver, pose, midpoint, q, workspace, &options, NULL);
    CHECK(q[1] == midpoint[1]);
    mfik_options_init(&options, sizeof(options));
    options.T_tip_tool[2] = 0.1;
    CHECK(mfik_solve(solver, pose, midpoint, q, workspace, &options, NULL) == MFIK_SOLVED);
    CHECK(mfik_fk(solver, q, reached) == MFIK_SOLVED && largest_difference(pose, reached, 3) > 0.05);
    mfik_options_init(&options, sizeof(options));
    options.seed = 99;
    CHECK(mfik_solve(solver, pose, midpoint, q, workspace, &options, &result) == MFIK_INVALID_INPUT);
    CHECK(strstr(result.reason, "seed") != NULL && isnan(result.pos_error_m));
    mfik_options_init(&options, sizeof(options));
    options.size = 8;
    CHECK(mfik_solve(solver, pose, midpoint, q, workspace, &options, &result) == MFIK_INVALID_INPUT);
    CHECK(strstr(result.reason, "size") != NULL);
    options.size = sizeof(options) + 8;
    CHECK(mfik_solve(solver, pose, midpoint, q, workspace, &options, NULL) == MFIK_INVALID_INPUT);
}

/* Wrong input is refused, and nothing is written. */
static void check_refusals(const mfik_solver* solver, mfik_workspace* workspace) {
    double midpoint[kMaxJoints], near_midpoint[kMaxJoints], q[kMaxJoints], pose[7], reached[7];
    mfik_result result;
    midpoint_of(solver, midpoint, near_midpoint);
    CHECK(mfik_fk(solver, near_midpoint, pose) == MFIK_SOLVED);
    q[0] = 42.0;
    CHECK(mfik_solve(NULL, pose, midpoint, q, workspace, NULL, NULL) == MFIK_INVALID_INPUT);
    CHECK(mfik_solve(solver, NULL, midpoint, q, workspace, NULL, NULL) == MFIK_INVALID_INPUT);
    CHECK(mfik_solve(solver, pose, NULL, q, workspace, NULL, NULL) == MFIK_INVALID_INPUT);
    CHECK(mfik_solve(solver, pose, midpoint, NULL, workspace, NULL, NULL) == MFIK_INVALID_INPUT);
    CHECK(mfik_solve(solver, pose, midpoint, q, NULL, NULL, &result) == MFIK_INVALID_INPUT);
    CHECK(strstr(result.reason, "workspace") != NULL);
    CHECK(mfik_track(solver, pose, midpoint, -1.0, q, workspace, NULL, NULL) == MFIK_INVALID_INPUT);
    CHECK(mfik_solve_all(solver, pose, midpoint, 0, q, 0.1, workspace, NULL, NULL) == MFIK_INVALID_INPUT);
    midpoint[0] = NAN;
    CHECK(mfik_solve(solver, pose, midpoint, q, workspace, NULL, NULL) == MFIK_INVALID_INPUT);
    CHECK(mfik_fk(solver, midpoint, reached) == MFIK_INVALID_INPUT && isnan(reached[0]));
    CHECK(mfik_fk(solver, NULL, reached) == MFIK_INVALID_INPUT);
    CHECK(q[0] == 42.0);
}

/* A batch is its rows. */
static void check_batch(const mfik_solver* solver, mfik_workspace* workspace) {
    const int dof = mfik_dof(solver);
    double q_near[kMaxJoints], q[kMaxJoints];
    double poses[kRows * 7], q_refs[kRows * kMaxJoints], q_rows[kRows * kMaxJoints];
    mfik_result results[kRows];
    mfik_options options;
    int i, j;
    for (i = 0; i < kRows; ++i) {
        for (j = 0; j < dof; ++j) {
            const double share = 0.2 + 0.6 * (double)((7 * i + 5 * j) % kRows) / kRows;
            q_refs[i * dof + j] = mfik_lower(solver)[j] + share * (mfik_upper(solver)[j] - mfik_lower(solver)[j]);
            q_near[j] = q_refs[i * dof + j] + 0.2;
        }
        CHECK(mfik_fk(solver, q_near, poses + 7 * i) == MFIK_SOLVED);
    }
    CHECK(mfik_solve_batch(solver, kRows, poses, q_refs, q_rows, results, NULL, 2) == MFIK_SOLVED);
    for (i = 0; i < kRows; ++i) {
        CHECK(mfik_solve(solver, poses + 7 * i, q_refs + i * dof, q, workspace, NULL, NULL) == results[i].status);
        CHECK(memcmp(q, q_rows + i * dof, sizeof(double) * (size_t)dof) == 0);
    }
    mfik_options_init(&options, sizeof(options));
    options.throughput = 1;
    CHECK(mfik_solve_batch(solver, kRows, poses, q_refs, q_rows, results, &options, 2) == MFIK_SOLVED);
    CHECK(mfik_solve_batch(solver, kRows, poses, q_refs, q_rows, results, NULL, 0) == MFIK_INVALID_INPUT);
    CHECK(results[kRows - 1].status == MFIK_INVALID_INPUT);
    CHECK(mfik_solve_batch(solver, kRows, poses, NULL, q_rows, NULL, NULL, 1) == MFIK_INVALID_INPUT);
}

int main(int argc, char** argv) {
    char error[500];
    mfik_solver* solver;
    mfik_workspace* workspace;
    if (argc != 2) {
        fprintf(stderr, "usage: consumer_c BUNDLE\n");
        return 2;
    }
    check_load(argv[1]);
    solver = mfik_load(argv[1], error, sizeof(error));
    if (solver == NULL) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    workspace = mfik_workspace_create(solver);
    check_description(solver);
    check_solve(solver, workspace);
    check_track_and_solve_all(solver, workspace);
    check_options(solver, workspace);
    check_refusals(solver, workspace);
    check_batch(solver, workspace);
    mfik_workspace_destroy(workspace);
    mfik_destroy(solver);
    return failures == 0 ? 0 : 1;
}
