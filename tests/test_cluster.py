"""Blocks of work on threads and on a Ray cluster."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from mfik.cli.program import main
from mfik.cluster import run_blocks
from mfik.errors import ArgumentError
from mfik.reach import ReachMap, ReachSettings, map_reach


def test_every_block_is_done_once_and_errors_come_through():
    assert dict(run_blocks(lambda block: block**2, range(2, 50), threads=3)) == {n: n**2 for n in range(2, 50)}
    assert list(run_blocks(lambda block: block, [], threads=1)) == []

    def fails(block):
        if block == 5:
            raise ArgumentError("block: five")
        return block

    with pytest.raises(ArgumentError, match="five"):
        list(run_blocks(fails, range(20), threads=2))


def test_no_more_blocks_are_begun_than_are_needed():
    begun, lock = [], threading.Lock()

    def work(block):
        with lock:
            begun.append(block)
        return block

    answers = run_blocks(work, range(1000), threads=2)
    assert next(answers)[0] in (0, 1, 2, 3)
    answers.close()
    assert len(begun) <= 4


def ancestors(pid):
    """Yield the process, its parent and so on, as long as they live."""
    while pid > 1:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            return


def workers_at_work():
    """Return the workers of this process's cluster that have a block under way: Ray names processes by their task."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith(b"ray::_on_worker") and os.getpid() in ancestors(int(folder.name)):
            found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_map_of_one_process(panda, tmp_path, monkeypatch):
    import ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with pytest.raises(ArgumentError, match="ray: expected the address of a cluster"):
        list(run_blocks(abs, [1], ray="auto"))
    settings = ReachSettings(resolution=0.08, orientations=12)
    expected = map_reach(panda, settings)
    killed = []

    def kill_one(done, blocks):
        if done >= 2 and not killed and (pids := workers_at_work()):
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = map_reach(panda, settings, output=tmp_path, ray="auto", progress=kill_one)
        np.savez(tmp_path / "poses.npz", poses=panda.fk(panda.sample(50_000, np.random.default_rng(0))))
        for name, more in (("here.npz", ()), ("there.npz", ("--ray", "auto"))):
            words = ["mfik", "solve", "panda", "--poses", tmp_path / "poses.npz", "--output", tmp_path / name, *more]
            monkeypatch.setattr("sys.argv", [str(word) for word in words])
            main()
    finally:
        ray.shutdown()
    assert killed
    here, there = np.load(tmp_path / "here.npz"), np.load(tmp_path / "there.npz")
    assert set(here) == set(there) and all(np.array_equal(here[name], there[name]) for name in here)
    for one in (found, ReachMap.load(tmp_path / "reach.npz")):
        for name in ("status", "manipulability_best", "manipulability_mean"):
            np.testing.assert_array_equal(getattr(one, name), getattr(expected, name))
