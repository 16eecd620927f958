"""Notices to the user, on the main process, beside progress bars."""

from __future__ import annotations

import jax
from tqdm import tqdm


def log_main(message: str) -> None:
    """Print a line on the main process, without breaking a progress bar."""
    if jax.process_index() == 0:
        tqdm.write(message)
