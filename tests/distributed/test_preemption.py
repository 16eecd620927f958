"""A stop by a signal, in one process; see test_multihost.py for several."""

import signal
from concurrent.futures import ThreadPoolExecutor

import jax

from satmip_jax.distributed.preemption import SIGNALS, PreemptionHandler
from satmip_jax.distributed.sharding import make_mesh


def test_a_training_in_another_thread_leaves_signals_alone():
    """Python lets only the main thread set handlers: a notebook or a server may use others."""
    before = [signal.getsignal(number) for number in SIGNALS]

    def run():
        with PreemptionHandler(make_mesh(jax.devices()[:1])) as preemption:
            return preemption.after_step(), [signal.getsignal(number) for number in SIGNALS]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == (None, before)
