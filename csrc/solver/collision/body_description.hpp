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
    std::vector<std::string> names;  // of the links
    std::vector<LinkSpheres> links;
    std::vector<std::array<double, 4>> spheres;  // centre in the frame of its link and radius [m]
    std::vector<int> link_of;                    // link of each sphere
    std::vector<std::array<int, 2>> pairs;       // of links that are checked against each other
    SphereColumns columns;                       // the same in single precision

    [[nodiscard]] bool empty() const noexcept { return spheres.empty(); }
    /// @param[in] margin_m  Clearance that is kept to the world; links keep the part of it below 0 from each other.
    [[nodiscard]] BodyView view(double margin_m = 0.0) const noexcept;
};

/// Read a robot's `body` object.
/// @param[in] dof  Number of joints.
/// @throw Error  A value is missing or wrong.
[[nodiscard]] BodyDescription read_body(const JsonReader& reader, const Json& body, int dof);

}  // namespace mfik
