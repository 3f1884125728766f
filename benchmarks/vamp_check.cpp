// VAMP's check of its Panda among boxes, one configuration at a time as its Python function `validate` makes it:
//
//     vamp_check IN OUT
//
// IN: float64 numbers: N, K, joints [N, 7], boxes [K, 6] (centre, half edges). OUT: whether each configuration is free
// [N], then the median time of a check [us]. Compile with -march=native -mavx2 and VAMP's src/impl, pdqsort and Eigen
// among the include paths (benchmarks/collision.py --vamp does).
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <vamp/collision/factory.hh>
#include <vamp/robots/panda.hh>
#include <vector>

using Robot = vamp::robots::Panda;
constexpr std::size_t kRake = vamp::FloatVectorWidth;
constexpr int kRounds = 15;

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    std::ifstream in(argv[1], std::ios::binary);
    const auto take = [&in](std::size_t count) {
        std::vector<double> values(count);
        in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(double)));
        return values;
    };
    const std::vector<double> sizes = take(2);
    const auto rows = static_cast<std::size_t>(sizes[0]), boxes = static_cast<std::size_t>(sizes[1]);
    const std::vector<double> q = take(7 * rows), box = take(6 * boxes);
    if (!in) return 2;

    vamp::collision::Environment<float> world;
    for (std::size_t k = 0; k < boxes; ++k) {
        const double* b = &box[6 * k];
        world.z_aligned_cuboids.push_back(vamp::collision::factory::cuboid::flat(
            static_cast<float>(b[0]), static_cast<float>(b[1]), static_cast<float>(b[2]), 0.0f, 0.0f, 0.0f,
            static_cast<float>(b[3]), static_cast<float>(b[4]), static_cast<float>(b[5])));
    }
    world.sort();
    const vamp::collision::Environment<vamp::FloatVector<kRake>> environment(world);
    std::vector<Robot::ConfigurationBuffer> joints(rows);
    for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < 7; ++j) joints[i][j] = static_cast<float>(q[7 * i + j]);

    std::vector<double> out(rows + 1), times;
    for (int round = 0; round < kRounds; ++round) {
        const auto begin = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < rows; ++i) {
            const Robot::Configuration configuration(joints[i].data());
            Robot::ConfigurationBlock<kRake> block;
            for (std::size_t j = 0; j < 7; ++j) block[j] = configuration.broadcast(j);
            out[i] = Robot::fkcc<kRake>(environment, block) ? 1.0 : 0.0;
        }
        const std::chrono::duration<double, std::micro> passed = std::chrono::steady_clock::now() - begin;
        times.push_back(passed.count() / static_cast<double>(rows));
    }
    std::sort(times.begin(), times.end());
    out[rows] = times[kRounds / 2];
    std::ofstream file(argv[2], std::ios::binary);
    file.write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(out.size() * sizeof(double)));
    return file ? 0 : 1;
}
