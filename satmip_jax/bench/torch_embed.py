"""A loop of timm that embeds images, to compare with: files read by PIL, batches of one size."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from satmip_jax.inference.embed.inputs import Inputs
from satmip_jax.inference.export.run import export


class TimmLoop:
    """The image encoder of a model in timm, on the GPU if there is one.

    Args:
        path: the model, see `satmip_jax.load`.
        batch_size: images encoded at once.
    """

    def __init__(self, path: str | os.PathLike[str], batch_size: int) -> None:
        self.batch_size = batch_size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with tempfile.TemporaryDirectory() as folder:
            export(path, Path(folder) / "timm", format="timm")
            name = f"local-dir:{folder}/timm"
            self.model = timm.create_model(name, pretrained=True, num_classes=0).eval()
        self.model.to(self.device)
        config = self.model.pretrained_cfg
        self.side = config["input_size"][-1]
        self.mean, self.std = (
            torch.tensor(config[key], device=self.device)[:, None, None] for key in ("mean", "std")
        )

    def __call__(self, inputs: Inputs) -> np.ndarray:
        """Return the features of all images of the inputs, float32 (n, d)."""
        archives: dict[str, zipfile.ZipFile] = {}
        features = []
        files = [entry.ref.location[:2] for entry in inputs.entries]
        with torch.inference_mode():
            for start in range(0, len(files), self.batch_size):
                batch = torch.stack(
                    [
                        self._read(archives, str(container), str(member))
                        for container, member in files[start : start + self.batch_size]
                    ]
                ).to(self.device)
                normalized = (batch.float() / 255 - self.mean) / self.std
                features.append(self.model(normalized).float().cpu().numpy())
        for archive in archives.values():
            archive.close()
        return np.concatenate(features)

    def _read(
        self, archives: dict[str, zipfile.ZipFile], container: str, member: str
    ) -> torch.Tensor:
        """Return one image, uint8 (3, side, side)."""
        if os.path.isdir(container):
            data = Path(container, member).read_bytes()
        else:
            if container not in archives:
                archives[container] = zipfile.ZipFile(container)
            data = archives[container].read(member)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        if image.size != (self.side, self.side):
            image = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
