"""Put the trained parts together to a pipeline folder, in half precision.

python train/assemble.py --data_dir FACES --out medeid/weights/medeid-tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, DDIMScheduler, T2IAdapter, UNet2DConditionModel

from medeid import MedicalDeIDPipeline
from medeid.data.faces import FaceFolder
from medeid.faces.landmarks import LandmarkNet
from medeid.faces.shape import ShapePrior
from medeid.identity.adapter import IdentitySuppressionAdapter
from medeid.identity.surrogate import SurrogatePrior
from medeid.manifestations.encoder import ManifestationEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, default=Path("runs/autoencoder/export"), help="exported autoencoder")
    parser.add_argument("--unet", type=Path, default=Path("runs/unet/export"), help="export of train_unet.py")
    parser.add_argument(
        "--landmarks", type=Path, default=Path("runs/landmarks/export"), help="exported landmark network"
    )
    parser.add_argument(
        "--encoder", type=Path, default=Path("runs/encoder/export"), help="exported manifestation encoder"
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="face crops, for the distribution of shapes")
    parser.add_argument("--out", type=Path, required=True, help="the pipeline folder to write")
    parser.add_argument("--num_inference_steps", type=int, default=6, help="the pipeline's default")
    parser.add_argument("--guidance_scale", type=float, default=2.0, help="the pipeline's default")
    options = parser.parse_args()

    faces = FaceFolder(options.data_dir, "train")
    landmarks = torch.from_numpy(np.stack([faces.landmarks(index) for index in range(len(faces))]))
    pipeline = MedicalDeIDPipeline(
        vae=AutoencoderDC.from_pretrained(options.vae),
        unet=UNet2DConditionModel.from_pretrained(options.unet / "unet"),
        scheduler=DDIMScheduler.from_pretrained(options.unet / "scheduler"),
        structure_adapter=T2IAdapter.from_pretrained(options.unet / "structure_adapter"),
        identity_adapter=IdentitySuppressionAdapter.from_pretrained(options.unet / "identity_adapter"),
        surrogate_prior=SurrogatePrior.from_pretrained(options.unet / "surrogate_prior"),
        landmark_net=LandmarkNet.from_pretrained(options.landmarks),
        shape_prior=ShapePrior().fit(landmarks),
        manifestation_encoder=ManifestationEncoder.from_pretrained(options.encoder),
        num_inference_steps=options.num_inference_steps,
        guidance_scale=options.guidance_scale,
    )
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.half()
    pipeline.save_pretrained(options.out)
    total = sum(path.stat().st_size for path in options.out.rglob("*.safetensors"))
    print(f"{options.out}: {total / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
