/** @file
 * mfik from C and from every language that can call C (link libmfik.so, target mfik::c). The same solver as
 * mfik/solver.hpp, which says more about each function.
 *
 *     char error[512];
 *     mfik_solver* solver = mfik_load("panda_bundle", error, sizeof(error));      // NULL: error says why
 *     mfik_workspace* workspace = mfik_workspace_create(solver);                   // one per thread
 *     if (mfik_track(solver, T_base_tool, q_now, max_step, q_next, workspace, NULL, NULL) == MFIK_SOLVED) ...
 *     mfik_workspace_destroy(workspace);
 *     mfik_destroy(solver);
 *
 * Poses are T_base_tool as [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign. Joints are in [rad],
 * prismatic ones in [m]; an array of joints has mfik_dof() values. No function throws. A pointer may be NULL only where
 * it says so; the calls that return mfik_status answer MFIK_INVALID_INPUT to any other NULL. */
#ifndef MFIK_MFIK_H
#define MFIK_MFIK_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
/** Marks what the shared library exports. */
#define MFIK_API __attribute__((visibility("default")))
#else
#define MFIK_API
#endif

#ifdef __cplusplus
#define MFIK_NOEXCEPT noexcept
extern "C" {
#else
#define MFIK_NOEXCEPT
#endif

/** Robot and network. Immutable: any number of threads may share it. */
typedef struct mfik_solver mfik_solver;
/** Scratch memory of one thread, for the solver that made it. */
typedef struct mfik_workspace mfik_workspace;
/** Follower of a path with bounds of velocity and acceleration: one for each path, used by one thread at a time. */
typedef struct mfik_tracker mfik_tracker;

/** Outcome of a call, one of the MFIK_ values below. */
typedef int32_t mfik_status;
enum {
    MFIK_SOLVED = 0,        /**< both errors are within tolerance and every joint is within its limits */
    MFIK_NOT_CONVERGED = 1, /**< the error was still falling when the iterations ran out */
    MFIK_UNREACHABLE = 2,   /**< out of reach, or no joint motion lessens the error of the best attempt */
    MFIK_AT_LIMITS = 3,     /**< joint limits hold the best attempt back, or the raw network answer violates one */
    MFIK_JUMP_BOUND = 4,    /**< tracking only: no answer within the bounds */
    MFIK_INVALID_INPUT = 5, /**< bad argument, see mfik_result.reason; nothing was written to q_out */
    MFIK_IN_COLLISION = 6,  /**< reached only with less clearance than the margin; tracking: held back to keep it */
    MFIK_OUT_OF_MEMORY = -1 /**< mfik_solve_batch and mfik_solve_path only; nothing was written */
};

/** Where mfik_solve begins, one of the MFIK_SEED_ values below. */
typedef int32_t mfik_seed;
enum {
    MFIK_SEED_REFERENCE = 0, /**< q_ref */
    MFIK_SEED_NETWORK = 1,   /**< the network's answer */
    MFIK_SEED_MIDPOINT = 2,  /**< the midpoint of the limits */
    MFIK_SEED_AZIMUTH = 3    /**< the midpoint with the first joint turned to the target's azimuth */
};

/** Whether links are compared with each other, one of the MFIK_SELF_COLLISION_ values below. */
typedef int32_t mfik_self_collision;
enum {
    MFIK_SELF_COLLISION_WITH_WORLD = 0, /**< where a world is given: the default */
    MFIK_SELF_COLLISION_ON = 1,         /**< always */
    MFIK_SELF_COLLISION_OFF = 2         /**< never */
};

/** Shapes in the robot's base frame, see mfik/collision.hpp. Any number of threads may use it while none changes it. */
typedef struct mfik_world mfik_world;

/** What a robot holds, see mfik/collision.hpp. Any number of threads may use it while none changes it. */
typedef struct mfik_attachments mfik_attachments;

/** Options of a call. Fill with mfik_options_init, then change what you need. Fields are only ever added at the end. */
typedef struct mfik_options {
    uint32_t size;          /**< sizeof(mfik_options) that the caller was compiled with; mfik_options_init sets it */
    int32_t max_iterations; /**< refinement steps of each attempt, 0 to 1000; 0: the first seed as it is */
    int32_t max_attempts;   /**< seeds to try, 1 to 10000 */
    mfik_seed seed;         /**< where the first attempt begins */
    int32_t nearest;        /**< not 0: go on after a solution, to the one nearest to q_ref */
    uint32_t locked;        /**< bit j: joint j stays at q_ref[j] */
    double tol_pos_m;       /**< largest accepted position error [m]; finite, >= 0 */
    double tol_rot_rad;     /**< largest accepted rotation error [rad]; finite, >= 0 */
    double T_tip_tool[7];   /**< tool that the target speaks of, in the tip frame */
    double slack[6]; /**< accepted error along [m] and about [rad] the target's axes; >= 0, INFINITY frees an axis */
    double preference_gain;    /**< share of the way to q_preferred taken in each step, 0 to 1; without a posture,
                                    of the way that tracking leads away from limits; 0: no such motion */
    const double* q_preferred; /**< null-space posture [dof], or NULL; must live as long as the call */
    int32_t throughput;        /**< mfik_solve_batch only, not 0: many rows side by side, see mfik/solver.hpp */
    mfik_self_collision self_collision; /**< whether links keep clear of each other */
    double margin_m; /**< clearance to keep to the world [m], finite; links keep 0 from each other, or less where it is
                        negative */
    const mfik_world* world;          /**< what to keep clear of, or NULL; must live as long as the call */
    const mfik_attachments* attached; /**< what the robot holds, made for this solver, or NULL; likewise */
    const double* joint_weights; /**< of the joints in the distance from q_ref [dof], > 0, or NULL for 1 each; must live
                                    as long as the call */
} mfik_options;

/** Outcome of a call. */
typedef struct mfik_result {
    mfik_status status;   /**< whether q_out solves the pose */
    int32_t iterations;   /**< refinement steps taken one after the other, whatever for */
    int32_t attempts;     /**< seeds begun */
    int32_t solutions;    /**< rows of q_out that hold a solution */
    double pos_error_m;   /**< position error beyond the slack at q_out [m]; NaN on invalid input */
    double rot_error_rad; /**< rotation error beyond the slack at q_out [rad]; NaN on invalid input */
    double time_us;       /**< wall time of the call [us] */
    const char* reason;   /**< why it ended so, in words; static memory */
    const char* first;    /**< MFIK_IN_COLLISION: the nearest two, memory of solver or attachments, else NULL */
    const char* second;   /**< the other one; memory of these or the world */
} mfik_result;

/** Version of the library, such as "0.1.0". Static memory. */
MFIK_API const char* mfik_version(void) MFIK_NOEXCEPT;

/** Name of a status, such as "solved". Static memory. */
MFIK_API const char* mfik_status_name(mfik_status status) MFIK_NOEXCEPT;

/** Read a bundle: its folder, or the model.safetensors in it.
 * error: receives why it failed, terminated, cut to error_size bytes; or NULL. Returns NULL on failure. */
MFIK_API mfik_solver* mfik_load(const char* path, char* error, size_t error_size) MFIK_NOEXCEPT;

/** Release the solver; NULL is allowed. Its names and limits go with it. */
MFIK_API void mfik_destroy(mfik_solver* solver) MFIK_NOEXCEPT;

/** Take scratch memory for one thread; NULL when there is none. */
MFIK_API mfik_workspace* mfik_workspace_create(const mfik_solver* solver) MFIK_NOEXCEPT;

/** Release a workspace; NULL is allowed. */
MFIK_API void mfik_workspace_destroy(mfik_workspace* workspace) MFIK_NOEXCEPT;

/** @name What the solver knows of its robot
 * Memory of the solver. With NULL for the solver: 0 or NULL.
 * @{ */
MFIK_API int32_t mfik_dof(const mfik_solver* solver) MFIK_NOEXCEPT;            /**< number of joints */
MFIK_API const char* mfik_robot_name(const mfik_solver* solver) MFIK_NOEXCEPT; /**< name of the robot */
MFIK_API const char* mfik_base_link(const mfik_solver* solver) MFIK_NOEXCEPT;  /**< frame of the poses */
MFIK_API const char* mfik_tip_link(const mfik_solver* solver) MFIK_NOEXCEPT;   /**< tool frame */
MFIK_API const char* mfik_joint_name(const mfik_solver* solver,
                                     int32_t joint) MFIK_NOEXCEPT; /**< NULL: no such joint */
MFIK_API const double* mfik_lower(const mfik_solver* solver)
    MFIK_NOEXCEPT; /**< [dof]; continuous joints: -pi, unlimited */
MFIK_API const double* mfik_upper(const mfik_solver* solver)
    MFIK_NOEXCEPT; /**< [dof]; continuous joints: pi, unlimited */
MFIK_API const double* mfik_velocity(const mfik_solver* solver)
    MFIK_NOEXCEPT;                                                    /**< [dof] [rad/s or m/s]; infinity: none known */
MFIK_API int32_t mfik_lanes(const mfik_solver* solver) MFIK_NOEXCEPT; /**< attempts refined at a time on this machine */
MFIK_API size_t mfik_num_parameters(const mfik_solver* solver) MFIK_NOEXCEPT;     /**< 0: the bundle holds no network */
MFIK_API const char* mfik_metadata_json(const mfik_solver* solver) MFIK_NOEXCEPT; /**< the bundle's JSON about itself */
/** @} */

/** Set `size` bytes of options, sizeof(mfik_options), to the defaults. */
MFIK_API void mfik_options_init(mfik_options* options, size_t size) MFIK_NOEXCEPT;

/** Forward kinematics: T_base_tool of joints q [dof], qw >= 0; NaN when a joint is not finite. */
MFIK_API mfik_status mfik_fk(const mfik_solver* solver, const double* q, double T_base_tool[7]) MFIK_NOEXCEPT;

/** Find joints that bring the tool to T_base_tool. Real-time safe: no allocation, lock or system call.
 * q_ref: joints to start from [dof]. q_out: best joints found [dof], written unless the input is invalid; may be q_ref.
 * options: NULL for the defaults. result: NULL, or receives the details. Returns the status. */
MFIK_API mfik_status mfik_solve(const mfik_solver* solver, const double T_base_tool[7], const double* q_ref,
                                double* q_out, mfik_workspace* workspace, const mfik_options* options,
                                mfik_result* result) MFIK_NOEXCEPT;

/** Follow a path: no joint of q_out is further than max_step > 0 [rad or m] from q_prev, whatever the status; where
 * that bound binds, the tool keeps its direction. Real-time safe. q_prev: joints now [dof]. q_out: joints to command
 * [dof]; may be q_prev. Else as mfik_solve. */
MFIK_API mfik_status mfik_track(const mfik_solver* solver, const double T_base_tool[7], const double* q_prev,
                                double max_step, double* q_out, mfik_workspace* workspace, const mfik_options* options,
                                mfik_result* result) MFIK_NOEXCEPT;

/** The same with a bound for each joint, max_step [dof]. */
MFIK_API mfik_status mfik_track_joints(const mfik_solver* solver, const double T_base_tool[7], const double* q_prev,
                                       const double* max_step, double* q_out, mfik_workspace* workspace,
                                       const mfik_options* options, mfik_result* result) MFIK_NOEXCEPT;

/** Begin to follow a path, at rest: what is commanded from now on keeps to bounds of velocity and acceleration, and to
 * the joint limits, whatever the target does. Allocates.
 * solver: has to outlive the tracker. q: joints now [dof], within the limits. dt: time between two commands [s], > 0.
 * velocity: largest of each joint [rad/s or m/s], [dof], or NULL: mfik_velocity(). acceleration: largest of each joint
 * [rad/s^2 or m/s^2], [dof]. error: as of mfik_load. Returns NULL on failure. */
MFIK_API mfik_tracker* mfik_tracker_create(const mfik_solver* solver, const double* q, double dt,
                                           const double* velocity, const double* acceleration, char* error,
                                           size_t error_size) MFIK_NOEXCEPT;

/** Release a tracker; NULL is allowed. */
MFIK_API void mfik_tracker_destroy(mfik_tracker* tracker) MFIK_NOEXCEPT;

/** Move the joints on by one sample towards a target. Real-time safe, else as mfik_track. Whatever the status, command
 * mfik_tracker_q: after invalid input the joints go on to the last target, as a sudden stop would break the bounds, or,
 * where the last step kept clear of obstacles, come to rest. With a world or self-collision in the options, each
 * command also leaves room to come to rest before the margin. */
MFIK_API mfik_status mfik_tracker_step(mfik_tracker* tracker, const double T_base_tool[7], const mfik_options* options,
                                       mfik_result* result) MFIK_NOEXCEPT;

/** Joints to command [dof], and their velocities [rad/s or m/s]. Memory of the tracker. */
MFIK_API const double* mfik_tracker_q(const mfik_tracker* tracker) MFIK_NOEXCEPT;
MFIK_API const double* mfik_tracker_dq(const mfik_tracker* tracker) MFIK_NOEXCEPT; /**< see mfik_tracker_q */

/** Find up to n different solutions, the nearest to q_ref first. Real-time safe.
 * q_out: [n, dof] row-major; mfik_result.solutions rows are written. min_distance: two solutions differ when some joint
 * differs by more [rad or m], > 0; 0.1 suits an arm. Else as mfik_solve. */
MFIK_API mfik_status mfik_solve_all(const mfik_solver* solver, const double T_base_tool[7], const double* q_ref,
                                    size_t n, double* q_out, double min_distance, mfik_workspace* workspace,
                                    const mfik_options* options, mfik_result* result) MFIK_NOEXCEPT;

/** Solve n rows, each exactly as mfik_solve would, unless options.throughput is set. Allocates, and starts threads: not
 * for real-time use. poses: [n, 7]; q_ref, q_out: [n, dof]; results: [n] or NULL; threads: at least 1. Returns
 * MFIK_SOLVED if every row is solved, else the first other status. */
MFIK_API mfik_status mfik_solve_batch(const mfik_solver* solver, size_t n, const double* poses, const double* q_ref,
                                      double* q_out, mfik_result* results, const mfik_options* options,
                                      int32_t threads) MFIK_NOEXCEPT;

/** What a path keeps to, beside the options of its waypoints. Fill with mfik_path_options_init, then change what you
 * need. Arrays must live as long as the call. Fields are only ever added at the end. */
typedef struct mfik_path_options {
    uint32_t size;          /**< sizeof(mfik_path_options) that the caller was compiled with */
    const double* max_step; /**< largest change of each joint from one waypoint to the next [rad or m], [dof], > 0 */
    const double* q_start;  /**< joints at the first waypoint, which solve its pose [rad or m], [dof]; or NULL: any */
    const double* q_goal;   /**< joints at the last waypoint, likewise */
    const double* q_ref;    /**< where locked joints stay, and what turns of the first joints are nearest to [rad or m],
                                 [dof]; or NULL: q_start, else q_goal, else the midpoint of the limits */
    double edge_check;      /**< largest change of a joint [rad or m] between two configurations that are checked for
                                 collision from one waypoint to the next, > 0 */
    double time_limit_s;    /**< longest time to search [s], > 0 */
    uint64_t random_seed;   /**< of the configurations from which solutions are looked for */
    int32_t (*progress)(double share, void* data); /**< or NULL: called about every 100 ms with the share of the work
                                                        that is done; not 0 ends the search */
    void* progress_data;                           /**< handed to progress */
} mfik_path_options;

/** Outcome of mfik_solve_path. */
typedef struct mfik_path_result {
    mfik_status status; /**< MFIK_SOLVED: every waypoint; else why the path breaks */
    int32_t attempts;   /**< configurations from which solutions were looked for */
    size_t reached;     /**< rows of q_out that hold joints: the longest prefix that was found */
    double length;      /**< sum of the changes of all joints over q_out [rad and m] */
    double time_us;     /**< wall time of the call [us] */
} mfik_path_result;

/** Write the defaults of mfik_solve_path; size: sizeof(mfik_path_options). max_step is NULL, and has to be given. */
MFIK_API void mfik_path_options_init(mfik_path_options* options, size_t size) MFIK_NOEXCEPT;

/** Find joints for every pose of a path, without jumps (mfik/path.hpp). Allocates: not for real-time use.
 * poses: T_base_tool, [n, 7]. q_out: [n, dof]. result: or NULL. reason: receives why it ended so, terminated, cut to
 * reason_size bytes; or NULL. Returns the status; MFIK_OUT_OF_MEMORY with nothing written. */
MFIK_API mfik_status mfik_solve_path(const mfik_solver* solver, size_t n, const double* poses, double* q_out,
                                     const mfik_path_options* path, const mfik_options* options,
                                     mfik_path_result* result, char* reason, size_t reason_size) MFIK_NOEXCEPT;

/** Describe a result in a sentence or two, with numbers and joint names. Allocates: not for real-time use.
 * q_out: the joints of the result [dof]. text: receives it, terminated, cut to text_size bytes. Returns its full length
 * without the terminator; 0 when an argument is NULL or memory is out. */
MFIK_API size_t mfik_explain(const mfik_solver* solver, const mfik_result* result, const double* q_out, char* text,
                             size_t text_size) MFIK_NOEXCEPT;

/** The nearest two of mfik_clearance_of. */
typedef struct mfik_clearance {
    double distance_m;   /**< signed distance [m], negative in collision; INFINITY with nothing to compare */
    const char* first;   /**< link or attached object, or NULL; memory of the solver or the attachments */
    const char* second;  /**< the same, or shape of the world, or NULL; memory of these or the world */
    double gradient[16]; /**< d distance / d q [m/rad or m/m], dof values, then 0 */
} mfik_clearance;

/** Make an empty world; NULL when there is no memory. */
MFIK_API mfik_world* mfik_world_create(void) MFIK_NOEXCEPT;

/** Release a world; NULL is allowed. */
MFIK_API void mfik_world_destroy(mfik_world* world) MFIK_NOEXCEPT;

/** @name Add a shape
 * Poses are T_base_shape, sizes [m] above 0, cylinders and capsules lie along z, a half-space is all below z = 0. Takes
 * memory. error: receives why it failed, terminated, cut to error_size bytes; or NULL. Returns the shape's index for
 * mfik_world_set_pose, -1 on failure, with nothing added.
 * @{ */
MFIK_API int32_t mfik_world_add_sphere(mfik_world* world, const char* name, double radius_m,
                                       const double T_base_shape[7], char* error, size_t error_size) MFIK_NOEXCEPT;
/**< ball about the origin */
MFIK_API int32_t mfik_world_add_box(mfik_world* world, const char* name, const double size_m[3],
                                    const double T_base_shape[7], char* error,
                                    size_t error_size) MFIK_NOEXCEPT; /**< edges along the axes */
MFIK_API int32_t mfik_world_add_cylinder(mfik_world* world, const char* name, double radius_m, double length_m,
                                         const double T_base_shape[7], char* error,
                                         size_t error_size) MFIK_NOEXCEPT; /**< from -length / 2 to length / 2 */
MFIK_API int32_t mfik_world_add_capsule(mfik_world* world, const char* name, double radius_m, double length_m,
                                        const double T_base_shape[7], char* error,
                                        size_t error_size) MFIK_NOEXCEPT; /**< length between the ends' centres */
MFIK_API int32_t mfik_world_add_half_space(mfik_world* world, const char* name, const double T_base_shape[7],
                                           char* error, size_t error_size) MFIK_NOEXCEPT; /**< a floor, a wall */
MFIK_API int32_t mfik_world_add_point_cloud(mfik_world* world, const char* name, const double* points_m, size_t n,
                                            double radius_m, const double T_base_shape[7], char* error,
                                            size_t error_size) MFIK_NOEXCEPT; /**< balls about points [n, 3] */
/** @} */

/** Move a shape. Real-time safe. Returns MFIK_INVALID_INPUT, with nothing changed, where there is no such shape or the
 * pose is invalid. */
MFIK_API mfik_status mfik_world_set_pose(mfik_world* world, int32_t shape, const double T_base_shape[7]) MFIK_NOEXCEPT;

/** Make attachments of a solver, without any object; NULL when there is no memory or no solver. */
MFIK_API mfik_attachments* mfik_attachments_create(const mfik_solver* solver) MFIK_NOEXCEPT;

/** Release attachments; NULL is allowed. */
MFIK_API void mfik_attachments_destroy(mfik_attachments* attachments) MFIK_NOEXCEPT;

/** Attach an object to a link. Takes memory; error: receives a message, or NULL. Returns the index of the object for
 * mfik_attachments_set_pose, -1 on failure, with nothing attached. spheres_m: [x, y, z, radius] of each [n, 4].
 * touching: names of the links and objects that it may touch [num_touching]. */
MFIK_API int32_t mfik_attachments_add(mfik_attachments* attachments, const char* name, const double* spheres_m,
                                      size_t n, const char* link, const double T_link_object[7],
                                      const char* const* touching, size_t num_touching, char* error,
                                      size_t error_size) MFIK_NOEXCEPT;

/** Move an object against the link that holds it. Real-time safe. Returns MFIK_INVALID_INPUT, with nothing changed,
 * where there is no such object or the pose is invalid. */
MFIK_API mfik_status mfik_attachments_set_pose(mfik_attachments* attachments, int32_t object,
                                               const double T_link_object[7]) MFIK_NOEXCEPT;

/** Tell how far the robot is from the world and from itself, by the spheres of its bundle. Real-time safe.
 * q: joints [dof]. world: NULL for none. self_collision: not 0: compare links with each other. attached: NULL for
 * nothing. Returns MFIK_INVALID_INPUT, with nothing written, where the input is invalid or there are no spheres. */
MFIK_API mfik_status mfik_clearance_of(const mfik_solver* solver, const double* q, const mfik_world* world,
                                       int32_t self_collision, const mfik_attachments* attached,
                                       mfik_clearance* clearance) MFIK_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#undef MFIK_NOEXCEPT
#endif
