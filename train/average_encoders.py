"""Average the weights of manifestation encoders, such as one before and after it was tuned, and calibrate the result.

python train/average_encoders.py medeid/weights/medeid-tiny/manifestation_encoder runs/joint4/export \\
    --validation_dir patients/ --out runs/averaged

What was tuned from one start can be averaged, and then errs less than either (Wortsman et al., "Model soups",
arXiv:2203.05482).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from train_manifestation_encoder import save_calibrated

from medeid.manifestations.encoder import ManifestationEncoder


@torch.no_grad()
def average(encoders: list[ManifestationEncoder]) -> ManifestationEncoder:
    """The first encoder with the mean of all weights, in float32, and no temperatures, as these do not fit it.

    Raises:
        ValueError: the encoders are not built alike.
    """
    states = [encoder.state_dict() for encoder in encoders]
    for state in states:
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in states[0].items()}:
            raise ValueError("Encoders of other towers or tokens have no mean: average those tuned from one start.")
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    averaged = encoders[0].float().eval()
    averaged.load_state_dict(mean)
    averaged.temperature.fill_(1.0)
    return averaged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+", help="Exported encoders, all tuned from one.")
    parser.add_argument("--validation_dir", required=True, help="Set whose validation split calibrates.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the average.")
    arguments = parser.parse_args()
    encoders = [ManifestationEncoder.from_pretrained(folder) for folder in arguments.encoders]
    save_calibrated(average(encoders), arguments.validation_dir, arguments.out)


if __name__ == "__main__":
    main()
