"""The model card begins with what its reader can act on."""

import copy

import pytest

from mfik.eval import model_card, run_protocol
from mfik.solve import Solver


@pytest.fixture(scope="module")
def solver():
    return Solver.pretrained("ur10")


@pytest.fixture(scope="module")
def report(solver):
    return run_protocol(solver, n=40, diversity_poses=1)


def lines(solver, report, **more):
    training = {
        "coupling": "seeding", "sigma": 0.3, "samples_seen": 1, "steps": 1, "hardware": "none", "minutes": 1.0,
        "mfik": "0", "command": "fit", **more,
    }  # fmt: skip
    return model_card(solver.robot, {"type": "v2", "dof": 6}, 1, training, report, []).splitlines()


def test_the_first_five_lines_say_what_to_do(solver, report):
    title, empty, *five, after = lines(solver, report)[:8]
    assert title == "# ur10" and not empty and not after
    assert [line.partition("**: ")[0].partition("** (")[0].strip("- *") for line in five] == [
        "Load", "Seed", "One attempt", "One evaluation without refinement", "Weakest",
    ]  # fmt: skip
    assert "`tool0` in `base_link`" in five[0]
    rows = report["one_attempt"]
    shares = {start: row["solved"]["1e-5"]["10"] for start, row in rows["global"].items()}
    assert f"`network` solves {shares['network']:.2%}" in five[2]
    assert f"{rows['global']['network']['pos_mm']['mean']:.3g} mm" in five[3]
    weakest = min(rows, key=lambda name: rows[name]["network"]["solved"]["1e-5"]["10"])
    assert five[4].startswith(f"- **Weakest**: {weakest}, ")


def test_the_advice_follows_the_numbers(solver, report):
    report = copy.deepcopy(report)
    plain, first = (report["solve"]["global"][name] for name in ("solve()", "solve(), network first"))
    attempt = report["one_attempt"]["global"]
    for solved, us, words in [
        (0.5, 1.0, "leave `seed` as it is"),  # fewer solved, however quick
        (0.9, 20.0, "leave `seed` as it is"),  # as many, slower
        (0.9, 5.0, 'give `seed="network"`'),
        (0.95, 20.0, 'give `seed="network"`'),
    ]:
        plain.update(solved=0.9, us={"p50": 10.0, "p99": 99.0})
        first.update(solved=solved, us={"p50": us, "p99": 99.0})
        assert words in lines(solver, report)[3], (solved, us)
    attempt["network"]["solved"]["1e-5"]["10"] = 0.1
    attempt["azimuth"]["solved"]["1e-5"]["10"] = 0.995
    assert "take `azimuth`; `network` solves 10.00 %" in lines(solver, report)[4].replace("%", " %")


def test_a_robot_without_some_sets_has_a_card(solver, report):
    report = copy.deepcopy(report)
    for name in ("near limits", "near singular"):
        del report["one_attempt"][name], report["solve"][name]
        report["left_out"][name] = "no limits"
    assert len([line for line in lines(solver, report)[:8] if line.startswith("- **")]) == 5


def test_the_card_says_how_many_answers_are_free_and_what_was_trained_on(solver, report):
    share = report["free"]["network, refined"]["free"]
    assert 0 < share < 1
    text = lines(solver, report)
    (row,) = (line for line in text if line.startswith("network, refined ") and line.count("|") == 2)
    assert row.endswith(f"{share:.2%}")
    assert "free of self-collision" not in next(line for line in text if line.startswith("| Data |"))
    asked = lines(solver, report, collision_free=True)
    assert "solutions free of self-collision" in next(line for line in asked if line.startswith("| Data |"))
