"""Re-identification: does an attacker with a gallery of originals find the source of a de-identified face?"""

from __future__ import annotations

import numpy as np
import torch

from ..faces.mesh import points5_from_mesh, region_mask, scale_points
from ..identity.recognizer import Recognizer

GREY = 0.5


@torch.no_grad()
def embed_faces(
    recognizer: Recognizer, crops: np.ndarray, landmarks: np.ndarray, face_only: bool, batch_size: int = 16
) -> torch.Tensor:
    """Unit embeddings of aligned crops.

    Args:
        recognizer (`Recognizer`):
            The attacker's.
        crops (`np.ndarray`):
            uint8 [N, S, S, 3].
        landmarks (`np.ndarray`):
            float32 [N, 478, 3] in pixels of a 256 px crop.
        face_only (`bool`):
            Grey outside of the face oval: hair and background are the same in a source and its result, and would link
            them without any face recognition.
        batch_size (`int`, *optional*, defaults to 16):
            Faces at a time.

    Returns:
        `torch.Tensor`: float32 [N, D].
    """
    size = crops.shape[1]
    points5 = scale_points(points5_from_mesh(landmarks), size)
    embedded = []
    for start in range(0, len(crops), batch_size):
        rows = slice(start, start + batch_size)
        images = torch.from_numpy(crops[rows]).permute(0, 3, 1, 2).float() / 255.0
        if face_only:
            ovals = np.stack([region_mask(points, "oval", size) for points in landmarks[rows]])
            images = torch.where(torch.from_numpy(ovals)[:, None] > 0, images, torch.tensor(GREY))
        embedded.append(recognizer(images, torch.from_numpy(points5[rows]).float()))
    return torch.cat(embedded)


def rank1_rate(probes: torch.Tensor, gallery: torch.Tensor, own: torch.Tensor | None = None) -> float:
    """Share of probes whose nearest neighbour in the gallery is their own source; chance is 1 / N.

    Args:
        probes (`torch.Tensor`):
            Unit embeddings `[M, D]`.
        gallery (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        own (`torch.Tensor`, *optional*):
            int64 `[M]`: the row in the gallery of each probe's source. By default probe and source have the same row.

    Returns:
        `float`: in [0, 1].
    """
    nearest = (probes @ gallery.T).argmax(dim=1)
    if own is None:
        own = torch.arange(len(probes))
    return (nearest == own.to(nearest.device)).float().mean().item()


def verification_rate(probes: torch.Tensor, gallery: torch.Tensor, far: float = 0.001) -> float:
    """Share of probes that a verification takes for their source, at a threshold that few pairs of strangers reach.

    Args:
        probes (`torch.Tensor`):
            Unit embeddings `[N, D]`.
        gallery (`torch.Tensor`):
            Unit embeddings `[N, D]` of the sources, each of another person, which the threshold is calibrated on, too.
        far (`float`, *optional*, defaults to 0.001):
            False accept rate: the share of the gallery's pairs that the threshold accepts.

    Returns:
        `float`: in [0, 1].
    """
    pairs = (gallery @ gallery.T)[torch.triu_indices(len(gallery), len(gallery), offset=1).unbind()]
    threshold = torch.quantile(pairs, 1.0 - far)
    return ((probes * gallery).sum(1) > threshold).float().mean().item()
