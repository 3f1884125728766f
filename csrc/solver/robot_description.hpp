// The robot of a bundle: what Robot.to_dict writes (mfik/robots/robot.py).
#pragma once

#include <string>
#include <vector>

#include "kernels/chain.hpp"
#include "solver/collision/body_description.hpp"
#include "solver/json_reader.hpp"

namespace mfik {

struct RobotDescription {
    std::string name, base_link, tip_link;
    std::vector<std::string> joint_names;
    Chain chain;
    BodyDescription body;         // empty where the document has none
    double velocity[kMaxJoints];  // bounds [rad/s] or [m/s]; infinity where none is known
};

/// Read a bundle's `robot` object.
/// @throw Error  A value is missing or wrong.
[[nodiscard]] RobotDescription read_robot(const JsonReader& reader, const Json& robot);

}  // namespace mfik
