"""The graphs as finished solvers: refinement, errors and what they do with input as users have it."""

import subprocess
import sys

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
import torch
from cmake_project import ROOT, run

from mfik.errors import ArgumentError
from mfik.export import ONNX_FILE, TORCHSCRIPT_FILE, document, export_bundle
from mfik.export.graphs import OUTPUTS
from mfik.export.modules import ExactGeometry
from mfik.kinematics import fk, position_error_m, rotation_error_rad
from mfik.model import SingleStep, v1, v2
from mfik.robots import load_robot

ENGINES = ("onnx", "torchscript")


def runner(path, engine):
    """Return what runs a graph on float32 arrays, without mfik."""
    if engine == "onnx":
        session = onnxruntime.InferenceSession(str(path / ONNX_FILE), providers=["CPUExecutionProvider"])
        return lambda q, pose: session.run(None, {"q_ref": q, "target_pose": pose})
    graph = torch.jit.load(str(path / TORCHSCRIPT_FILE))

    def outputs_of(q, pose):
        outputs = graph(torch.from_numpy(q), torch.from_numpy(pose))
        return [x.numpy() for x in ((outputs,) if isinstance(outputs, torch.Tensor) else outputs)]

    return outputs_of


def random_network(kind, robot, passes, std):
    """Return a network of few layers and random weights, the head's of a standard deviation."""
    torch.manual_seed(0)
    if kind == "v1":
        model = v1.MeanFlowNet(v1.ModelConfig(dof=6, width=16, num_blocks=1, cond_dim=8, encoding="none"))
    else:
        model = v2.MeanFlowNet(v2.ModelConfig(dof=6, width=16, num_blocks=1, passes=passes, starts=1), robot)
    torch.nn.init.normal_(model.head.weight, std=std)
    return model.eval()


@pytest.fixture(scope="module", params=["v1", "v2"])
def finished(request, tmp_path_factory):
    """A random network with refinement and errors: the graphs' folder, the network and its robot."""
    robot = load_robot("ur10")
    model = random_network(request.param, robot, passes=4, std=0.1)
    path = tmp_path_factory.mktemp("finished") / request.param
    export_bundle(path, model, document(model, robot), refine=12, errors=True)
    return path, model, robot


def rows(robot, n, seed=0):
    """Return references at 0.3 rad from solutions, the first beyond a limit, and poses."""
    generator = torch.Generator().manual_seed(seed)
    q = robot.sample(n, generator, torch.float64)
    q_ref = q + 0.3 * torch.randn(q.shape, generator=generator, dtype=q.dtype)
    q_ref[0, 2] = 3.5
    return q_ref.float().numpy(), robot.fk(q).float().numpy()


@pytest.mark.parametrize("engine", ENGINES)
def test_refinement_solves_and_says_how_well(finished, engine):
    path, model, robot = finished
    q_ref, pose = rows(robot, 300)
    q, pos_error, rot_error, inside = runner(path, engine)(q_ref, pose)
    assert (q.dtype, pos_error.dtype, rot_error.dtype, inside.dtype) == (np.float32,) * 3 + (bool,)
    assert q.shape == (300, 6) and pos_error.shape == rot_error.shape == inside.shape == (300,)
    reached, wanted = fk(robot.chain, torch.from_numpy(q).double()), torch.from_numpy(pose).double()
    np.testing.assert_allclose(pos_error, position_error_m(reached, wanted), rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(rot_error, rotation_error_rad(reached, wanted), rtol=1e-3, atol=1e-6)
    assert inside.all() and robot.within_limits(torch.from_numpy(q).double()).all()
    solved = (pos_error < 1e-5) & (rot_error < 1e-5)
    with torch.no_grad():
        alone = SingleStep(model)(torch.from_numpy(q_ref), torch.from_numpy(pose)).double()
    before = (position_error_m(fk(robot.chain, alone), wanted) < 1e-5).double().mean().item()
    assert solved.mean() > 0.85 and solved.mean() > before + 0.05, (solved.mean(), before)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_do_not_depend_on_each_other_and_any_quaternion_will_do(finished, engine):
    path, _, robot = finished
    solve = runner(path, engine)
    q_ref, pose = rows(robot, 40, seed=1)
    q, pos_error, *_ = solve(q_ref, pose)
    single = np.concatenate([solve(q_ref[i : i + 1], pose[i : i + 1])[0] for i in range(40)])
    reached = pos_error < 1e-5
    assert reached.sum() > 25
    np.testing.assert_allclose(single[reached], q[reached], rtol=0, atol=1e-5)
    scaled = pose.copy()
    scaled[:, 3:] *= np.linspace(-3, -0.1, 40, dtype=np.float32)[:, None]
    np.testing.assert_allclose(solve(q_ref, scaled)[0][reached], q[reached], rtol=0, atol=1e-5)
    assert solve(q_ref[:0], pose[:0])[0].shape == (0, 6)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_to_what_is_no_pose_is_none_and_spoils_no_other(finished, engine):
    path, _, robot = finished
    solve = runner(path, engine)
    q_ref, pose = rows(robot, 5)
    whole = solve(q_ref, pose)
    pose[1], pose[3, 3:] = np.nan, 0
    q, pos_error, rot_error, inside = solve(q_ref, pose)
    bad = np.array([False, True, False, True, False])
    assert np.isnan(q[bad]).all() and np.isnan(pos_error[bad]).all() and not inside[bad].any()
    np.testing.assert_allclose(q[~bad], whole[0][~bad], rtol=0, atol=1e-5)
    for row in (1, 3):
        q, pos_error, rot_error, inside = solve(q_ref[row : row + 1], pose[row : row + 1])
        assert np.isnan(q).all() and np.isnan(pos_error).all() and np.isnan(rot_error).all() and not inside.any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("q_shape", "pose_shape"),
    [
        ((1, 6), (5, 7)),
        ((5, 6), (1, 7)),
        ((1, 8), (1, 7)),
        ((1, 5), (1, 7)),
        ((1, 6), (1, 8)),
        ((1, 6), (7,)),
        ((6,), (7,)),
    ],
)
def test_rows_that_do_not_fit_are_refused(finished, engine, q_shape, pose_shape):
    path, _, _ = finished
    with pytest.raises(Exception, match=r"(?i)size|shape|dim|rank|broadcast"):
        runner(path, engine)(np.full(q_shape, 0.5, np.float32), np.full(pose_shape, 0.5, np.float32))


@pytest.mark.parametrize("kinds", ["ppp", "pppr"])
def test_a_rotation_that_is_right_from_the_start_stays_a_number(kinds, tmp_path):
    """Slides do not turn the tool, so that the rotation error is zero to the last bit, not only nearly."""
    names = {"p": "prismatic", "r": "revolute"}
    axes = ("1 0 0", "0 1 0", "0 0 1", "0 0 1")
    links = "".join(f'<link name="{i}"/>' for i in range(len(kinds) + 1))
    joints = "".join(
        f'<joint name="j{i}" type="{names[kind]}"><parent link="{i}"/><child link="{i + 1}"/><axis xyz="{axes[i]}"/>'
        '<origin xyz="0.1 0 0.2"/><limit lower="-1" upper="1" effort="1" velocity="1"/></joint>'
        for i, kind in enumerate(kinds)
    )
    (tmp_path / "gantry.urdf").write_text(f'<robot name="gantry">{links}{joints}</robot>')
    robot = load_robot(tmp_path / "gantry.urdf")
    model = v2.MeanFlowNet(v2.ModelConfig(dof=robot.dof, width=16, num_blocks=1, passes=12, starts=1), robot).eval()
    export_bundle(tmp_path / "bundle", model, document(model, robot), refine=5, errors=True)
    wanted = torch.zeros(20, robot.dof, dtype=torch.float64)
    wanted[:, :3] = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    q_ref, pose = np.zeros((20, robot.dof), np.float32), robot.fk(wanted).float().numpy()
    for engine in ENGINES:
        q, pos_error, rot_error, inside = runner(tmp_path / "bundle", engine)(q_ref, pose)
        np.testing.assert_allclose(q, wanted, rtol=0, atol=1e-5)
        assert pos_error.max() < 1e-5 and rot_error.max() < 1e-5 and inside.all()


@pytest.mark.parametrize("away", [1.0, 0.1, 1e-3, 1e-6, 1e-9, 0.0])
def test_graphs_see_half_a_turn_as_the_network_does(away):
    """The tool is turned about its own axis by pi less `away` [rad], where graphs take another formula."""
    robot = load_robot("ur10")
    graph, geometry = ExactGeometry(robot), v2.Geometry(robot, torch.float64)
    q = robot.sample(200, torch.Generator().manual_seed(2), torch.float64)
    pose = robot.fk(q.index_add(1, torch.tensor([5]), torch.full((len(q), 1), torch.pi - away, dtype=q.dtype)))
    (ours, error2), (theirs, expected2) = graph.reference(q, pose), geometry.reference(q, pose)
    torch.testing.assert_close(error2.sqrt(), expected2.sqrt(), rtol=0, atol=3e-6)
    if away > 1e-7:  # nearer, rounding decides which way round
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6)
    assert ours.isfinite().all()


def test_the_files_say_what_they_are(finished):
    path, _, _ = finished
    session = onnxruntime.InferenceSession(str(path / ONNX_FILE), providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == ["q_ref", "target_pose"]
    assert [x.shape for x in session.get_inputs()] == [["N", 6], ["N", 7]]
    assert tuple(x.name for x in session.get_outputs()) == OUTPUTS
    assert session.get_modelmeta().custom_metadata_map["mfik"].startswith("{")
    whole = onnx.load(path / ONNX_FILE)
    versions = {each.domain: each.version for each in whole.opset_import}
    assert (whole.ir_version, versions) == (8, {"": 18, "com.microsoft": 1})
    for file in (ONNX_FILE, TORCHSCRIPT_FILE):
        assert str(ROOT).encode() not in (path / file).read_bytes(), f"{file} names the machine that wrote it"


# For this Python, the oldest ONNX Runtime that PyPI has and the graphs are for, and the NumPy that it was built with.
OLD_RUNTIME = (
    "onnxruntime==1.15.1; python_version < '3.12'",
    "onnxruntime==1.20.1; python_version >= '3.12'",
    "numpy<2; python_version < '3.12'",
    "numpy; python_version >= '3.12'",
)
RUN = """
import sys
import numpy as np
import onnxruntime
rows = dict(np.load(sys.argv[1]))
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
np.savez(sys.argv[3], version=onnxruntime.__version__, q=session.run(["q_solution"], rows)[0])
"""


@pytest.fixture(scope="module")
def old_runtime(tmp_path_factory):
    """A folder of Python packages."""
    folder = tmp_path_factory.mktemp("old")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *OLD_RUNTIME]
    if subprocess.run(command, check=False).returncode != 0:
        pytest.skip("needs PyPI")
    return folder


def test_an_old_onnx_runtime_runs_what_loops(finished, old_runtime, tmp_path):
    """Those before 1.20 to 1.29 lack operators in float64 that are easily exported, such as Cos and ReduceL2."""
    check_old_runtime(finished, old_runtime, tmp_path)


def test_an_old_onnx_runtime_runs_a_single_look(single, old_runtime, tmp_path):
    check_old_runtime(single, old_runtime, tmp_path)


def check_old_runtime(graph, old_runtime, tmp_path):
    path, _, robot = graph
    q_ref, pose = rows(robot, 200, seed=5)
    np.savez(tmp_path / "rows.npz", q_ref=q_ref, target_pose=pose)
    files = tmp_path / "rows.npz", path / ONNX_FILE, tmp_path / "old.npz"
    run(sys.executable, "-c", RUN, *files, PYTHONPATH=str(old_runtime))
    old, today = np.load(tmp_path / "old.npz"), runner(path, "onnx")(q_ref, pose)[0]
    assert str(old["version"]) in OLD_RUNTIME[0] + OLD_RUNTIME[1]
    agree = np.abs(old["q"] - today).max(1) < 1e-4
    assert agree.mean() > 0.97, "but for rows on the edge between two branches"


def test_a_look_is_few_operations_and_the_last_one_fewer(finished):
    """One pose takes as long as there are nodes: `python benchmarks/engines.py --models` times them."""
    path, model, _ = finished
    num_loops = 2 if isinstance(model, v2.MeanFlowNet) else 1  # looks of the network, and refinement
    graph = onnx.load(path / ONNX_FILE).graph
    looks = loops_in(graph)
    assert len(looks) == num_loops
    assert max(len(look.node) for look in looks) <= 101
    assert len(graph.node) <= 220  # with the first look, the last ones, which only judge, and the errors
    graph = torch.jit.load(path / TORCHSCRIPT_FILE).graph  # which its blocks do not keep
    _, several = one_row_and_several(graph)
    looks, last = ([branch for branch in branches(several) if (DAMPED in branch) is steps] for steps in (True, False))
    assert len(looks) == len(last) == num_loops
    for some, bound in ((looks, 73), (last, 23)):
        assert max(sum(kind.startswith("aten::") for kind in branch) for branch in some) <= bound


@pytest.fixture(scope="module", params=["v1", "v2"])
def single(request, tmp_path_factory):
    """A graph of a single look: the network's, or one step of refinement."""
    robot = load_robot("ur10")
    model = random_network(request.param, robot, passes=1, std=1.0)
    path = tmp_path_factory.mktemp("single") / request.param
    export_bundle(path, model, document(model, robot), refine=1 if request.param == "v1" else 0)
    return path, model, robot


def test_a_single_look_needs_no_loop(single):
    path, model, _ = single
    graph = onnx.load(path / ONNX_FILE).graph
    assert not loops_in(graph)
    if isinstance(model, v2.MeanFlowNet):
        assert len(graph.node) <= 139


def test_one_row_in_torchscript_is_numbers(finished):
    """But for layers, which are products of tensors: operations on tensors take thirty times as long."""
    path, model, _ = finished
    graph = torch.jit.load(path / TORCHSCRIPT_FILE).graph
    one, several = ([node.kind() for node in nodes_in(block)] for block in one_row_and_several(graph))
    assert 0 < one.count("aten::atan2") <= 5, "the code of a look stands once, not for every start or look"
    assert not {"aten::bmm", DAMPED, "aten::index_select", "aten::nonzero"}.intersection(one)
    assert {"aten::bmm", DAMPED, "aten::index_select", "aten::nonzero"}.issubset(several)
    if isinstance(model, v2.MeanFlowNet):  # layers, where looks with and without a network stand
        products = [kind for kind in one if kind in ("aten::mm", "aten::addmm")]
        assert len(products) in (4, 8), products


def one_row_and_several(graph):
    """Return the two branches of a TorchScript graph, by the number of rows."""
    (by_rows,) = [node for node in graph.nodes() if node.kind() == "prim::If"]
    return by_rows.blocks()


def nodes_in(block):
    """Yield the nodes of a block of a TorchScript graph and of those within."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_in(inner)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_single_look_is_kept_where_it_does_not_lead_away(single, engine):
    path, model, robot = single
    q_ref, pose = rows(robot, 200, seed=3)
    (ours,) = runner(path, engine)(q_ref, pose)
    with torch.no_grad():
        answer = SingleStep(model)(torch.from_numpy(q_ref), torch.from_numpy(pose))
    begun = robot.clamp(answer)  # of v1, whose step is refinement
    if isinstance(model, v2.MeanFlowNet):
        np.testing.assert_allclose(ours, answer, rtol=0, atol=1e-5)
        begun = robot.clamp(torch.from_numpy(q_ref))
    geometry, exact = v2.Geometry(robot, torch.float64), torch.from_numpy(pose).double()
    before, after = (geometry.reference(q.double(), exact)[1] for q in (begun, torch.from_numpy(ours)))
    assert (after <= before + 1e-5).all()
    moved = np.abs(ours - begun.numpy()).max(1) > 1e-5
    assert moved.sum() > 10
    assert isinstance(model, v1.MeanFlowNet) or (~moved).sum() > 20, "steps of a random network lead away, too"


def test_a_runtime_without_inverse_has_a_function_for_it(finished):
    """ONNX's own evaluator knows the standard's operators alone."""
    path, _, robot = finished
    whole = onnx.load(path / ONNX_FILE)
    (function,) = whole.functions
    assert (function.domain, function.name) == ("com.microsoft", "Inverse")
    assert {node.domain for node in function.node} == {""}
    q_ref, pose = rows(robot, 12, seed=4)
    ours, theirs = (solve(q_ref, pose) for solve in (evaluator(whole), runner(path, "onnx")))
    settled = theirs[1] < 1e-5
    assert settled.sum() > 8
    np.testing.assert_allclose(ours[0][settled], theirs[0][settled], rtol=0, atol=1e-5)


def evaluator(whole):
    reference = onnx.reference.ReferenceEvaluator(whole)
    return lambda q, pose: reference.run(None, {"q_ref": q, "target_pose": pose})


DAMPED = "aten::linalg_cholesky_ex"  # solves for the step


def loops_in(graph):
    """Return the bodies of an ONNX graph's loops."""
    return [node.attribute[0].g for node in graph.node if node.op_type == "Loop"]


def branches(block):
    """Yield the kinds of the operations of each branch of a TorchScript graph that is a look."""
    for node in block.nodes():
        for inner in node.blocks():
            kinds = [each.kind() for each in inner.nodes()]
            if node.kind() == "prim::If" and "aten::atan2" in kinds:
                yield kinds
            yield from branches(inner)


def test_a_robot_alone_has_no_graph_to_refine(tmp_path):
    robot = load_robot("ur10")
    for options in ({"refine": 3}, {"errors": True}):
        with pytest.raises(ArgumentError, match=r"network"):
            export_bundle(tmp_path / "b", None, document(None, robot), **options)
    model = v2.MeanFlowNet(v2.ModelConfig(dof=6, width=8, num_blocks=1), robot)
    for refine in (-1, 1001, 1.5, "3", True):
        with pytest.raises(ArgumentError, match="refine: expected an integer from 0 to 1000, got"):
            export_bundle(tmp_path / "b", model, document(model, robot), refine=refine)
    assert not list(tmp_path.iterdir())
