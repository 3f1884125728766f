// Solver::solve_path.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "solver/path/graph.hpp"
#include "solver/path/reasons.hpp"
#include "solver/path/smoothing.hpp"
#include "solver/verdict.hpp"

namespace mfik::path {
namespace {

constexpr int kDraws = 96;  // random configurations from which solutions of an end of the path are looked for
constexpr std::size_t kBeginnings = 16;  // solutions of an end that are carried on first
constexpr int kMoreDraws = 256;          // of a waypoint where everything breaks
constexpr int kRounds = 6;               // in which connections are looked for where everything breaks
constexpr int kMostChains = 4000;        // of the graph
constexpr int kNeighbours = 150;         // along the null space of a waypoint
constexpr int kNeighbourReach = 30;      // waypoints that they are carried at most, each way
constexpr int kSteered = 96;             // chains steered towards others in a round
constexpr double kSteerGain = 0.3;       // share of the way to the other chain in a step
constexpr double kPostureGain = 0.05;
constexpr int kWays = 16;            // of which the one is smoothed that promises to become the shortest
constexpr double kApart = 0.3;       // joint difference of two of them somewhere [rad] or [length]
constexpr int kTrialWaypoints = 24;  // about, of each, that are looked at for it
constexpr int kTrialRounds = 4;      // of smoothing before the longer half is left out
constexpr int kSmoothingRounds = 40;

class Search {
  public:
    explicit Search(Task& task) : task_(task), graph_(task) {}

    Rows run() {
        begin();
        graph_.search();
        if (!graph_.is_complete() && graph_.reached() > 0) {
            std::vector<Carried> chains;
            add_beginnings(spare_first_, 0, true, chains);
            add_beginnings(spare_last_, task_.size() - 1, false, chains);
            carry_into_graph(chains);
            add_turned(0);
            graph_.search();
        }
        for (int round = 0; round < kRounds && !graph_.is_complete() && graph_.reached() > 0; ++round) {
            if (task_.stops(0.1 + 0.1 * round)) break;
            bridge(round);
            graph_.search();
        }
        return graph_.is_complete() ? smoothed() : graph_.shortest();
    }
    [[nodiscard]] const Graph& graph() const { return graph_; }

  private:
    /// Solutions of both ends, carried to the other end: a passage that is narrow near one of them lets through few of
    /// those that come from the other.
    void begin() {
        std::vector<Carried> chains;
        const int last = task_.size() - 1;
        const double* near = task_.common.q_ref;
        if (task_.has_start) {
            if (!is_clear(task_.q_start)) return;
            chains.push_back(begin_at(task_, 0, task_.q_start, true));
        }
        spare_first_ = candidates(task_, 0, kDraws, 0, near);
        if (spare_first_.empty() && !task_.has_start) spare_first_ = more_candidates(0, 1, near);
        if (!task_.has_start) add_beginnings(take_apart(spare_first_), 0, true, chains);
        if (!task_.has_goal) {
            spare_last_ = candidates(task_, last, kDraws, 0, near);
            if (!task_.has_start) add_beginnings(take_apart(spare_last_), last, false, chains);
        } else if (is_clear(task_.q_goal)) {
            chains.push_back(begin_at(task_, last, task_.q_goal, false));
        }
        carry_into_graph(chains);
    }

    [[nodiscard]] bool is_clear(const double* q) const { return task_.clear(Rows(q, q + task_.dof()))[0] != 0; }

    /// Solutions of a waypoint from many draws, else the one that the solver finds by itself.
    [[nodiscard]] Rows more_candidates(int waypoint, int stream, const double* near) {
        Rows found = candidates(task_, waypoint, kMoreDraws, stream, near);
        Result result{};
        if (found.empty()) found = solution(task_, waypoint, result);
        return found;
    }

    /// Take kBeginnings of the spare solutions: always the one farthest from those taken.
    Rows take_apart(Rows& spare) const {
        const std::size_t n = task_.width();
        Rows taken;
        std::vector<double> gap(spare.size() / n, kInfinity);
        while (!spare.empty() && taken.size() < kBeginnings * n) {
            const auto farthest = std::max_element(gap.begin(), gap.end()) - gap.begin();
            const auto row = spare.begin() + farthest * task_.dof();
            taken.insert(taken.end(), row, row + task_.dof());
            spare.erase(row, row + task_.dof());
            gap.erase(gap.begin() + farthest);
            for (std::size_t k = 0; k < gap.size(); ++k)
                gap[k] = std::min(gap[k], task_.distance(&spare[k * n], &taken[taken.size() - n]));
        }
        return taken;
    }

    void add_beginnings(const Rows& solutions, int waypoint, bool forward, std::vector<Carried>& chains) const {
        for (std::size_t k = 0; k < solutions.size(); k += task_.width())
            chains.push_back(begin_at(task_, waypoint, &solutions[k], forward));
    }

    void carry_into_graph(std::vector<Carried>& chains) {
        carry(task_, chains, 0.0, 0.1);
        for (Carried& carried : chains) add(std::move(carried.chain));
    }

    void add_turned(std::size_t begin) {
        for (Chain& chain : turned(task_, graph_.chains(), begin, 0.1)) add(std::move(chain));
    }

    void add(Chain chain) {
        if (static_cast<int>(graph_.chains().size()) < kMostChains) graph_.add(std::move(chain));
    }

    /// Look for connections where everything breaks: new solutions of the waypoint behind, carried both ways; chains
    /// that reach the one before, begun anew some waypoints earlier with other postures; and such that are steered
    /// towards those that go on.
    void bridge(int round) {
        const int k = graph_.reached();
        std::vector<Carried> chains;
        const std::vector<int> reached = graph_.reached_at(k - 1);
        const double* near = graph_.chains()[static_cast<std::size_t>(reached.front())].at(k - 1, task_.dof());
        const Rows fresh = more_candidates(k, 2 + round, near);
        const std::size_t known = graph_.chains().size();
        add_beginnings(fresh, k, true, chains);
        add_beginnings(fresh, k, false, chains);
        add_postures(k, reached, round, chains);
        carry_into_graph(chains);
        std::vector<Carried> others;
        steer(k, reached, round, others);
        if (round > 0) add_neighbours(k, round, others);
        carry_into_graph(others);
        add_turned(known);
    }

    /// Configurations all along the null space at some waypoints around the break, carried both ways until they meet
    /// those of the next such waypoint.
    void add_neighbours(int k, int round, std::vector<Carried>& chains) {
        const int reach = kNeighbourReach;
        for (int i = 0; i < round; ++i) {
            const int waypoint = std::clamp(k - i * reach, 0, task_.size() - 1);
            Rows known;
            for (const Chain& chain : graph_.chains()) {
                if (!chain.covers(waypoint, task_.dof())) continue;
                const double* q = chain.at(waypoint, task_.dof());
                known.insert(known.end(), q, q + task_.dof());
            }
            const Rows around = fill(task_, waypoint, known, kNeighbours);
            for (std::size_t row = 0; row < around.size(); row += task_.width()) {
                for (const bool forward : {true, false}) {
                    chains.push_back(begin_at(task_, waypoint, &around[row], forward));
                    chains.back().until = std::clamp(waypoint + (forward ? reach : -reach), 0, task_.size() - 1);
                }
            }
            if (waypoint == 0) break;
        }
    }

    /// How many waypoints before the break a round begins.
    [[nodiscard]] static int reach_back(int round) { return 8 << round; }

    void add_postures(int k, const std::vector<int>& reached, int round, std::vector<Carried>& chains) {
        const mfik::Chain& robot = task_.core.chain();
        for (int j = 0; j < robot.dof; ++j) midpoint_[j] = 0.5 * (robot.lower[j] + robot.upper[j]);
        for (const int index : spread(reached, 16)) {
            const Chain& chain = graph_.chains()[static_cast<std::size_t>(index)];
            const int from = std::max(chain.begin, k - 1 - reach_back(round));
            Carried carried = begin_at(task_, from, chain.at(from, task_.dof()), true);
            carried.posture = midpoint_;
            carried.gain = kPostureGain;
            chains.push_back(carried);
        }
    }

    void steer(int k, const std::vector<int>& reached, int round, std::vector<Carried>& chains) {
        struct Pair {
            double distance;
            int from, to, begin;
        };
        std::vector<Pair> pairs;
        for (int to = 0; to < static_cast<int>(graph_.chains().size()); ++to) {
            const Chain& target = graph_.chains()[static_cast<std::size_t>(to)];
            if (!target.covers(k, task_.dof())) continue;
            for (const int from : reached) {
                const Chain& source = graph_.chains()[static_cast<std::size_t>(from)];
                const int begin = std::max({source.begin, target.begin, k - 1 - reach_back(round)});
                if (begin > k - 1) continue;
                pairs.push_back(
                    {task_.distance(source.at(begin, task_.dof()), target.at(begin, task_.dof())), from, to, begin});
            }
        }
        std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
            return std::tie(a.distance, a.from, a.to) < std::tie(b.distance, b.from, b.to);
        });
        std::vector<int> uses(graph_.chains().size(), 0);
        for (const Pair& pair : pairs) {
            if (static_cast<int>(chains.size()) == kSteered) break;
            if (++uses[static_cast<std::size_t>(pair.to)] > 4) continue;
            const Chain& source = graph_.chains()[static_cast<std::size_t>(pair.from)];
            Carried carried = begin_at(task_, pair.begin, source.at(pair.begin, task_.dof()), true);
            carried.towards = &graph_.chains()[static_cast<std::size_t>(pair.to)];
            carried.gain = kSteerGain;
            chains.push_back(carried);
        }
    }

    /// Up to `count` of the elements, evenly spread.
    [[nodiscard]] static std::vector<int> spread(const std::vector<int>& from, std::size_t count) {
        if (from.size() <= count) return from;
        std::vector<int> taken;
        taken.reserve(count);
        for (std::size_t k = 0; k < count; ++k) taken.push_back(from[k * from.size() / count]);
        return taken;
    }

    /// The shortest of a few ways, smoothed. Which one that will be is found by smoothing them at some waypoints alone,
    /// of which the longer half is left out time and again; the path then begins where its waypoints went.
    Rows smoothed() {
        struct Trial {
            const Rows* way;
            Smoother smoother;
        };
        const std::vector<Rows> ways = graph_.shortest(kWays, kApart);
        if (ways.empty()) return graph_.shortest();
        const int stride = std::max(1, task_.size() / kTrialWaypoints);
        std::vector<Trial> trials;
        trials.reserve(ways.size());
        for (const Rows& way : ways) trials.push_back({&way, Smoother(task_, way, stride)});
        while (trials.size() > 1) {
            for (Trial& trial : trials) trial.smoother.run(kTrialRounds, 0.7, 0.8);
            std::stable_sort(trials.begin(), trials.end(),
                             [](const Trial& a, const Trial& b) { return a.smoother.length() < b.smoother.length(); });
            trials.erase(trials.begin() + static_cast<std::ptrdiff_t>((trials.size() + 1) / 2), trials.end());
        }
        Trial& best = trials.front();
        best.smoother.run(kSmoothingRounds, 0.8, 0.8);
        Smoother smoother(task_, *best.way);
        smoother.follow(best.smoother);
        smoother.run(kSmoothingRounds, 0.8, 1.0);
        return smoother.q();
    }

    Task& task_;
    Graph graph_;
    Rows spare_first_, spare_last_;  // solutions of the first and the last waypoint that were not carried yet
    double midpoint_[kMaxJoints]{};
};

/// Hand out a path, in [rad] and [m].
void hand_out(const Task& task, const Rows& rows, PathResult& result) {
    const std::size_t n = task.width();
    result.q.resize(rows.size());
    result.reached = rows.size() / n;
    result.largest_step.assign(n, 0.0);
    for (std::size_t i = 0; i < result.reached; ++i) from_units(task.core.units, &rows[i * n], {&result.q[i * n], n});
    for (std::size_t k = n; k < rows.size(); ++k) {
        double& largest = result.largest_step[k % n];
        largest = std::max(largest, std::fabs(result.q[k] - result.q[k - n]));
    }
    result.length = task.length(rows);
}

}  // namespace
}  // namespace mfik::path

namespace mfik {

PathResult Solver::solve_path(Span<const double> poses, const PathOptions& path, const Options& options) const {
    PathResult result;
    if (impl_ == nullptr) {
        result.reason = "solver: it was moved from";
        return result;
    }
    path::Task task(*impl_, poses, path, options);
    if (!task.error.empty()) {
        result.reason = task.error;
        return result;
    }
    path::Search search(task);
    path::hand_out(task, search.run(), result);
    if (search.graph().is_complete()) {
        path::report_solved(task, result);
    } else {
        path::explain(task, search.graph(), result);
    }
    result.attempts = task.attempts;
    result.time_us = task.time_us();
    return result;
}

}  // namespace mfik
