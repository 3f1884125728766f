"""The models that ship: they load everywhere, and reach what their cards say."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mfik
from mfik.errors import ArgumentError
from mfik.eval import make_targets
from mfik.export import load_bundle
from mfik.model import SingleStep
from mfik.robots import load_robot
from mfik.solve import Seed, Solver, Status, model_path, pretrained_names

NAMES = pretrained_names()
MODELS = Path(mfik.__file__).parent / "models"
POSES = 2000


@pytest.fixture(scope="module", params=NAMES)
def solver(request):
    return request.param, Solver.pretrained(request.param)


def test_the_promised_models_are_there():
    assert NAMES == ["panda", "tiago", "ur10"]
    assert all(path.stat().st_size <= 8e6 for path in MODELS.rglob("*"))


def test_presets_are_driven_as_they_are():
    for name in ("panda", "ur10"):
        assert Solver.load(model_path(name), load_robot(name)).robot.name == name


def test_an_unknown_name_is_told_the_known_ones(tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="panda.*scripts/fit.py"):
        Solver.pretrained("pandas")
    assert model_path("pandas") == Path("pandas"), "any other path is left alone"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "panda").mkdir()
    assert model_path("panda") == Path("panda"), "a folder of one's own goes first"


def test_pytorch_and_cpp_answer_alike(solver):
    name, solver = solver
    network, robot, _ = load_bundle(model_path(name))
    targets = make_targets(robot, 200, kind="local", seed=5)
    out = solver.solve_batch(*targets, seed=Seed.NETWORK, max_iterations=0, max_attempts=1)
    with torch.no_grad():
        q = SingleStep(network)(*(torch.from_numpy(x).float() for x in (targets.q_ref, targets.pose)))
    reached = out.pos_error < 1e-3  # other rows amplify rounding from look to look
    assert reached.mean() > 0.95 and np.abs(out.q - q.numpy())[reached].max() < 1e-4


def test_an_evaluation_and_an_attempt_reach_what_the_card_says(solver):
    """On poses of another seed than the card's: within three standard deviations of a share of so many."""
    name, solver = solver
    accuracy = solver.metadata["accuracy"]
    for kind, key in (("global", "global"), ("local", "local 0.1")):
        targets = make_targets(solver.robot, POSES, kind=kind, sigma=0.1, seed=11)
        out = solver.solve_batch(*targets, seed=Seed.NETWORK, max_iterations=10, max_attempts=1)
        raw = solver.solve_batch(*targets, seed=Seed.NETWORK, max_iterations=0, max_attempts=1)
        within = (raw.pos_error <= 5e-3) & (raw.rot_error <= np.deg2rad(5))
        for share, promised in (
            ((out.status == Status.SOLVED).mean(), accuracy[key]["solved"]["1e-5"]["10"]),
            (within.mean(), accuracy[key]["within_5mm_5deg"]),
        ):
            assert abs(share - promised) < 3 * np.sqrt(promised * (1 - promised) / POSES) + 2e-3, (name, kind)
        lower, upper = solver.robot.lower, solver.robot.upper
        assert ((raw.q >= lower) & (raw.q <= upper)).all(), "the answer itself keeps the limits"


def test_answers_keep_the_limits_from_references_far_beyond_them(solver):
    name, solver = solver
    lower, upper = solver.robot.lower, solver.robot.upper
    targets = make_targets(solver.robot, POSES, seed=13)
    far = targets.q_ref + np.random.default_rng(0).normal(scale=50.0, size=targets.q_ref.shape)
    for q_ref in (far, 1e6 * far, np.full_like(far, 1e300)):
        out = solver.solve_batch(targets.pose, q_ref, seed=Seed.NETWORK, max_iterations=0, max_attempts=1)
        assert ((out.q >= lower) & (out.q <= upper)).all(), name
        assert ((out.pos_error <= 5e-3) & (out.rot_error <= np.deg2rad(5))).mean() > 0.8, name


def test_further_evaluations_get_nearer(solver):
    """Pose errors, lengths in halves of the arm's: both means fall on every set, and hardly a row's grows.

    It may grow where the last step, from an error below 3e-5 and nearly singular, meets a limit.
    """
    name, solver = solver
    half = 0.5 * np.linalg.norm(solver.robot.chain.origins[..., 3], axis=-1).sum()
    for kind in ("global", "local", "near_limits", "near_singular"):
        targets = make_targets(solver.robot, 10_000, kind=kind, sigma=0.1, seed=12)
        q, errors = targets.q_ref, []
        for _ in range(2):
            out = solver.solve_batch(targets.pose, q, seed=Seed.NETWORK, max_iterations=0, max_attempts=1)
            q, errors = out.q, [*errors, np.array([out.pos_error / half, out.rot_error])]
        before, after = (np.linalg.norm(error, axis=0) for error in errors)
        assert (after > before * (1 + 1e-4) + 3e-5).mean() <= 2e-3, (name, kind)
        assert (errors[1].mean(1) < errors[0].mean(1)).all(), (name, kind)


@pytest.mark.parametrize("name", NAMES)
def test_eight_seeds_solve_nearly_all(name):
    solver = Solver.pretrained(name)
    targets = make_targets(solver.robot, POSES, seed=11)
    out = solver.solve_batch(*targets, seed=Seed.NETWORK, max_attempts=8)
    assert (out.status == Status.SOLVED).mean() >= 0.997, name


def test_every_card_tells_training_and_failures(solver):
    name, solver = solver
    card = (MODELS / name / "README.md").read_text()
    training = solver.metadata["training"]
    assert f"{solver.num_parameters:,} parameters" in card and f"{training['samples_seen']:,}" in card
    assert "## Where it fails" in card and training["command"] in card and training["hardware"] in card
