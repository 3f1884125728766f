// Times the engines on bundles; benchmarks/engines.py builds it, makes the bundles and prints the table.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mfik/solver.hpp"
#include "solver/network.hpp"
#ifdef MFIK_HAS_TORCHSCRIPT
#include "mfik/torchscript.hpp"
#endif
#ifdef MFIK_HAS_ONNX
#include "mfik/onnx.hpp"
#endif

namespace {

constexpr int kPoseSize = 7;
constexpr int kBatch = 1024;

struct Contestant {
    std::string name;
    int rows, threads;
    std::function<void()> run;
    std::vector<double> time_us;
};

/// What each thread of a call needs; the rows are shared out evenly.
struct Share {
    std::vector<float> q, poses, u;
    mfik::AlignedBuffer scratch;
};

std::function<void()> evaluation(const mfik::Engine& engine, int dof, int rows, int poses, int threads) {
    auto shares = std::make_shared<std::vector<Share>>();
    std::mt19937 generator(1);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    const int count = rows / threads, num_poses = poses == 1 ? 1 : count;
    for (int t = 0; t < threads; ++t) {
        Share share;
        for (int i = 0; i < count * dof; ++i) share.q.push_back(uniform(generator));
        for (int i = 0; i < num_poses; ++i) {
            const float angle = uniform(generator);
            share.poses.insert(share.poses.end(), {uniform(generator), uniform(generator), uniform(generator),
                                                   std::cos(angle), std::sin(angle), 0.0f, 0.0f});
        }
        share.u.resize(static_cast<std::size_t>(count * dof));
        share.scratch = mfik::AlignedBuffer(engine.scratch_size(count));
        shares->push_back(std::move(share));
    }
    return [&engine, shares, count, num_poses] {
        const auto work = [&](Share& share) {
            engine.evaluate(count, share.q.data(), share.poses.data(), num_poses, share.u.data(), share.scratch.data());
        };
        std::vector<std::thread> helpers;
        for (std::size_t t = 1; t < shares->size(); ++t) helpers.emplace_back([&, t] { work((*shares)[t]); });
        work(shares->front());
        for (std::thread& helper : helpers) helper.join();
    };
}

/// Reads as much memory as the weights take, once: no engine that uses each weight once can be faster.
std::function<void()> stream(std::size_t num_parameters) {
    auto memory = std::make_shared<std::vector<std::uint64_t>>(num_parameters / 2, 1);
    return [memory] {
        constexpr std::size_t kPiece = 512;  // stays in the first cache: what is read is copied there
        std::uint64_t piece[kPiece];
        for (std::size_t i = 0; i + kPiece <= memory->size(); i += kPiece) {
            std::memcpy(piece, memory->data() + i, sizeof(piece));
            asm volatile("" : : "r"(piece) : "memory");  // the copy is not to be left out
        }
    };
}

void measure(const std::string& path, double seconds) {
    const mfik::Bundle bundle = mfik::read_bundle(path);
    std::vector<std::pair<std::string, std::unique_ptr<const mfik::Engine>>> engines;
    engines.emplace_back("native", bundle.network->make_engine(bundle.tensors));
#ifdef MFIK_HAS_TORCHSCRIPT
    engines.emplace_back("torchscript", mfik::load_torchscript(path));
#endif
#ifdef MFIK_HAS_ONNX
    engines.emplace_back("onnx", mfik::load_onnx(path));
#endif
    const int dof = bundle.robot.chain.dof;
    std::vector<Contestant> contestants{{"read weights", 1, 1, stream(bundle.num_parameters), {}}};
    for (const auto& [name, engine] : engines) {
        contestants.push_back({name, 1, 1, evaluation(*engine, dof, 1, 1, 1), {}});
        contestants.push_back({name + " one pose", 8, 1, evaluation(*engine, dof, 8, 1, 1), {}});
        contestants.push_back({name, 8, 1, evaluation(*engine, dof, 8, 8, 1), {}});
        for (const int threads : {1, 2}) {
            contestants.push_back({name, kBatch, threads, evaluation(*engine, dof, kBatch, kBatch, threads), {}});
        }
    }
    // In turns, so that a busy moment of the machine falls on all alike; few calls each, so that each is warm.
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    for (bool first = true; first || Clock::now() < end; first = false) {
        for (Contestant& contestant : contestants) {
            const int calls = contestant.rows == kBatch ? 1 : 20;
            contestant.run();
            for (int i = 0; i < calls; ++i) {
                const auto start = Clock::now();
                contestant.run();
                const std::chrono::duration<double, std::micro> time = Clock::now() - start;
                contestant.time_us.push_back(time.count() / contestant.rows);
            }
        }
    }
    for (Contestant& contestant : contestants) {
        std::vector<double>& time = contestant.time_us;
        std::sort(time.begin(), time.end());
        const auto quantile = [&](double p) { return time[static_cast<std::size_t>(p * (time.size() - 1))]; };
        std::printf("%s\t%d\t%d\t%.9g\t%.9g\t%.9g\t%zu\n", contestant.name.c_str(), contestant.rows, contestant.threads,
                    quantile(0.1), quantile(0.5), quantile(0.9), time.size());
    }
}

}  // namespace

/// Prints, tab-separated: name, rows, threads, 10 %, 50 % and 90 % quantiles of the time per row [us], calls.
int main(int argc, char** argv) {
    if (argc != 3) return std::fprintf(stderr, "usage: mfik_bench_engines BUNDLE SECONDS\n"), 2;
    try {
        measure(argv[1], std::atof(argv[2]));
    } catch (const mfik::Error& error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
    return 0;
}
