"""The call itself: options as an object, codes of seeds and statuses, what a refusal says, and what a call costs."""

import copy
import dataclasses
import inspect
import pickle
import time

import numpy as np
import pytest
import torch

from mfik.errors import ArgumentError
from mfik.robots import load_robot
from mfik.solve import Options, Seed, Solver, Status

native = pytest.importorskip(
    "mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError
)

Q = np.array([0.1, -0.3, 0.2, -1.9, 0.1, 1.7, 0.4])
METHODS = {"solve": {}, "track": {"max_step": 0.1}, "solve_all": {"n": 3}, "solve_batch": {}}


@pytest.fixture(scope="module")
def panda() -> Solver:
    return Solver.from_robot(load_robot("panda"))


@pytest.fixture(scope="module")
def pose(panda) -> np.ndarray:
    return panda.robot.fk(Q + 0.05)


def call(solver, method, pose, q, **options):
    rows = (pose[None], q[None]) if method == "solve_batch" else (pose, q)
    arguments = dict(zip(("pose", "q_prev" if method == "track" else "q_ref"), rows, strict=True))
    return getattr(solver, method)(**arguments, **METHODS[method], **options)


def test_seeds_and_statuses_are_those_of_cpp():
    assert {seed.value for seed in Seed} == set(native.SEEDS)
    assert {status.name: status.value for status in Status} == native.STATUSES


@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_every_option_with_its_default(method):
    parameters = inspect.signature(getattr(Solver, method)).parameters
    for field in dataclasses.fields(Options):
        assert parameters[field.name].default == field.default, field.name
        assert parameters[field.name].annotation == field.type, field.name
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["options"].default is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [
        dict(tol_pos=1e-3, tol_rot=1e-3),
        dict(max_iterations=3, max_attempts=2),
        dict(seed="azimuth", nearest=True, max_attempts=8),
        dict(joint_weights=[1, 2, 3, 4, 5, 6, 7], nearest=True),
        dict(tool=[0, 0, 0.1, 1, 0, 0, 0], slack=(0, 0, 0, 0, 0, np.inf)),
        dict(locked=[2], q_preferred=np.zeros(7), preference_gain=0.2),
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_as_an_object_do_what_keywords_do(panda, pose, method, options):
    by_keyword = call(panda, method, pose, Q, **options)
    reused = Options(**options)
    for _ in range(2):
        result = call(panda, method, pose, Q, options=reused)
        np.testing.assert_array_equal(result.q, by_keyword.q)
        np.testing.assert_array_equal(result.status, by_keyword.status)
        np.testing.assert_array_equal(result.iterations, by_keyword.iterations)
    if "tool" in options or "locked" in options:
        default = call(panda, method, pose, Q)
        assert default.q.shape != by_keyword.q.shape or (default.q != by_keyword.q).any(), "the option did nothing"


@pytest.mark.parametrize("method", METHODS)
def test_options_and_keywords_together_are_refused(panda, pose, method):
    for given in (dict(tol_pos=1e-3), dict(tool=np.array([0, 0, 0.1, 1, 0, 0, 0]))):
        with pytest.raises(ArgumentError, match=r"options: expected no other option beside it.*dataclasses\.replace"):
            call(panda, method, pose, Q, options=Options(), **given)
    with pytest.raises(ArgumentError, match="options: expected Options, got dict"):
        call(panda, method, pose, Q, options={"tol_pos": 1e-3})
    with pytest.raises(TypeError, match="max_stepp"):
        call(panda, method, pose, Q, max_stepp=1.0)


def test_options_that_do_not_suit_the_robot_are_refused(panda, pose):
    for options, message in (
        (Options(locked=[7]), "locked: expected an integer from 0 to 6, got 7"),
        (Options(q_preferred=np.zeros(6)), r"q_preferred: expected shape \[7\], got \[6\]"),
        (Options(joint_weights=np.ones(6)), r"joint_weights: expected shape \[7\], got \[6\]"),
        (Options(seed="network"), "seed: expected another than 'network'"),
    ):
        for method in METHODS:
            with pytest.raises(ArgumentError, match=message):
                call(panda, method, pose, Q, options=options)


def test_options_are_values(panda, pose):
    tool = np.array([0, 0, 0.1, 1, 0, 0, 0])
    options = Options(tool=tool, locked=[2], seed="midpoint", q_preferred=list(Q))
    before = panda.solve(pose, Q, options=options).q
    tool[2] = 0.3  # a later change of the array is none of the options
    np.testing.assert_array_equal(panda.solve(pose, Q, options=options).q, before)
    assert options.seed is Seed.MIDPOINT
    for other in (copy.deepcopy(options), pickle.loads(pickle.dumps(options)), dataclasses.replace(options)):
        assert other == options and hash(other) == hash(options)
        np.testing.assert_array_equal(panda.solve(pose, Q, options=other).q, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.tol_pos = 1.0


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        np.float32,
        lambda x: [np.float64(value) for value in x],
        lambda x: np.repeat(x, 2)[::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).requires_grad_(),
    ],
)
def test_vectors_of_any_kind_are_the_same_vector(panda, pose, convert):
    exact = [np.float32(x).astype(np.float64) if convert is np.float32 else x for x in (pose, Q)]
    for method, more in (("solve", ()), ("track", (0.1,))):
        expected = getattr(panda, method)(*exact, *more).q
        np.testing.assert_array_equal(getattr(panda, method)(convert(pose), convert(Q), *more).q, expected)
    integers = panda.solve([1, 0, 0, 1, 0, 0, 0], [0] * 7)
    np.testing.assert_array_equal(integers.q, panda.solve(np.array([1.0, 0, 0, 1, 0, 0, 0]), np.zeros(7)).q)


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        (dict(max_iterations=np.int64(5)), True),
        (dict(max_iterations=5.0), False),
        (dict(max_attempts=True), False),
        (dict(max_attempts=2**40), False),
        (dict(tol_pos=np.float32(1e-4)), True),
        (dict(tol_pos=0), True),
        (dict(tol_pos=10**400), False),
        (dict(nearest=1), True),
        (dict(locked=np.array([1, 2])), True),
        (dict(locked=[-1]), False),
        (dict(locked=["a"]), False),
        (dict(seed=Seed.AZIMUTH), True),
        (dict(seed=None), False),
        (dict(q_preferred=torch.zeros(7)), True),
        (dict(q_preferred=[]), False),
        (dict(joint_weights=torch.ones(7)), True),
        (dict(joint_weights=[]), False),
        (dict(tool=None), False),
    ],
    ids=str,
)
def test_options_of_unusual_types_are_taken_or_named(panda, pose, options, accepted):
    for method in ("solve", "track"):
        if accepted:
            assert call(panda, method, pose, Q, **options).q.shape == (7,)
        else:
            with pytest.raises(ArgumentError, match=next(iter(options))):
                call(panda, method, pose, Q, **options)


def test_a_result_is_a_named_tuple(panda, pose):
    result = panda.solve(pose, Q)
    assert result.status is Status.SOLVED and isinstance(result.q, np.ndarray) and result.q.flags.writeable
    assert [type(x) for x in result[2:]] == [float, float, int, int, float, str, type(None)]
    assert "status=<Status.SOLVED: 0>" in repr(result)
    with pytest.raises(AttributeError):
        result.status = Status.AT_LIMITS


def test_a_call_costs_ten_microseconds_around_the_solve(panda, pose):
    """Time of the process, so that other programs on the machine do not count; the least of several rounds."""
    options, n = Options(tol_pos=1e-4, tol_rot=1e-4), 500
    calls = {
        "solve": lambda: panda.solve(pose, Q),
        "solve, keywords": lambda: panda.solve(pose, Q, tol_pos=1e-4, tol_rot=1e-4),
        "solve, options": lambda: panda.solve(pose, Q, options=options),
        "solve, lists": lambda: panda.solve(pose.tolist(), Q.tolist()),
        "track": lambda: panda.track(pose, Q, 0.1),
        "track, options": lambda: panda.track(pose, Q, 0.1, options=options),
    }
    for name, run in calls.items():
        best = np.inf
        for _ in range(20):
            inside = 0.0
            begin = time.process_time()
            for _ in range(n):
                inside += run().time_us
            best = min(best, 1e6 * (time.process_time() - begin) / n - inside / n)
        assert best <= 10, f"{name}: {best:.1f} us"
