"""The order of samples."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from satmip_jax.data.sampler import BatchOrder, _epoch_orders
from satmip_jax.errors import ConfigError

SIZES = {"examples": st.integers(1, 60), "batch_size": st.integers(1, 60)}
SEEDS = {"seed": st.integers(0, 2**31 - 1)}


def plain_shuffle(examples, seed, epochs):
    """The shuffled epochs one after the other, where a batch may hold an example twice."""
    return [
        np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, epoch])))
        .permutation(examples)
        .tolist()
        for epoch in range(epochs)
    ]


@settings(max_examples=60, deadline=None)
@given(**SIZES, **SEEDS, epochs=st.integers(1, 6))
def test_no_batch_holds_an_example_twice_and_every_epoch_all_once(
    examples, batch_size, seed, epochs
):
    assume(batch_size <= examples)
    _epoch_orders.cache_clear()
    order = BatchOrder(examples, batch_size, seed)
    batches = [order[step] for step in range(-(-examples * epochs // batch_size))]
    assert all(len(set(batch)) == batch_size for batch in batches)
    stream = list(chain(*batches))
    for epoch in range(epochs):
        assert sorted(stream[epoch * examples :][:examples]) == list(range(examples))
    for step in reversed(range(len(batches))):  # a resumed run computes the order anew
        _epoch_orders.cache_clear()
        assert BatchOrder(examples, batch_size, seed, start=step)[0] == batches[step]


@settings(max_examples=60, deadline=None)
@given(**SIZES, **SEEDS)
def test_batches_within_an_epoch_are_those_of_the_plain_shuffle(examples, batch_size, seed):
    """Unless the batch that closes an epoch has no room for all examples that it must take."""
    assume(2 * batch_size <= examples)
    epochs = 4
    order = BatchOrder(examples, batch_size, seed)
    stream = list(chain(*(order[step] for step in range(examples * epochs // batch_size + 1))))
    plain = plain_shuffle(examples, seed, epochs)
    for epoch in range(epochs):
        start = epoch * examples
        taken, closing = start % batch_size, (start + examples) % batch_size
        opening = -start % batch_size  # rows of the batch that the epoch before has begun
        before = set(stream[start - taken : start])
        postponed = sum(number in before for number in plain[epoch][:opening])
        room = sum(number not in before for number in plain[epoch][examples - closing :])
        if postponed <= room:
            within = slice(opening, examples - closing)
            assert stream[start : start + examples][within] == plain[epoch][within]


def test_a_batch_that_crosses_an_epoch_changes_only_what_it_would_repeat():
    examples, batch_size = 1000, 128
    one, two, _ = plain_shuffle(examples, 0, 3)
    order = BatchOrder(examples, batch_size, seed=0)
    (crossing,) = (i for i in range(9) if i * batch_size < examples < (i + 1) * batch_size)
    kept = examples - crossing * batch_size
    batch = order[crossing]
    assert batch[:kept] == one[-kept:]
    for before, after in zip(two, batch[kept:], strict=False):
        assert (before != after) == (before in one[-kept:])
    assert sum(a != b for a, b in zip(two, batch[kept:], strict=False)) > 0


@settings(max_examples=30, deadline=None)
@given(
    examples=st.integers(24, 40),
    per_process=st.integers(1, 6),
    processes=st.sampled_from([1, 2, 4]),
    start=st.integers(0, 9),
    **SEEDS,
    data=st.data(),
)
def test_processes_and_resumed_runs_share_one_sequence(
    examples, per_process, processes, start, seed, data
):
    size, steps = per_process * processes, 4
    owner = np.array(data.draw(st.permutations(list(range(processes)) * per_process)))
    alone = BatchOrder(examples, size, seed)
    for step in range(steps):
        together = np.full(size, -1)
        for process in range(processes):
            rows = np.flatnonzero(owner == process)
            together[rows] = BatchOrder(examples, size, seed, start, rows)[step]
        assert together.tolist() == alone[start + step]


def test_the_seed_and_the_epoch_change_the_order():
    def first_two_epochs(seed):
        batches = BatchOrder(50, batch_size=50, seed=seed)
        return batches[0], batches[1]

    one, two = first_two_epochs(0)
    assert one != two
    assert first_two_epochs(1)[0] != one
    assert first_two_epochs(0) == (one, two)


def test_the_order_is_the_same_in_all_releases():
    """Of this project and of NumPy: a run that was started before an update keeps its order."""
    order = BatchOrder(examples=50, batch_size=8, seed=0)
    assert order[0] == [14, 17, 29, 44, 10, 48, 40, 4]
    assert order[6] == [25, 20, 40, 27, 17, 21, 39, 46]
    assert list(order.replacements(6, 2))[:4] == [10, 19, 41, 31]


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(ConfigError, match="batch_size is 65, and there are only 64 examples"):
        BatchOrder(64, 65, seed=0)


@settings(max_examples=25, deadline=None)
@given(**SIZES, **SEEDS, step=st.integers(0, 9), data=st.data())
def test_replacements_are_outside_the_batch_and_differ_between_processes(
    examples, batch_size, seed, step, data
):
    assume(batch_size <= examples)
    batch = BatchOrder(examples, batch_size, seed)[step]
    owner = np.array(data.draw(st.lists(st.integers(0, 2), min_size=batch_size)))[:batch_size]
    offered = []
    for process in range(3):
        rows = np.flatnonzero(owner == process)
        order = BatchOrder(examples, batch_size, seed, step, rows)
        mine = [list(order.replacements(0, position)) for position in range(len(rows))]
        assert all(len(set(numbers)) == len(numbers) for numbers in mine)
        offered.append(set(chain(*mine)))
    spare = set(range(examples)) - set(batch)
    assert set.union(*offered) <= spare
    assert sum(map(len, offered)) == len(set.union(*offered))
    if len(spare) <= 16:
        assert set.union(*offered) == spare
