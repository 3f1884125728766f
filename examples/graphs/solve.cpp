// Solves poses with a bundle's TorchScript graph: libtorch, no mfik.
//     python scripts/export.py --model panda --refine 10 --errors --output panda
//     solve panda/model.ts
#include <torch/script.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Joint {
    bool slides;
    double lower, upper;   // [rad or m]
    torch::Tensor origin;  // [4, 4], the joint in the frame of the one before
};

struct Robot {
    std::string name, base_link, tip_link;
    std::vector<Joint> joints;
    torch::Tensor tool;  // [4, 4], in the frame of the last joint
};

// Reads what follows a key in the document that the graph carries, from `place` on, and moves `place` there. It is
// enough for these keys; a program with a JSON library takes that.
const char* find(const std::string& text, const std::string& key, std::size_t& place) {
    place = text.find("\"" + key + "\": ", place);
    if (place == std::string::npos) {
        throw std::runtime_error("the graph's document has no " + key);
    }
    place += key.size() + 4;
    return text.c_str() + place;
}

std::string word(const char* text) {
    return {text + 1, std::strchr(text + 1, '"')};
}

torch::Tensor transform(const char* text) {
    torch::Tensor T = torch::eye(4, torch::kDouble);
    for (int i = 0; i < 12; ++i) {
        char* end = nullptr;
        T[i / 4][i % 4] = std::strtod(text + 1, &end);  // after [ or ,
        text = end;
    }
    return T;
}

Robot read(const std::string& document) {
    Robot robot;
    std::size_t place = document.find("\"robot\"");
    robot.name = word(find(document, "name", place));
    robot.base_link = word(find(document, "base_link", place));
    robot.tip_link = word(find(document, "tip_link", place));
    const std::size_t end = document.find("\"tool\"");
    while (document.find("\"kind\"", place) < end) {
        const bool slides = std::string(find(document, "kind", place), 10) == "\"prismatic";
        const double lower = std::strtod(find(document, "lower", place), nullptr);
        const double upper = std::strtod(find(document, "upper", place), nullptr);
        robot.joints.push_back({slides, lower, upper, transform(find(document, "origin", place))});
    }
    robot.tool = transform(find(document, "tool", place));
    return robot;
}

// T_base_tool [4, 4] of joints q [J], [rad or m].
torch::Tensor forward_kinematics(const Robot& robot, const torch::Tensor& q) {
    torch::Tensor T = torch::eye(4, torch::kDouble);
    for (std::size_t j = 0; j < robot.joints.size(); ++j) {
        torch::Tensor motion = torch::eye(4, torch::kDouble);
        const auto value = q[static_cast<int64_t>(j)].item<double>();
        if (robot.joints[j].slides) {
            motion[2][3] = value;
        } else {
            motion[0][0] = motion[1][1] = std::cos(value);
            motion[1][0] = std::sin(value);
            motion[0][1] = -std::sin(value);
        }
        T = T.mm(robot.joints[j].origin).mm(motion);
    }
    return T.mm(robot.tool);
}

// [x, y, z, qw, qx, qy, qz] of a transform; the quaternion has any length, as the graph scales it.
torch::Tensor pose_of(const torch::Tensor& T) {
    const auto t = T.accessor<double, 2>();
    const double a = t[0][0], b = t[0][1], c = t[0][2], d = t[1][0], e = t[1][1], f = t[1][2], g = t[2][0], h = t[2][1],
                 i = t[2][2];
    const double multiples[4][4] = {{1 + a + e + i, h - f, c - g, d - b},  // 4 quat quat^T: each row is a multiple
                                    {h - f, 1 + a - e - i, b + d, c + g},
                                    {c - g, b + d, 1 - a + e - i, f + h},
                                    {d - b, c + g, f + h, 1 - a - e + i}};
    int largest = 0;
    for (int row = 1; row < 4; ++row) {
        largest = multiples[row][row] > multiples[largest][largest] ? row : largest;
    }
    const double* quat = multiples[largest];
    return torch::tensor({t[0][3], t[1][3], t[2][3], quat[0], quat[1], quat[2], quat[3]}, torch::kDouble);
}

// The angle between the rotations of two transforms, [rad].
double angle(const torch::Tensor& reached, const torch::Tensor& wanted) {
    const torch::Tensor rotation = wanted.slice(0, 0, 3).slice(1, 0, 3).t().mm(reached.slice(0, 0, 3).slice(1, 0, 3));
    const auto r = rotation.accessor<double, 2>();
    const double sine = std::hypot(r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]) / 2;
    return std::atan2(sine, (r[0][0] + r[1][1] + r[2][2] - 1) / 2);
}

int run(const char* path) {
    torch::jit::ExtraFilesMap extra{{"mfik", ""}};
    torch::jit::Module graph = torch::jit::load(path, torch::kCPU, extra);
    const Robot robot = read(extra["mfik"]);
    std::printf("%s: poses of %s in %s\n", robot.name.c_str(), robot.tip_link.c_str(), robot.base_link.c_str());

    // Two references and two poses of the tool, one that the robot reaches and one 50 m above; any number will do.
    std::vector<double> middle, within;
    for (const Joint& joint : robot.joints) {
        middle.push_back((joint.lower + joint.upper) / 2);
        within.push_back(0.35 * joint.lower + 0.65 * joint.upper);
    }
    const torch::Tensor near = forward_kinematics(robot, torch::tensor(within, torch::kDouble));
    const torch::Tensor far = near.clone();
    far[2][3] += 50;
    const torch::Tensor q_ref = torch::tensor(middle).repeat({2, 1}).to(torch::kFloat);
    const torch::Tensor target_pose = torch::stack({pose_of(near), pose_of(far)}).to(torch::kFloat);
    const torch::InferenceMode no_gradients;
    const auto outputs = graph.forward({q_ref, target_pose}).toTuple()->elements();
    const torch::Tensor q = outputs[0].toTensor(), pos_error = outputs[1].toTensor(), rot_error = outputs[2].toTensor(),
                        inside = outputs[3].toTensor();

    for (int i = 0; i < 2; ++i) {
        const torch::Tensor reached = forward_kinematics(robot, q[i]), wanted = i == 0 ? near : far;
        const double metres = (reached - wanted).slice(0, 0, 3).select(1, 3).norm().item<double>();
        const double radians = angle(reached, wanted);
        if (!(std::abs(metres - pos_error[i].item<double>()) < 1e-5) ||
            !(std::abs(radians - rot_error[i].item<double>()) < 1e-5)) {
            std::fprintf(stderr, "not as expected: off by %g m, %g rad; the graph says %g, %g\n", metres, radians,
                         pos_error[i].item<double>(), rot_error[i].item<double>());
            return 1;
        }
        if (metres < 1e-5 && radians < 1e-5 && inside[i].item<bool>()) {
            std::printf("solved:");
        } else {
            std::printf("off by %.3g m and %.3g rad:", metres, radians);
        }
        for (std::size_t j = 0; j < robot.joints.size(); ++j) {
            std::printf(" %.3f", q[i][static_cast<int64_t>(j)].item<double>());
        }
        std::printf("\n");
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s model.ts\n", argv[0]);
        return 2;
    }
    try {
        return run(argv[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
