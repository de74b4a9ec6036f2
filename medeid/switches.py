"""What users of diffusers switch on to save time and memory, with an adapter inside the UNet that owns its weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import is_xformers_available

Call = TypeVar("Call", bound=Callable[..., Any])


def on_one_device(call: Call) -> Call:
    """A method of a pipeline that asks once where it runs: diffusers goes through all modules for the answer."""

    @functools.wraps(call)
    def decorated(self: SpeedSwitches, *args: Any, **kwargs: Any) -> Any:
        before = self._device_of_call
        self._device_of_call = self._execution_device
        try:
            return call(self, *args, **kwargs)
        finally:
            self._device_of_call = before

    return decorated  # type: ignore[return-value]


class SpeedSwitches(DiffusionPipeline):
    """A pipeline whose UNet has an [`IdentitySuppressionAdapter`] attached, which each switch leaves as it is."""

    _device_of_call: torch.device | None = None

    @property
    def _execution_device(self) -> torch.device:
        return self._device_of_call or super()._execution_device

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: Callable | None = None) -> None:
        """As of any pipeline (by `enable_xformers_memory_efficient_attention`), and the adapter keeps its own weights.

        Args:
            valid (`bool`):
                Whether attention is calculated by xformers, or by torch's SDPA, which is the default.
            attention_op (`Callable`, *optional*):
                One of xformers' operators, instead of its own choice.

        Raises:
            ModuleNotFoundError: xformers is not installed.
            ValueError: there is no NVIDIA GPU.
        """
        if valid and not is_xformers_available():
            raise ModuleNotFoundError(
                "xformers is not installed: `pip install medeid[xformers]`, or leave it out, as torch's own attention "
                "(the default) saves as much memory.",
                name="xformers",
            )
        if valid and not torch.cuda.is_available():
            raise ValueError("xformers needs an NVIDIA GPU. Leave it out: torch's own attention is the default.")
        with self._plain_unet():
            super().set_use_memory_efficient_attention_xformers(valid, attention_op)

    def set_attention_slice(self, slice_size: int | str | None) -> None:
        """As of any diffusers pipeline (by `enable_attention_slicing`); attention to the few tokens stays whole.

        Args:
            slice_size (`int` or `str`):
                See `DiffusionPipeline.enable_attention_slicing`; None for no slices.
        """
        with self._plain_unet():
            super().set_attention_slice(slice_size)

    @contextmanager
    def _plain_unet(self) -> Iterator[None]:
        """The UNet without the adapter inside the block, for what would save, copy or drop its weights there."""
        self.identity_adapter.detach(self.unet)
        try:
            yield
        finally:
            self.identity_adapter.attach(self.unet)
