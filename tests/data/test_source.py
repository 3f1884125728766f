"""Sources of training rows: functions of (seed, step, rank), no row twice, no process in another's way."""

import sysconfig
from pathlib import Path

import pytest
import torch

from mfik import ops
from mfik.data import COUPLINGS, FileSource, IKDataset, OnlineSource, free_check, generate
from mfik.data.source import _fmix32
from mfik.errors import ArgumentError
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import load_robot

N = 1000


@pytest.fixture(scope="module")
def data(panda):
    return generate(panda, N, coupling="global", seed=3)


@pytest.fixture(scope="module", params=["panda", "ur10", "tiago"])
def robot(request):
    if request.param != "tiago":
        return load_robot(request.param)
    folder = Path(sysconfig.get_paths()["purelib"]) / "cmeel.prefix" / "share" / "example-robot-data" / "robots"
    if not folder.is_dir():
        pytest.skip("needs `pip install example-robot-data`")
    robot = load_robot(str(folder / "tiago_description/robots/tiago.urdf"), "base_link", "arm_tool_link")
    assert robot.dof == 8 and robot.kinds[0] == "prismatic"
    return robot


def taken(source, step):
    """Return the rows of a step, gathered."""
    rows = source.batch(step)
    if "index" not in rows.tensors:
        return rows.tensors
    return {name: column[rows.tensors["index"]] for name, column in rows.op.keywords.items()}


def assert_same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- both ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "online"])
def make(request, panda, data):
    """Return a function that makes a source."""
    if request.param == "file":
        return lambda batch_size=64, **kwargs: FileSource(data, batch_size, **kwargs)
    return lambda batch_size=64, **kwargs: OnlineSource(panda, batch_size, epoch_rows=N, coupling="local", **kwargs)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_step_has_the_same_rows_in_any_order_and_process(make, rank):
    steps = [0, 1, 6, 7, 15, 64, 70, 130]  # over epochs (7 steps) and blocks of online rows (64 steps)
    source = make(seed=5, rank=rank, world_size=2)
    forward = {step: {name: value.clone() for name, value in taken(source, step).items()} for step in steps}
    for step in [*reversed(steps), 7, 7, 0]:
        assert_same(forward[step], taken(source, step))
        assert_same(forward[step], taken(make(seed=5, rank=rank, world_size=2), step))


def test_another_seed_step_or_rank_has_other_rows(make):
    base = taken(make(seed=5, world_size=2), 3)["q"]
    for source, step in [
        (make(seed=6, world_size=2), 3),
        (make(seed=5, rank=1, world_size=2), 3),
        (make(seed=5, world_size=2), 4),
    ]:
        assert not torch.equal(base, taken(source, step)["q"])


def test_a_batch_is_drawn_from_the_rows_of_its_step(make):
    times = {"seed": 1, "num_jvp": 32, "num_endpoint": 8}
    for step in (0, 40):
        source = make(seed=1)
        rows = source.batch(step)
        batch = rows.draw(step=step, **times)
        assert rows.size == 64 and batch.q.shape == (64, 7)
        for drawn, expected in zip(batch, ops.sample_batch(**taken(source, step), step=step, **times), strict=True):
            assert torch.equal(drawn, expected)


def test_what_a_captured_step_is_replayed_with_is_the_same_at_every_step(make, panda):
    for source in (make(seed=1), OnlineSource(panda, 64, coupling="global", seed=1)):
        first, later = source.batch(0), source.batch(40)
        assert first.op is later.op and first.size == later.size
        assert {name: x.shape for name, x in first.tensors.items()} == {n: x.shape for n, x in later.tensors.items()}


def test_global_rows_are_those_of_draw_batch(panda):
    rows = OnlineSource(panda, 64, coupling="global", seed=1).batch(7)
    times = {"seed": 1, "step": 7, "rank": 2, "num_jvp": 32, "num_endpoint": 8}
    for drawn, expected in zip(rows.draw(**times), ops.draw_batch(panda, 64, **times), strict=True):
        assert torch.equal(drawn, expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"rank": 2, "world_size": 2}, "rank: expected 0 <= rank < world_size, got 2 of 2"),
        ({"rank": -1}, "rank"),
        ({"world_size": 0}, "rank"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"batch_size": N + 1}, rf"{N} rows .* batch_size = {N + 1} times world_size = 1"),
        ({"batch_size": 300, "world_size": 4}, rf"{N} rows .* batch_size = 300 times world_size = 4.*lower"),
    ],
)
def test_bad_arguments_are_named(make, kwargs, message):
    with pytest.raises(ArgumentError, match=message):
        make(**{"seed": 0, **kwargs})


def test_steps_count_from_zero(make):
    with pytest.raises(ArgumentError, match="step: expected at least 0, got -1"):
        make(seed=0).batch(-1)


# -- files ---------------------------------------------------------------------------------------------------------


def test_one_process_takes_the_permutation_of_seed_plus_epoch(data):
    source = FileSource(data, 48, seed=9)
    assert source.steps_per_epoch == N // 48
    for step in (0, 1, source.steps_per_epoch - 1, source.steps_per_epoch, 5 * source.steps_per_epoch + 2):
        epoch, batch = divmod(step, source.steps_per_epoch)
        order = torch.randperm(N, generator=torch.Generator().manual_seed(9 + epoch))
        assert torch.equal(source.batch(step).tensors["index"], order[batch * 48 : (batch + 1) * 48])


@pytest.mark.parametrize(("batch_size", "world_size"), [(64, 1), (50, 2), (33, 3), (250, 4), (1, 7)])
def test_processes_share_an_epoch_without_overlap(data, batch_size, world_size):
    sources = [FileSource(data, batch_size, seed=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    whole = FileSource(data, batch_size * world_size, seed=2)
    steps = sources[0].steps_per_epoch
    assert steps == N // (batch_size * world_size) == whole.steps_per_epoch
    epoch = []
    for step in range(steps):
        parts = [source.batch(step).tensors["index"] for source in sources]
        assert all(part.shape == (batch_size,) and part.dtype == torch.int64 for part in parts)
        assert torch.equal(torch.cat(parts), whole.batch(step).tensors["index"])
        epoch += parts
    epoch = torch.cat(epoch)
    assert len(epoch.unique()) == len(epoch) == steps * batch_size * world_size > N - batch_size * world_size


def test_every_epoch_has_all_rows_in_another_order(data):
    source = FileSource(data, 100, seed=2)
    epochs = [torch.cat([source.batch(10 * epoch + step).tensors["index"] for step in range(10)]) for epoch in range(3)]
    assert all(torch.equal(epoch.sort().values, torch.arange(N)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


def test_columns_are_the_datasets_own_memory(data):
    columns = FileSource(data, 10, seed=0).batch(0).op.keywords
    assert all(value.data_ptr() == getattr(data, name).data_ptr() for name, value in columns.items())
    assert sorted(columns) == ["q", "q_target", "r", "target_pose"]


def test_skipped_rows_are_never_taken(data):
    kept = torch.arange(N)[torch.arange(N) % 7 != 0]
    source = FileSource(IKDataset(**data[:], kept=kept), 11, seed=0)
    assert source.steps_per_epoch == len(kept) // 11
    index = torch.cat([source.batch(step).tensors["index"] for step in range(source.steps_per_epoch)])
    assert len(index.unique()) == len(index) and torch.isin(index, kept).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_sources_serve_a_gpu(data, panda):
    on_cpu = FileSource(data, 64, seed=4)
    on_gpu = FileSource(data, 64, seed=4, device="cuda")
    assert_same(taken(on_cpu, 20), {name: value.cpu() for name, value in taken(on_gpu, 20).items()})
    online = OnlineSource(panda, 64, seed=4, device="cuda")
    assert_same(taken(online, 20), taken(OnlineSource(panda, 64, seed=4, device="cuda"), 20))
    assert all(value.is_cuda for value in taken(online, 20).values())
    assert online.validation_rows(10).q.is_cuda


# -- online --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", [name for name in COUPLINGS if name != "global"])
def test_online_rows_solve_their_poses_and_stay_within_limits(robot, coupling):
    source = OnlineSource(robot, 500, coupling=coupling, seed=7)
    rows = taken(source, 9)
    assert {name: tuple(value.shape) for name, value in rows.items()} == {
        "q": (500, robot.dof), "target_pose": (500, 7), "q_target": (500, robot.dof), "r": (500, 1)
    }  # fmt: skip
    assert all(value.dtype == torch.float32 for value in rows.values())
    pose = robot.fk(rows["q_target"].double())
    assert position_error_m(pose, rows["target_pose"].double()).max() < 1e-5
    assert rotation_error_rad(pose, rows["target_pose"].double()).max() < 1e-5
    assert robot.within_limits(rows["q_target"], tol=1e-6).all()
    start = rows["q"] - rows["r"] * (rows["q_target"] - rows["q"]) / (1 - rows["r"])
    assert robot.within_limits(start, tol=1e-4).all()  # float32, magnified by r / (1 - r) <= 9
    assert (rows["r"] >= 0).all() and (rows["r"] < 0.9).all() and rows["r"].std() > 0.2


@pytest.mark.parametrize("coupling", ["local", "global", "seeding"])
def test_online_rows_are_free_of_self_collision_where_that_is_asked_for(ur10, coupling):
    source = OnlineSource(ur10, 500, coupling=coupling, seed=7, collision_free=True)
    is_free = free_check(ur10, "cpu")
    for step in (0, 9):
        assert is_free(taken(source, step)["q_target"]).all()
    assert is_free(source.validation_rows(500).q_target).all()
    assert_same(taken(source, 3), taken(OnlineSource(ur10, 500, coupling=coupling, seed=7, collision_free=True), 3))


@pytest.mark.parametrize(("coupling", "steps"), [("local", 40), ("mixed", 6)])
def test_no_online_row_comes_twice(panda, coupling, steps):
    world = [OnlineSource(panda, 1500, coupling=coupling, seed=1, rank=rank, world_size=3) for rank in range(3)]
    drawn = [taken(source, step) for source in world for step in range(steps)]
    drawn += [world[0].validation_rows(1000)[:], generate(panda, 1000, coupling=coupling, seed=1)[:]]
    for name in ("q", "q_target"):
        rows = torch.cat([part[name] for part in drawn])
        assert len(rows.unique(dim=0)) == len(rows)


def test_streams_of_a_seed_do_not_meet():
    assert (_fmix32(1), _fmix32(2), _fmix32(0xFFFFFFFF)) == (0x514E28B7, 0x30F4C306, 0x81F16F39)  # of MurmurHash3
    near = [*range(100_000), *range(2**32 - 1000, 2**32)]
    assert len({_fmix32(number) for number in near}) == len(near)


def test_a_step_whose_stream_would_be_that_of_validation_is_refused(panda):
    source = OnlineSource(panda, 8192, coupling="local", seed=0)
    source.batch(2**32 - 2)
    with pytest.raises(ArgumentError, match=f"step: expected less than {2**32 - 1}, got {2**32 - 1}"):
        source.batch(2**32 - 1)


def test_each_part_of_a_mixed_batch_has_every_coupling(panda):
    rows = taken(OnlineSource(panda, 1024, sigma=0.1, seed=2), 1)  # sample_batch treats the first rows differently
    distance = ((rows["q_target"] - rows["q"]) / (1 - rows["r"])).norm(dim=-1)
    for part in distance.split(256):
        assert 0.2 < (part < 0.5).float().mean() < 0.5 and 0.25 < (part > 3).float().mean() < 0.7


def test_online_epochs_are_as_long_as_asked(panda):
    assert OnlineSource(panda, 1024, seed=0).steps_per_epoch == 1_000_000 // 1024
    assert OnlineSource(panda, 100, seed=0, rank=2, world_size=3, epoch_rows=7000).steps_per_epoch == 23


def test_validation_rows_are_the_same_for_all_processes_and_at_every_call(panda):
    one, other = (OnlineSource(panda, batch, seed=3, rank=rank, world_size=2) for batch, rank in ((64, 0), (100, 1)))
    rows = one.validation_rows(300)[:]
    one.batch(5)
    assert_same(rows, one.validation_rows(300)[:])
    assert_same(rows, other.validation_rows(300)[:])
    assert not torch.equal(rows["q"], OnlineSource(panda, 64, seed=4).validation_rows(300).q)
    assert (rows["t"] >= rows["r"]).all()


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [({"coupling": "magic"}, "coupling"), ({"sigma": 0.0}, "sigma"), ({"epoch_rows": 10}, "10 rows")],
)
def test_bad_online_arguments_are_named(panda, kwargs, name):
    with pytest.raises(ArgumentError, match=name):
        OnlineSource(panda, 64, seed=0, **kwargs)
    with pytest.raises(ArgumentError, match="num_samples"):
        OnlineSource(panda, 64, seed=0).validation_rows(0)
