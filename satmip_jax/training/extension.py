"""Extension of a finished run: more steps, with another warm-up and cosine.

The steps at which a run was extended are part of its config, `optimizer.extended_from`. So an
extended run, too, is a function of (config, seed, data), and resumes as any other.
"""

from __future__ import annotations

import logging

from ml_collections import ConfigDict

from satmip_jax.checkpoints.run_item import saved_steps
from satmip_jax.config.conversion import to_json, vary
from satmip_jax.config.training_length import total_steps
from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.distributed import multihost
from satmip_jax.distributed.multihost import is_main_process
from satmip_jax.errors import ConfigError
from satmip_jax.runtime.files import write_atomically
from satmip_jax.runtime.paths import AnyPath
from satmip_jax.training.workdir import CONFIG_FILE, claim_workdir, stored_config

log = logging.getLogger(__name__)


def extend_run(workdir: AnyPath, config: ConfigDict, dataset: ShardDataset) -> ConfigDict:
    """Extend the finished run in a workdir to the length of `config`, and return its new config.

    Called again with the same config, it returns the config of the extension that began then.

    Args:
        workdir: folder of the run, see `lock_workdir`.
        config: of the run but for its length, `optimizer.images` or `optimizer.epochs`; the same on
            all processes.
        dataset: the train split.

    Raises:
        ConfigError: there is no run, it is not finished or not shorter, or has another config or
            other data.
    """
    stored = stored_config(workdir)
    if stored is None:
        raise ConfigError(
            f"{workdir} has no run to extend: train one without --extend, or correct --workdir"
        )
    extended = stored.optimizer.extended_from
    config = vary(config, {"optimizer.extended_from": extended})
    begun, wanted = total_steps(stored, len(dataset)), total_steps(config, len(dataset))
    if wanted == begun and extended:
        return config
    batch = config.optimizer.batch_size
    length = f"{begun} steps, {begun * batch:,} images"
    if wanted <= begun:
        raise ConfigError(
            f"{workdir} is a run of {length}, and is to be extended to {wanted} steps: give a "
            f"longer length, such as --config.optimizer.images={2 * begun * batch}"
        )
    same = {name: stored.optimizer[name] for name in ("images", "epochs")}
    claim_workdir(workdir, vary(config, {f"optimizer.{k}": v for k, v in same.items()}), dataset)
    done = int(multihost.broadcast_str(str(max(saved_steps(workdir), default=0))))
    if done < begun:
        raise ConfigError(
            f"{workdir} is at step {done} of {length}: only a finished run can be extended. Finish "
            f"it without --extend, at the length it began with, or train for {wanted} steps from "
            "the start in another --workdir."
        )
    config = vary(config, {"optimizer.extended_from": (*extended, begun)})
    if is_main_process():
        write_atomically(workdir / CONFIG_FILE, to_json(config))
    log.info(f"{workdir} is extended from {begun} to {wanted} steps")
    return config
