"""Faces of nobody, drawn again as somebody else who does not exist, to paint signs on."""

import numpy as np
import redraw_faces as script

from medeid.data.faces import FaceFolder
from medeid.data.sources import SourceFaces
from medeid.faces.mesh import inter_ocular_distance


def test_the_folder_can_be_simulated_from(faces_dir, tmp_path, monkeypatch):
    out = tmp_path / "redrawn"
    monkeypatch.setattr(
        "sys.argv", ["redraw_faces.py", "--data_dir", str(faces_dir), "--out", str(out), "--count", "2"]
    )
    script.main()
    sources, redrawn = FaceFolder(faces_dir, "train"), FaceFolder(out, "train")
    assert len(redrawn) == 2
    source = sources.image(0).astype(int)
    changed = np.abs(redrawn.image(0) - source).max(2) > 24
    assert 0.1 < changed.mean() < 0.7 and not changed[:10].any()
    error = np.linalg.norm(redrawn.landmarks(0)[:, :2] - sources.landmarks(0)[:, :2], axis=1).mean()
    assert error < 0.06 * inter_ocular_distance(sources.landmarks(0))
    assert SourceFaces(out, 256).splits == ("train",)
