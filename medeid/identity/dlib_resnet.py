"""dlib's face recognition ResNet in torch, so that it can serve as a differentiable loss.

The weights are dlib's `dlib_face_recognition_resnet_model_v1.dat` (CC0), the architecture is `anet_type` of
dlib's example `dnn_face_recognition_ex.cpp`: the ResNet-34 of He et al., "Deep Residual Learning for Image
Recognition" (https://huggingface.co/papers/1512.03385), with half the filters and fewer layers.
"""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CHIP_SIZE = 150
DESCRIPTOR_DIM = 128
MIN_FEATURE_SIZE = 64

# dlib's `input_rgb_image_sized`: mean colour of the training chips and the divisor, on the scale 0..255.
_MEAN_RGB = (122.782, 117.001, 104.298)
_DIVISOR = 256.0

# (filters, stride) of the residual blocks from the input to the output. A stride of 2 is dlib's `ares_down`.
_LEVELS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((32, 1), (32, 1), (32, 1)),
    ((64, 2), (64, 1), (64, 1), (64, 1)),
    ((128, 2), (128, 1), (128, 1)),
    ((256, 2), (256, 1), (256, 1)),
    ((256, 2),),
)

# A serialised layer opens with its name as a dlib string (size of the length, length, characters).
# Only these layers hold weights.
_WEIGHTED_LAYER = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")
_FC_LAYER = b"\x01\x04fc_2"
_TENSOR_VERSION = 2


def find_dlib_weights() -> Path:
    """Finds `dlib_face_recognition_resnet_model_v1.dat` in the installed `face_recognition_models` wheel.

    The wheel is located without being imported, because its import needs `pkg_resources`, which current
    releases of setuptools no longer have.

    Returns:
        `Path`: The file of the weights.

    Raises:
        FileNotFoundError: If the wheel is not installed or lacks the file.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / "models" / "dlib_face_recognition_resnet_model_v1.dat"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "The weights of dlib's recognizer are missing: run `pip install face_recognition_models`, or pass `weights`."
    )


def read_dlib_tensors(path: str | Path) -> list[np.ndarray]:
    """Reads the weight tensors of a serialised dlib network, from the input layer to the output layer.

    dlib writes an integer as one byte with the number of bytes that follow (and the sign in its top bit),
    then those bytes, little end first. A tensor is its version (2), its four dimensions and its values as
    little-endian float32.

    Args:
        path (`str` or `Path`):
            A `.dat` file of dlib whose weighted layers are `con_4`, `affine_` and `fc_2`.

    Returns:
        `list[np.ndarray]`: float32, each with its four dimensions as stored.

    Raises:
        ValueError: If the file ends within a tensor, or holds a tensor in another form.
    """
    data = Path(path).read_bytes()
    tensors: list[np.ndarray] = []
    position = 0
    while (layer := _WEIGHTED_LAYER.search(data, position)) is not None:
        position = layer.end()
        if layer.group() == _FC_LAYER:  # its numbers of outputs and inputs come before the tensor
            for _ in range(2):
                _, position = _read_int(data, position)
        tensor, position = _read_tensor(data, position)
        tensors.append(tensor)
    return tensors


def _read_bytes(data: bytes, position: int, count: int) -> tuple[bytes, int]:
    """Reads `count` bytes; returns them and the position behind them."""
    end = position + count
    if count < 0 or end > len(data):
        raise ValueError("The dlib file is truncated or damaged, as it ends within a tensor: fetch it anew.")
    return data[position:end], end


def _read_int(data: bytes, position: int) -> tuple[int, int]:
    """Reads one dlib integer; returns it and the position behind it."""
    head, position = _read_bytes(data, position, 1)
    digits, position = _read_bytes(data, position, head[0] & 0x7F)
    value = int.from_bytes(digits, "little")
    return (-value if head[0] & 0x80 else value), position


def _read_tensor(data: bytes, position: int) -> tuple[np.ndarray, int]:
    """Reads one dlib tensor; returns it and the position behind it."""
    version, position = _read_int(data, position)
    if version != _TENSOR_VERSION:
        raise ValueError(
            f"The dlib file holds a tensor of version {version}, but only version {_TENSOR_VERSION} can be "
            "read: save the network anew with a current dlib."
        )
    shape = []
    for _ in range(4):
        size, position = _read_int(data, position)
        shape.append(size)
    values, position = _read_bytes(data, position, 4 * math.prod(shape))
    return np.frombuffer(values, dtype="<f4").reshape(shape).astype(np.float32), position


class DlibResNet(nn.Module):
    """dlib's face recognition network: 29 convolutions, their `affine` layers folded in, and a linear head.

    [`~DlibResNet.from_dlib`] gives it dlib's weights; built directly, its weights are random.
    """

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN_RGB).view(1, 3, 1, 1) / 255.0, persistent=False)
        self.stem = nn.Conv2d(3, 32, kernel_size=7, stride=2)
        levels = []
        channels = 32
        for level in _LEVELS:
            blocks = []
            for filters, stride in level:
                blocks.append(_ResidualBlock(channels, filters, stride))
                channels = filters
            levels.append(nn.Sequential(*blocks))
        self.levels = nn.ModuleList(levels)
        self.head = nn.Linear(channels, DESCRIPTOR_DIM, bias=False)

    @classmethod
    def from_dlib(cls, path: str | Path) -> DlibResNet:
        """Builds the network with the weights of a dlib `.dat` file, frozen and in evaluation mode.

        Args:
            path (`str` or `Path`):
                `dlib_face_recognition_resnet_model_v1.dat`, or another file of the same architecture.

        Raises:
            ValueError: If the file is truncated or is of another architecture.
        """
        network = cls()
        network.load_dlib(read_dlib_tensors(path))
        # Convolutions on a CPU are about 15 % faster with the channels last.
        return network.to(memory_format=torch.channels_last).requires_grad_(False).eval()

    def load_dlib(self, tensors: list[np.ndarray]) -> None:
        """Fills in the weights from the tensors of [`read_dlib_tensors`].

        `affine` computes `gamma * x + beta` per channel, so it is folded into the convolution before it.

        Raises:
            ValueError: If the number of the tensors or the size of one does not fit the architecture.
        """
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        sizes = []
        for conv in convolutions:
            sizes += [conv.weight.numel() + conv.out_channels, 2 * conv.out_channels]
        sizes.append(self.head.weight.numel())
        found = [tensor.size for tensor in tensors]
        if found != sizes:
            raise ValueError(
                f"The dlib file holds {len(found)} weight tensors with {sum(found)} values, but dlib's "
                f"recognizer has {len(sizes)} with {sum(sizes)}: use the file that `find_dlib_weights` finds."
            )
        flat = [torch.from_numpy(tensor).flatten() for tensor in tensors]
        with torch.no_grad():
            for index, conv in enumerate(convolutions):
                filters, bias = flat[2 * index].split([conv.weight.numel(), conv.out_channels])
                gamma, beta = flat[2 * index + 1].chunk(2)
                conv.weight.copy_(filters.view_as(conv.weight) * gamma.view(-1, 1, 1, 1))
                assert conv.bias is not None  # for the type checker
                conv.bias.copy_(bias * gamma + beta)
            # dlib keeps the matrix as [inputs, outputs], torch its transpose.
            self.head.weight.copy_(flat[-1].view(self.head.in_features, self.head.out_features).T)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps for a perceptual loss (Johnson et al., https://huggingface.co/papers/1603.08155).

        The convolutions take any size; no alignment is done.

        Args:
            images (`torch.Tensor`):
                float [B, 3, H, W] in [0, 1], RGB, with H and W of at least 64. The network was trained on
                faces that fill a square of 150 px, so its features mean most at about that scale.

        Returns:
            `list[torch.Tensor]`: Five maps, each behind a ReLU, of 32, 32, 64, 128 and 256 channels. Their
            sides are about 1/2, 1/4, 1/8, 1/16 and 1/32 of those of `images`, and a little less as the
            network hardly pads: 72, 35, 17, 8 and 4 for 150.

        Raises:
            ValueError: If `images` has another form or is too small.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"`images` must be a float tensor [B, 3, H, W] in [0, 1], got {images.dtype} {list(images.shape)}."
            )
        if min(images.shape[2:]) < MIN_FEATURE_SIZE:
            raise ValueError(
                f"`images` must be at least {MIN_FEATURE_SIZE} px high and wide, got "
                f"{list(images.shape[2:])}: resize them."
            )
        maps = [F.relu(self.stem((images - self.mean) * (255.0 / _DIVISOR)))]
        hidden = F.max_pool2d(maps[0], kernel_size=3, stride=2)
        for level in self.levels[:-1]:
            hidden = level(hidden)
            maps.append(hidden)
        return maps

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        """Describes aligned faces.

        Args:
            chips (`torch.Tensor`):
                float [B, 3, 150, 150] in [0, 1], RGB, aligned as dlib's `get_face_chip(..., size=150,
                padding=0.25)` does.

        Returns:
            `torch.Tensor`: float [B, 128], dlib's descriptor. Its norm is about 1.3 to 1.7, and dlib's
            thresholds apply to the Euclidean distance of two of them.

        Raises:
            ValueError: If `chips` has another form or size.
        """
        if chips.ndim != 4 or tuple(chips.shape[1:]) != (3, CHIP_SIZE, CHIP_SIZE):
            raise ValueError(f"`chips` must be [B, 3, {CHIP_SIZE}, {CHIP_SIZE}], got {list(chips.shape)}.")
        hidden = self.levels[-1](self.features(chips)[-1])
        return self.head(hidden.mean(dim=(2, 3)))


class _ResidualBlock(nn.Module):
    """dlib's `ares` (stride 1) or `ares_down` (stride 2): two convolutions and a shortcut without weights."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        # dlib pads a convolution only if its stride is 1.
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.stride = stride

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        residual = self.conv2(F.relu(self.conv1(hidden)))
        if self.stride == 1:
            return F.relu(residual + hidden)
        # `add_prev` adds tensors of unequal size by filling up each with zeros at its end, in every
        # dimension: the shortcut lacks channels, and the unpadded convolution may lack a row and a column.
        shortcut = F.avg_pool2d(hidden, kernel_size=2, stride=2)
        size = [max(a, b) for a, b in zip(residual.shape[1:], shortcut.shape[1:], strict=True)]
        return F.relu(_fill_up(residual, size) + _fill_up(shortcut, size))


def _fill_up(tensor: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Zeros at the end of the channels, rows and columns of `tensor` [B, C, H, W] up to `size` (C, H, W)."""
    channels, height, width = (wanted - have for wanted, have in zip(size, tensor.shape[1:], strict=True))
    return F.pad(tensor, (0, width, 0, height, 0, channels))
