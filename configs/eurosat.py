"""Any method on EuroSAT (RGB, 64 px) with the locations of its chips.

    satmip prepare eurosat --source FOLDER_OF_ITS_ZIPS --out data/eurosat
    satmip train --config configs/eurosat.py:satmips,cpu --workdir runs/eurosat_satmips

Arguments: a method (simclr, satmip, satmips, guided, supervised, metapred), a size (cpu, a ViT of
width 128 and depth 4 for a laptop; ti8, s8), `text` for the text encoder of metadata, `runlocal`
for a trial run of 20 steps.

Pretraining and evaluation on EuroSAT is in-domain; the scores are in docs/results.md.

NOTE[DIFF] Views keep more colour than SLIP's (jitter 0.2, no blur): at 64 px and 10 m per pixel,
colour carries much of the information. They include all flips and quarter turns, because an
overhead image has no up.
"""

from ml_collections import ConfigDict

from satmip_jax.config import default_config, parse_arg

SIZES = {"cpu": "nano/8", "ti8": "Ti/8", "s8": "S/8"}


def get_config(arg: str = "satmips,cpu") -> ConfigDict:
    """Return the config for a method, a size and switches, joined by commas."""
    method, size, switches = parse_arg(arg, method="satmips", size="cpu", sizes=list(SIZES))
    config = default_config()
    config.method.name = method
    config.image.encoder = SIZES[size]
    config.image.size = 64
    config.image.pool = "mean"
    config.data.dir = "data/eurosat"
    config.data.in_memory = True
    config.metadata.fields = "Location"  # the gsd is the same for all chips
    config.metadata.encoder = "text" if "text" in switches else "tabular"
    augment = config.augment
    augment.crop_scale = (0.2, 1.0)
    augment.vflip = augment.rot90 = True
    augment.jitter, augment.grey_p, augment.blur_p = (0.2, 0.2, 0.2, 0.05), 0.1, 0.0
    if method == "satmip":  # SLIP's views for CLIP: colours indicate the location
        augment.crop_scale, augment.jitter_p, augment.grey_p = (0.5, 1.0), 0.0, 0.0
    optimizer = config.optimizer
    if size == "cpu":
        optimizer.batch_size = 128
        optimizer.images = 100_000
        optimizer.learning_rate = 1e-3
        config.method.ssl_hidden = 512
        config.method.ssl_dim = config.method.embed_dim = 128
        config.metadata.width = 96
        config.metadata.depth = 2
        config.dtype = "float32"
        config.checkpoint.every = 100
    else:
        optimizer.batch_size = 1024
        optimizer.epochs = 100.0
        optimizer.learning_rate = 1e-3
        config.eval.every = 500
    if "runlocal" in switches:
        optimizer.batch_size, optimizer.images = 16, 16 * 20
        config.image.encoder = "mu/8"
        config.method.ssl_hidden = 64
        config.metadata.depth = 1
    return config
