#include "solver/collision/attachments.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "solver/problem.hpp"

namespace mfik {
namespace {

/// Pairs in contact in this share of sampled configurations cannot be kept apart by solving; the same in
/// mfik/collision/pairs.py.
constexpr double kAlwaysShare = 0.95;
constexpr int kAlwaysSamples = 1000;

[[noreturn]] void fail(const std::string& name, const std::string& what) {
    throw Error("attachments: object '" + name + "': " + what);
}

std::string listed(const std::vector<std::string>& names) {
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
    return list;
}

Transform from_origin(const double* origin) {
    Transform T{{1, 0, 0, 0, 1, 0, 0, 0, 1}, {}};
    compose_origin(T, origin);
    return T;
}

Transform times(const Transform& first, const Transform& second) {
    Transform out = first;
    double origin[12];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) origin[4 * i + j] = second.R[3 * i + j];
        origin[4 * i + 3] = second.p[i];
    }
    compose_origin(out, origin);
    return out;
}

bool touch(const BodyDescription& body, const Transform* frame, const LinkSpheres& a, const LinkSpheres& b) {
    const auto apart = [&](const double* first, const double* second, double radii) {
        double p[3], r[3];
        place(frame[a.frame], first, p);
        place(frame[b.frame], second, r);
        const double offset[3] = {p[0] - r[0], p[1] - r[1], p[2] - r[2]};
        return norm3(offset) > radii;
    };
    if (apart(a.center, b.center, a.radius + b.radius)) return false;
    for (int i = a.begin; i < a.end; ++i) {
        const auto& first = body.spheres[static_cast<std::size_t>(i)];
        if (apart(first.data(), b.center, first[3] + b.radius)) continue;
        for (int j = b.begin; j < b.end; ++j) {
            const auto& second = body.spheres[static_cast<std::size_t>(j)];
            if (!apart(first.data(), second.data(), first[3] + second[3])) return true;
        }
    }
    return false;
}

/// Number of sampled configurations, uniform within the limits, in which the last link touches each of the others.
std::vector<int> contacts_of_last(const RobotDescription& robot) {
    const BodyDescription& body = robot.body;
    const Chain& chain = robot.chain;
    std::mt19937_64 random(0);
    std::vector<int> contacts(body.links.size() - 1);
    double q[kMaxJoints];
    Transform frame[kMaxJoints + 1];
    for (int sample = 0; sample < kAlwaysSamples; ++sample) {
        for (int j = 0; j < chain.dof; ++j) {
            const double share = static_cast<double>(random() >> 11) * 0x1p-53;
            q[j] = chain.lower[j] + share * (chain.upper[j] - chain.lower[j]);
        }
        frames_of(chain, q, frame);
        for (std::size_t l = 0; l < contacts.size(); ++l)
            if (touch(body, frame, body.links[l], body.links.back())) ++contacts[l];
    }
    return contacts;
}

/// Values of spheres as they are kept, checked.
std::vector<std::array<double, 4>> read_spheres(const std::string& name, Span<const double> spheres_m,
                                                std::size_t present) {
    const std::size_t n = spheres_m.size() / 4;
    if (n == 0 || spheres_m.size() % 4 != 0 || n > static_cast<std::size_t>(kMaxSpheres) - present) {
        fail(name, "spheres_m: expected [x, y, z, radius] of 1 to " +
                       std::to_string(static_cast<std::size_t>(kMaxSpheres) - present) + " spheres, got " +
                       std::to_string(spheres_m.size()) + " numbers; give four for each");
    }
    std::vector<std::array<double, 4>> spheres(n);
    for (std::size_t i = 0; i < spheres_m.size(); ++i) {
        if (!std::isfinite(spheres_m[i]) || (i % 4 == 3 && !(spheres_m[i] > 0.0))) {
            fail(name, "spheres_m[" + std::to_string(i) + "]: expected a finite number" +
                           (i % 4 == 3 ? " above 0 (radius [m])" : "") + ", got " + std::to_string(spheres_m[i]) +
                           "; correct it");
        }
        spheres[i / 4][i % 4] = spheres_m[i];
    }
    return spheres;
}

}  // namespace

Attachments::Attachments(const Solver& solver) {
    if (solver.impl_ == nullptr) throw Error("attachments: expected a solver, got one that was moved from");
    impl_ = std::make_unique<Impl>(*solver.impl_);
}
Attachments::Attachments(Attachments&&) noexcept = default;
Attachments& Attachments::operator=(Attachments&&) noexcept = default;
Attachments::~Attachments() = default;

int Attachments::add(const std::string& name, Span<const double> spheres_m, const std::string& link,
                     const Pose& T_link_object, const std::vector<std::string>& touching) {
    if (impl_ == nullptr) fail(name, "expected attachments of a solver, got some that were moved from");
    RobotDescription robot = impl_->robot;
    BodyDescription& body = robot.body;
    const auto index_of = [&body](const std::string& of) {
        const auto it = std::find(body.names.begin(), body.names.end(), of);
        return it == body.names.end() ? -1 : static_cast<int>(it - body.names.begin());
    };
    if (name.empty() || index_of(name) >= 0) fail(name, "expected a name that no link of the body has; choose another");
    if (body.links.size() == kMaxLinks)
        fail(name, "expected at most " + std::to_string(kMaxLinks) + " links and objects; attach fewer");

    int frame = -1;
    Transform T_frame_holder = from_origin(robot.chain.origin[robot.chain.dof]);
    const std::size_t links = impl_->objects.empty() ? body.links.size() : impl_->objects.front().link;
    if (const int holder = index_of(link); holder >= 0 && static_cast<std::size_t>(holder) < links) {
        frame = body.links[static_cast<std::size_t>(holder)].frame;
        T_frame_holder = body.T_frame_link[static_cast<std::size_t>(holder)];
    } else if (link == robot.tip_link) {
        frame = robot.chain.dof;
    } else if (link == robot.base_link) {
        frame = 0;
        T_frame_holder = Transform{{1, 0, 0, 0, 1, 0, 0, 0, 1}, {}};
    } else {
        body.names.resize(links);
        fail(name, "link: '" + link + "' is no link of the robot; use one of " + robot.base_link + ", " +
                       robot.tip_link + ", " + listed(body.names));
    }
    for (const std::string& other : touching)
        if (index_of(other) < 0)
            fail(name, "touching: '" + other + "' does not exist; use one of " + listed(body.names));
    Transform T;
    if (!read_pose(T_link_object.data(), T)) {
        fail(name,
             "T_link_object: expected seven finite numbers with a unit quaternion [x, y, z, qw, qx, qy, qz]; "
             "normalise it");
    }
    Impl::Object object{body.links.size(), T_frame_holder, read_spheres(name, spheres_m, body.spheres.size())};
    body.add_link(name, frame, times(T_frame_holder, T), object.spheres);
    const std::vector<int> contacts = contacts_of_last(robot);
    for (std::size_t l = 0; l < object.link; ++l) {
        const bool moves = body.links[l].frame != frame;
        const bool allowed = std::find(touching.begin(), touching.end(), body.names[l]) != touching.end();
        if (moves && !allowed && contacts[l] < kAlwaysShare * kAlwaysSamples)
            body.pairs.push_back({static_cast<int>(l), static_cast<int>(object.link)});
    }
    body.complete();
    impl_->objects.push_back(std::move(object));
    impl_->robot = std::move(robot);
    return size() - 1;
}

Status Attachments::set_pose(int object, const Pose& T_link_object) noexcept {
    Transform T;
    if (object < 0 || object >= size() || !read_pose(T_link_object.data(), T)) return Status::kInvalidInput;
    const Impl::Object& moved = impl_->objects[static_cast<std::size_t>(object)];
    impl_->robot.body.place_link(moved.link, times(moved.T_frame_holder, T), moved.spheres);
    return Status::kSolved;
}

int Attachments::find(const char* name) const noexcept {
    for (int i = 0; i < size(); ++i)
        if (std::strcmp(this->name(i), name) == 0) return i;
    return -1;
}

int Attachments::size() const noexcept {
    return impl_ == nullptr ? 0 : static_cast<int>(impl_->objects.size());
}

const char* Attachments::name(int i) const noexcept {
    if (i < 0 || i >= size()) return nullptr;
    return impl_->robot.body.names[impl_->objects[static_cast<std::size_t>(i)].link].c_str();
}

}  // namespace mfik
