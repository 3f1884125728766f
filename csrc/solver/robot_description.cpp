#include "solver/robot_description.hpp"

#include <algorithm>

namespace mfik {
RobotDescription read_robot(const JsonReader& reader, const Json& robot) {
    RobotDescription description;
    description.name = reader.string(robot, "name", "robot");
    description.base_link = reader.string(robot, "base_link", "robot");
    description.tip_link = reader.string(robot, "tip_link", "robot");
    const Json& joints = reader.member(robot, "joints", "robot");
    if (!joints.is_array() || joints.empty() || joints.size() > kMaxJoints) {
        reader.fail("robot.joints", "1 to " + std::to_string(kMaxJoints) + " joints",
                    joints.is_array() ? std::to_string(joints.size()) : JsonReader::excerpt(joints));
    }
    Chain& chain = description.chain;
    chain.dof = static_cast<int>(joints.size());
    for (int j = 0; j < chain.dof; ++j) {
        const Json& joint = joints[static_cast<std::size_t>(j)];
        const std::string where = "robot.joints[" + std::to_string(j) + "]";
        const std::string name = reader.string(joint, "name", where);
        if (std::count(description.joint_names.begin(), description.joint_names.end(), name) > 0) {
            reader.fail(where + ".name", "a name of its own", JsonReader::quote(name));
        }
        description.joint_names.push_back(name);
        const std::string kind = reader.string(joint, "kind", where);
        if (kind == "revolute") {
            chain.kind[j] = JointKind::kRevolute;
        } else if (kind == "prismatic") {
            chain.kind[j] = JointKind::kPrismatic;
        } else if (kind == "continuous") {
            chain.kind[j] = JointKind::kContinuous;
        } else {
            reader.fail(where + ".kind", "'revolute', 'prismatic' or 'continuous'", JsonReader::quote(kind));
        }
        const double lower = reader.number(reader.member(joint, "lower", where), where + ".lower");
        const double upper = reader.number(reader.member(joint, "upper", where), where + ".upper");
        if (!(lower < upper)) {
            reader.fail(where, "lower < upper", "[" + std::to_string(lower) + ", " + std::to_string(upper) + "]");
        }
        if (chain.kind[j] == JointKind::kContinuous && !(lower == -kPi && upper == kPi)) {
            reader.fail(where, "[-pi, pi] as it is continuous",
                        "[" + std::to_string(lower) + ", " + std::to_string(upper) + "]");
        }
        const auto velocity = joint.find("velocity");
        description.velocity[j] = HUGE_VAL;
        if (velocity != joint.end() && !velocity->is_null()) {
            description.velocity[j] = reader.number(*velocity, where + ".velocity");
            if (!(description.velocity[j] > 0.0))
                reader.fail(where + ".velocity", "a number above 0", velocity->dump());
        }
        chain.lower[j] = lower;
        chain.upper[j] = upper;
        reader.transform(reader.member(joint, "origin", where), where + ".origin", chain.origin[j]);
    }
    reader.transform(reader.member(robot, "tool", "robot"), "robot.tool", chain.origin[chain.dof]);
    const auto body = robot.find("body");
    if (body != robot.end() && !body->is_null()) description.body = read_body(reader, *body, chain.dof);
    return description;
}

}  // namespace mfik
