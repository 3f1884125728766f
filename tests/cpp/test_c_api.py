"""libmfik.so through ctypes, as other languages see it, beside the extension: the same bits."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mfik.collision import Sphere, World
from mfik.errors import ArgumentError, BundleError
from mfik.export import document, export_bundle
from mfik.robots import load_robot
from mfik.solve import Solver, Status, Tracker

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
BUNDLE = GOLDEN / "v1.safetensors"
DOUBLES = np.ctypeslib.ndpointer(dtype=np.float64, flags="C_CONTIGUOUS")
SEEDS = ["reference", "network", "midpoint", "azimuth"]


class Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("max_iterations", ctypes.c_int32),
        ("max_attempts", ctypes.c_int32),
        ("seed", ctypes.c_int32),
        ("nearest", ctypes.c_int32),
        ("locked", ctypes.c_uint32),
        ("tol_pos_m", ctypes.c_double),
        ("tol_rot_rad", ctypes.c_double),
        ("T_tip_tool", ctypes.c_double * 7),
        ("slack", ctypes.c_double * 6),
        ("preference_gain", ctypes.c_double),
        ("q_preferred", ctypes.POINTER(ctypes.c_double)),
        ("throughput", ctypes.c_int32),
        ("self_collision", ctypes.c_int32),
        ("margin_m", ctypes.c_double),
        ("world", ctypes.c_void_p),
        ("attached", ctypes.c_void_p),
        ("joint_weights", ctypes.POINTER(ctypes.c_double)),
    ]


class Result(ctypes.Structure):
    _fields_ = [
        ("status", ctypes.c_int32),
        ("iterations", ctypes.c_int32),
        ("attempts", ctypes.c_int32),
        ("solutions", ctypes.c_int32),
        ("pos_error_m", ctypes.c_double),
        ("rot_error_rad", ctypes.c_double),
        ("time_us", ctypes.c_double),
        ("reason", ctypes.c_char_p),
        ("first", ctypes.c_char_p),
        ("second", ctypes.c_char_p),
    ]


PROGRESS = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_double, ctypes.c_void_p)


class PathOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("max_step", ctypes.POINTER(ctypes.c_double)),
        ("q_start", ctypes.POINTER(ctypes.c_double)),
        ("q_goal", ctypes.POINTER(ctypes.c_double)),
        ("q_ref", ctypes.POINTER(ctypes.c_double)),
        ("edge_check", ctypes.c_double),
        ("time_limit_s", ctypes.c_double),
        ("random_seed", ctypes.c_uint64),
        ("progress", PROGRESS),
        ("progress_data", ctypes.c_void_p),
    ]


class PathResult(ctypes.Structure):
    _fields_ = [
        ("status", ctypes.c_int32),
        ("attempts", ctypes.c_int32),
        ("reached", ctypes.c_size_t),
        ("length", ctypes.c_double),
        ("time_us", ctypes.c_double),
    ]


@pytest.fixture(scope="module")
def library():
    folder = subprocess.check_output([sys.executable, "-m", "mfik", "--lib-dir"], text=True).strip()
    loaded = ctypes.CDLL(str(Path(folder) / "libmfik.so"))
    pointer, size, real = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_double
    options, result = ctypes.POINTER(Options), ctypes.POINTER(Result)
    for name, restype, *argtypes in (
        ("version", ctypes.c_char_p),
        ("status_name", ctypes.c_char_p, ctypes.c_int32),
        ("load", pointer, ctypes.c_char_p, ctypes.c_char_p, size),
        ("destroy", None, pointer),
        ("workspace_create", pointer, pointer),
        ("workspace_destroy", None, pointer),
        ("dof", ctypes.c_int32, pointer),
        ("joint_name", ctypes.c_char_p, pointer, ctypes.c_int32),
        ("lower", ctypes.POINTER(real), pointer),
        ("upper", ctypes.POINTER(real), pointer),
        ("options_init", None, options, size),
        ("path_options_init", None, ctypes.POINTER(PathOptions), size),
        (
            "solve_path",
            ctypes.c_int32,
            pointer,
            size,
            DOUBLES,
            DOUBLES,
            ctypes.POINTER(PathOptions),
            options,
            ctypes.POINTER(PathResult),
            ctypes.c_char_p,
            size,
        ),
        ("solve", ctypes.c_int32, pointer, DOUBLES, DOUBLES, DOUBLES, pointer, options, result),
        ("track", ctypes.c_int32, pointer, DOUBLES, DOUBLES, real, DOUBLES, pointer, options, result),
        ("track_joints", ctypes.c_int32, pointer, DOUBLES, DOUBLES, DOUBLES, DOUBLES, pointer, options, result),
        ("velocity", ctypes.POINTER(real), pointer),
        ("tracker_create", pointer, pointer, DOUBLES, real, DOUBLES, DOUBLES, ctypes.c_char_p, size),
        ("tracker_destroy", None, pointer),
        ("tracker_step", ctypes.c_int32, pointer, DOUBLES, options, result),
        ("tracker_q", ctypes.POINTER(real), pointer),
        ("tracker_dq", ctypes.POINTER(real), pointer),
        ("solve_all", ctypes.c_int32, pointer, DOUBLES, DOUBLES, size, DOUBLES, real, pointer, options, result),
        ("solve_batch", ctypes.c_int32, pointer, size, DOUBLES, DOUBLES, DOUBLES, result, options, ctypes.c_int32),
    ):
        function = getattr(loaded, f"mfik_{name}")
        function.restype, function.argtypes = restype, argtypes
    return loaded


@pytest.fixture(scope="module")
def handles(library):
    error = ctypes.create_string_buffer(500)
    solver = library.mfik_load(str(BUNDLE).encode(), error, len(error))
    assert solver, error.value
    workspace = library.mfik_workspace_create(solver)
    yield solver, workspace
    library.mfik_workspace_destroy(workspace)
    library.mfik_destroy(solver)


@pytest.fixture(scope="module")
def solver() -> Solver:
    return Solver.load(BUNDLE)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    golden = json.loads((GOLDEN / "v1.json").read_text())
    return np.array(golden["target_pose"]), np.array(golden["q_ref"])


def make_options(library, **values) -> Options:
    options = Options()
    library.mfik_options_init(options, ctypes.sizeof(options))
    assert options.size == ctypes.sizeof(Options), "mfik.h and this test disagree about mfik_options"
    for name, value in values.items():
        setattr(options, name, value)
    return options


def assert_same(c: Result, status: int, python) -> None:
    assert c.status == status == python.status
    assert (c.pos_error_m, c.rot_error_rad) == (python.pos_error, python.rot_error)
    assert (c.iterations, c.attempts, c.reason.decode()) == (python.iterations, python.attempts, python.reason)


@pytest.mark.parametrize("seed", SEEDS)
def test_solve_answers_the_same_bits(library, handles, solver, rows, seed):
    c_solver, workspace = handles
    options = make_options(library, seed=SEEDS.index(seed), tol_pos_m=1e-7, tol_rot_rad=1e-7, max_iterations=15)
    for pose, q_ref in zip(*rows, strict=True):
        q, result = np.empty_like(q_ref), Result()
        status = library.mfik_solve(c_solver, pose, q_ref, q, workspace, options, result)
        expected = solver.solve(pose, q_ref, seed=seed, tol_pos=1e-7, tol_rot=1e-7, max_iterations=15)
        np.testing.assert_array_equal(q, expected.q)
        assert_same(result, status, expected)


def test_every_option_arrives(library, handles, solver, rows):
    c_solver, workspace = handles
    preferred = 0.5 * (solver.robot.lower + solver.robot.upper)
    tool, slack = [0.0, 0.05, 0.1, 1.0, 0.0, 0.0, 0.0], [0.0, 0.01, 0.0, 0.0, 0.0, float("inf")]
    options = make_options(library, nearest=1, locked=1 << 2, max_attempts=32, preference_gain=0.2)
    options.T_tip_tool[:], options.slack[:] = tool, slack
    options.q_preferred = preferred.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    weights = np.linspace(0.5, 2.0, len(preferred))
    options.joint_weights = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    names = {"nearest": True, "locked": (2,), "max_attempts": 32, "preference_gain": 0.2, "q_preferred": preferred}
    names["joint_weights"] = weights
    for pose, q_ref in zip(*rows, strict=True):
        q, result = np.empty_like(q_ref), Result()
        status = library.mfik_solve(c_solver, pose, q_ref, q, workspace, options, result)
        expected = solver.solve(pose, q_ref, tool=tool, slack=slack, **names)
        np.testing.assert_array_equal(q, expected.q)
        assert_same(result, status, expected)


def test_collision_options_arrive(library, tmp_path):
    robot = load_robot("panda")
    export_bundle(tmp_path / "panda", None, document(None, robot))
    solver = Solver.load(tmp_path / "panda")
    c_solver = library.mfik_load(str(tmp_path / "panda").encode(), None, 0)
    workspace = library.mfik_workspace_create(c_solver)
    pose = [0.5, 0.1, 0.3, 1.0, 0.0, 0.0, 0.0]
    library.mfik_world_create.restype = library.mfik_attachments_create.restype = ctypes.c_void_p
    c_world = ctypes.c_void_p(library.mfik_world_create())
    library.mfik_world_add_sphere(c_world, b"ball", ctypes.c_double(0.2), (ctypes.c_double * 7)(*pose), None, 0)
    world = World([Sphere(0.2, pose, "ball")])
    options = make_options(library, margin_m=0.05, self_collision=2, world=c_world)
    seen = set()
    rng = np.random.default_rng(0)
    for target, q_ref in zip(robot.sample(60, rng), robot.sample(60, rng), strict=True):
        pose, q, result = robot.fk(target), np.empty(7), Result()
        status = library.mfik_solve(c_solver, pose, q_ref, q, workspace, options, result)
        expected = solver.solve(pose, q_ref, world=world, margin=0.05, self_collision=False)
        np.testing.assert_array_equal(q, expected.q)
        assert_same(result, status, expected)
        pair = None if result.first is None else (result.first.decode(), result.second.decode())
        assert pair == expected.pair
        seen.add(expected.status)
    assert seen >= {Status.SOLVED, Status.IN_COLLISION}
    held = ctypes.c_void_p(library.mfik_attachments_create(ctypes.c_void_p(c_solver)))
    spheres, at_tip = (ctypes.c_double * 4)(0, 0, 0.15, 0.1), (ctypes.c_double * 7)(0, 0, 0, 1, 0, 0, 0)
    tip, one = robot.tip_link.encode(), ctypes.c_size_t(1)
    assert library.mfik_attachments_add(held, b"held", spheres, one, tip, at_tip, None, None, None, None) == 0
    options = make_options(library, world=c_world, attached=held)
    holding, held_pairs = Solver.from_robot(robot.attach("held", [[0, 0, 0.15, 0.1]])), 0
    for target, q_ref in zip(robot.sample(60, rng), robot.sample(60, rng), strict=True):
        pose, q, result = robot.fk(target), np.empty(7), Result()
        status = library.mfik_solve(c_solver, pose, q_ref, q, workspace, options, result)
        expected = holding.solve(pose, q_ref, world=world)
        np.testing.assert_array_equal(q, expected.q)
        assert_same(result, status, expected)
        held_pairs += result.first == b"held"
    assert held_pairs > 0
    wrong = library.mfik_solve(c_solver, pose, q_ref, q, workspace, make_options(library, self_collision=3), result)
    assert wrong == Status.INVALID_INPUT and b"self_collision" in result.reason
    library.mfik_attachments_destroy(held)
    library.mfik_world_destroy(c_world)
    library.mfik_workspace_destroy(workspace)
    library.mfik_destroy(c_solver)


def test_track_solve_all_and_batch_answer_the_same_bits(library, handles, solver, rows):
    c_solver, workspace = handles
    poses, q_refs = rows
    for pose, q_ref in zip(poses, q_refs, strict=True):
        q, result = np.empty_like(q_ref), Result()
        status = library.mfik_track(c_solver, pose, q_ref, 0.05, q, workspace, None, result)
        expected = solver.track(pose, q_ref, 0.05)
        np.testing.assert_array_equal(q, expected.q)
        assert_same(result, status, expected)

        bounds = np.linspace(0.01, 0.1, len(q_ref))
        status = library.mfik_track_joints(c_solver, pose, q_ref, bounds, q, workspace, None, result)
        expected = solver.track(pose, q_ref, bounds)
        np.testing.assert_array_equal(q, expected.q)
        assert_same(result, status, expected)

        found = np.empty((8, len(q_ref)))
        status = library.mfik_solve_all(c_solver, pose, q_ref, len(found), found, 0.1, workspace, None, result)
        expected = solver.solve_all(pose, len(found), q_ref)
        np.testing.assert_array_equal(found[: result.solutions], expected.q)
        assert_same(result, status, expected)

    q, results = np.empty_like(q_refs), (Result * len(poses))()
    status = library.mfik_solve_batch(c_solver, len(poses), poses, q_refs, q, results, None, 2)
    expected = solver.solve_batch(poses, q_refs)
    np.testing.assert_array_equal(q, expected.q)
    np.testing.assert_array_equal([result.status for result in results], expected.status)
    assert status == next((int(s) for s in expected.status if s != Status.SOLVED), Status.SOLVED)


def path_options(library, **joints):
    """Return the defaults with joints, and the arrays that these point to."""
    path = PathOptions()
    library.mfik_path_options_init(path, ctypes.sizeof(path))
    arrays = {name: np.ascontiguousarray(q, float) for name, q in joints.items()}
    for name, q in arrays.items():
        setattr(path, name, q.ctypes.data_as(ctypes.POINTER(ctypes.c_double)))
    return path, arrays


def test_a_path_has_the_same_bits(library, handles, solver):
    c_solver, _ = handles
    dof, text, result = solver.dof, ctypes.create_string_buffer(200), PathResult()
    motion = np.linspace(0.2, 0.6, 30)[:, None] * np.cos(np.arange(dof)) + 0.5 * (
        solver.robot.lower + solver.robot.upper
    )
    poses = np.array([solver.robot.fk(q) for q in motion])
    step = np.full(dof, 0.1)
    path, _kept = path_options(library, max_step=step)
    path.random_seed = 5
    q = np.empty((len(poses), dof))
    status = library.mfik_solve_path(c_solver, len(poses), poses, q, path, None, result, text, len(text))
    expected = solver.solve_path(poses, max_step=step, random_seed=5)
    assert status == result.status == Status.SOLVED and result.reached == len(poses)
    np.testing.assert_array_equal(q, expected.q)
    assert (result.length, result.attempts) == (expected.length, expected.attempts)
    assert text.value.decode() == expected.reason

    # From given joints to a waypoint out of reach: the prefix, and why.
    poses[20, :3] += 5.0
    path, _kept = path_options(library, max_step=step, q_start=expected.q[0], q_ref=expected.q[0])
    q.fill(np.nan)
    status = library.mfik_solve_path(c_solver, len(poses), poses, q, path, None, result, text, 40)
    expected = solver.solve_path(poses, expected.q[0], q_ref=expected.q[0], max_step=step)
    assert status == expected.status == Status.UNREACHABLE and result.reached == 20 and np.isnan(q[20:]).all()
    np.testing.assert_array_equal(q[:20], expected.q)
    assert text.value.decode() == expected.reason[:39]


def test_a_path_is_ended_by_its_progress_and_bad_input_is_named(library, handles, solver):
    c_solver, _ = handles
    text, result = ctypes.create_string_buffer(200), PathResult()
    q = np.empty((1, solver.dof))
    poses = np.array([solver.robot.fk(0.5 * (solver.robot.lower + solver.robot.upper))])
    path, _kept = path_options(library, max_step=np.full(solver.dof, 0.1))

    def reason(n, path, options=None):
        status = library.mfik_solve_path(c_solver, n, poses, q, path, options, result, text, len(text))
        assert status == result.status == Status.INVALID_INPUT and result.reached == 0
        return text.value.decode()

    assert "path: expected no NULL" in reason(1, None)
    assert "path.max_step: expected no NULL" in reason(1, path_options(library)[0])
    assert "poses: expected" in reason(0, path)
    path.edge_check = 0.0
    assert "edge_check" in reason(1, path)
    path.size = 3
    assert "path.size" in reason(1, path)

    # A path whose last waypoint lies a jump away, which takes long to find out.
    middle, turn = 0.5 * (solver.robot.lower + solver.robot.upper), 0.3 * np.sin(np.linspace(0, 40, 4000))
    motion = middle + turn[:, None]
    motion[-1] += 0.5
    poses, q, shares = solver.robot.fk(motion), np.empty_like(motion), []
    path, _kept = path_options(library, max_step=np.full(solver.dof, 0.1))
    path.progress = PROGRESS(lambda share, _: shares.append(share) or 1)
    status = library.mfik_solve_path(c_solver, len(poses), poses, q, path, None, result, text, len(text))
    assert status == Status.NOT_CONVERGED and len(shares) == 1 and "progress" in text.value.decode()


def test_a_tracker_commands_the_same_bits(library, handles, solver, rows):
    c_solver, dof = handles[0], solver.dof
    q, velocity, acceleration = rows[1][0], np.linspace(0.5, 2.0, dof), np.linspace(5.0, 20.0, dof)
    error = ctypes.create_string_buffer(500)
    c_tracker = library.mfik_tracker_create(c_solver, q, 1e-3, velocity, acceleration, error, len(error))
    assert c_tracker, error.value
    tracker = Tracker(solver, q, 1e-3, velocity=velocity, acceleration=acceleration)
    for sample in range(200):
        pose, result = rows[0][sample // 50], Result()
        status = library.mfik_tracker_step(c_tracker, pose, None, result)
        assert_same(result, status, tracker.step(pose))
        np.testing.assert_array_equal(library.mfik_tracker_q(c_tracker)[:dof], tracker.q)
        np.testing.assert_array_equal(library.mfik_tracker_dq(c_tracker)[:dof], tracker.dq)
    library.mfik_tracker_destroy(c_tracker)
    assert not library.mfik_tracker_create(c_solver, q, 0.0, velocity, acceleration, error, len(error))
    assert b"dt: expected a finite number above 0" in error.value


def test_refusals_say_what_the_extension_says(library, handles, solver, rows):
    c_solver, workspace = handles
    pose, q_ref = rows[0][0], rows[1][0]
    q, result = np.full_like(q_ref, 42.0), Result()
    status = library.mfik_solve(c_solver, pose, q_ref, q, workspace, make_options(library, locked=1 << 20), result)
    assert status == Status.INVALID_INPUT and b"locked" in result.reason and np.isnan(result.pos_error_m)
    assert (q == 42.0).all()
    with pytest.raises(ArgumentError, match="locked"):
        solver.solve(pose, q_ref, locked=[20])

    error = ctypes.create_string_buffer(500)
    missing = str(GOLDEN / "no_such_bundle")
    assert not library.mfik_load(missing.encode(), error, len(error))
    with pytest.raises(BundleError) as caught:
        Solver.load(missing)
    assert error.value.decode() == str(caught.value)


def test_robot_and_names_agree(library, handles, solver):
    c_solver, _ = handles
    assert library.mfik_dof(c_solver) == solver.dof
    assert library.mfik_lower(c_solver)[: solver.dof] == list(solver.robot.lower)
    assert library.mfik_upper(c_solver)[: solver.dof] == list(solver.robot.upper)
    names = [joint["name"] for joint in solver.metadata["robot"]["joints"] if joint["kind"] != "fixed"]
    assert [library.mfik_joint_name(c_solver, j).decode() for j in range(solver.dof)] == names
    for status in Status:
        assert library.mfik_status_name(status).decode() == status.name.lower().replace("_", " ")
