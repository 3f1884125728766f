"""Blocks of work on the threads of this process, or on the machines of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from mfik import __version__
from mfik.errors import ArgumentError, ClusterError

_T = TypeVar("_T")
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
