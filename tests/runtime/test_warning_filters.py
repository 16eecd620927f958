"""Warnings that several threads ignore at the same time."""

import warnings
from contextlib import ExitStack

import pytest

from satmip_jax.runtime.warning_filters import ignored


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_blocks_that_overlap_ignore_until_the_last_ends_and_leave_nothing(order):
    before = list(warnings.filters)
    stacks = ExitStack(), ExitStack()
    for stack in stacks:
        stack.enter_context(ignored("old", FutureWarning))
        stack.enter_context(ignored(module="elsewhere"))
    for number in order:
        warnings.warn("old version", FutureWarning, stacklevel=1)
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
        stacks[number].close()
    with pytest.raises(FutureWarning):
        warnings.warn("old version", FutureWarning, stacklevel=1)
    assert warnings.filters == before
