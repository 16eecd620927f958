"""SimCLR's training step in PyTorch and timm: a rival of ours, timed beside it.

The same encoder, projector, loss and optimiser. Its views are ready noise, where ours are cut and
coloured within the step: what is left out is in PyTorch's favour.
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
    """One training step of SimCLR, on the GPU where there is one.

    Args:
        config: of the method "simclr".
        compiled: by `torch.compile(mode="max-autotune")` on a GPU, in its default mode elsewhere.

    Raises:
        ValueError: the config is of another method.

    Example:
        >>> TorchStep(load_config("configs/fmow.py:simclr,s16")).time(None, steps=3)
    """

    def __init__(self, config: ConfigDict, *, compiled: bool) -> None:
        if config.method.name != "simclr":
            raise ValueError(
                f"PyTorch's step is one of simclr, not of {config.method.name}: name it first, as "
                "--methods simclr,..."
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
        """NT-Xent of views (2 B, 3, s, s), the first of every image before the second ones."""
        with torch.autocast(self.device.type, torch.bfloat16, self.config.dtype == "bfloat16"):
            embeddings = self.projector(self.encoder(views))
        z = functional.normalize(embeddings.float(), dim=1)
        scores = z @ z.T / self.config.method.temperature
        n = len(z)
        scores = scores.masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), -torch.inf)
        partner = torch.arange(n, device=z.device).roll(n // 2)
        return functional.cross_entropy(scores, partner)

    def step(self, views: torch.Tensor) -> torch.Tensor:
        """Loss, gradients and update."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(views)
        loss.backward()
        self.optimizer.step()
        return loss

    def time(self, batch: Any, steps: int) -> list[float]:
        """Seconds of each of `steps` steps on noise, after one that is not counted."""
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
