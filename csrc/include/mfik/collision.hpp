/// @file
/// Collision: the world around a robot, and how far the robot is from it and from itself.
///
/// @code{.cpp}
/// mfik::World world;                                             // outside the loop: takes memory
/// const int table = world.add_box("table", {0.8, 1.2, 0.04}, {0.5, 0, -0.02, 1, 0, 0, 0});
/// world.set_pose(table, T_base_table);                           // inside the loop
/// const mfik::Clearance clearance = solver.clearance(q, &world);
/// if (clearance.distance_m < 0.01) slow_down(clearance.first, clearance.second);
/// @endcode
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "mfik/solver.hpp"

namespace mfik {

/// The nearest two: a link or attached object of the robot, and another one or a shape of the world.
struct Clearance {
    double distance_m;   ///< Signed distance [m], negative in collision; infinite with nothing to check, NaN where the
                         ///< input is invalid.
    const char* first;   ///< Link or attached object, or null; memory of the solver or the attachments.
    const char* second;  ///< The same, or shape of the world, or null; memory of these or the world.
    /// d distance / d q [m/rad or m/m], dof() values, then 0. Where two pairs are equally near, that of one of them.
    std::array<double, 16> gradient;
};

/// Shapes in the robot's base frame. Adding takes memory; set_pose() does not. Any number of threads may use it while
/// none changes it. Poses are T_base_shape, as mfik::Pose; sizes are finite and above 0 [m].
class World {
  public:
    World();
    World(World&&) noexcept;             ///< A moved-from world is empty.
    World& operator=(World&&) noexcept;  ///< Likewise.
    ~World();

    /// Add a sphere about the origin of its frame.
    /// @return  Index of the shape, for set_pose().
    /// @throw Error  The name is taken, or a size or the pose is invalid; nothing is added. So for all shapes.
    int add_sphere(const std::string& name, double radius_m, const Pose& T_base_shape);
    /// Add a box with edges along the axes of its frame, about the origin.
    int add_box(const std::string& name, const std::array<double, 3>& size_m, const Pose& T_base_shape);
    /// Add a cylinder about the z axis of its frame, from -length / 2 to length / 2.
    int add_cylinder(const std::string& name, double radius_m, double length_m, const Pose& T_base_shape);
    /// Add a capsule about the z axis of its frame; `length_m` lies between the centres of its ends.
    int add_capsule(const std::string& name, double radius_m, double length_m, const Pose& T_base_shape);
    /// Add all below the plane z = 0 of its frame: a floor, a wall.
    int add_half_space(const std::string& name, const Pose& T_base_shape);
    /// Add balls of one radius about points [x, y, z] of its frame [m], 3 n finite values, n >= 1.
    int add_point_cloud(const std::string& name, Span<const double> points_m, double radius_m,
                        const Pose& T_base_shape = {0, 0, 0, 1, 0, 0, 0});

    /// Move a shape. Real-time safe: no allocation, lock or system call.
    /// @return  kSolved; kInvalidInput, with nothing changed, where there is no such shape or the pose is invalid.
    Status set_pose(int shape, const Pose& T_base_shape) noexcept;

    /// Index of the shape of a name, or -1. Real-time safe.
    [[nodiscard]] int find(const char* name) const noexcept;
    [[nodiscard]] int size() const noexcept;  ///< Number of shapes.
    /// Name of shape i, or null.
    [[nodiscard]] const char* name(int i) const noexcept;

  private:
    friend struct WorldAccess;
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// What a robot holds: a tool, a gripped box. Made outside the loop, for one solver; inside it, Options::attached takes
/// up what is held and lays it down again. Any number of threads may use it while none changes it.
///
/// @code{.cpp}
/// mfik::Attachments box(solver);                                            // outside the loop: takes memory
/// box.add("box", spheres, "panda_hand", T_hand_box, {"panda_leftfinger"});
/// options.attached = &box;                                                  // inside the loop: gripped
/// options.attached = nullptr;                                               // released
/// @endcode
class Attachments {
  public:
    /// Begin with the solver's own spheres alone, if it has any.
    /// @param[in] solver  The one that takes them; it may be moved.
    /// @throw Error  The solver was moved from.
    explicit Attachments(const Solver& solver);
    Attachments(Attachments&&) noexcept;             ///< Moved-from attachments are invalid input.
    Attachments& operator=(Attachments&&) noexcept;  ///< Likewise.
    ~Attachments();

    /// Attach an object. It is checked against the world, and against all links and objects that move against it but
    /// those that it may touch, and those that it touches in at least 95 % of 1,000 configurations sampled here.
    /// @param[in] name  For the answers; no link of the body and no object may have it.
    /// @param[in] spheres_m  [x, y, z, radius] of each sphere, centres in the object's frame [m]; 4 n values, n >= 1.
    /// @param[in] link  Link of the robot that holds it: the tip, the base, or one with spheres.
    /// @param[in] touching  Links and objects that it may touch.
    /// @return  Index of the object, for set_pose().
    /// @throw Error  A name does not exist or is taken, or a number is invalid; nothing is attached.
    int add(const std::string& name, Span<const double> spheres_m, const std::string& link,
            const Pose& T_link_object = {0, 0, 0, 1, 0, 0, 0}, const std::vector<std::string>& touching = {});

    /// Move an object against the link that holds it. Real-time safe: no allocation, lock or system call.
    /// @return  kSolved; kInvalidInput, with nothing changed, where there is no such object or the pose is invalid.
    Status set_pose(int object, const Pose& T_link_object) noexcept;

    /// Index of the object of a name, or -1. Real-time safe.
    [[nodiscard]] int find(const char* name) const noexcept;
    [[nodiscard]] int size() const noexcept;  ///< Number of objects.
    /// Name of object i, or null.
    [[nodiscard]] const char* name(int i) const noexcept;

  private:
    friend struct AttachmentsAccess;
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace mfik
