"""Train the dense landmark network.

    accelerate launch train/train_landmarks.py --config train/configs/landmarks.yaml --data_dir FACES

The augmentation does two things beyond the usual. Signs of disease that change the shape of the face (drooping lids,
squints, palsy) are painted on half of the crops, and local warps move one lid, one iris, one brow or one corner of the
mouth, because healthy faces are nearly symmetric and a network that has seen only those draws a drooping lid or a palsy
straight. Blotches and occluders stand in for lesions, dressings and hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from augmentation import degrade
from harness import TrainingConfig, option, parse_config, train
from torchvision.utils import make_grid, save_image

from medeid.data.faces import FaceFolder
from medeid.data.simulate import simulate
from medeid.evaluation.geometry import asymmetries, draw_shape_sign, slopes
from medeid.faces import mesh
from medeid.faces.canvas import NotVisibleError
from medeid.faces.landmarks import LandmarkNet

SIZE = mesh.LANDMARK_SIZE
EYES = mesh.RIGHT_EYE + mesh.LEFT_EYE
IRISES = mesh.RIGHT_IRIS + mesh.LEFT_IRIS
LIPS = mesh.OUTER_LIPS + mesh.INNER_LIPS
BROWS = mesh.RIGHT_BROW + mesh.LEFT_BROW
REGIONS = {"eyes": EYES, "irises": IRISES, "brows": BROWS, "lips": LIPS, "nose": mesh.NOSE, "oval": mesh.OVAL}

# Weight of a point in the loss, 1 elsewhere: these are the points that the structure condition draws.
POINT_WEIGHTS = {IRISES: 5.0, EYES: 4.0, LIPS: 2.0, BROWS: 1.5, mesh.OVAL: 1.5}
# Parts whose form counts apart from their place: lid aperture, gaze, opening of the mouth.
FORMS = (mesh.RIGHT_EYE + mesh.RIGHT_IRIS, mesh.LEFT_EYE + mesh.LEFT_IRIS, LIPS)
# Points that local warps move: upper lids, irises, corners of the mouth, brows.
WARPED = (159, 386, 468, 473, 61, 291, 105, 334)
REFINER_CHANNELS = (16, 32, 64)


@dataclass
class LandmarksConfig(TrainingConfig):
    num_components: int = option(128, "Components of the shape model.")
    depth_weight: float = option(0.3, "Weight of z against x and y.")
    form_weight: float = option(1.0, "Weight of the error within eyes and mouth after their own mean is taken off.")
    augmentation: bool = option(True, "Warp and degrade the training crops.")
    signs_share: float = option(0.5, "Share of the crops on which a sign that changes the face's shape is painted.")


class Warp:
    """A random similarity, perhaps a flip, and perhaps a few local Gaussian displacements.

    Args:
        rng (`np.random.Generator`):
            What it is drawn from.
        landmarks (`np.ndarray`):
            float32 [478, 3] of the crop that is going to be warped.
    """

    def __init__(self, rng: np.random.Generator, landmarks: np.ndarray):
        self.flip = bool(rng.random() < 0.5)
        if self.flip:
            landmarks = mesh.flip_landmarks(landmarks)
        # Most crops are upright after alignment; a failed alignment is not.
        angle = np.clip(rng.normal(0, 10) if rng.random() < 0.7 else rng.uniform(-30, 30), -30, 30)
        self.scale = float(np.exp(rng.uniform(np.log(0.85), np.log(1.2))))
        centre = (SIZE - 1) / 2
        self.matrix = cv2.getRotationMatrix2D((centre, centre), angle, self.scale)
        self.matrix[:, 2] += np.clip(rng.normal(0, 7, 2), -20, 20)
        moved = landmarks.copy()
        moved[:, :2] = landmarks[:, :2] @ self.matrix[:, :2].T + self.matrix[:, 2]
        moved[:, 2] *= self.scale
        self.bumps = self._draw_bumps(rng, moved)
        self.landmarks = self._displace(moved)

    @staticmethod
    def _draw_bumps(rng: np.random.Generator, landmarks: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray]]:
        """Centre, width and displacement of each bump."""
        distance = float(mesh.inter_ocular_distance(landmarks))
        bumps = []
        for point in rng.choice(WARPED, rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.2, 0.1]), replace=False):
            width = distance * rng.uniform(0.06, 0.16)
            shift = rng.uniform(-0.6, 0.6, 2) * width  # below 0.6 of the width the warp stays one to one
            bumps.append((landmarks[point, :2].astype(np.float64), width, shift))
        return bumps

    def _displace(self, landmarks: np.ndarray) -> np.ndarray:
        """Solves p - d(p) = q for the new place p of each q: the picture at p is the old one at p - d(p)."""
        points = landmarks[:, :2].astype(np.float64)
        new = points
        for _ in range(8):
            shift = np.zeros_like(points)
            for centre, width, bump in self.bumps:
                weight = np.exp(-((new - centre) ** 2).sum(1) / (2 * width**2))
                shift += weight[:, None] * bump
            new = points + shift
        return np.concatenate([new, landmarks[:, 2:]], axis=1).astype(np.float32)

    def apply(self, image: np.ndarray, border: int) -> np.ndarray:
        """The warped picture, sampled once."""
        if self.flip:
            image = image[:, ::-1]
        axis = np.arange(SIZE, dtype=np.float32)
        x, y = np.meshgrid(axis, axis)
        for centre, width, bump in self.bumps:
            weight = np.outer(
                np.exp(-((axis - centre[1]) ** 2) / (2 * width**2)),
                np.exp(-((axis - centre[0]) ** 2) / (2 * width**2)),
            )
            x = x - np.float32(bump[0]) * weight.astype(np.float32)
            y = y - np.float32(bump[1]) * weight.astype(np.float32)
        (a, b, c), (d, e, f) = cv2.invertAffineTransform(self.matrix).astype(np.float32)
        return cv2.remap(
            np.ascontiguousarray(image),
            a * x + b * y + c,
            d * x + e * y + f,
            cv2.INTER_LINEAR,
            borderMode=border,
        )


def _change_colours(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Exposure, contrast, white balance and saturation, by a table for each channel. uint8 to uint8."""
    if rng.random() < 0.25:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, (keep := rng.choice([0.0, 0.5])), grey, 1 - keep, 0)
    values = np.linspace(0, 1, 256)
    values = values ** np.exp(rng.normal(0, 0.25))
    values = (values - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.normal(0, 0.06)
    tables = values[:, None] * np.exp(rng.normal(0, 0.08, 3))
    return cv2.LUT(image, np.clip(tables * 255, 0, 255).astype(np.uint8)[None])


def _add_blotches(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Soft ellipses of a skin sign's colour (red, brown, dark or pale)."""
    layer = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(rng.integers(1, 6)):
        centre = rng.integers(SIZE // 5, 4 * SIZE // 5, 2).tolist()
        axes = rng.integers(2, 24, 2).tolist()
        cv2.ellipse(layer, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(60, 220)), -1)
    layer = cv2.blur(layer, (5, 5))
    colour = np.array([(170, 40, 40), (110, 70, 50), (40, 25, 25), (240, 215, 200)][rng.integers(4)], np.float32)
    alpha = layer[..., None].astype(np.float32) / 255
    return (image * (1 - alpha) + colour * alpha).astype(np.uint8)


def _occlude(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Rectangles of one colour or of another part of the picture."""
    image = image.copy()
    for _ in range(rng.integers(1, 4)):
        height, width = rng.integers(12, 90, 2)
        y, x = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
        if rng.random() < 0.5:
            image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
        else:
            v, u = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
            image[y : y + height, x : x + width] = image[v : v + height, u : u + width].copy()
    return image


def augment(rng: np.random.Generator, image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A training view of a crop.

    Args:
        rng (`np.random.Generator`):
            What it is drawn from.
        image (`np.ndarray`):
            uint8 [256, 256, 3].
        landmarks (`np.ndarray`):
            float32 [478, 3].

    Returns:
        The image and landmarks of the view, same shapes and types.
    """
    warp = Warp(rng, landmarks)
    border = int(rng.choice([cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT]))
    image = warp.apply(image, border)
    if rng.random() < 0.25:
        image = _add_blotches(rng, image)
    if rng.random() < 0.8:
        image = _change_colours(rng, image)
    if rng.random() < 0.3:
        image = _occlude(rng, image)
    return degrade(rng, image), warp.landmarks


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 [S, S, 3] to float32 [3, S, S] in [0, 1]."""
    return torch.tensor(image).permute(2, 0, 1).float() / 255.0


def paint_sign(rng: np.random.Generator, image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A sign that changes the shape of the face, if this face can show the one that was drawn."""
    try:
        result = simulate(image, landmarks, [draw_shape_sign(rng)], rng)
    except NotVisibleError:
        return image, landmarks
    return result.image, result.landmarks


class Crops(torch.utils.data.Dataset):
    """Crops float32 [3, 256, 256] in [0, 1] with their landmarks float32 [478, 3].

    Args:
        folder (`FaceFolder`):
            The faces.
        seed (`int`):
            Of signs and augmentation.
        augmentation (`bool`):
            Warp and degrade the crops.
        signs_share (`float`):
            Share of the crops on which a sign is painted.
    """

    def __init__(self, folder: FaceFolder, seed: int, augmentation: bool, signs_share: float):
        self.folder, self.seed, self.augmentation, self.signs_share = folder, seed, augmentation, signs_share

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        index, position = key
        image, landmarks = self.folder.image(index), self.folder.landmarks(index)
        rng = np.random.default_rng((self.seed, position))
        if rng.random() < self.signs_share:
            image, landmarks = paint_sign(rng, image, landmarks)
        if self.augmentation:
            image, landmarks = augment(rng, image, landmarks)
        return {"images": to_tensor(np.ascontiguousarray(image)), "landmarks": torch.from_numpy(landmarks)}


def point_weights() -> torch.Tensor:
    """float32 [478]."""
    weights = torch.ones(mesh.NUM_LANDMARKS)
    for points, weight in POINT_WEIGHTS.items():
        weights[list(points)] = weight
    return weights


def initialize_shape_model(net: LandmarkNet, shapes: np.ndarray) -> None:
    """Sets mean and basis to the principal components of shapes [N, 478, 3], with coefficients of variance 1.

    The components are those of the weighted points, so that a moving iris is not lost beside a turning head.
    """
    weights = point_weights().numpy()[:, None].repeat(3, 1).reshape(-1)
    flat = shapes.reshape(len(shapes), -1).astype(np.float64)
    mean = flat.mean(0)
    centred = (flat - mean) * weights
    variances, components = np.linalg.eigh(centred.T @ centred / len(shapes))
    largest = np.argsort(variances)[::-1][: net.config.num_components]
    basis = components[:, largest] * np.sqrt(variances[largest].clip(min=0)) / weights[:, None]
    with torch.no_grad():
        net.mean_shape.copy_(torch.from_numpy(mean).reshape(-1, 3))
        net.shape_basis.weight.copy_(torch.from_numpy(basis))
        net.coefficients.bias.zero_()


def landmark_loss(
    predicted: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor,
    depth_weight: float,
    form_weight: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted L1 of points [B, 478, 3] in inter-ocular distances, plus the same within eyes and mouth."""
    unit = mesh.inter_ocular_distance(target)[:, None, None]
    axes = torch.tensor([1.0, 1.0, depth_weight], device=target.device)
    difference = (predicted - target) / unit
    place = ((difference.abs() * axes).sum(-1) * weights).mean() / weights.mean()
    within = []
    for points in FORMS:
        part = difference[:, list(points), :2]
        within.append((part - part.mean(1, keepdim=True)).abs().sum(-1).mean())
    form = torch.stack(within).mean()
    return place + form_weight * form, {"place": place, "form": form}


def point_errors(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Distance of each point in the image plane, in percent of the inter-ocular distance: [B, 478]."""
    distance = (predicted - target)[..., :2].norm(dim=-1)
    return 100 * distance / mesh.inter_ocular_distance(target)[:, None]


def overlay(image: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
    """The sketch of the landmarks over the crop [3, 256, 256]."""
    sketch = to_tensor(mesh.draw_sketch(landmarks.cpu().numpy()))
    return torch.maximum(0.6 * image.cpu(), sketch)


class LandmarksTask:
    """Trains `LandmarkNet` on the training crops. Validation is on plain crops and on warped ones."""

    def __init__(self, config: LandmarksConfig):
        self.config = config
        folder = FaceFolder(config.data_dir, "train")
        self.sample_weights = folder.group_weights()
        self.dataset = Crops(folder, config.seed, config.augmentation, config.signs_share)
        held_out = FaceFolder(config.data_dir, "validation")
        self.validation = {
            "plain": Crops(held_out, config.seed, augmentation=False, signs_share=0.0),
            "signs": Crops(held_out, config.seed, augmentation=False, signs_share=1.0),
            "warped": Crops(held_out, config.seed, augmentation=True, signs_share=0.0),
        }
        self.weights = point_weights()
        self.model = self._build(folder)

    def _build(self, folder: FaceFolder) -> LandmarkNet:
        torch.manual_seed(self.config.seed)
        if self.config.init_from:
            trained = LandmarkNet.from_pretrained(self.config.init_from)
            config = {name: value for name, value in trained.config.items() if not name.startswith("_")}
            net = LandmarkNet(**config | {"refiner_channels": REFINER_CHANNELS})
            # One without close-up networks gets them.
            net.load_state_dict(trained.state_dict(), strict=bool(trained.refiners))
            return net
        net = LandmarkNet(num_components=self.config.num_components, refiner_channels=REFINER_CHANNELS)
        rng = np.random.default_rng(self.config.seed)
        shapes = [folder.landmarks(i) for i in rng.choice(len(folder), min(3000, len(folder)), replace=False)]
        if self.config.augmentation:
            shapes = [Warp(rng, shape).landmarks for shape in shapes]
            signs = Crops(folder, self.config.seed, augmentation=True, signs_share=1.0)
            drawn = rng.choice(len(folder), min(1000, len(folder)), replace=False)
            shapes += [signs[int(i), int(i)]["landmarks"].numpy() for i in drawn]
        initialize_shape_model(net, np.stack(shapes))
        return net

    def loss(self, model, batch, generator):
        predicted = model(batch["images"])
        weights = self.weights.to(predicted.device)
        return landmark_loss(
            predicted.float(), batch["landmarks"], weights, self.config.depth_weight, self.config.form_weight
        )

    @torch.no_grad()
    def validate(self, model, picture, device):
        """Mean errors in percent of the inter-ocular distance, and a picture of the predictions.

        The slopes tell how much of a true difference between left and right the network sees: 1 all, 0 none of it.
        """
        metrics, tiles = {}, []
        for name, crops in self.validation.items():
            loader = torch.utils.data.DataLoader(crops, batch_size=16, sampler=[(i, i) for i in range(len(crops))])
            errors, seen, true = [], [], []
            for number, batch in enumerate(loader):
                predicted = model(batch["images"].to(device)).float().cpu()
                errors.append(point_errors(predicted, batch["landmarks"]))
                seen.append(asymmetries(predicted))
                true.append(asymmetries(batch["landmarks"]))
                if number == 0:
                    tiles += [overlay(*pair) for pair in zip(batch["images"], predicted, strict=True)]
            error = torch.cat(errors)
            metrics[f"{name}_nme"] = error.mean().item()
            for region, points in REGIONS.items():
                metrics[f"{name}_{region}"] = error[:, list(points)].mean().item()
            metrics |= {
                f"{name}_{kind}_slope": value for kind, value in slopes(torch.cat(seen), torch.cat(true)).items()
            }
        save_image(make_grid(tiles, nrow=8), picture)
        return metrics

    def export(self, model, folder: Path) -> None:
        """Saves the network in float16."""
        model.half().save_pretrained(folder)


if __name__ == "__main__":
    config = parse_config(LandmarksConfig, __doc__)
    train(config, LandmarksTask(config))
