"""Who times the points: processes of this machine, or a Ray cluster. Rows come as they are done."""

from __future__ import annotations

import logging
import multiprocessing
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlavm.support.errors import DlavmError
from dlavm.sweep.grid import Point, Row, row_of
from dlavm.sweep.point import measured

REACH_S = 5.0
IN_FLIGHT = 4  # points that a processor of a cluster has before it


def on_processes(points: Sequence[Point], jobs: int) -> Iterator[Row]:
    """A row for each point, `jobs` at a time. A point whose process dies has a row that says so."""
    left = list(points)
    while left:
        done: set[Point] = set()
        for point, row in _pool(left, jobs):
            done.add(point)
            yield row
        left = [point for point in left if point not in done]
        for point in left[:jobs]:  # one of them it was: each in a pool of its own
            found = list(_pool([point], 1))
            yield found[0][1] if found else row_of(point, {"error": "its process died: out of memory, or killed"})
        left = left[jobs:]


def _pool(points: Sequence[Point], jobs: int) -> Iterator[tuple[Point, Row]]:
    """What a pool has done until a process of it died, or all."""
    pool = ProcessPoolExecutor(min(jobs, len(points)), mp_context=multiprocessing.get_context("spawn"))
    try:
        futures: dict[Future[Row], Point] = {pool.submit(_unless_stopped, measured, point): point for point in points}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_is_stopped = False  # of a process of the pool


def _unless_stopped(measure: Callable[[Point], Row], point: Point) -> Row:
    """Ctrl-C reaches every process of a terminal; without this one would go on with the points in its queue."""
    global _is_stopped
    try:
        if not _is_stopped:
            return measure(point)
    except KeyboardInterrupt:
        _is_stopped = True
    raise KeyboardInterrupt


def on_ray(points: Sequence[Point], address: str) -> Iterator[Row]:
    """The same on a Ray cluster: at HOST:PORT, `auto` for the one that runs here, `local` for one of this process. Its
    machines need dlavm and the model at the same path. Raises DlavmError without ray or a cluster."""
    ray = _ray()
    try:
        _reach(address)
        ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False,
                 logging_level=logging.ERROR)  # fmt: skip
    except Exception as error:  # of many kinds
        found = str(error) or type(error).__name__
        raise DlavmError(f"--ray: expected a cluster at {address!r}, got {found}") from None
    try:
        yield from _rows(ray, points)
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT; ray would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


def _rows(ray: Any, points: Sequence[Point]) -> Iterator[Row]:
    remote = ray.remote(max_retries=0)(measured)
    most = IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting, running = list(reversed(points)), dict[Any, Point]()
    while waiting or running:
        while waiting and len(running) < most:
            point = waiting.pop()
            # A worker has another working directory.
            running[remote.remote(replace(point, model=str(Path(point.model).resolve())))] = point
        done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            point = running.pop(reference)
            try:
                yield {**ray.get(reference), "model": point.model}
            except Exception as error:  # the worker died
                yield row_of(point, {"error": f"ray: {type(error).__name__}: {error}"})


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise DlavmError("--ray: expected the package ray, got none; pip install 'dlavm[ray]' has it") from None
    return ray
