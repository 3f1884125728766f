// Solver::from_description takes a robot without a network, checked as a bundle is.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "bundle_parts.hpp"
#include "mfik/solver.hpp"

namespace mfik::testing {
namespace {

TEST(Description, MakesASolverWithoutANetwork) {
    Parts parts;
    parts.document["model"] = nullptr;
    const Solver solver = Solver::from_description(parts.document.dump());
    const Solver loaded = Solver::load(golden_bundle());
    EXPECT_EQ(solver.num_parameters(), 0u);
    EXPECT_EQ(solver.joint_names(), loaded.joint_names());
    EXPECT_EQ(Json::parse(solver.metadata_json()), parts.document);
    const std::vector<double> q(loaded.lower().begin(), loaded.lower().end());
    EXPECT_EQ(solver.fk(q), loaded.fk(q));
    Workspace workspace = solver.make_workspace();
    std::vector<double> q_out(q.size());
    EXPECT_EQ(solver.solve(loaded.fk(golden().q_ref[0]), q, q_out, workspace).status, Status::kSolved);
    Options options;
    options.seed = Seed::kNetwork;
    EXPECT_EQ(solver.solve(loaded.fk(q), q, q_out, workspace, options).status, Status::kInvalidInput);
}

TEST(Description, IsCheckedAsABundleIs) {
    const auto expect_refused = [](const std::function<void(Json&)>& change, const std::string& part) {
        Parts parts;
        parts.document["model"] = nullptr;
        change(parts.document);
        try {
            (void)Solver::from_description(parts.document.dump());
            ADD_FAILURE() << "was accepted, expected: " << part;
        } catch (const Error& error) {
            EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
        }
    };
    expect_refused([](Json& d) { d = Parts().document; }, "model: expected null, got a network; use Solver::load");
    expect_refused([](Json& d) { d.erase("model"); }, "metadata.model: expected a value, got nothing");
    expect_refused([](Json& d) { d["version"] = 1; }, "version: expected 2, got '1'");
    expect_refused([](Json& d) { d["format"] = "other"; }, "format: expected 'mfik-bundle'");
    expect_refused([](Json& d) { d["robot"]["joints"][0]["lower"] = 9.0; }, "robot.joints[0]: expected lower < upper");
    expect_refused([](Json& d) { d = Json::array(); }, "metadata: expected a JSON object");
    EXPECT_THROW((void)Solver::from_description("{"), Error);
    EXPECT_THROW((void)Solver::from_description(""), Error);
}

}  // namespace
}  // namespace mfik::testing
