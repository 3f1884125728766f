"""Evaluation: the report against an independent recomputation, and the targets it takes."""

import numpy as np
import pytest
import torch

from mfik.errors import ArgumentError, DataError
from mfik.eval import Targets, evaluate, format_table, load_targets, make_targets
from mfik.export import NATIVE_FILE, document, write_native
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot
from mfik.solve import Solver


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    torch.manual_seed(0)
    model, robot = MeanFlowNet(ModelConfig(width=16, num_blocks=1, cond_dim=8, encoding="none")), load_robot("panda")
    folder = tmp_path_factory.mktemp("untrained")
    write_native(folder / NATIVE_FILE, model, document(model, robot))
    return Solver.load(folder)


def test_report_has_the_documented_shape(solver, panda):
    report = evaluate(solver, make_targets(panda, 20), refine=2)
    assert set(report) == {"robot", "n", "stages"} and (report["robot"], report["n"]) == ("panda", 20)
    assert [stage["refine"] for stage in report["stages"]] == [0, 1, 2]
    for stage in report["stages"]:
        assert set(stage) == {
            "refine", "pos_mm", "rot_deg", "within_5mm_5deg", "within_1mm_0.1deg", "within_1e-5",
            "limit_violations", "us",
        }  # fmt: skip
        assert set(stage["pos_mm"]) == set(stage["rot_deg"]) == {"mean", "median", "p95", "max"}
        assert set(stage["us"]) == {"p50", "p99"} and 0 < stage["us"]["p50"] <= stage["us"]["p99"]


def test_errors_are_those_of_the_references_for_a_network_that_answers_them(solver, panda):
    """An untrained network answers q_ref, so stage 0 is computed here without the solver."""
    targets = make_targets(panda, 200, seed=3)
    stage = evaluate(solver, targets, refine=0)["stages"][0]
    pose, target = panda.fk(torch.from_numpy(targets.q_ref)), torch.from_numpy(targets.pose)
    pos_mm = 1e3 * position_error_m(pose, target).numpy()
    rot_deg = np.rad2deg(rotation_error_rad(pose, target).numpy())
    for name, error in (("pos_mm", pos_mm), ("rot_deg", rot_deg)):
        expected = [error.mean(), np.median(error), np.quantile(error, 0.95), error.max()]
        np.testing.assert_allclose(list(stage[name].values()), expected, rtol=1e-4)
    assert stage["limit_violations"] == 0


def test_refinement_solves_near_references(solver, panda):
    report = evaluate(solver, make_targets(panda, 300, kind="local", sigma=0.1), refine=6)
    shares = [stage["within_1e-5"] for stage in report["stages"]]
    assert shares[0] == 0 and shares[6] > 0.97
    assert all(stage["limit_violations"] == 0 for stage in report["stages"][1:])
    assert "300 poses" in format_table(report)


def test_stage_k_took_k_steps_and_no_more(solver, panda):
    """Against the reference in PyTorch, from the references that an untrained network answers."""
    targets = make_targets(panda, 100, seed=4)
    q_ref, target = torch.from_numpy(targets.q_ref), torch.from_numpy(targets.pose)
    for stage in evaluate(solver, targets, refine=3)["stages"][1:]:
        q = panda.refine(q_ref, target, max_iterations=stage["refine"], tol_pos=1e-6, tol_rot=1e-6).q
        error_mm = 1e3 * position_error_m(panda.fk(q), target).numpy()
        np.testing.assert_allclose(stage["pos_mm"]["median"], np.median(error_mm), rtol=1e-3)


def test_answers_outside_the_limits_are_counted_and_not_called_solved(panda, tmp_path):
    """A network that turns joint 1 by 0.1 rad, from references 0.1 rad short of a solution."""
    model = MeanFlowNet(ModelConfig(width=16, num_blocks=1, cond_dim=8, encoding="none"))
    with torch.no_grad():
        model.head.bias[0] = 0.1
    write_native(tmp_path / NATIVE_FILE, model, document(model, panda))
    q = torch.full((4, 7), 0.5, dtype=torch.float64)
    q[:, 3] = -1.0
    q[2:, 0] = 2.95  # beyond 2.8973, where 0.1 rad less is not
    q_ref = q.clone()
    q_ref[:, 0] -= 0.1
    targets = Targets(panda.fk(q).numpy(), q_ref.numpy())
    stage = evaluate(Solver.load(tmp_path), targets, refine=0)["stages"][0]
    assert stage["limit_violations"] == 2 and stage["within_5mm_5deg"] == 0.5


def test_targets_are_reachable_and_reproducible(panda):
    first, second = make_targets(panda, 50, seed=1), make_targets(panda, 50, seed=1)
    assert np.array_equal(first.pose, second.pose) and np.array_equal(first.q_ref, second.q_ref)
    near = make_targets(panda, 50, kind="local", sigma=1e-3, seed=1)
    distance = position_error_m(panda.fk(torch.from_numpy(near.q_ref)), torch.from_numpy(near.pose))
    assert np.array_equal(near.pose, first.pose) and distance.max() < 0.02
    with pytest.raises(ArgumentError, match="kind"):
        make_targets(panda, 5, kind="magic")
    with pytest.raises(ArgumentError, match="n:"):
        make_targets(panda, 0)


def test_target_files_are_read_and_checked(panda, tmp_path):
    targets = make_targets(panda, 5)
    path = tmp_path / "t.npz"
    np.savez(path, pose=targets.pose, q_ref=targets.q_ref, other=np.zeros(3))
    assert np.array_equal(load_targets(path, panda).pose, targets.pose)
    np.savez(path, pose=targets.pose)
    with pytest.raises(DataError, match="q_ref"):
        load_targets(path, panda)
    np.savez(path, pose=targets.pose, q_ref=targets.q_ref[:, :6])
    with pytest.raises(DataError, match=r"\[N, 7\]"):
        load_targets(path, panda)
    bad = targets.pose.copy()
    bad[3, 1] = np.nan
    np.savez(path, pose=bad, q_ref=targets.q_ref)
    with pytest.raises(DataError, match="row 3"):
        load_targets(path, panda)
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"t\.npz"):
        load_targets(path, panda)
