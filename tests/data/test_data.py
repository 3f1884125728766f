"""Generated rows against Pinocchio, the file format, and what loading refuses."""

import json
import math

import numpy as np
import pytest
import torch

from mfik.data import COUPLINGS, IKDataset, generate, load_dataset, nearest_equivalent, save_dataset
from mfik.errors import ArgumentError, DataError
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import load_robot

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
def test_couplings_are_as_near_as_they_promise(panda, coupling):
    data = generate(panda, N, coupling=coupling, sigma=0.1, seed=5)
    start = data.q - data.r * (data.q_target - data.q) / (1 - data.r)
    distance = (data.q_target - start).norm(dim=-1)
    if coupling == "local":
        assert distance.quantile(0.99) < 0.1 * 5
    elif coupling == "global":
        assert distance.median() > 3
    elif coupling == "projected":
        independent = generate(panda, N, coupling="global", seed=5)
        q0 = independent.q - independent.r * (independent.q_target - independent.q) / (1 - independent.r)
        assert distance.median() < 0.9 * (independent.q_target - q0).norm(dim=-1).median()
    else:
        assert (distance[: N // 3].quantile(0.99) < 0.5) and distance[N // 3 : 2 * N // 3].median() > 3


def test_poses_agree_with_pinocchio(panda):
    pinocchio = pytest.importorskip("pinocchio")
    import sysconfig

    urdf = f"{sysconfig.get_paths()['purelib']}/cmeel.prefix/share/example-robot-data/robots/panda_description/urdf/panda.urdf"
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
    torch.save(generate(panda, 50)[:], tmp_path / "a.pt")
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
        (corrupt("t", 4, 0, -0.5), "row 4: t: expected r <= t"),
        (corrupt("target_pose", 9, 0, 3.0), "row 9: target_pose is not the forward kinematics"),
        (lambda rows: rows.pop("q_target"), "missing .*q_target"),
        (lambda rows: rows.update(q=rows["q"][:, :6]), r"q: expected \[20, 7\]"),
        (lambda rows: rows.update(t=rows["t"][:10]), r"t: expected \[20, 1\]"),
        (lambda rows: rows.update(q=rows["q"].long()), "float32"),
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
