"""SimCLR's training step in PyTorch and timm, to compare with.

Encoder, projector, loss and optimizer are the same. Its views are precomputed noise, while the JAX
step includes the augmentation, so the comparison favours PyTorch.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from ml_collections import ConfigDict
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

from satmip_jax.models.vit import parse_vit, shape_of


class TorchStep:
    """A training step of SimCLR, on the GPU if there is one.

    Args:
        config: config of the method "simclr".
        compiled: use `torch.compile`, on a GPU with mode="max-autotune".

    Raises:
        ValueError: the config is of another method.
    """

    def __init__(self, config: ConfigDict, *, compiled: bool) -> None:
        if config.method.name != "simclr":
            raise ValueError(
                f"--torch compares with simclr, but the first method is {config.method.name}: put "
                "simclr first, as in --methods simclr,..."
            )
        torch.manual_seed(config.seed)
        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        variant, patch = parse_vit(config.image.encoder)
        width, depth, heads = shape_of(variant)
        cls = config.image.pool == "cls"
        self.encoder = VisionTransformer(
            img_size=config.image.size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            class_token=cls,
            global_pool="token" if cls else "avg",
        ).to(self.device)
        hidden, out = config.method.ssl_hidden, config.method.ssl_dim
        layers: list[torch.nn.Module] = []
        for before in (width, hidden):
            layers += [
                torch.nn.Linear(before, hidden, bias=False),
                torch.nn.BatchNorm1d(hidden),
                torch.nn.ReLU(),
            ]
        self.projector = torch.nn.Sequential(*layers, torch.nn.Linear(hidden, out)).to(self.device)
        options = config.optimizer
        self.optimizer = torch.optim.AdamW(
            [*self.encoder.parameters(), *self.projector.parameters()],
            lr=options.learning_rate,
            betas=(options.b1, options.b2),
            weight_decay=options.weight_decay,
            fused=self.device.type == "cuda",
        )
        mode = "max-autotune" if self.device.type == "cuda" else None
        self._loss: Any = torch.compile(self.loss, mode=mode) if compiled else self.loss

    def loss(self, views: torch.Tensor) -> torch.Tensor:
        """Return NT-Xent of views (2 B, 3, s, s); all first views come before all second ones."""
        with torch.autocast(self.device.type, torch.bfloat16, self.config.dtype == "bfloat16"):
            embeddings = self.projector(self.encoder(views))
        z = functional.normalize(embeddings.float(), dim=1)
        scores = z @ z.T / self.config.method.temperature
        n = len(z)
        scores = scores.masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), -torch.inf)
        partner = torch.arange(n, device=z.device).roll(n // 2)
        return functional.cross_entropy(scores, partner)

    def step(self, views: torch.Tensor) -> torch.Tensor:
        """Make one training step on views (2 B, 3, s, s); return its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(views)
        loss.backward()
        self.optimizer.step()
        return loss

    def time(self, batch: Any, steps: int) -> list[float]:
        """Return the seconds of each of `steps` steps on noise, after an untimed one.

        Args:
            batch: ignored.
            steps: number of timed steps.
        """
        del batch
        side, images = self.config.image.size, self.config.optimizer.batch_size
        views = torch.randn(2 * images, 3, side, side, device=self.device)
        seconds = []
        for _ in range(steps + 1):
            self._wait()
            start = time.perf_counter()
            self.step(views)
            self._wait()
            seconds.append(time.perf_counter() - start)
        return seconds[1:]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
