#include "solver/robot_description.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace mfik {
namespace {

JointKind read_kind(const JsonReader& reader, const Json& joint, const std::string& where) {
    const std::string kind = reader.string(joint, "kind", where);
    if (kind == "revolute") return JointKind::kRevolute;
    if (kind == "prismatic") return JointKind::kPrismatic;
    if (kind != "continuous")
        reader.fail(where + ".kind", "'revolute', 'prismatic' or 'continuous'", JsonReader::quote(kind));
    return JointKind::kContinuous;
}

/// The joint that a mimic follows, one of those before it, and by how much.
MovingFrame read_mimic(const JsonReader& reader, const Json& mimic, const std::string& where,
                       const RobotDescription& description) {
    const std::string name = reader.string(mimic, "joint", where);
    const auto& names = description.joint_names;
    const auto leader = std::find(names.begin(), names.end(), name);
    if (leader == names.end()) reader.fail(where + ".joint", "a joint before it", JsonReader::quote(name));
    const int joint = static_cast<int>(leader - names.begin());
    if (description.chain.kind[joint] == JointKind::kContinuous)
        reader.fail(where + ".joint", "a joint with limits", JsonReader::quote(name));
    const double ratio = reader.number(reader.member(mimic, "multiplier", where), where + ".multiplier");
    if (ratio == 0.0) reader.fail(where + ".multiplier", "a number other than 0", "0");
    return {joint, ratio, JointKind::kRevolute};
}

}  // namespace

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
    const int frames = static_cast<int>(joints.size());
    for (int f = 0; f < frames; ++f) {
        const Json& joint = joints[static_cast<std::size_t>(f)];
        const std::string where = "robot.joints[" + std::to_string(f) + "]";
        const JointKind kind = read_kind(reader, joint, where);
        reader.transform(reader.member(joint, "origin", where), where + ".origin", chain.origin[f]);
        const auto mimic = joint.find("mimic");
        if (mimic != joint.end() && !mimic->is_null()) {
            chain.frame[f] = read_mimic(reader, *mimic, where + ".mimic", description);
            chain.frame[f].kind = kind;
            ++chain.mimics;
            continue;
        }
        const int j = chain.dof++;
        chain.frame[f] = {j, 1.0, kind};
        chain.kind[j] = kind;
        const std::string name = reader.string(joint, "name", where);
        if (std::count(description.joint_names.begin(), description.joint_names.end(), name) > 0) {
            reader.fail(where + ".name", "a name of its own", JsonReader::quote(name));
        }
        description.joint_names.push_back(name);
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
    }
    reader.transform(reader.member(robot, "tool", "robot"), "robot.tool", chain.origin[frames]);
    const auto body = robot.find("body");
    if (body != robot.end() && !body->is_null() && chain.mimics > 0)
        reader.fail("robot.body", "null, as collision does not support mimic joints", "a body");
    if (body != robot.end() && !body->is_null()) description.body = read_body(reader, *body, chain.dof);
    return description;
}

}  // namespace mfik
