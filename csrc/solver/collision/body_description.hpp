// The body of a bundle's robot: what Body.to_dict writes (mfik/collision/body.py).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/collision.hpp"
#include "solver/json_reader.hpp"

namespace mfik {

/// What SphereRows refer to.
struct SphereColumns {
    std::vector<float> x, y, z, radius, ball, ball_beside_world;
    std::vector<std::array<std::uint64_t, kMaxLinks / 64>> partners;
    float smallest = 0.0f, extent = 0.0f;
};

struct BodyDescription {
    std::vector<std::string> names;       // of the links
    std::vector<Transform> T_frame_link;  // of each; centres below count from the frame
    std::vector<LinkSpheres> links;
    std::vector<std::array<double, 4>> spheres;  // centre and radius [m]
    std::vector<int> link_of;                    // link of each sphere
    std::vector<std::array<int, 2>> pairs;       // of links that are checked against each other
    SphereColumns columns;                       // the same in single precision

    [[nodiscard]] bool empty() const noexcept { return spheres.empty(); }
    /// Add a link, or an object that one holds.
    /// @param[in] T  T_frame_link.
    /// @param[in] local  Centre in the frame of the link and radius of each sphere [m].
    void add_link(const std::string& name, int frame, const Transform& T,
                  const std::vector<std::array<double, 4>>& local);
    /// Fill in the columns, after links and pairs were added.
    void complete();
    /// Move a link against its frame, in the columns, too. No allocation.
    /// @param[in] local  As they were added.
    void place_link(std::size_t index, const Transform& T, const std::vector<std::array<double, 4>>& local) noexcept;
    /// @param[in] margin_m  Clearance that is kept to the world; links keep the part of it below 0 from each other.
    [[nodiscard]] BodyView view(double margin_m = 0.0) const noexcept;
};

/// Read a robot's `body` object.
/// @param[in] dof  Number of joints.
/// @throw Error  A value is missing or wrong.
[[nodiscard]] BodyDescription read_body(const JsonReader& reader, const Json& body, int dof);

}  // namespace mfik
