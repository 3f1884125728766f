#include "solver/path/graph.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mfik::path {
namespace {

constexpr double kDone = 0.5;  // share of the work that is told while a graph is searched

}  // namespace

void Graph::add(Chain chain) {
    chains_.push_back(std::move(chain));
}

void Graph::build() {
    const int dof = task_.dof();
    std::vector<Layer> layers(static_cast<std::size_t>(task_.size()));
    for (std::size_t i = 0; i < layers.size(); ++i) {
        Layer& layer = layers[i];
        for (std::size_t c = 0; c < chains_.size(); ++c) {
            if (!chains_[c].covers(static_cast<int>(i), dof)) continue;
            const double* q = chains_[c].at(static_cast<int>(i), dof);
            layer.chain.push_back(static_cast<int>(c));
            layer.q.insert(layer.q.end(), q, q + dof);
        }
        layer.cost.assign(layer.chain.size(), kInfinity);
        layer.before.assign(layer.chain.size(), -1);
        if (i < layers_.size()) {
            layer.free = std::move(layers_[i].free);
            layer.has_blocked = layers_[i].has_blocked;
        }
    }
    layers_ = std::move(layers);
}

bool Graph::is_begin(const double* q) const {
    return !task_.has_start || std::equal(q, q + task_.dof(), task_.q_start);
}

/// Numbers of chains fit into half of the key each.
std::uint64_t Graph::key(const Layer& before, int a, const Layer& layer, int b) const {
    return static_cast<std::uint64_t>(before.chain[static_cast<std::size_t>(a)]) << 32 |
           static_cast<std::uint32_t>(layer.chain[static_cast<std::size_t>(b)]);
}

/// Whether a connection is free of collision; asked of the robot once.
bool Graph::is_free(const Layer& before, int a, Layer& layer, int b) {
    const auto [known, is_new] = layer.free.try_emplace(key(before, a, layer, b), true);
    if (is_new) known->second = task_.edge_is_clear(q_of(before, a), q_of(layer, b));
    return known->second;
}

/// The shortest ways to the configurations of a waypoint, by those to the one before.
void Graph::relax(int waypoint) {
    Layer& layer = layers_[static_cast<std::size_t>(waypoint)];
    const int nodes = static_cast<int>(layer.chain.size());
    for (int b = 0; b < nodes; ++b) {
        const std::size_t to = static_cast<std::size_t>(b);
        layer.before[to] = -1;
        if (waypoint == 0) {
            layer.cost[to] = is_begin(q_of(layer, b)) ? 0.0 : kInfinity;
            continue;
        }
        const Layer& before = layers_[static_cast<std::size_t>(waypoint - 1)];
        std::vector<double> cost = before.cost;
        for (;;) {
            const int from =
                task_.kernels.best_before(before.q.data(), cost.data(), static_cast<int>(before.chain.size()),
                                          q_of(layer, b), task_.max_step, task_.unit(), task_.dof(), layer.cost[to]);
            layer.before[to] = from;
            if (from < 0 || !layer.has_blocked) break;
            // Once time is up, only connections that were looked at before are taken.
            const bool is_known = layer.free.count(key(before, from, layer, b)) != 0;
            if ((is_known || !task_.stops(kDone)) && is_free(before, from, layer, b)) break;
            cost[static_cast<std::size_t>(from)] = kInfinity;
        }
    }
}

int Graph::end_node(int waypoint) const {
    const Layer& layer = layers_[static_cast<std::size_t>(waypoint)];
    const bool to_goal = task_.has_goal && waypoint == task_.size() - 1;
    int best = -1;
    for (int b = 0; b < static_cast<int>(layer.chain.size()); ++b) {
        const std::size_t node = static_cast<std::size_t>(b);
        const double* q = q_of(layer, b);
        if (!(layer.cost[node] < kInfinity) || (to_goal && !std::equal(q, q + task_.dof(), task_.q_goal))) continue;
        if (best < 0 || layer.cost[node] < layer.cost[static_cast<std::size_t>(best)]) best = b;
    }
    return best;
}

int Graph::count_reached() const {
    int reached = 0;
    while (reached < task_.size() && end_node(reached) >= 0) ++reached;
    return reached;
}

std::vector<int> Graph::way_to(int waypoint, int node) const {
    std::vector<int> way(static_cast<std::size_t>(waypoint + 1));
    for (int i = waypoint; i >= 0; --i) {
        way[static_cast<std::size_t>(i)] = node;
        node = layers_[static_cast<std::size_t>(i)].before[static_cast<std::size_t>(node)];
    }
    return way;
}

Rows Graph::joints_of(const std::vector<int>& way) const {
    Rows q;
    for (std::size_t i = 0; i < way.size(); ++i) {
        const double* at = q_of(layers_[i], way[i]);
        q.insert(q.end(), at, at + task_.dof());
    }
    return q;
}

/// Look at the connections of a way; the waypoint behind the first one that collides, or -1.
int Graph::first_blocked(const std::vector<int>& way) {
    int first = -1;
    for (std::size_t i = 1; task_.common.keeps_clear && i < way.size(); ++i) {
        Layer& layer = layers_[i];
        if (is_free(layers_[i - 1], way[i - 1], layer, way[i])) continue;
        layer.has_blocked = true;
        if (first < 0) first = static_cast<int>(i);
    }
    return first;
}

void Graph::search() {
    build();
    // Each time round another layer becomes one whose connections are all looked at, so there are as many at most.
    for (int from = 0; from >= 0;) {
        for (int i = from; i < task_.size(); ++i) relax(i);
        reached_ = count_reached();
        way_ = reached_ == 0 ? std::vector<int>() : way_to(reached_ - 1, end_node(reached_ - 1));
        from = first_blocked(way_);
    }
}

std::vector<Rows> Graph::shortest(int count, double apart) {
    std::vector<Rows> ways;
    const Layer& layer = layers_.back();
    std::vector<int> nodes(layer.chain.size());
    std::iota(nodes.begin(), nodes.end(), 0);
    const auto cost = [&layer](int node) { return layer.cost[static_cast<std::size_t>(node)]; };
    std::sort(nodes.begin(), nodes.end(),
              [&](int a, int b) { return cost(a) < cost(b) || (cost(a) == cost(b) && a < b); });
    for (const int node : nodes) {
        if (!(cost(node) < kInfinity) || static_cast<int>(ways.size()) == count) break;
        if (task_.has_goal && !std::equal(q_of(layer, node), q_of(layer, node) + task_.dof(), task_.q_goal)) continue;
        const std::vector<int> way = way_to(task_.size() - 1, node);
        Rows q = joints_of(way);
        const bool differs = std::all_of(ways.begin(), ways.end(), [&](const Rows& other) {
            for (std::size_t k = 0; k < q.size(); ++k)
                if (std::fabs(q[k] - other[k]) > apart) return true;
            return false;
        });
        if (differs && first_blocked(way) < 0) ways.push_back(std::move(q));
    }
    return ways;
}

std::vector<int> Graph::reached_at(int waypoint) const {
    std::vector<int> chains;
    const Layer& layer = layers_[static_cast<std::size_t>(waypoint)];
    for (std::size_t node = 0; node < layer.chain.size(); ++node)
        if (layer.cost[node] < kInfinity) chains.push_back(layer.chain[node]);
    return chains;
}

Gap Graph::gap() const {
    Gap gap;
    double best = kInfinity;
    const Layer &before = layers_[static_cast<std::size_t>(reached_ - 1)],
                &layer = layers_[static_cast<std::size_t>(reached_)];
    for (int a = 0; a < static_cast<int>(before.chain.size()); ++a) {
        if (!(before.cost[static_cast<std::size_t>(a)] < kInfinity)) continue;
        for (int b = 0; b < static_cast<int>(layer.chain.size()); ++b) {
            const double *from = q_of(before, a), *to = q_of(layer, b);
            if (task_.has_goal && reached_ == task_.size() - 1 && !std::equal(to, to + task_.dof(), task_.q_goal))
                continue;
            double worst = -kInfinity;
            int joint = -1;
            for (int j = 0; j < task_.dof(); ++j) {
                const double excess = std::fabs(to[j] - from[j]) / task_.max_step[j];
                if (excess > worst) worst = excess, joint = j;
            }
            if (!(worst < best)) continue;
            best = worst;
            const double change = std::fabs(to[joint] - from[joint]);
            gap.joint = joint;
            gap.excess = (change - task_.max_step[joint]) * task_.unit()[joint];
            if (worst <= 1.0) {
                gap.joint = -1;
                (void)task_.edge_is_clear(from, to, &gap.blocked);
            }
        }
    }
    return gap;
}

}  // namespace mfik::path
