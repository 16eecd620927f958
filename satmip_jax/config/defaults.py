"""Experiment configuration: every option with its default, in one place.

A file in `configs/` starts from `default_config()` and changes what it needs; unknown keys and
values of another type are refused by ml_collections before anything is compiled.
"""

from __future__ import annotations

from ml_collections import ConfigDict


def default_config() -> ConfigDict:
    """Return every option with its default, locked against unknown keys.

    Example:
        >>> config = default_config()
        >>> config.optimizer.learning_rate = 1e-3
        >>> config.optimiser = 1
        Traceback (most recent call last):
        ...
        AttributeError: ... optimizer ...
    """
    config = ConfigDict(
        {
            "seed": 0,
            "method": {
                "name": "satmips",  # see objectives.METHODS
                "coupled": True,  # satmips: SatMIP reuses one of SimCLR's two views
                "temperature": 0.1,  # NT-Xent
                "loss": "info_nce",  # of satmip: or "sigmoid", SigLIP's (logit_scale_init 10)
                "logit_scale_init": 1 / 0.07,  # learned from here
                "logit_bias_init": -10.0,  # of the sigmoid loss, learned from here
                "metadata_weight": 1.0,  # weight of the SatMIP loss in satmips
                "ssl_hidden": 4096,  # SimCLR projector: 3 layers
                "ssl_dim": 256,
                "embed_dim": 512,  # SatMIP: the space shared by images and metadata
                "geo_clusters": 100,  # metapred: clusters of places, one of which is to be told
            },
            "data": {
                "dir": "",  # written by `satmip prepare`
                "train_split": "train",
                "val_split": "val",
                "in_memory": False,  # hold the decoded train split in device memory
                "workers": 2,  # decoding processes; 0 decodes in threads
                "bad_records": 100,  # more than so many that cannot be read end the run
            },
            "image": {
                "encoder": "S/16",  # or 256x8x4/16: width, depth, heads; see models.vit
                "size": 224,  # side of a view, pixels
                "pool": "cls",
                "remat": False,
            },
            "metadata": {
                "encoder": "tabular",  # or "text"; see models.towers.METADATA_ENCODERS
                "fields": "all",  # "all", a group, "GSD+Time+Location", names joined by "+"
                "width": 192,
                "depth": 3,
                "heads": 8,
                "frequencies": 6,  # of the location on the sphere
                "field_dropout": 0.1,  # chance that a field goes missing in training
                "attention_dropout": 0.2,
                "ffn_dropout": 0.1,
                "follow_crop": True,  # gsd, pixel_size and location of the view, not of the image
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
                "learning_rate": 3e-3,
                "batch_size": 4096,  # global, images
                "images": 0,  # length of training in images seen; or:
                "epochs": 100.0,  # used where images is 0
                "warmup_epochs": 1.0,  # at most a tenth of the training
                "weight_decay": 0.1,
                "b1": 0.9,
                "b2": 0.98,
                "eps": 1e-8,
                "clip_norm": 0.0,  # 0: no clipping
            },
            "parallel": {
                "fsdp": 1,  # devices among which parameters and optimiser state are cut up
                "exchange": "gather",  # of embeddings, or "ring"; see objectives.contrastive
                "micro_batch": 0,  # images per device encoded at once; 0: all (see Forward.encode)
            },
            "dtype": "bfloat16",  # of the encoders' arithmetic; parameters stay float32
            "log_every": 10,  # steps
            "eval": {"every": 0, "batch_size": 512, "max_bank": 50_000},
            "checkpoint": {"every": 1000, "keep": 2},
        }
    )
    return config.lock()
