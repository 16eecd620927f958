"""Default configuration: every option with its default value.

A file in `configs/` starts from `default_config()` and changes what it needs. ml_collections
refuses unknown keys and values of another type. Each method declares its own options, see
`objectives.options`; together they are the section `method`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from satmip_jax.objectives import method_options


def default_config() -> ConfigDict:
    """Return every option with its default, locked against unknown keys.

    Example:
        >>> from satmip_jax.config import default_config
        >>> config = default_config()
        >>> config.optimizer.learning_rate = 1e-3
        >>> config.optimiser = 1
        Traceback (most recent call last):
        ...
        AttributeError: 'Key "optimiser" does not exist ...Did you mean "optimizer" ...
    """
    config = ConfigDict(
        {
            "seed": 0,  # of initial values, order of samples and all random choices
            "method": {
                "name": "satmips",  # the pretraining task, of objectives.METHODS
                **{name: option.default for name, option in method_options().items()},
            },
            "data": {
                "dir": "",  # written by `satmip prepare`
                "train_split": "train",  # trained on
                "val_split": "val",  # classified by the kNN of `eval`
                "in_memory": False,  # keep the decoded train split in device memory
                "workers": 2,  # worker processes that decode; 0: threads of this process
                "bad_records": 100,  # abort after more unreadable records than this
            },
            "image": {
                "encoder": "S/16",  # or WIDTHxDEPTHxHEADS/PATCH, "256x8x4/16"; see models.vit
                "size": 224,  # side of a view, pixels
                "pool": "cls",  # or "mean"
                "pre_norm": False,  # a norm before the first block, as in CLIP
                "activation": "gelu",  # or "quick_gelu", of OpenAI's CLIP
                "init": "",  # set by `satmip train --init`: family and digest of the weights
                "remat": False,  # recompute blocks in the backward pass, to save memory
            },
            "metadata": {
                "encoder": "tabular",  # or "text"; see models.towers.METADATA_ENCODERS
                "fields": "all",  # or groups and fields joined by "+", "GSD+Time+Location"
                "width": 192,  # of a token
                "depth": 3,  # blocks
                "heads": 8,  # attention heads; divides the width
                "frequencies": 6,  # of the Fourier features of the location
                "field_dropout": 0.1,  # probability of dropping a field in training
                "attention_dropout": 0.2,  # of attention weights
                "ffn_dropout": 0.1,  # within the MLPs of blocks
                "follow_crop": True,  # gsd, pixel_size and location are those of the view
                "caption_length": 400,  # tokens (bytes), text encoder
            },
            "augment": {
                "crop_scale": (0.08, 1.0),
                "hflip": True,
                "vflip": False,
                "rot90": False,
                "jitter": (0.4, 0.4, 0.4, 0.1),  # brightness, contrast, saturation, hue
                "jitter_p": 0.8,
                "grey_p": 0.2,
                "blur_p": 0.5,
            },
            "optimizer": {
                "learning_rate": 3e-3,  # its peak; AdamW, linear warm-up, then a cosine to 0
                "batch_size": 4096,  # images, over all devices
                "images": 0,  # length of training, in images seen; 0: use epochs
                "epochs": 100.0,  # length of training if images is 0
                "extended_from": (),  # steps at which `satmip train --extend` went on
                "warmup_epochs": 1.0,  # limited to a tenth of the training
                "weight_decay": 0.1,  # of matrices; not of biases, norms and tokens
                "b1": 0.9,  # of AdamW
                "b2": 0.98,  # of AdamW
                "eps": 1e-8,  # of AdamW
                "clip_norm": 0.0,  # 0: no clipping
            },
            "parallel": {
                "fsdp": 1,  # devices over which parameters and optimizer state are sharded
                "exchange": "gather",  # of embeddings; or "ring", see losses.contrastive
                "gradient_dtype": "float32",  # of encoders' gradients when summed over devices
                "micro_batch": 0,  # images per device encoded at once, see Forward.encode; 0: all
            },
            "dtype": "bfloat16",  # of the encoders' computation; parameters are float32
            "log_every": 10,  # steps
            "eval": {
                "every": 0,  # steps between kNN evaluations; 0: none
                "batch_size": 512,  # images, over all devices
                "max_bank": 50_000,  # labelled images of the kNN
            },
            "checkpoint": {
                "every": 1000,  # steps
                "keep": 2,  # newest checkpoints, beside the best
            },
        }
    )
    return config.lock()
