#include "solver/collision/body_description.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

namespace mfik {
namespace {

constexpr const char* kReasons[] = {"checked", "fixed", "adjacent", "always", "never", "disabled"};

/// Put a ball around the spheres of a link: the middle of their box, and what it needs.
void bound(const std::vector<std::array<double, 4>>& spheres, LinkSpheres& link) {
    for (std::size_t i = 0; i < 3; ++i) {
        double low = HUGE_VAL, high = -HUGE_VAL;
        for (int s = link.begin; s < link.end; ++s) {
            const auto& sphere = spheres[static_cast<std::size_t>(s)];
            low = std::min(low, sphere[i] - sphere[3]);
            high = std::max(high, sphere[i] + sphere[3]);
        }
        link.center[i] = 0.5 * (low + high);
    }
    link.radius = 0.0;
    for (int s = link.begin; s < link.end; ++s) {
        const auto& sphere = spheres[static_cast<std::size_t>(s)];
        const double offset[3] = {sphere[0] - link.center[0], sphere[1] - link.center[1], sphere[2] - link.center[2]};
        link.radius = std::max(link.radius, norm3(offset) + sphere[3]);
    }
}

/// Sphere in the frame that T leads to.
std::array<double, 4> moved(const Transform& T, const std::array<double, 4>& sphere) {
    std::array<double, 4> out{0, 0, 0, sphere[3]};
    for (std::size_t i = 0; i < 3; ++i)
        out[i] = T.R[3 * i] * sphere[0] + T.R[3 * i + 1] * sphere[1] + T.R[3 * i + 2] * sphere[2] + T.p[i];
    return out;
}

/// No sphere reaches farther from the origin of its frame [m].
float extent_of(const std::vector<std::array<double, 4>>& spheres) {
    double extent = 0.0;
    for (const auto& sphere : spheres) extent = std::max(extent, norm3(sphere.data()) + sphere[3]);
    return static_cast<float>(extent);
}

/// The spheres of a body in single precision, with room behind them for a register.
SphereColumns columns_of(const BodyDescription& body) {
    SphereColumns out;
    const auto push = [&out](const double* center, double radius) {
        out.x.push_back(static_cast<float>(center[0]));
        out.y.push_back(static_cast<float>(center[1]));
        out.z.push_back(static_cast<float>(center[2]));
        out.radius.push_back(static_cast<float>(radius));
    };
    out.smallest = HUGE_VALF;
    for (const LinkSpheres& link : body.links) {
        for (int s = link.begin; s < link.end; ++s) {
            const auto& sphere = body.spheres[static_cast<std::size_t>(s)];
            push(sphere.data(), sphere[3]);
            out.smallest = std::min(out.smallest, static_cast<float>(sphere[3]));
        }
        push(link.center, link.radius);
        out.ball.push_back(static_cast<float>(link.radius));
        out.ball_beside_world.push_back(link.frame == 0 ? kNowhere : static_cast<float>(link.radius));
    }
    out.extent = extent_of(body.spheres);
    for (auto* column : {&out.x, &out.y, &out.z, &out.radius, &out.ball, &out.ball_beside_world})
        column->resize(column->size() + kMaxSingles, 0.0f);
    out.partners.resize(body.links.size());
    for (const auto& pair : body.pairs) {
        const int first = std::min(pair[0], pair[1]), second = std::max(pair[0], pair[1]);
        out.partners[static_cast<std::size_t>(first)][static_cast<std::size_t>(second / 64)] |= std::uint64_t{1}
                                                                                                << (second % 64);
    }
    return out;
}

std::string at(const std::string& list, std::size_t i) {
    return list + "[" + std::to_string(i) + "]";
}

}  // namespace

BodyView BodyDescription::view(double margin_m) const noexcept {
    static_assert(sizeof(std::array<double, 4>) == sizeof(double[4]) && sizeof(std::array<int, 2>) == sizeof(int[2]));
    using Bits = std::uint64_t[kMaxLinks / 64];
    static_assert(sizeof(columns.partners[0]) == sizeof(Bits));
    BodyView view;
    view.sphere = reinterpret_cast<const double (*)[4]>(spheres.data());
    view.link = links.data();
    view.num_links = static_cast<int>(links.size());
    view.pair = reinterpret_cast<const int (*)[2]>(pairs.data());
    view.num_pairs = static_cast<int>(pairs.size());
    view.rows = {columns.x.data(),
                 columns.y.data(),
                 columns.z.data(),
                 columns.radius.data(),
                 columns.ball.data(),
                 columns.ball_beside_world.data(),
                 reinterpret_cast<const Bits*>(columns.partners.data()),
                 columns.smallest,
                 columns.extent};
    view.allowance = std::max(margin_m, 0.0);
    return view;
}

void BodyDescription::add_link(const std::string& name, int frame, const Transform& T,
                               const std::vector<std::array<double, 4>>& local) {
    const int begin = static_cast<int>(spheres.size());
    for (const auto& sphere : local) {
        spheres.push_back(moved(T, sphere));
        link_of.push_back(static_cast<int>(links.size()));
    }
    LinkSpheres link{frame, begin, static_cast<int>(spheres.size()), {}, 0.0};
    bound(spheres, link);
    links.push_back(link);
    names.push_back(name);
    T_frame_link.push_back(T);
}

void BodyDescription::complete() {
    columns = columns_of(*this);
}

void BodyDescription::place_link(std::size_t index, const Transform& T,
                                 const std::vector<std::array<double, 4>>& local) noexcept {
    LinkSpheres& link = links[index];
    T_frame_link[index] = T;
    std::size_t sphere = static_cast<std::size_t>(link.begin),
                row = sphere + index;  // a ball is behind each link before
    const auto put = [this, &row](const double* center) {
        columns.x[row] = static_cast<float>(center[0]);
        columns.y[row] = static_cast<float>(center[1]);
        columns.z[row] = static_cast<float>(center[2]);
        ++row;
    };
    for (const auto& added : local) {
        spheres[sphere] = moved(T, added);
        put(spheres[sphere++].data());
    }
    bound(spheres, link);
    columns.radius[row] = columns.ball[index] = static_cast<float>(link.radius);
    if (link.frame != 0) columns.ball_beside_world[index] = columns.ball[index];
    put(link.center);
    columns.extent = extent_of(spheres);
}

BodyDescription read_body(const JsonReader& reader, const Json& body, int dof) {
    BodyDescription out;
    const Json& links = reader.member(body, "links", "robot.body");
    if (!links.is_array() || links.empty() || links.size() > kMaxLinks) {
        reader.fail("robot.body.links", "1 to " + std::to_string(kMaxLinks) + " links",
                    links.is_array() ? std::to_string(links.size()) : JsonReader::excerpt(links));
    }
    for (std::size_t l = 0; l < links.size(); ++l) {
        const std::string where = at("robot.body.links", l);
        const std::string name = reader.string(links[l], "name", where);
        if (std::count(out.names.begin(), out.names.end(), name) > 0) {
            reader.fail(where + ".name", "a name of its own", JsonReader::quote(name));
        }
        const int frame = reader.integer(links[l], "frame", where, 0, dof);
        double origin[12];
        reader.transform(reader.member(links[l], "transform", where), where + ".transform", origin);
        Transform T{{1, 0, 0, 0, 1, 0, 0, 0, 1}, {}};
        compose_origin(T, origin);
        const Json& spheres = reader.member(links[l], "spheres", where);
        if (!spheres.is_array() || spheres.empty() ||
            spheres.size() > static_cast<std::size_t>(kMaxSpheres) - out.spheres.size()) {
            reader.fail(where + ".spheres", "1 to " + std::to_string(kMaxSpheres) + " spheres of all links",
                        spheres.is_array() ? std::to_string(spheres.size()) : JsonReader::excerpt(spheres));
        }
        std::vector<std::array<double, 4>> local;
        for (std::size_t s = 0; s < spheres.size(); ++s) {
            const std::string sphere_at = at(where + ".spheres", s);
            if (!spheres[s].is_array() || spheres[s].size() != 4) {
                reader.fail(sphere_at, "4 numbers (centre, radius)", JsonReader::excerpt(spheres[s]));
            }
            std::array<double, 4> value{};
            for (std::size_t i = 0; i < 4; ++i) value[i] = reader.number(spheres[s][i], at(sphere_at, i));
            if (!(value[3] > 0)) reader.fail(at(sphere_at, 3), "a radius above 0", JsonReader::excerpt(spheres[s]));
            local.push_back(value);
        }
        out.add_link(name, frame, T, local);
    }
    const Json& pairs = reader.member(body, "pairs", "robot.body");
    if (!pairs.is_array() || pairs.size() != links.size() * (links.size() - 1) / 2) {
        reader.fail("robot.body.pairs", "every pair of the links once",
                    pairs.is_array() ? std::to_string(pairs.size()) + " pairs" : JsonReader::excerpt(pairs));
    }
    std::set<std::array<int, 2>> seen;
    for (std::size_t p = 0; p < pairs.size(); ++p) {
        const std::string where = at("robot.body.pairs", p);
        const Json& pair = pairs[p];
        if (!pair.is_array() || pair.size() != 5 || !pair[0].is_string() || !pair[1].is_string() ||
            !pair[2].is_string()) {
            reader.fail(where, "two links, a reason and two numbers", JsonReader::excerpt(pair));
        }
        std::array<int, 2> both{};
        for (std::size_t i = 0; i < 2; ++i) {
            const auto it = std::find(out.names.begin(), out.names.end(), pair[i].get<std::string>());
            if (it == out.names.end()) reader.fail(at(where, i), "a link of the body", JsonReader::excerpt(pair[i]));
            both[i] = static_cast<int>(it - out.names.begin());
        }
        if (!seen.insert({std::min(both[0], both[1]), std::max(both[0], both[1])}).second || both[0] == both[1]) {
            reader.fail(where, "every pair of the links once", JsonReader::excerpt(pair));
        }
        const std::string reason = pair[2].get<std::string>();
        if (std::find(std::begin(kReasons), std::end(kReasons), reason) == std::end(kReasons)) {
            reader.fail(at(where, 2), "a reason such as 'checked'", JsonReader::quote(reason));
        }
        if (reason == kReasons[0]) out.pairs.push_back(both);
    }
    out.complete();
    return out;
}

}  // namespace mfik
