// The layered graph: the configurations of all chains at each waypoint, connected where no joint changes by more than
// max_step and, on the ways that are looked at, nothing collides in between.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "solver/path/chains.hpp"

namespace mfik::path {

/// Where every connection of two waypoints breaks.
struct Gap {
    int joint = -1;       // whose change exceeds max_step by most on the best connection; -1: none does
    double excess = 0.0;  // by how much [rad or m]
    Rows blocked;         // joints between the two that collide, where none exceeds it
};

class Graph {
  public:
    explicit Graph(Task& task) : task_(task) {}

    /// Add a chain. One that begins at the first waypoint is a beginning of paths, unless q_start asks for another.
    void add(Chain chain);
    [[nodiscard]] const std::vector<Chain>& chains() const { return chains_; }
    /// Find the shortest way to every configuration, and of those to the last waypoint that is reached one on which
    /// nothing collides.
    void search();
    /// Waypoints that are reached from the first one; with q_goal the last one counts only there.
    [[nodiscard]] int reached() const { return reached_; }
    [[nodiscard]] bool is_complete() const { return reached_ == task_.size(); }
    /// The shortest way to the last waypoint that is reached, every connection checked, [reached, dof].
    [[nodiscard]] Rows shortest() const { return joints_of(way_); }
    /// The shortest ways to the last waypoint that differ from each other by more than `apart` in some joint somewhere.
    [[nodiscard]] std::vector<Rows> shortest(int count, double apart);
    /// Chains that have a way to a waypoint.
    [[nodiscard]] std::vector<int> reached_at(int waypoint) const;
    /// The best connection behind the last waypoint that is reached.
    [[nodiscard]] Gap gap() const;

  private:
    struct Layer {
        std::vector<int> chain;                        // whose configurations these are
        Rows q;                                        // [nodes, dof]
        std::vector<double> cost;                      // of the shortest way; infinite: none
        std::vector<int> before;                       // node of the layer before, on it
        std::unordered_map<std::uint64_t, bool> free;  // connections from the layer before that were looked at
        bool has_blocked = false;  // one of them collides: from then on each is looked at before it is taken
    };

    void build();
    void relax(int waypoint);
    [[nodiscard]] int count_reached() const;
    [[nodiscard]] int end_node(int waypoint) const;
    [[nodiscard]] std::vector<int> way_to(int waypoint, int node) const;
    [[nodiscard]] Rows joints_of(const std::vector<int>& way) const;
    [[nodiscard]] bool is_begin(const double* q) const;
    [[nodiscard]] bool is_free(const Layer& before, int a, Layer& layer, int b);
    int first_blocked(const std::vector<int>& way);
    [[nodiscard]] std::uint64_t key(const Layer& before, int a, const Layer& layer, int b) const;
    [[nodiscard]] const double* q_of(const Layer& layer, int node) const {
        return layer.q.data() + static_cast<std::ptrdiff_t>(node) * task_.dof();
    }

    Task& task_;
    std::vector<Chain> chains_;
    std::vector<Layer> layers_;
    std::vector<int> way_;  // nodes of the shortest way
    int reached_ = 0;
};

}  // namespace mfik::path
