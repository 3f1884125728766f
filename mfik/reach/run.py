"""A map of reach, block by block: here or on a cluster, begun or continued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mfik import __version__
from mfik.cluster import all_blocks
from mfik.collision import World
from mfik.errors import ArgumentError, DataError
from mfik.reach.block import Block, ReachStatus, ReachTask
from mfik.reach.grid import Grid
from mfik.reach.result import REACH_FORMAT, ReachMap
from mfik.reach.settings import ReachSettings
from mfik.robots import Robot
from mfik.writing import make_folder, whole_file

RECORD_FILE, MAP_FILE = "reach.json", "reach.npz"  # of a folder; the record says what the map was asked with
BLOCKS_FOLDER = "blocks"  # answers to the blocks, until the map is whole
_POSE_BYTES = 5  # status and manipulability
_POSITION_BYTES = 24  # best and mean manipulability, and what computes them


def map_reach(
    robot: Robot,
    settings: ReachSettings | None = None,
    *,
    world: World | None = None,
    output: Path | None = None,
    command: Sequence[str] = (),
    threads: int = 0,
    ray: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> ReachMap:
    """Find out which poses of a grid a robot reaches.

    A pose is reached where the solver brings the tool there within the tolerances and the joint limits, free of
    collision where that is asked for: each such answer is checked by forward kinematics. Others are beyond what the
    links' lengths allow, or no attempt succeeded (docs/how-to/reach.md tells how often that is wrong).

    The same robot, settings and world give the same map, bit for bit, on processors of one instruction set, whatever
    the number of threads or machines.

    Args:
        robot: The robot.
        settings: The grid, and what answers keep to; default `ReachSettings()`.
        world: Shapes in the base frame; needs a robot with spheres.
        output: Folder that keeps what is done, block by block, and the map, `reach.npz`, in the end. Begun with the
            same robot, settings and world, it is continued; default nothing is kept.
        command: What begins the map, for the folder's record.
        threads: Threads to use here; 0: one for each core.
        ray: Address of a Ray cluster to use instead, "auto" or "local", see `mfik.cluster.run_blocks`.
        progress: Called with the number of blocks done and of all.

    Raises:
        ArgumentError: A setting does not suit the robot, the grid does not fit into memory, or the folder holds
            another map.
        ClusterError: A cluster's workers are lost again and again.
        ImportError: Ray is asked for, and not installed.
        RobotError: Collision is asked for, and the robot has no spheres.
        WriteError: The folder cannot be written.
    """
    task = ReachTask(robot, settings or ReachSettings(), world)
    check_memory(task.grid)
    record = document(task)
    kept = None
    if output is not None:
        _begin(output, record, command)
        kept = output / BLOCKS_FOLDER
    blocks = all_blocks(
        task, task.grid.blocks, Block, folder=kept, threads=threads, ray=ray, progress=progress
    )  # fmt: skip
    found = _assemble(task, blocks)
    if output is not None:
        found.save(output / MAP_FILE)
        shutil.rmtree(output / BLOCKS_FOLDER)
    return found


class Record(NamedTuple):
    """What a folder's map was begun with."""

    robot: Robot
    settings: ReachSettings
    world: World | None
    command: list[str]


def read_record(output: Path) -> Record:
    """Read from a folder's record what continues its map.

    Raises:
        ArgumentError: The folder holds no map, or a whole one.
        DataError: Its record is damaged.
    """
    if (output / MAP_FILE).is_file():
        raise ArgumentError(f"--resume {output}: nothing is left to do, {output / MAP_FILE} is complete")
    try:
        record = json.loads((output / RECORD_FILE).read_text())
        world = None if record["world"] is None else World.from_dicts(record["world"])
        robot, settings = Robot.from_dict(record["robot"]), ReachSettings(**record["settings"])
        return Record(robot, settings, world, record["command"])
    except FileNotFoundError:
        raise ArgumentError(f"--resume {output}: holds no map of reach (no {RECORD_FILE}); start one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{output / RECORD_FILE}: not the record of a map of reach ({error}); start anew") from error


def document(task: ReachTask) -> dict[str, Any]:
    """Return what a map is asked with, as JSON has it."""
    given = {
        "format": "mfik-reach",
        "version": REACH_FORMAT,
        "mfik": __version__,
        "robot": task.robot.to_dict(),
        "settings": task.settings.to_dict(),
        "world": None if task.world is None else task.world.to_dicts(),
    }
    return json.loads(json.dumps(given))


def needed_bytes(grid: Grid) -> int:
    """Return the memory that a map of a grid takes."""
    return _POSE_BYTES * grid.poses + _POSITION_BYTES * grid.positions


def check_memory(grid: Grid) -> None:
    """Raise ArgumentError where a grid's map does not fit into the memory that is free."""
    needed, free = needed_bytes(grid), _free_bytes()
    if needed > free:
        raise ArgumentError(
            f"resolution: expected a grid that fits into {free / 1e9:.1f} GB of memory, got {grid.resolution:g} m: "
            f"{grid.poses:,} poses at {grid.positions:,} positions, {needed / 1e9:,.1f} GB; give a larger resolution, "
            "fewer orientations, or a box"
        )


def _free_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return float("inf")


def _begin(output: Path, record: dict[str, Any], command: Sequence[str]) -> None:
    """Write the record of a new map, or check that the folder's is the same."""
    make_folder(output)
    file = output / RECORD_FILE
    if not file.is_file():
        with whole_file(file) as target:
            target.write((json.dumps({**record, "command": list(command)}, indent=1) + "\n").encode())
        return
    try:
        kept = json.loads(file.read_text())
        same = {name: kept[name] for name in record} == record
    except (ValueError, KeyError, TypeError):
        same = False
    if not same or (output / MAP_FILE).exists():
        raise ArgumentError(f"output: {output} holds another map, or a whole one; give another folder")


def _assemble(task: ReachTask, blocks: Iterator[Block]) -> ReachMap:
    """Return the map of all blocks, given in their order."""
    grid = task.grid
    status = np.zeros((grid.orientations, *grid.shape), np.uint8)
    best, total = np.zeros(grid.shape, np.float32), np.zeros(grid.shape)
    for index, block in enumerate(blocks):
        orientation, layers = grid.block(index)
        status[orientation, layers] = block.status
        reached = np.where(block.status == ReachStatus.REACHED, block.manipulability, np.float32(0.0))
        np.maximum(best[layers], reached, out=best[layers])
        total[layers] += reached
    number = (status == ReachStatus.REACHED).sum(axis=0)
    mean = (total / np.maximum(number, 1)).astype(np.float32)
    return ReachMap(*grid.axes(), task.settings.quaternions, status, best, mean, document(task))
