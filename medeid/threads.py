"""Work outside of the networks that several threads share: OpenCV and NumPy let each other calculate meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Calls a function for each of some items, in as many threads as torch calculates in.

    Args:
        function (`Callable`):
            It may run several times at once. Torch's switches, such as `torch.no_grad`, do not reach it.
        items (`Sequence`):
            What it is called with.

    Returns:
        `list`: its results, in the order of the items.

    Raises:
        What the function raises first, by the order of the items.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
