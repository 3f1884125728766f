#include "solver/collision/body_description.hpp"

#include <algorithm>
#include <cmath>
#include <set>

namespace mfik {
namespace {

constexpr const char* kReasons[] = {"checked", "fixed", "adjacent", "always", "never", "disabled"};

/// A ball around spheres [begin, end): the middle of their box, and what it needs.
LinkSpheres bound(const std::vector<std::array<double, 4>>& spheres, int frame, int begin, int end) {
    LinkSpheres link{frame, begin, end, {}, 0.0};
    for (std::size_t i = 0; i < 3; ++i) {
        double low = HUGE_VAL, high = -HUGE_VAL;
        for (int s = begin; s < end; ++s) {
            const auto& sphere = spheres[static_cast<std::size_t>(s)];
            low = std::min(low, sphere[i] - sphere[3]);
            high = std::max(high, sphere[i] + sphere[3]);
        }
        link.center[i] = 0.5 * (low + high);
    }
    for (int s = begin; s < end; ++s) {
        const auto& sphere = spheres[static_cast<std::size_t>(s)];
        const double offset[3] = {sphere[0] - link.center[0], sphere[1] - link.center[1], sphere[2] - link.center[2]};
        link.radius = std::max(link.radius, norm3(offset) + sphere[3]);
    }
    return link;
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
            out.extent = std::max(out.extent, static_cast<float>(norm3(sphere.data()) + sphere[3]));
        }
        push(link.center, link.radius);
        out.ball.push_back(static_cast<float>(link.radius));
        out.ball_beside_world.push_back(link.frame == 0 ? kNowhere : static_cast<float>(link.radius));
    }
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
        out.names.push_back(name);
        const int frame = reader.integer(links[l], "frame", where, 0, dof);
        double T[12];
        reader.transform(reader.member(links[l], "transform", where), where + ".transform", T);
        const Json& spheres = reader.member(links[l], "spheres", where);
        if (!spheres.is_array() || spheres.empty() ||
            spheres.size() > static_cast<std::size_t>(kMaxSpheres) - out.spheres.size()) {
            reader.fail(where + ".spheres", "1 to " + std::to_string(kMaxSpheres) + " spheres of all links",
                        spheres.is_array() ? std::to_string(spheres.size()) : JsonReader::excerpt(spheres));
        }
        const int begin = static_cast<int>(out.spheres.size());
        for (std::size_t s = 0; s < spheres.size(); ++s) {
            const std::string sphere_at = at(where + ".spheres", s);
            if (!spheres[s].is_array() || spheres[s].size() != 4) {
                reader.fail(sphere_at, "4 numbers (centre, radius)", JsonReader::excerpt(spheres[s]));
            }
            double value[4];
            for (std::size_t i = 0; i < 4; ++i) value[i] = reader.number(spheres[s][i], at(sphere_at, i));
            if (!(value[3] > 0)) reader.fail(at(sphere_at, 3), "a radius above 0", JsonReader::excerpt(spheres[s]));
            std::array<double, 4> placed{0, 0, 0, value[3]};
            for (std::size_t i = 0; i < 3; ++i) {
                placed[i] = T[4 * i] * value[0] + T[4 * i + 1] * value[1] + T[4 * i + 2] * value[2] + T[4 * i + 3];
            }
            out.spheres.push_back(placed);
            out.link_of.push_back(static_cast<int>(l));
        }
        out.links.push_back(bound(out.spheres, frame, begin, static_cast<int>(out.spheres.size())));
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
    out.columns = columns_of(out);
    return out;
}

}  // namespace mfik
