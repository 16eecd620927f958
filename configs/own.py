"""Any method on your own data.

    satmip prepare folder --source IMAGES --metadata TABLE --out data/own
    satmip init-config own.py --data data/own
    satmip train --config own.py --workdir runs/own

`satmip init-config` copies this file with the values of your data; without it, give the folder as
--config.data.dir=DIR.

Arguments: a method (simclr, satmip, satmips, guided, supervised, metapred), a size (cpu, a ViT of
width 128 and depth 4 for a laptop; ti, s, b), `text` for the text encoder of metadata, `runlocal`
for a trial run of 20 steps.
"""

from ml_collections import ConfigDict

from satmip_jax.config import default_config, parse_arg

DATA = ""  # folder written by `satmip prepare`
METHOD = "satmips"
SIZE = "cpu"
FIELDS = "all"  # metadata: groups and fields joined by "+", such as GSD+Time+Location
IMAGE_SIZE = 64  # side of a view, pixels
PATCH = 8  # pixels; divides IMAGE_SIZE. Halving it takes 4 to 16 times as long
IN_MEMORY = False  # keep the decoded images in device memory
BATCH_SIZE = 64  # images; more negatives, more memory
IMAGES = 100_000  # length of the training, in images seen
EVAL_EVERY = 0  # steps between kNN scores on `val`, which needs labels; 0: none

SIZES = {"cpu": "nano", "ti": "Ti", "s": "S", "b": "B"}


def get_config(arg: str = f"{METHOD},{SIZE}") -> ConfigDict:
    """Return the config for a method, a size and switches, joined by commas."""
    method, size, switches = parse_arg(arg, method=METHOD, size=SIZE, sizes=list(SIZES))
    config = default_config()
    config.method.name = method
    config.data.dir = DATA
    config.data.in_memory = IN_MEMORY
    config.image.encoder = f"{SIZES[size]}/{PATCH}"
    config.image.size = IMAGE_SIZE
    config.image.pool = "mean"
    config.metadata.fields = FIELDS
    config.metadata.encoder = "text" if "text" in switches else "tabular"
    augment = config.augment  # an overhead image has no up, and its colours tell much
    augment.crop_scale = (0.2, 1.0)
    augment.vflip = augment.rot90 = True
    augment.jitter, augment.grey_p, augment.blur_p = (0.2, 0.2, 0.2, 0.05), 0.1, 0.0
    config.optimizer.batch_size = BATCH_SIZE
    config.optimizer.images = IMAGES
    config.optimizer.learning_rate = 1e-3
    config.eval.every = EVAL_EVERY
    config.checkpoint.every = 100
    if size == "cpu":
        config.method.ssl_hidden = 512
        config.method.ssl_dim = config.method.embed_dim = 128
        config.metadata.width = 96
        config.metadata.depth = 2
        config.dtype = "float32"
    if "runlocal" in switches:
        config.optimizer.batch_size = min(BATCH_SIZE, 16)
        config.optimizer.images = config.optimizer.batch_size * 20
        config.image.encoder = f"mu/{PATCH}"
        config.method.ssl_hidden = 64
        config.metadata.depth = 1
    return config
