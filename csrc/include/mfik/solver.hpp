// mfik: one network evaluation, a bounded number of refinement steps, and a check by forward kinematics.
//
//     const mfik::Solver solver = mfik::Solver::load("panda_bundle");        // throws mfik::Error; takes all memory
//     mfik::Workspace workspace = solver.make_workspace();                   // one per thread
//     const mfik::Result result = solver.solve(T_base_tool, q_now, q_next, workspace);  // real time
//     if (result.status == mfik::Status::kSolved) command(q_next);
#pragma once

#include <array>
#include <cstddef>
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
/// Largest accepted Options::max_iterations.
constexpr int kMaxIterations = 1000;

/// View of contiguous elements that somebody else owns.
template <class T>
class Span {
  public:
    constexpr Span() noexcept = default;
    constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N>
    constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    /// View of a container with data() and size(), such as std::vector or std::array, or of another Span.
    template <class Container,
              class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container&>().data()), T*>>>
    constexpr Span(Container&& container) noexcept : data_(container.data()), size_(container.size()) {}

    [[nodiscard]] constexpr T* data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T& operator[](std::size_t i) const noexcept { return data_[i]; }
    constexpr T* begin() const noexcept { return data_; }
    constexpr T* end() const noexcept { return data_ + size_; }
    [[nodiscard]] constexpr Span subspan(std::size_t offset, std::size_t size) const noexcept {
        return {data_ + offset, size};
    }

  private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

enum class Status : int {
    kSolved = 0,         ///< Both errors are within tolerance and every joint is within its limits.
    kNotConverged = 1,   ///< An error exceeds its tolerance: unreachable pose, or too few iterations.
    kOutsideLimits = 2,  ///< A joint violates its limits; only with max_iterations = 0, refinement stays within them.
    kInvalidInput = 3,   ///< Non-finite or misshapen input, non-unit quaternion, or bad options; nothing was written.
};

/// Name of a status, such as "solved".
[[nodiscard]] const char* to_string(Status status) noexcept;

struct Options {
    double tol_pos_m = 1e-5;    ///< Largest accepted position error [m]; finite, >= 0.
    double tol_rot_rad = 1e-5;  ///< Largest accepted rotation error [rad]; finite, >= 0.
    int max_iterations = 20;    ///< Refinement steps, 0 to kMaxIterations; 0: the network's answer as it is.
};

struct Result {
    Status status;
    double pos_error_m;    ///< Distance between the target and the FK of q_out [m]; NaN on kInvalidInput.
    double rot_error_rad;  ///< Angle between the target and the FK of q_out [rad]; NaN on kInvalidInput.
    int iterations;        ///< Refinement steps taken.
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

    /// Compute u(q, 0, 1). Row by row the same numbers, whatever the number of rows.
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
    Workspace(Workspace&&) noexcept;
    Workspace& operator=(Workspace&&) noexcept;
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

    Solver(Solver&&) noexcept;
    Solver& operator=(Solver&&) noexcept;
    ~Solver();

    /// Allocate the scratch memory that solve() needs.
    [[nodiscard]] Workspace make_workspace() const;

    /// Find joints that bring the tool to T_base_tool, near q_ref where the network was trained so.
    /// Real-time safe: no allocation, lock, I/O or exception; bounded iterations; same input, same output.
    /// @param[in] T_base_tool  Target pose, see Pose.
    /// @param[in] q_ref  Joints to start from [rad or m], dof() finite values; may lie outside the limits.
    /// @param[out] q_out  Best joints found [rad or m], dof() values, continuous joints in [-pi, pi]; written whatever
    ///     the status but kInvalidInput, so check the status before moving a robot. May be q_ref's memory.
    /// @param[in,out] workspace  Of make_workspace(), used by no other thread meanwhile.
    [[nodiscard]] Result solve(const Pose& T_base_tool, Span<const double> q_ref, Span<double> q_out,
                               Workspace& workspace, const Options& options = {}) const noexcept;

    /// Solve N rows, each exactly as solve() would. Allocates, and starts threads: not for real-time use.
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

    /// Forward kinematics: T_base_tool of joints q [rad or m], qw >= 0; NaN when q has not dof() finite values.
    [[nodiscard]] Pose fk(Span<const double> q) const noexcept;

    [[nodiscard]] int dof() const noexcept;
    [[nodiscard]] const std::string& robot_name() const noexcept;
    [[nodiscard]] const std::string& base_link() const noexcept;                 ///< Frame of the poses.
    [[nodiscard]] const std::string& tip_link() const noexcept;                  ///< Tool frame.
    [[nodiscard]] const std::vector<std::string>& joint_names() const noexcept;  ///< From base to tip.
    [[nodiscard]] Span<const double> lower() const noexcept;    ///< Lower limits [rad or m], -pi for continuous joints.
    [[nodiscard]] Span<const double> upper() const noexcept;    ///< Upper limits [rad or m], pi for continuous joints.
    [[nodiscard]] std::size_t num_parameters() const noexcept;  ///< Trained scalars of the network.
    [[nodiscard]] const std::string& metadata_json() const noexcept;  ///< The bundle's JSON document about itself.

  private:
    struct Impl;
    explicit Solver(std::unique_ptr<const Impl> impl) noexcept;
    std::unique_ptr<const Impl> impl_;
};

}  // namespace mfik
