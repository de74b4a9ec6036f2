"""Photos on the machines of a Ray cluster: each worker has a model, and one that dies is started anew.

Ray keeps logs and tables that others can read. Names, paths, pseudonyms and keys travel only as arguments of calls,
which go from the driver to a worker and are kept by neither the head of the cluster nor the object store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ..processes import use_one_thread
from .batch import Deidentifier, FileRecord, FileResult
from .sources import PhotoFile

RETRIES = 2  # of a photo on which a worker has died
_MOST_LOST = 3  # photos one after the other on which workers die: then it is not the photos
_OBJECT_STORE = 100 << 20  # bytes, nearly Ray's least: nothing is put there


class RayEngineError(RuntimeError):
    """There is no cluster to work on. The message says why and what to do."""


def check_ray(device: str) -> None:
    """Tells what can be told before there is a cluster.

    Args:
        device (`str`):
            Of the workers.

    Raises:
        `RayEngineError`: Ray is not installed, or the device is none that Ray gives out.
    """
    if find_spec("ray") is None:
        raise RayEngineError("Ray is not installed; pip install medeid[ray]")
    if device.startswith("cuda:"):
        raise RayEngineError(f"gives each worker a GPU of its own, but --device {device} names one; give --device cuda")


def deidentify_on_ray(
    photos: Sequence[PhotoFile], out: Path, options: dict[str, Any], workers: int | None = None
) -> Iterator[tuple[PhotoFile, FileResult]]:
    """De-identifies photos on the cluster at `RAY_ADDRESS`, or else on one that it starts on this machine.

    Every worker has one thread, so that the results do not depend on how many there are.

    Args:
        photos (`Sequence[PhotoFile]`):
            The photos; every machine must have them under the same path.
        out (`Path`):
            Folder of the results, likewise.
        options (`dict[str, Any]`):
            Of [`Deidentifier`].
        workers (`int`, *optional*):
            One a core by default, or, on `cuda`, one a GPU.

    Yields:
        `tuple[PhotoFile, FileResult]`: in the order in which they are done. A photo on which workers die again and
        again is unusable.

    Raises:
        `RayEngineError`: there is no cluster any more, or none with what the device needs.
        `OSError`, `ValueError`, `RuntimeError`: the model cannot be loaded.
        `BrokenExecutor`: workers die whatever they do.
    """
    if not photos:
        return
    check_ray(options["device"])
    on_gpu = options["device"] == "cuda"
    with _cluster(workers) as ray:
        there = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0))
        if there == 0:
            raise RayEngineError(f"Ray's cluster has no {'GPU' if on_gpu else 'CPU'}; add a machine, or give --device")
        # Plain actors, not Ray Data: that one puts a constructor's arguments, the key, into the object store.
        start = ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_restarts=-1, max_task_retries=RETRIES)(_Worker)
        pool = [start.remote() for _ in range(min(workers or there, len(photos)))]
        yield from _spread(ray, pool, photos, out.absolute(), {**options, "model": _everywhere(options["model"])})


def _spread(
    ray: ModuleType, pool: list[Any], photos: Sequence[PhotoFile], out: Path, options: dict[str, Any]
) -> Iterator[tuple[PhotoFile, FileResult]]:
    """Gives a worker its next photo when it has done one: nothing waits but on this side."""
    left = iter(photos)
    running: dict[Any, tuple[Any, PhotoFile | None]] = {worker.load.remote(options): (worker, None) for worker in pool}
    undone, lost = len(photos), 0
    while undone:  # a worker for which the cluster has no room is not waited for
        (done,), _ = ray.wait(list(running), num_returns=1)
        worker, photo = running.pop(done)
        try:
            result, lost = ray.get(done), 0
        except ray.exceptions.RayActorError:
            lost += 1
            if photo is None or lost == _MOST_LOST:
                raise BrokenExecutor("workers die on every photo") from None
            reason = f"a worker died on it {1 + RETRIES} times; is there memory enough?"
            result = FileResult(FileRecord(photo.index, "unusable"), reason)
        except ray.exceptions.RayError as error:
            raise RayEngineError(f"Ray failed ({type(error).__name__}); the same command goes on") from None
        if isinstance(result, Exception):
            raise result
        coming = next(left, None)
        if coming is not None:
            running[worker.run.remote(_absolute(coming), out, options)] = worker, coming
        if photo is not None:
            undone -= 1
            yield photo, result


class _Worker:
    """A model in a process of its own, which is loaded by the first call: the head keeps what a constructor is given.

    Errors are returned, as Ray logs those that are raised, and nothing is printed, as Ray keeps it in files: what a
    library prints may hold a name.
    """

    def __init__(self) -> None:
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(silence, stream.fileno())
        for descriptor in (1, 2):
            os.dup2(silence, descriptor)
        use_one_thread()
        self._deidentifier: Deidentifier | None = None

    def load(self, options: dict[str, Any]) -> Exception | None:
        try:
            self._deidentifier = self._deidentifier or Deidentifier(**options)
        except Exception as error:  # whatever it is, the driver raises it
            return error
        return None

    def run(self, photo: PhotoFile, out: Path, options: dict[str, Any]) -> FileResult | Exception:
        failure = self.load(options)  # again, where the worker was started anew
        if failure is not None:
            return failure
        assert self._deidentifier is not None
        try:
            return self._deidentifier.run(photo, out)
        except Exception as error:  # likewise
            return error


@contextlib.contextmanager
def _cluster(workers: int | None) -> Iterator[ModuleType]:
    """Ray, connected to a cluster, that tells nobody of it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {}
    if address is None:
        # Its ports are open to the network, and whoever may call them may run code.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        settings = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    import ray
    import ray.exceptions

    try:
        with _no_command_line():
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:  # of many kinds
        raise RayEngineError(f"Ray cannot be started or reached ({error}); look at RAY_ADDRESS") from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _no_command_line() -> Iterator[None]:
    """Ray's table of jobs has the driver's command line, in which are paths and a pseudonym."""
    from ray._private import utils

    original = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "medeid"
    try:
        yield
    finally:
        utils.get_entrypoint_name = original


def _everywhere(model: str) -> str:
    """A model's folder as a path that does not hang on where a process was started; a name as it is."""
    return str(Path(model).absolute()) if Path(model).is_dir() else model


def _absolute(photo: PhotoFile) -> PhotoFile:
    mask = None if photo.mask is None else photo.mask.absolute()
    return replace(photo, source=photo.source.absolute(), mask=mask)
