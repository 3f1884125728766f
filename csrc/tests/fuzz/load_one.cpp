#include "fuzz/load_one.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "mfik/collision.hpp"
#include "solver/bundle.hpp"
#include "solver/checksum.hpp"

namespace mfik::testing {
namespace {

void require(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "broken promise: %s\n", what.c_str());
    std::abort();
}

}  // namespace

void seal(std::string& bytes) {
    if (bytes.size() < kChecksumOffset + kChecksumDigits) return;
    bytes.replace(kChecksumOffset, kChecksumDigits, bundle_checksum(bytes));
}

bool load_one(std::string bytes, const std::filesystem::path& file) {
    seal(bytes);
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    try {
        const Solver solver = Solver::load(file.string());
        Workspace workspace = solver.make_workspace();
        const std::size_t dof = static_cast<std::size_t>(solver.dof());
        require(dof > 0 && solver.joint_names().size() == dof && solver.lower().size() == dof, "sizes agree");
        std::vector<double> q(dof);
        const Result result = solver.solve({0.3, 0.1, 0.4, 1, 0, 0, 0}, solver.lower(), q, workspace);
        require(result.status != Status::kInvalidInput, "valid input is solved");
        // Origins of 1e308 m are finite, yet their sums are not: then nothing may pass for an answer.
        const bool finite = std::isfinite(result.pos_error_m) && std::isfinite(result.rot_error_rad);
        require(finite || result.status != Status::kSolved, "a solution has finite errors");
        for (std::size_t j = 0; j < dof && result.status == Status::kSolved; ++j) {
            require(q[j] >= solver.lower()[j] && q[j] <= solver.upper()[j], "a solution is within the limits");
        }
        World world;
        world.add_sphere("ball", 0.1, {0.3, 0.1, 0.4, 1, 0, 0, 0});
        const Clearance clearance = solver.clearance(q, &world);
        require(solver.has_body() || std::isnan(clearance.distance_m), "clearance is that of spheres");
        require((clearance.first == nullptr) == (clearance.second == nullptr), "the nearest are two or none");
        return true;
    } catch (const Error& error) {
        const std::string message = error.what();
        require(message.rfind(file.string() + ": ", 0) == 0, "a message names the file: " + message);
        require(message.size() < 1000, "a message is short: " + message);
        for (const char c : message) require(c >= ' ' && c <= '~', "a message is printable: " + message);
        return false;
    }
}

}  // namespace mfik::testing
