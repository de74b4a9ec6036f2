"""Reading the signs of disease in photos, from files to files, without changing a face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..photos import Photo
from ..pipeline import MedicalDeIDPipeline
from ..records import FaceManifestations, NoFaceFoundError
from .batch import parse_photo_boxes
from .images import ImageFileError, read_image, write_image
from .overlay import draw_manifestations


class Inspector:
    """Reads photos and draws what it reads.

    Args:
        model (`str`):
            For [`MedicalDeIDPipeline.from_pretrained`].
        device (`str`):
            A torch device.
    """

    def __init__(self, model: str = "medeid-tiny", device: str = "cpu"):
        self.pipeline = MedicalDeIDPipeline.from_pretrained(model).to(device)

    def run(self, source: Path, target: Path, boxes: Any = None) -> list[FaceManifestations]:
        """Reads the signs on the faces of one photo, and writes a picture of them.

        Args:
            source (`Path`):
                The photo; it is only read.
            target (`Path`):
                Where the picture goes, a PNG. It shows the patient.
            boxes (`list`, *optional*):
                Parsed JSON of the user's own faces, see [`parse_boxes`].

        Returns:
            `list[FaceManifestations]`

        Raises:
            ImageFileError: the photo cannot be used, has no face, or is the target itself.
            ValueError: the boxes are off.
        """
        image = read_image(source)
        if target.exists() and target.samefile(source):
            raise ImageFileError("the picture would overwrite it; choose another folder by -o")
        try:
            (faces,) = self.pipeline.encode_manifestations(image, parse_photo_boxes(boxes, image))
        except NoFaceFoundError as error:
            raise ImageFileError(error.reason) from error
        write_image(draw_manifestations(Photo.open(image).rgb, faces), target, "PNG")
        return faces
