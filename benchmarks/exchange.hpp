/// @file
/// The files through which benchmarks/peers.py talks to the peers' C++ loops: plain float64 numbers, in one row.
///
/// In:  J, N, slides [J] (1 for a prismatic joint), lower [J], upper [J] (infinite for a continuous joint),
///      origins [J+1, 3, 4], pose [N, 7], q_ref [N, J]; meanings as in mfik (metres, radians, qw first).
/// Out: the answers, row by row, then the times [us].
#pragma once

#include <cstddef>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Problem {
    std::size_t dof = 0;
    std::size_t rows = 0;
    std::vector<double> slides, lower, upper;  // [J]
    std::vector<double> origins;               // [J+1, 3, 4]
    std::vector<double> pose;                  // [N, 7]
    std::vector<double> q_ref;                 // [N, J]
};

/// @throws std::runtime_error when the file is missing or ends early.
inline Problem read_problem(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const auto take = [&](std::size_t count) {
        std::vector<double> values(count);
        file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(double)));
        if (!file) throw std::runtime_error(path + ": ends early; write it with benchmarks/peers.py");
        return values;
    };
    Problem problem;
    const std::vector<double> sizes = take(2);
    problem.dof = static_cast<std::size_t>(sizes[0]);
    problem.rows = static_cast<std::size_t>(sizes[1]);
    problem.slides = take(problem.dof);
    problem.lower = take(problem.dof);
    problem.upper = take(problem.dof);
    problem.origins = take((problem.dof + 1) * 12);
    problem.pose = take(problem.rows * 7);
    problem.q_ref = take(problem.rows * problem.dof);
    return problem;
}

/// @throws std::runtime_error when the file cannot be written.
inline void write_answers(const std::string& path, const std::vector<double>& answers, const std::vector<double>& us) {
    std::ofstream file(path, std::ios::binary);
    for (const auto* values : {&answers, &us}) {
        file.write(reinterpret_cast<const char*>(values->data()),
                   static_cast<std::streamsize>(values->size() * sizeof(double)));
    }
    if (!file) throw std::runtime_error(path + ": cannot be written");
}
