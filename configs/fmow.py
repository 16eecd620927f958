"""Any method on fMoW-RGB.

    satmip prepare fmow --source FMOW_RGB --out data/fmow --image-size 256
    satmip train --config configs/fmow.py:satmips,s16 --workdir runs/fmow_satmips_s16

Arguments: a method (simclr, satmip, satmips, guided, supervised, metapred), a size (ti16, s16, b16,
l16), `text` for the text encoder of metadata, `runlocal` for a trial run of 20 steps.

Recipe: SLIP's (Mu et al. 2022): AdamW (0.9, 0.98), lr 3e-3 and weight decay 0.1 at batch 4096
(scaled linearly with the batch), one epoch of warm-up, cosine.
NOTE[DIFF] The paper's learning rate, batch size and epochs are unknown.

The paper (Bourcier et al. 2024, linear-probe F1 on fMoW val): SimCLR 61.1, SatMIP 55.2,
SatMIPS 62.3. This implementation: not measured yet.
"""

from ml_collections import ConfigDict

from satmip_jax.config import default_config, parse_arg

SIZES = {"ti16": "Ti/16", "s16": "S/16", "b16": "B/16", "l16": "L/16"}


def get_config(arg: str = "satmips,s16") -> ConfigDict:
    """Return the config for a method, a size and switches, joined by commas."""
    method, size, switches = parse_arg(arg, method="satmips", size="s16", sizes=list(SIZES))
    config = default_config()
    config.method.name = method
    config.image.encoder = SIZES[size]
    config.image.remat = size == "l16"
    config.data.dir = "data/fmow"
    config.data.workers = 16
    config.metadata.encoder = "text" if "text" in switches else "tabular"
    config.eval.every = 10_000
    config.checkpoint.every = 1_000
    if "runlocal" in switches:
        config.optimizer.batch_size = 16
        config.optimizer.images = 16 * 20
        config.data.workers = 0
        config.image.encoder = "mu/16"
        config.method.ssl_hidden = 64
        config.metadata.depth = 1
        config.eval.every = 20
    config.optimizer.learning_rate = 3e-3 * config.optimizer.batch_size / 4096
    return config
