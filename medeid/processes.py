"""Work that several processes share, each with one thread, so that its results do not hang on how many there are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for_handles
from typing import Any, TypeVar

import cv2
import torch

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")

_QUEUE_LENGTH = 4  # items a process that wait; more would only take memory


def share_out(
    function: Callable[[State, Item], Result], state: State, items: Iterable[Item], jobs: int
) -> Generator[Result]:
    """Calls `function(state, item)` for all items in several processes, and gives each result as soon as it is there.

    Args:
        function (`Callable`):
            A function of a module, which the processes import.
        state (`Any`):
            What all calls need. It is pickled once for each process.
        items (`Iterable`):
            Pickled, too.
        jobs (`int`):
            Number of processes.

    Raises:
        `BrokenExecutor`: a process died.
    """
    # Spawned, since a fork of a process that has run torch may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(function, state)) as pool:
        try:
            todo = iter(items)
            with _one_thread_a_process():
                pending = [pool.submit(_call, item) for item in islice(todo, jobs * _QUEUE_LENGTH)]
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                ready = [future for future in pending if future in done]  # in the order of the items
                pending = [future for future in pending if future not in done]
                pending += [pool.submit(_call, item) for item in islice(todo, len(done))]
                for future in ready:
                    yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _one_thread_a_process() -> Iterator[None]:
    """Processes started meanwhile calculate with one thread each: sums over several may differ in the last bit."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def use_one_thread() -> None:
    """This process calculates with one thread from now on."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """This process calculates with one thread, as those of [`share_out`] do, and so with the same result."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    use_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


_shared: tuple[Callable[[Any, Any], Any], Any]


def _start(function: Callable[[Any, Any], Any], state: Any) -> None:
    global _shared
    _shared = function, state
    use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Ends this process when its parent was killed; a worker of a pool would wait for ever (cpython issue 111873)."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_handles([parent.sentinel])
        os._exit(1)


def _call(item: Any) -> Any:
    function, state = _shared
    return function(state, item)
