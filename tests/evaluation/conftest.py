"""A few simulated patients, and an encoder that has learned nothing, in a folder of its own."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from medeid.data.build import BuildOptions, build_set
from medeid.data.mema import load_mema
from medeid.manifestations.encoder import ManifestationEncoder

FACES = Path(__file__).parents[2] / "examples" / "faces"


@pytest.fixture(scope="session")
def patients(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("patients") / "set"
    options = BuildOptions(count=40, seed=0, signs=("port_wine_stain", "jaundice", "scar"), healthy=0.4, size=64)
    build_set(FACES, out, options)
    return out


@pytest.fixture(scope="session")
def rows(patients) -> Dataset:
    return load_mema(patients, "train")


@pytest.fixture
def encoder() -> ManifestationEncoder:
    torch.manual_seed(0)
    return ManifestationEncoder(image_size=64, num_tokens=2, token_dim=4).eval()


@pytest.fixture
def few_attackers(monkeypatch):
    """One probe in place of many: what they find is tested by itself."""
    monkeypatch.setattr("medeid.evaluation.identity_probe._SHRINKAGES", (0.1,))
    monkeypatch.setattr("medeid.evaluation.identity_probe._WEIGHT_DECAYS", (0.1,))
