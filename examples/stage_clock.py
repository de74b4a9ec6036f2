"""Where the time of a call goes: into which stage, and there into networks or into what is around them."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import cv2
from torch import nn

import medeid.diffusion
import medeid.pipeline
from medeid import MedicalDeIDPipeline
from medeid.faces.detection import CenterFaceDetector

OTHER = "open, give back"
# Methods of the pipeline by stage; then functions, by the module that calls them. What is called within another stage
# is taken out of that one.
METHODS = {
    "find_faces": "align, landmarks",
    "mark_holes": "align, landmarks",
    "read_manifestations": "read signs",
    "plan_preservation": "read signs",
    "embed_sources": "embed, draw surrogate",
    "draw_surrogate": "embed, draw surrogate",
    "generate": "denoise",
    "keep_shapes": "set shapes",
    "fit_masks": "set shapes",
    "match_tones": "paste, match colour",
    "paste_all": "paste, match colour",
    "blur": "paste, match colour",
    "verify": "verify",
    "verify_blurred": "verify",
}
FUNCTIONS = {
    (medeid.pipeline, "detect_faces"): "detect",
    (medeid.diffusion, "encode_images"): "encode",
    (medeid.diffusion, "decode_latents"): "decode",
    (medeid.pipeline, "keep_geometry"): "set shapes",
}
STAGES = (
    "detect",
    "align, landmarks",
    "read signs",
    "embed, draw surrogate",
    "encode",
    "denoise",
    "decode",
    "set shapes",
    "paste, match colour",
    "verify",
    OTHER,
)


class StageClock:
    """Adds up seconds. Each moment counts once: for the innermost stage, and for a network if one is running."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begins anew, in no stage."""
        self._seconds: dict[tuple[str, bool], float] = defaultdict(float)
        self._stages, self._depth, self._since = [OTHER], 0, time.perf_counter()

    def read(self) -> dict[str, dict[str, float]]:
        """Seconds since the start, by stage: in `networks`, and in what is around them (`own`)."""
        self._lap()
        return {stage: {"networks": self._seconds[stage, True], "own": self._seconds[stage, False]} for stage in STAGES}

    def _lap(self) -> None:
        now = time.perf_counter()
        self._seconds[self._stages[-1], self._depth > 0] += now - self._since
        self._since = now

    def in_stage(self, stage: str, function: Callable) -> Callable:
        """The function, whose time goes to a stage."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._lap()
            self._stages.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self._lap()
                self._stages.pop()

        return timed

    def enter_network(self, *_: Any) -> None:
        """To be called before a network, or a part of one, runs."""
        if self._depth == 0:
            self._lap()
        self._depth += 1

    def leave_network(self, *_: Any) -> None:
        """To be called after it has run."""
        if self._depth == 1:
            self._lap()
        self._depth -= 1


class _TimedNet:
    """A network of OpenCV, whose passes are timed."""

    def __init__(self, net: cv2.dnn.Net, clock: StageClock):
        self._net, self._clock = net, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

    def forward(self, *args: Any) -> Any:
        self._clock.enter_network()
        try:
            return self._net.forward(*args)
        finally:
            self._clock.leave_network()


@contextmanager
def watch(pipeline: MedicalDeIDPipeline) -> Iterator[StageClock]:
    """Times the stages and networks of a pipeline's calls inside the block; the results are the same.

    Networks are the forward passes of every torch module of the components, the recognizers and the detectors, and
    those of the detectors' OpenCV networks. All else is `own`, what other packages do around their networks, too.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            On a CPU: a GPU is not waited for.
    """
    clock = StageClock()
    with ExitStack() as stack:
        parts = [*pipeline.components.values(), *(recognizer.network for recognizer in pipeline.recognizers)]
        for detector in pipeline.detectors:
            for network in detector._idle if isinstance(detector, CenterFaceDetector) else [detector._network]:
                parts.append(network)
                if isinstance(net := getattr(network, "net", None), cv2.dnn.Net):
                    stack.enter_context(patch.object(network, "net", _TimedNet(net, clock)))
        for module in {module for part in parts if isinstance(part, nn.Module) for module in part.modules()}:
            stack.callback(module.register_forward_pre_hook(clock.enter_network).remove)
            stack.callback(module.register_forward_hook(clock.leave_network, always_call=True).remove)
        staged = {(pipeline, name): stage for name, stage in METHODS.items()} | FUNCTIONS
        for (owner, name), stage in staged.items():
            stack.enter_context(patch.object(owner, name, clock.in_stage(stage, getattr(owner, name))))
        yield clock
