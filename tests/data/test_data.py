"""Generated rows against Pinocchio, the file format, and what loading refuses."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mfik import ops
from mfik.data import COUPLINGS, IKDataset, free_check, generate, load_dataset, nearest_equivalent, save_dataset
from mfik.data.generate import _canonical, _project, _redraw, _towards_limits, _turned, draw, home_posture
from mfik.errors import ArgumentError, DataError, RobotError
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import load_robot
from mfik.solve import Solver

N = 3000


@pytest.fixture(scope="module", params=["panda", "ur10"])
def robot(request):
    return load_robot(request.param)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_rows_solve_their_poses_and_stay_within_limits(robot, coupling):
    data = generate(robot, N, coupling=coupling, seed=4)
    pose = robot.fk(data.q_target.double())
    assert position_error_m(pose, data.target_pose.double()).max() < 1e-6 * 10
    assert rotation_error_rad(pose, data.target_pose.double()).max() < 1e-5
    assert robot.within_limits(data.q_target, tol=1e-6).all()
    assert (data.r >= 0).all() and (data.r <= data.t).all() and (data.t < 1).all()
    assert data.r.std() > 0.2 and (data.t - data.r).std() > 0.1
    assert all(tensor.dtype == torch.float32 for tensor in data[:].values())


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_targets_are_free_of_self_collision_where_that_is_asked_for(ur10, coupling):
    solver = Solver.from_robot(ur10)
    plain, free = (generate(ur10, N, coupling=coupling, seed=4, collision_free=asked) for asked in (False, True))
    assert 0.1 < solver.is_free(plain.q_target.double().numpy()).mean() < 0.9
    assert solver.is_free(free.q_target.double().numpy()).all()
    pose = ur10.fk(free.q_target.double())
    assert position_error_m(pose, free.target_pose.double()).max() < 1e-5
    assert rotation_error_rad(pose, free.target_pose.double()).max() < 1e-5
    assert free.meta["collision_free"] and "collision_free" not in plain.meta


def test_joints_that_are_drawn_again_keep_to_the_law_of_their_rows(panda):
    generator, lower, upper = torch.Generator().manual_seed(1), *panda.limits()
    q = panda.sample(2 * N, generator)
    near = torch.arange(2 * N) < N
    q[near] = _towards_limits(panda, q[near])

    def share(rows):
        return ((rows - lower).minimum(upper - rows) < 0.02 * (upper - lower)).double().mean().item()

    before = share(q[near]), share(q[~near])
    first = q.clone()
    _redraw(panda, q, near, lambda rows: torch.rand(len(rows), generator=generator) < 0.1, generator)
    assert (q != first).any(-1).double().mean() > 0.85
    assert before[0] > 3 * before[1] and [share(q[near]), share(q[~near])] == pytest.approx(before, abs=0.01)


def test_rows_free_of_collision_need_spheres_the_cpu_and_a_robot_that_can_be_free(panda):
    bare = dataclasses.replace(panda, body=None)
    with pytest.raises(RobotError, match="fit_spheres.py"):
        generate(bare, 10, collision_free=True)
    with pytest.raises(ArgumentError, match="collision_free: expected the device 'cpu'"):
        free_check(panda, "cuda")
    # "always" pairs are left out, so it takes one that is nearly always in contact.
    stuck = bare.attach("ball", [[0, 0, 0, 0.6]], link="panda_link0").attach("ring", [[0, 0, 0, 0.5]])
    (pair,) = (pair for pair in stuck.body.pairs if pair.reason in ("checked", "always"))
    checked = dataclasses.replace(pair, reason="checked")
    body = dataclasses.replace(stuck.body, pairs=(checked,))
    narrow = dataclasses.replace(stuck, body=body, lower=panda.upper - 0.01)
    with pytest.raises(ArgumentError, match="among 1,000 draws of 'panda', got none"):
        generate(narrow, 10, collision_free=True)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_couplings_are_as_near_as_they_promise(panda, coupling):
    data = generate(panda, N, coupling=coupling, sigma=0.1, seed=5)
    start = data.q - data.r * (data.q_target - data.q) / (1 - data.r)
    distance = (data.q_target - start).norm(dim=-1)
    if coupling == "local":
        assert distance.quantile(0.99) < 0.1 * 5
    elif coupling in ("global", "canonical"):
        assert distance.median() > 3
    elif coupling == "projected":
        independent = generate(panda, N, coupling="global", seed=5)
        q0 = independent.q - independent.r * (independent.q_target - independent.q) / (1 - independent.r)
        assert distance.median() < 0.9 * (independent.q_target - q0).norm(dim=-1).median()
    else:
        near, far = {"mixed": ((0.25, 0.45), (0.3, 0.65)), "seeding": ((0.1, 0.25), (0.6, 0.9))}[coupling]
        for part in distance.split(500):  # far: nearly every global row, some projected ones; none of the local ones
            assert near[0] < (part < 0.1 * 5).float().mean() < near[1]
            assert far[0] < (part > 3).float().mean() < far[1]


def test_poses_agree_with_pinocchio(panda):
    pinocchio = pytest.importorskip("pinocchio")
    import sysconfig

    robots = f"{sysconfig.get_paths()['purelib']}/cmeel.prefix/share/example-robot-data/robots"
    urdf = f"{robots}/panda_description/urdf/panda.urdf"
    model = pinocchio.buildModelFromUrdf(urdf)
    reference = model.createData()
    frame = model.getFrameId("panda_link8")
    data = generate(panda, 500, seed=6)
    for q, pose in zip(data.q_target.double().numpy(), data.target_pose.double().numpy(), strict=True):
        pinocchio.framesForwardKinematics(model, reference, np.concatenate((q, np.zeros(model.nq - 7))))
        oMf = reference.oMf[frame]
        quat = pinocchio.Quaternion(pose[3], *pose[4:]).normalized()
        assert np.abs(oMf.translation - pose[:3]).max() < 1e-6
        assert quat.angularDistance(pinocchio.Quaternion(oMf.rotation)) < 1e-5


def test_same_seed_same_rows_other_seed_other_rows(robot):
    a, b, c = (generate(robot, 300, seed=seed)[:] for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["q"], c["q"])


def test_full_turns_are_resolved_towards_the_reference():
    ur10 = load_robot("ur10")
    turn = 2 * math.pi
    q = torch.tensor([[0.5, -6.0, 1.0, 3.0, -3.0, 6.2]])
    near = torch.tensor([[5.9, 1.0, 1.0 + turn, -4.0, 3.5, -0.3]])
    expected = torch.tensor([[0.5 + 0.0, -6.0 + turn, 1.0, 3.0 - turn, -3.0 + turn, 6.2 - turn]])
    result = nearest_equivalent(ur10, q, near)
    # joint 0: 0.5 + 2 pi is beyond the limit; joint 2 (elbow) has one turn only
    torch.testing.assert_close(result, expected)
    assert ur10.within_limits(result).all()


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({"coupling": "magic"}, "coupling"), ({"sigma": 0.0}, "sigma"), ({"sigma": math.nan}, "sigma")],
)
def test_bad_arguments_are_named(panda, kwargs, name):
    with pytest.raises(ArgumentError, match=name):
        generate(panda, 10, **kwargs)
    with pytest.raises(ArgumentError, match="num_samples"):
        generate(panda, 0)


def test_file_round_trip_carries_robot_coupling_and_seed(panda, tmp_path):
    data = generate(panda, 100, coupling="local", sigma=0.2, seed=8)
    save_dataset(tmp_path / "a.pt", data)
    loaded = load_dataset(tmp_path / "a.pt", panda)
    assert all(torch.equal(loaded[:][name], value) for name, value in data[:].items())
    assert loaded.meta == json.loads(json.dumps(data.meta))
    assert (loaded.meta["coupling"], loaded.meta["seed"], loaded.meta["sigma"]) == ("local", 8, 0.2)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pt"]


def test_nothing_is_overwritten_unasked(panda, tmp_path):
    data = generate(panda, 10)
    save_dataset(tmp_path / "a.pt", data)
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(DataError, match="--overwrite"):
        save_dataset(tmp_path / "a.pt", generate(panda, 20))
    assert (tmp_path / "a.pt").read_bytes() == before
    save_dataset(tmp_path / "a.pt", generate(panda, 20), overwrite=True)
    assert len(load_dataset(tmp_path / "a.pt", panda)) == 20


def test_a_file_of_another_robot_is_refused(panda, tmp_path):
    save_dataset(tmp_path / "a.pt", generate(panda, 10))
    with pytest.raises(DataError, match=r"panda.*ur10"):
        load_dataset(tmp_path / "a.pt", load_robot("ur10"))
    with pytest.raises(DataError, match="tool"):  # same joints, another tool frame, no description in the file
        torch.save(generate(panda, 10)[:], tmp_path / "b.pt")
        load_dataset(tmp_path / "b.pt", load_robot("panda", tip_link="panda_link7"))


def test_the_documents_dictionary_alone_is_enough(panda, tmp_path):
    rows = generate(panda, 50)[:]
    torch.save(rows, tmp_path / "a.pt")
    assert len(load_dataset(tmp_path / "a.pt", panda)) == 50
    # Both times drawn from [0, 1] by themselves, as the document has it: half of the rows have r > t.
    rows["t"] = torch.rand(50, 1, generator=torch.Generator().manual_seed(0))
    assert (rows["r"] > rows["t"]).sum() > 10
    torch.save(rows, tmp_path / "a.pt")
    assert len(load_dataset(tmp_path / "a.pt", panda)) == 50


def corrupt(name, row, column, value):
    def apply(rows):
        rows[name][row, column] = value

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (corrupt("q", 7, 0, math.nan), "row 7: q: expected finite"),
        (corrupt("target_pose", 3, slice(3, 7), 0.0), "row 3: target_pose: expected a unit quaternion"),
        (corrupt("q_target", 5, 1, 2.5), "row 5: q_target: expected joints within the limits"),
        (corrupt("r", 2, 0, 1.0), "row 2: r: expected 0 <= r < 1"),
        (corrupt("t", 4, 0, -0.5), "row 4: t: expected 0 <= t <= 1"),
        (
            corrupt("target_pose", 9, 0, 3.0),
            r"row 9: target_pose: expected \[.*\], the forward kinematics .*, got \[3\.0, ",
        ),
        (lambda rows: rows.pop("q_target"), "missing .*q_target"),
        (lambda rows: rows.update(q=rows["q"][:, :6]), r"q: expected \[20, 7\]"),
        (lambda rows: rows.update(t=rows["t"][:10]), r"t: expected \[20, 1\]"),
        (lambda rows: rows.update(q=rows["q"].long()), "float32"),
        (lambda rows: rows.update(r=rows["r"].double()), "r: expected torch.float32 like q, got torch.float64"),
        (lambda rows: rows.update({name: value[:0] for name, value in rows.items()}), "no rows"),
        (lambda rows: rows.update(meta="nonsense"), "meta"),
        (lambda rows: rows.update(meta='{"format": "mfik-data", "version": 99}'), "version 99"),
    ],
)
def test_bad_rows_are_named(panda, tmp_path, change, message):
    rows = generate(panda, 20)[:]
    change(rows)
    torch.save(rows, tmp_path / "a.pt")
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "a.pt", panda)


BAD = {  # of 10,000 rows; the first message names row 100
    "q": [(100, 3, math.inf)],
    "target_pose": [(4095, 0, 1.5), (9999, slice(3, 7), 2.0)],
    "q_target": [(4096, 3, 1.0), (7000, 0, math.nan)],
    "r": [(200, 0, 1.0), (4096, 0, -1.0)],
    "t": [(201, 0, 1.1)],
}
BAD_ROWS = sorted({row for cells in BAD.values() for row, *_ in cells})


@pytest.fixture
def faulty(panda, tmp_path):
    """Rows of which some are bad, and the file that holds them."""
    rows = generate(panda, 10_000, coupling="global")[:]
    for name, cells in BAD.items():
        for cell in cells:
            corrupt(name, *cell)(rows)
    torch.save(rows, tmp_path / "faulty.pt")
    return rows, tmp_path / "faulty.pt"


def test_a_file_with_bad_rows_is_refused_with_row_field_values_count_and_remedy(panda, faulty):
    with pytest.raises(DataError) as error:
        load_dataset(faulty[1], panda)
    for part in (
        "faulty.pt: row 100: q: expected finite values, got [",
        "inf",
        f"{len(BAD_ROWS)} of 10,000 rows",
        "--skip_bad_rows",
    ):
        assert part in str(error.value)


def test_limits_and_poses_are_quoted(panda, tmp_path):
    rows = generate(panda, 20)[:]
    rows["q_target"][3, 1] = 2.5
    torch.save(rows, tmp_path / "a.pt")
    with pytest.raises(
        DataError, match=r"limits of 'panda', \[-2\.8973, .* to \[2\.8973, .*got .*2\.5, .*\]; 1 of 20 rows"
    ):
        load_dataset(tmp_path / "a.pt", panda)


def test_bad_rows_are_left_out_on_request_and_counted(panda, faulty):
    rows, path = faulty
    data = load_dataset(path, panda, skip_bad_rows=True)
    good = [row for row in range(10_000) if row not in BAD_ROWS]
    assert data.skipped == len(BAD_ROWS) and len(data) == len(good)
    for name, value in data[:].items():
        assert torch.equal(value, rows[name][good])
    assert torch.equal(data[99]["q"], rows["q"][99]) and torch.equal(data[100]["q"], rows["q"][101])
    assert torch.equal(data[-1]["q"], rows["q"][9998])
    assert torch.equal(data[torch.tensor([5, 9000])]["t"], rows["t"][[good[5], good[9000]]])


def test_views_and_copies_of_a_dataset_leave_the_bad_rows_out(panda, faulty, tmp_path):
    data = load_dataset(faulty[1], panda, skip_bad_rows=True)
    for start, stop in [(0, 100), (50, 5000), (9000, len(data)), (7, 7)]:
        view = data.rows(start, stop)
        assert len(view) == stop - start and view.q.shape[0] <= stop - start + len(BAD_ROWS)
        assert all(torch.equal(value, data[start:stop][name]) for name, value in view.to("cpu")[:].items())
    save_dataset(tmp_path / "clean.pt", data)
    clean = load_dataset(tmp_path / "clean.pt", panda)
    assert clean.skipped == 0 and torch.equal(clean.q, data[:]["q"])


def test_a_good_file_has_nothing_skipped_and_is_not_copied(panda, tmp_path):
    torch.save(generate(panda, 50)[:], tmp_path / "a.pt")
    data = load_dataset(tmp_path / "a.pt", panda, skip_bad_rows=True)
    assert data.skipped == 0 and data.kept is None
    assert data[:]["q"].data_ptr() == data.q.data_ptr()


def test_a_file_without_a_good_row_is_refused_even_when_skipping(panda, tmp_path):
    torch.save(generate(panda, 50)[:], tmp_path / "a.pt")
    with pytest.raises(DataError, match="50 of 50 rows are bad: no row is left"):
        load_dataset(tmp_path / "a.pt", load_robot("panda", tip_link="panda_link7"), skip_bad_rows=True)


def test_every_wrong_pose_is_found(panda, tmp_path):
    rows = generate(panda, 9000, coupling="global")[:]
    wrong = torch.randperm(9000, generator=torch.Generator().manual_seed(3))[:25]
    rows["target_pose"][wrong[:12], 2] += 0.002
    half = torch.tensor(0.002 / 2)
    w, x, y, z = rows["target_pose"][wrong[12:], 3:].unbind(-1)  # times a turn of 2 mrad about x
    turned = (w * half.cos() - x * half.sin(), x * half.cos() + w * half.sin())
    rows["target_pose"][wrong[12:], 3:] = torch.stack(
        (*turned, y * half.cos() + z * half.sin(), z * half.cos() - y * half.sin()), -1
    )
    torch.save(rows, tmp_path / "a.pt")
    with pytest.raises(DataError, match=f"row {wrong.min()}: target_pose.*25 of 9,000"):
        load_dataset(tmp_path / "a.pt", panda)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_any_times_either_dtype_and_layout_are_accepted(panda, tmp_path, dtype, rng):
    rows = {name: value.to(dtype) for name, value in generate(panda, 300)[:].items()}
    rows["target_pose"][::2, 3:] *= -1  # the same rotation
    times = torch.rand(300, 2, generator=rng, dtype=dtype).sort(-1).values
    times[0] = torch.tensor([0.0, 1.0])
    times[1] = torch.tensor([0.999, 0.999])
    rows["r"], rows["t"] = times[:, :1], times[:, 1:]  # strided views of one tensor
    rows["q"].requires_grad_()
    torch.save(rows, tmp_path / "a.pt")
    data = load_dataset(tmp_path / "a.pt", panda)
    assert data.meta == {} and data.q.dtype == dtype and not data.q.requires_grad
    assert all(torch.equal(value, rows[name]) and value.is_contiguous() for name, value in data[:].items())


LOAD_AND_TRAIN = """
import sys
from mfik.data import FileSource, load_dataset
from mfik.robots import load_robot

def anonymous_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

robot = load_robot("panda")
before = anonymous_kib()
source = FileSource(load_dataset(sys.argv[1], robot), 1024, seed=0)
for step in range(20):
    source.batch(step).draw(seed=0, step=step, num_jvp=512, num_endpoint=128)
    if step in (0, 19):
        print(anonymous_kib() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux' /proc")
def test_a_file_is_checked_and_trained_on_without_reading_it_into_memory(panda, tmp_path):
    rows, path = 2_000_000, tmp_path / "large.pt"
    some = generate(panda, 20_000, coupling="global")[:]
    torch.save({name: value.repeat(rows // 20_000, 1) for name, value in some.items()}, path)
    megabytes = path.stat().st_size / 2**20
    run = subprocess.run([sys.executable, "-c", LOAD_AND_TRAIN, str(path)], capture_output=True, text=True)
    path.unlink()  # pytest keeps the folder
    assert run.returncode == 0, run.stderr
    growth = [int(line) / 1024 for line in run.stdout.split()]
    order = rows * 8 / 2**20  # the epoch's permutation, the only thing that grows with the file
    assert megabytes > 170 and max(growth) < order + 40, f"grew by {growth} MiB on a file of {megabytes:.0f} MiB"


def test_truncated_foreign_and_missing_files_are_refused(panda, tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(DataError, match="no such file"):
        load_dataset(path, panda)
    save_dataset(path, generate(panda, 1000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="generate it again"):
        load_dataset(path, panda)
    path.write_text("id,x,y\n")
    with pytest.raises(DataError, match=r"a\.pt"):
        load_dataset(path, panda)
    torch.save([1, 2], path)
    with pytest.raises(DataError, match="list"):
        load_dataset(path, panda)


def test_dataset_works_in_a_plain_dataloader(panda):
    data = generate(panda, 100)
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=32)))
    assert isinstance(data, IKDataset) and {k: tuple(v.shape) for k, v in batch.items()} == {
        "q": (32, 7), "target_pose": (32, 7), "q_target": (32, 7), "r": (32, 1), "t": (32, 1)
    }  # fmt: skip


@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_canonical_solutions_do_not_depend_on_the_reference(name):
    robot = load_robot(name)
    data = generate(robot, 2000, coupling="canonical", seed=3)
    assert robot.within_limits(data.q_target).all()
    again = torch.Generator().manual_seed(99)  # other restarts, and another known solution to fall back on
    solution = _canonical(robot, robot.sample(2000, again), data.target_pose, again)
    turns = (solution - data.q_target) / (2 * math.pi)
    same = ((turns - turns.round()).abs() < 1e-3).all(-1)
    assert same.double().mean() > 0.8
    other = _project(robot, robot.sample(2000, again), solution, data.target_pose, again)
    turns = (other - data.q_target) / (2 * math.pi)
    assert ((turns - turns.round()).abs() < 1e-3).all(-1).double().mean() < 0.5, "projected ones do"


def test_seeding_is_local_for_a_sixth(panda):
    data = generate(panda, 3000, coupling="seeding", sigma=0.01, seed=4)
    start = data.q_target - (data.q_target - data.q) / (1 - data.r)
    near = (start - data.q_target).abs().amax(-1) < 0.06
    assert 0.14 < near.double().mean() < 0.19


def test_seeding_draws_half_of_the_poses_near_limits(panda):
    rows = draw(panda, 8000, "seeding", 0.01, torch.Generator().manual_seed(4))
    local = (rows["q"] - rows["q_target"]).abs().amax(-1) < 0.06  # whose solutions are those drawn
    lower, upper = (limit.float() for limit in panda.limits())
    place = (rows["q_target"][local] - lower) / (upper - lower)
    near = ((place < 0.02) | (place > 0.98)).double().mean()
    # Within 2 % of the range: 4 % of uniform joints, and (4 / pi) asin(sqrt(0.02)) = 18 % by the arcsine law.
    assert near == pytest.approx(0.5 * (0.04 + 0.18), abs=0.015)
    near_a_row = ((place < 0.02) | (place > 0.98)).double().mean(-1)
    assert near_a_row.std() > 0.125, "rows are of one kind or the other"


def test_the_home_posture_beats_the_midpoint(panda):
    ur10 = load_robot("ur10")
    home = home_posture(ur10)
    assert home is home_posture(ur10) and ur10.within_limits(home)
    pose = ur10.fk(ur10.sample(2000, torch.Generator().manual_seed(8)))
    solved = [
        ops.refine(ur10, _turned(ur10, start, pose), pose, max_iterations=10)[1].double().mean()
        for start in (home, torch.zeros(6, dtype=torch.float64))
    ]
    assert solved[0] > solved[1]
    assert torch.equal(home_posture(panda), home_posture(load_robot("panda")))
