"""The mean of two encoders that were tuned from one start."""

import average_encoders as script
import pytest
import torch

from medeid.data.build import BuildOptions, build_set
from medeid.evaluation.calibration import is_calibrated
from medeid.manifestations.encoder import ManifestationEncoder
from medeid.pipeline import PACKAGED_WEIGHTS

PACKAGED = PACKAGED_WEIGHTS / "medeid-tiny" / "manifestation_encoder"


def test_the_mean_of_two_encoders_lies_between_them_and_is_calibrated(faces_dir, tmp_path, monkeypatch):
    patients, tuned, out = tmp_path / "patients", tmp_path / "tuned", tmp_path / "mean"
    build_set(faces_dir, patients, BuildOptions(count=12, seed=0, signs=("port_wine_stain", "jaundice")), jobs=1)
    other = ManifestationEncoder.from_pretrained(PACKAGED)
    with torch.no_grad():
        other.label_bias.add_(1.0)
    other.save_pretrained(tuned)
    arguments = [str(PACKAGED), str(tuned), "--validation_dir", str(patients), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["average_encoders.py", *arguments])
    script.main()
    first, mean = (ManifestationEncoder.from_pretrained(folder).float() for folder in (PACKAGED, out))
    torch.testing.assert_close(mean.label_bias, first.label_bias + 0.5, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(mean.mask_head.weight, first.mask_head.weight, atol=1e-3, rtol=1e-3)
    assert is_calibrated(mean)


def test_encoders_that_are_not_built_alike_have_no_mean():
    small = ManifestationEncoder.from_tower("medeid-tiny", "", image_size=256, num_tokens=4, token_dim=32)
    with pytest.raises(ValueError, match="average those tuned from one start"):
        script.average([ManifestationEncoder.from_pretrained(PACKAGED), small])
