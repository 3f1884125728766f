"""Blocks of work on the threads of this process, or on the machines of a Ray cluster."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from mfik import __version__
from mfik.errors import ArgumentError, ClusterError, DataError
from mfik.writing import make_folder, whole_file

_T = TypeVar("_T")
_B = TypeVar("_B", bound=tuple)
_Answers: TypeAlias = Generator[tuple[int, _T], None, None]
_AHEAD = 2  # blocks handed out for each that is being worked at
_RETRIES = 3  # of a block whose worker was lost


def run_blocks(
    work: Callable[[int], _T], blocks: Sequence[int], *, threads: int = 0, ray: str | None = None
) -> _Answers[_T]:
    """Do work block by block and yield each answer with its block, as soon as it is there.

    A block that is lost with its worker is done anew by another. Closing the iterator, or an exception, Ctrl-C
    included, ends the work once the blocks under way here are done; those under way on the cluster are left.

    Args:
        work: What is done: a pure function that releases Python's lock, and that can be pickled where Ray runs it.
        blocks: Numbers of the blocks.
        threads: Threads of this process; 0: one for each core.
        ray: Address of a Ray cluster, "auto" for the one that this machine belongs to, "local" to start one here; None:
            this process.

    Raises:
        ArgumentError: There is no cluster at the address.
        ClusterError: A block was lost with its worker again and again.
        ImportError: Ray is not installed (extra `cluster`).
    """
    return _on_threads(work, blocks, threads or _cores()) if ray is None else _on_ray(work, blocks, ray)


def all_blocks(
    work: Callable[[int], _B],
    number: int,
    kind: type[_B],
    *,
    folder: Path | None = None,
    threads: int = 0,
    ray: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[_B]:
    """Do work block by block, and return the answers in the order of their blocks.

    Args:
        work: As of `run_blocks`; its answers are NamedTuples of arrays, None where there is none.
        number: Number of blocks.
        kind: Type of the answers.
        folder: Keeps the answer to each block from when it is there, and those that it has are not computed again;
            default memory.
        threads: As of `run_blocks`; so is ray.
        ray: See threads.
        progress: Called with the number of blocks that are done and of all.

    Raises:
        DataError: A file of the folder cannot be read.
        WriteError: The folder cannot be written.
    """
    answers: dict[int, _B] = {}
    done: set[int] = set()
    if folder is not None:
        make_folder(folder)
        done = {block for block in range(number) if _file(folder, block).is_file()}
    if progress is not None:
        progress(len(done), number)
    missing = [block for block in range(number) if block not in done]
    with closing(run_blocks(work, missing, threads=threads, ray=ray)) as found:
        for block, answer in found:
            if folder is None:
                answers[block] = answer
            else:
                _write(_file(folder, block), answer)
            done.add(block)
            if progress is not None:
                progress(len(done), number)
    return (answers.pop(i) if folder is None else _read(_file(folder, i), kind) for i in range(number))


def _file(folder: Path, block: int) -> Path:
    return folder / f"{block:08d}.npz"


def _write(file: Path, answer: Any) -> None:
    data = io.BytesIO()
    np.savez(data, **{name: value for name, value in answer._asdict().items() if value is not None})
    with whole_file(file) as target:
        target.write(data.getbuffer())


def _read(file: Path, kind: type[_B]) -> _B:
    try:
        with np.load(file, allow_pickle=False) as data:
            fields: Any = kind
            return fields(**{name: data[name] if name in data else None for name in fields._fields})
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: a block that cannot be read ({error}); remove it, and continue") from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _on_threads(work: Callable[[int], _T], blocks: Sequence[int], threads: int) -> _Answers[_T]:
    rest = iter(blocks)
    with ThreadPoolExecutor(threads) as pool:
        under_way: dict[Future[_T], int] = {}
        try:
            while True:
                for block in islice(rest, _AHEAD * threads - len(under_way)):
                    under_way[pool.submit(work, block)] = block
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(future), future.result()
        finally:
            for future in under_way:
                future.cancel()


def _on_ray(work: Callable[[int], _T], blocks: Sequence[int], address: str) -> _Answers[_T]:
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"ray: it is not installed ({error}); pip install 'mfik[cluster]'") from None
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                f"ray: expected the address of a cluster, 'auto' or 'local', got {address!r} ({error}); start one with "
                "ray start --head"
            ) from error
    try:
        task: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_on_worker)
        shared = ray.put(work)
        rest = iter(blocks)
        under_way: dict[Any, int] = {}
        while True:
            cores = int(ray.cluster_resources().get("CPU", 1))
            for block in islice(rest, max(0, _AHEAD * cores - len(under_way))):
                under_way[task.remote(shared, block, __version__)] = block
            if not under_way:
                return
            for done in ray.wait(list(under_way), num_returns=1)[0]:
                block = under_way.pop(done)
                try:
                    answer = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    raise ClusterError(
                        f"block {block}: lost with its worker {_RETRIES + 1} times ({type(error).__name__}); look at "
                        "the workers' memory (ray status), and start again"
                    ) from error
                yield block, answer
    finally:
        if started:
            ray.shutdown()


def _on_worker(work: Callable[[int], _T], block: int, version: str) -> _T:
    if version != __version__:
        raise ClusterError(f"ray: expected workers with mfik {version}, got {__version__}; install the same everywhere")
    return work(block)
