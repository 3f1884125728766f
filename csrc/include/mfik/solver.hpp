/// @file
/// mfik: inverse kinematics for controllers. Seeds, a bounded refinement, and a check by forward kinematics.
///
/// @code{.cpp}
/// const mfik::Solver solver = mfik::Solver::load("panda_bundle");        // throws mfik::Error; takes all memory
/// mfik::Workspace workspace = solver.make_workspace();                   // one per thread
/// mfik::Result result = solver.solve(T_base_tool, q_now, q_goal, workspace);          // any solution, any distance
/// result = solver.track(T_base_tool, q_now, max_step, q_next, workspace);              // the next sample of a path
/// if (result.status == mfik::Status::kSolved) command(q_next);
/// @endcode
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace mfik {

/// T_base_tool as [x, y, z, qw, qx, qy, qz]: tool frame in the base frame, [m], unit quaternion of either sign.
using Pose = std::array<double, 7>;

/// Largest accepted deviation of a quaternion's norm from 1; smaller ones are normalised away.
constexpr double kQuatNormTolerance = 1e-3;
/// Largest accepted coordinate of a tool's origin [m]: beyond, squares of lengths would lose the arm in rounding.
constexpr double kMaxToolLength = 1e9;
/// Largest accepted Options::max_iterations.
constexpr int kMaxIterations = 1000;
/// Largest accepted Options::max_attempts.
constexpr int kMaxAttempts = 10000;

/// View of contiguous elements that somebody else owns.
template <class T>
class Span {
  public:
    /// View of nothing.
    constexpr Span() noexcept = default;
    /// View of `size` elements from `data` on.
    constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
    /// View of an array.
    template <std::size_t N>
    constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    /// View of a container with data() and size(), such as std::vector or std::array, or of another Span.
    template <class Container,
              class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container&>().data()), T*>>>
    constexpr Span(Container&& container) noexcept : data_(container.data()), size_(container.size()) {}

    [[nodiscard]] constexpr T* data() const noexcept { return data_; }           ///< First element.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }  ///< Number of elements.
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }   ///< Whether there are none.
    constexpr T& operator[](std::size_t i) const noexcept { return data_[i]; }   ///< Element i, unchecked.
    constexpr T* begin() const noexcept { return data_; }                        ///< First element.
    constexpr T* end() const noexcept { return data_ + size_; }                  ///< One past the last element.
    /// View of `size` elements from `offset` on, unchecked.
    [[nodiscard]] constexpr Span subspan(std::size_t offset, std::size_t size) const noexcept {
        return {data_ + offset, size};
    }

  private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

/// Outcome of a call.
enum class Status : int {
    kSolved = 0,        ///< Both errors are within tolerance and every joint is within its limits.
    kNotConverged = 1,  ///< The error was still falling when the iterations ran out.
    kUnreachable = 2,   ///< Out of the arm's reach, or the best attempt ended where no joint motion lessens the error.
    kAtLimits = 3,      ///< Joint limits hold the best attempt back, or the raw network answer violates one.
    kJumpBound = 4,     ///< track() only: no answer within max_step of q_prev.
    kInvalidInput = 5,  ///< Non-finite or misshapen input, non-unit quaternion, or bad options; nothing was written.
    kInCollision = 6,   ///< The pose is reached only with less clearance than the margin, by Result::first and second;
                        ///< track(): they hold the motion back.
};

/// Name of a status, such as "solved".
[[nodiscard]] const char* to_string(Status status) noexcept;

/// Where solve() begins. Later attempts begin at q_ref and at stored configurations that suit the target.
enum class Seed : int {
    kReference = 0,  ///< q_ref: the default, because it measured fastest (docs/explanation/solving.md).
    kNetwork = 1,    ///< q_ref + u(q_ref, 0, 1), the network's answer.
    kMidpoint = 2,   ///< The midpoint of the limits.
    kAzimuth = 3,    ///< The midpoint with the first joint turned to the target's azimuth.
};

class World;         // mfik/collision.hpp
class Attachments;   // the same
struct Clearance;    // the same
struct PathOptions;  // mfik/path.hpp
struct PathResult;   // the same

/// Whether links are compared with each other.
enum class SelfCollision : int {
    kWithWorld = 0,  ///< Where Options::world is given: the default.
    kOn = 1,         ///< Always.
    kOff = 2,        ///< Never.
};

/// Options of a call.
struct Options {
    double tol_pos_m = 1e-5;    ///< Largest accepted position error [m]; finite, >= 0.
    double tol_rot_rad = 1e-5;  ///< Largest accepted rotation error [rad]; finite, >= 0.
    int max_iterations = 12;    ///< Refinement steps of each attempt, 0 to kMaxIterations; 0: the first seed as it is.
    int max_attempts = 160;     ///< Seeds to try, 1 to kMaxAttempts; lanes() are refined at a time. 1: the first alone.
    Seed seed = Seed::kReference;  ///< Where the first attempt begins.
    bool nearest = false;          ///< Go on after a solution, to the one nearest to q_ref; see joint_weights.
    /// Weights of the joints in the distance from q_ref, the root of the sum of their squared weighted differences
    /// [rad] or [m]: dof() values > 0, or empty for 1 each. Only their ratios matter.
    Span<const double> joint_weights{};
    Pose T_tip_tool{0, 0, 0, 1, 0, 0, 0};  ///< Tool that the target speaks of, in the tip frame [m]; kMaxToolLength.
    /// Error accepted along and about the axes of the target frame, beyond the tolerances: [x, y, z] [m], rotation
    /// vector [x, y, z] [rad]; each >= 0. Infinity frees an axis: with one turn free, the others bound the swing that
    /// is left after the best such turn; with two, the third bounds the twist about its own axis, which may point
    /// anywhere.
    std::array<double, 6> slack{};
    std::uint32_t locked = 0;  ///< Bit j: joint j stays at q_ref[j].
    /// Null-space posture: joints to approach with the motion that the target leaves free, dof() values, or empty.
    /// Without one, tracking leads redundant joints out of the outer 30 % of their ranges while the target moves.
    Span<const double> q_preferred{};
    double preference_gain = 0.1;  ///< Share of the way there taken in each step, 0 to 1; 0: no such motion.
    /// solve_batch() alone: many rows side by side instead of many attempts of one row.
    bool throughput = false;
    /// What to keep clear of (mfik/collision.hpp), or null; needs the bundle's spheres, see Solver::has_body().
    const World* world = nullptr;
    SelfCollision self_collision = SelfCollision::kWithWorld;  ///< Whether links keep clear of each other.
    /// Clearance that an answer keeps to the world [m], finite, where collision is asked for. Links keep as much from
    /// each other where it is negative, else 0: some are never far apart.
    double margin_m = 0.0;
    /// What the robot holds (mfik/collision.hpp), made for this solver, or null; it counts where collision is asked
    /// for.
    const Attachments* attached = nullptr;
};

/// Outcome of a call.
struct Result {
    Status status;                 ///< Whether q_out solves the pose.
    double pos_error_m;            ///< Position error beyond the slack at q_out [m]; NaN on kInvalidInput.
    double rot_error_rad;          ///< Rotation error beyond the slack at q_out [rad]; NaN on kInvalidInput.
    int iterations;                ///< Refinement steps taken one after the other, whatever for.
    int attempts;                  ///< Seeds begun.
    int solutions;                 ///< Rows of q_out that hold a solution: 0 or 1, up to n from solve_all().
    double time_us;                ///< Wall time of the call [us].
    const char* reason;            ///< Why it ended so, in words; static memory.
    const char* first = nullptr;   ///< kInCollision: the nearest two, as of Clearance; else null.
    const char* second = nullptr;  ///< The other one.
};

/// A bundle that cannot be used. The message names file, element, expectation, value and remedy.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// What evaluates a trained network. The built-in engine needs nothing but the C++ library; mfik/torchscript.hpp and
/// mfik/onnx.hpp offer others.
class Engine {
  public:
    virtual ~Engine() = default;

    /// Number of floats of `scratch` that evaluate() needs for so many rows.
    [[nodiscard]] virtual std::size_t scratch_size(int rows) const noexcept = 0;

    /// Compute u(q, 0, 1). The built-in engine answers a row with the same bits whatever the rows beside it.
    /// @param[in] rows  At least 1.
    /// @param[in] q  Joints [rad or m], [rows, dof] row-major.
    /// @param[in] poses  Positions [m] and unit quaternions (qw >= 0), [num_poses, 7] row-major.
    /// @param[in] num_poses  `rows`, or 1 for the same pose in every row.
    /// @param[out] u  Mean velocities, [rows, dof]; NaN where the engine failed.
    /// @param[in,out] scratch  On a cache line boundary.
    virtual void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                          float* scratch) const noexcept = 0;
};

/// Scratch memory of Solver::solve: one per thread, usable with every solver of the same network size.
class Workspace {
  public:
    Workspace(Workspace&&) noexcept;             ///< A moved-from workspace is invalid input.
    Workspace& operator=(Workspace&&) noexcept;  ///< Likewise.
    ~Workspace();

  private:
    friend class Solver;
    struct Impl;
    explicit Workspace(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

/// Inverse kinematics of one robot with one trained network. Immutable: any number of threads may share it.
/// A moved-from solver has dof() == 0 and answers kInvalidInput.
class Solver {
  public:
    /// Read a bundle: its folder, or the model.safetensors in it.
    /// @throw Error  The file is missing, malformed, foreign, of another version, or has non-finite weights.
    [[nodiscard]] static Solver load(const std::string& path);

    /// The same with another engine for the bundle's network.
    /// @throw Error  As above, or the engine does not answer with dof() finite values.
    [[nodiscard]] static Solver load(const std::string& path, std::unique_ptr<const Engine> engine);

    Solver(Solver&&) noexcept;             ///< A moved-from solver answers kInvalidInput.
    Solver& operator=(Solver&&) noexcept;  ///< Likewise.
    ~Solver();

    /// Make a solver without a network.
    /// @param[in] json  A bundle's JSON document with `model` null, as metadata_json() of such a bundle gives it.
    /// @throw Error  The document is malformed, foreign, of another version, or describes a network.
    [[nodiscard]] static Solver from_description(const std::string& json);

    /// Allocate the scratch memory that solve() needs.
    [[nodiscard]] Workspace make_workspace() const;

    /// Find joints that bring the tool to T_base_tool.
    /// Real-time safe: no allocation, lock, I/O or exception; Result::iterations is at most
    /// (max_attempts / lanes() + 4) * (max_iterations + 1), with options.nearest 192 / lanes() more; same input, same
    /// output on every thread of a machine.
    /// @param[in] T_base_tool  Target pose, see Pose.
    /// @param[in] q_ref  Joints to start from [rad or m], dof() finite values; may lie outside the limits.
    /// @param[out] q_out  Best joints found [rad or m], dof() values, of all equivalent turns of a joint the one
    /// nearest
    ///     to q_ref within the limits; written whatever the status but kInvalidInput, so check the status before
    ///     moving a robot. May be q_ref's memory.
    /// @param[in,out] workspace  Of make_workspace(), used by no other thread meanwhile.
    [[nodiscard]] Result solve(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out,
                               Workspace& workspace, const Options& options = {}) const noexcept;

    /// Follow a path: move from q_prev towards the target, no joint further than max_step whatever the status. Where
    /// that bound binds, the whole step is shortened, so that the tool keeps its direction; at a target, within reach
    /// or as near as the arm gets, the joints come to rest. Real-time safe; Result::iterations is at most
    /// options.max_iterations. A network has nothing to add here.
    /// @param[in] q_prev  Joints now [rad or m], dof() finite values.
    /// @param[in] max_step  Largest change of any joint [rad or m], > 0.
    /// @param[out] q_out  Joints to command [rad or m], dof() values; where the status is not kSolved, the nearest that
    ///     was found within the bound. May be q_prev's memory.
    /// @param[in] options  seed, max_attempts, nearest and joint_weights have no meaning here. The tolerances decide on
    ///     the status; refinement goes on to 1e-9 m and rad, so that a slow path is not taken in stops and jumps.
    ///     Motion towards q_preferred, or away from limits, begins where the target is reached.
    [[nodiscard]] Result track(const Pose& T_base_tool, Span<const double> q_prev, double max_step, Span<double> q_out,
                               Workspace& workspace, const Options& options = {}) const noexcept;

    /// The same with a bound for each joint.
    /// @param[in] max_step  Largest change of each joint [rad or m], dof() values > 0.
    [[nodiscard]] Result track(const Pose& T_base_tool, Span<const double> q_prev, Span<const double> max_step,
                               Span<double> q_out, Workspace& workspace, const Options& options = {}) const noexcept;

    /// Find up to n = q_out.size() / dof() different solutions, spread over all that max_attempts seeds lead to.
    /// Real-time safe, bounded as solve() is.
    /// @param[in] q_ref  Joints [rad or m], dof() values: locked joints stay there, turns are chosen nearest to it.
    /// @param[out] q_out  Solutions [rad or m], [n, dof()] row-major: the nearest to q_ref first, then always the one
    ///     farthest from those before it. Only the first Result::solutions rows are written.
    /// @param[in] min_distance  Two solutions differ when some joint differs by more than this [rad or m], > 0.
    /// @return  Errors are the largest of all solutions; kSolved when there is at least one.
    [[nodiscard]] Result solve_all(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out,
                                   Workspace& workspace, double min_distance = 0.1,
                                   const Options& options = {}) const noexcept;

    /// Solve N rows, each exactly as solve() would. Allocates, and starts threads: not for real-time use.
    ///
    /// With options.throughput several times as many rows a second: each takes one attempt after the other, the first
    /// of Seed::kReference from q_ref or from the stored configuration whose pose is nearest, whichever is nearer to
    /// the target. So a row may get another solution than solve() finds; the same one whatever the rows beside it and
    /// the number of threads. Its time_us is an equal share of the time of the rows that were solved with it.
    /// `nearest`, `q_preferred`, max_iterations = 0 and collision go the ordinary way.
    /// @param[in] poses  Target poses, [N, 7] row-major.
    /// @param[in] q_ref  Joints to start from [rad or m], [N, dof()] row-major.
    /// @param[out] q_out  Joints found [rad or m], [N, dof()]; rows with kInvalidInput are left untouched.
    /// @param[out] results  [N].
    /// @param[out] time_us  Wall time of each solve [us], [N], or empty.
    /// @param[in] threads  Threads to use, at least 1.
    /// @return kSolved if every row is solved, else the first other status; kInvalidInput with nothing written when
    ///     the sizes disagree or `threads` < 1.
    Status solve_batch(Span<const double> poses, Span<const double> q_ref, Span<double> q_out, Span<Result> results,
                       Span<double> time_us = {}, const Options& options = {}, int threads = 1) const;

    /// Find joints for every pose of a path, no joint changing by more than path.max_step from one to the next, the
    /// shortest that is found (mfik/path.hpp). Allocates: not for real-time use. A path that cannot be done is no
    /// error: status and reason say where it breaks. The same input gives the same answer on a machine where
    /// time_limit_s does not bind.
    /// @param[in] poses  T_base_tool of each waypoint, [N, 7] row-major.
    /// @param[in] options  Of every waypoint; seed, nearest, max_attempts, max_iterations, joint_weights and
    /// q_preferred
    ///     have no meaning here. Locked joints stay at path.q_ref.
    [[nodiscard]] PathResult solve_path(Span<const double> poses, const PathOptions& path,
                                        const Options& options = {}) const;

    /// A result in a sentence or two, with numbers and joint names. Allocates: not for real-time use.
    [[nodiscard]] std::string explain(const Result& result, Span<const double> q_out) const;

    /// Forward kinematics: T_base_tool of joints q [rad or m], qw >= 0; NaN when q has not dof() finite values.
    [[nodiscard]] Pose fk(Span<const double> q) const noexcept;

    /// How far the robot is from the world and from itself, by the spheres of its bundle (mfik/collision.hpp).
    /// Real-time safe.
    /// @param[in] q  Joints [rad or m], dof() finite values.
    /// @param[in] world  The world, or null for none. Links that no joint moves are not compared with it.
    /// @param[in] self_collision  Whether links are compared with each other.
    /// @param[in] attached  What the robot holds, or null.
    /// @return  NaN where the input is invalid or there are no spheres (has_body()).
    [[nodiscard]] Clearance clearance(Span<const double> q, const World* world = nullptr, bool self_collision = true,
                                      const Attachments* attached = nullptr) const noexcept;

    /// Whether configurations keep a clearance, one after the other; quicker than its number. Real-time safe.
    /// @param[in] q  Joints [rad or m], [N, dof()] row-major.
    /// @param[out] free  1 where it is kept, else 0, [N].
    /// @param[in] margin_m  Clearance to keep [m], finite, as Options::margin_m.
    Status is_free(Span<const double> q, const World* world, Span<unsigned char> free, double margin_m = 0.0,
                   bool self_collision = true, const Attachments* attached = nullptr) const noexcept;

    /// Whether the bundle has spheres, without which there is no clearance.
    [[nodiscard]] bool has_body() const noexcept;

    [[nodiscard]] int dof() const noexcept;                                      ///< Number of joints.
    [[nodiscard]] const std::string& robot_name() const noexcept;                ///< Name of the robot.
    [[nodiscard]] const std::string& base_link() const noexcept;                 ///< Frame of the poses.
    [[nodiscard]] const std::string& tip_link() const noexcept;                  ///< Tool frame.
    [[nodiscard]] const std::vector<std::string>& joint_names() const noexcept;  ///< From base to tip.
    [[nodiscard]] Span<const double> lower()
        const noexcept;  ///< Lower limits [rad or m]; continuous joints have none (-pi).
    [[nodiscard]] Span<const double> upper()
        const noexcept;  ///< Upper limits [rad or m]; continuous joints have none (pi).
    [[nodiscard]] Span<const double> velocity()
        const noexcept;  ///< Velocity bounds [rad/s or m/s] of the robot's description; infinity where it has none.
    [[nodiscard]] int lanes() const noexcept;                         ///< Attempts refined at a time on this machine.
    [[nodiscard]] std::size_t num_parameters() const noexcept;        ///< Trained scalars of the network.
    [[nodiscard]] const std::string& metadata_json() const noexcept;  ///< The bundle's JSON document about itself.

  private:
    friend class Attachments;
    friend class Tracker;
    struct Impl;
    explicit Solver(std::unique_ptr<const Impl> impl) noexcept;
    std::unique_ptr<const Impl> impl_;
};

/// Follow a path with bounds of velocity and acceleration for each joint: what is commanded, sample by sample, keeps to
/// both and to the joint limits, whatever the target does, because each command leaves room to brake before a limit.
///
/// Velocity is the difference of two commands per sample time, acceleration that of two velocities; jerk is not
/// bounded. A path within the bounds is followed without delay. Where they bind, all joints are slowed down together,
/// so that they go straight to the target; while they still move elsewhere, each turns as fast as it can. Behind a
/// target that speeds up harder than they can they keep the distance to stop in. They come to rest at a target that
/// rests.
///
/// Where the options ask for collision, each command also leaves room to come to rest clear of all that stands: none is
/// nearer than the margin, before which the joints stop by 1 mm. From what comes nearer they go away as fast as the
/// bounds let them.
class Tracker {
  public:
    /// Begin at rest. Allocates all memory.
    /// @param[in] solver  Has to outlive the tracker; it may be moved.
    /// @param[in] q  Joints now [rad or m], dof() values within the limits.
    /// @param[in] dt  Time between two commands [s], > 0.
    /// @param[in] velocity  Largest velocity of each joint [rad/s or m/s], dof() values > 0, or empty:
    /// Solver::velocity().
    /// @param[in] acceleration  Largest acceleration of each joint [rad/s^2 or m/s^2], dof() values > 0.
    /// @throw Error  An argument is refused.
    Tracker(const Solver& solver, Span<const double> q, double dt, Span<const double> velocity,
            Span<const double> acceleration);
    Tracker(Tracker&&) noexcept;             ///< A moved-from tracker answers kInvalidInput.
    Tracker& operator=(Tracker&&) noexcept;  ///< Likewise.
    ~Tracker();

    /// Move q() and dq() on by one sample towards a target. Real-time safe as Solver::track is, with the same bound of
    /// iterations.
    /// @param[in] options  As of Solver::track.
    /// @return  Errors are those of q(). kJumpBound: the target can be reached, and the joints are on their way.
    ///     kInCollision: obstacles hold them back. On kInvalidInput they go on to the last target, as a sudden stop
    ///     would break the bounds, or, where the last step kept clear of obstacles, come to rest.
    Result step(const Pose& T_base_tool, const Options& options = {}) noexcept;

    [[nodiscard]] Span<const double> q() const noexcept;   ///< Joints to command [rad or m], dof() values.
    [[nodiscard]] Span<const double> dq() const noexcept;  ///< Their velocities [rad/s or m/s], dof() values.

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mfik
