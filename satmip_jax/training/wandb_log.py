"""Metrics of a run at Weights & Biases, beside those in the workdir.

Its failures, of the network for instance, are logged once and never end a training.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from satmip_jax.errors import ConfigError
from satmip_jax.runtime.files import FileContentError, read_json_object, write_atomically

log = logging.getLogger(__name__)

WANDB_FILE = "wandb.json"
TIMEOUT = 60  # seconds for the start, and for what is left to be sent at the end


def check_wandb(project: str) -> None:
    """Raise ConfigError if metrics are to be sent and `wandb` is not installed."""
    if project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f'--wandb {project} needs the package wandb: pip install "satmip-jax[wandb]"'
        )


class WandbLog:
    """A run at Weights & Biases, which later starts of the same workdir resume.

    The id of the run is kept in `wandb.json`. `WANDB_MODE=offline` writes files to upload by
    `wandb sync`; other variables of wandb apply as well.

    Args:
        project: its name, or entity/project.
        folder: of the logs of the run.
        name: of the run.
        config: of the run.
        files: folder of wandb's own files; None for its default, `wandb` in the working folder.
    """

    def __init__(
        self,
        project: str,
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        files: Path | None = None,
    ) -> None:
        entity, _, project = project.rpartition("/")
        run_id = _run_id(folder / WANDB_FILE)

        def start() -> Any:
            import wandb

            run = wandb.init(
                project=project,
                entity=entity or None,
                id=run_id,
                resume="allow",
                name=name,
                config=dict(config),
                dir=files,
                settings=wandb.Settings(
                    console="off",  # it would wrap the progress bar
                    silent=True,
                    init_timeout=TIMEOUT,
                    finish_timeout=TIMEOUT,
                ),
            )
            # a resumed run repeats the steps after its checkpoint; wandb's own step cannot go back
            run.define_metric("step")
            run.define_metric("*", step_metric="step")
            return run

        self._run: Any = self._try(start)
        if self._run is not None:
            log.info(f"metrics also go to Weights & Biases: {self._run.url or 'offline'}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values of a step, by name."""
        if self._run is not None:
            self._try(lambda: self._run.log({"step": step, **values}))

    def close(self, exit_code: int) -> None:
        """End the run there; 0 marks it as finished, all else as failed."""
        if self._run is not None:
            self._try(lambda: self._run.finish(exit_code=exit_code))
            self._run = None

    def _try(self, act: Callable[[], Any]) -> Any:
        """Call a function of wandb and return its result; None if it fails, and from then on."""
        try:
            return act()
        except Exception as error:  # of the network, of wandb's service, of a login
            self._run = None
            reason = (str(error).splitlines() or [""])[0][:300]
            log.warning(
                f"Weights & Biases failed ({type(error).__name__}: {reason})\n"
                "  Training continues without it; metrics are in the workdir. The next start of "
                "this run is another attempt."
            )
        return None


def _run_id(path: Path) -> str:
    """Return the id of the run in a file, which is written if there is none."""
    with suppress(OSError, FileContentError):
        found = read_json_object(path).get("id")
        if isinstance(found, str) and found.isalnum():
            return found
    run_id = secrets.token_hex(4)
    with suppress(OSError):  # a full disk, which the first row of metrics reports
        write_atomically(path, json.dumps({"id": run_id}) + "\n")
    return run_id
