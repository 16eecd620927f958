"""The order of samples."""

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from satmip_jax.data.sampler import BatchOrder


@settings(max_examples=30, deadline=None)
@given(
    examples=st.integers(1, 40),
    per_process=st.integers(1, 6),
    processes=st.sampled_from([1, 2, 4]),
    start=st.integers(0, 9),
    seed=st.integers(0, 2**31 - 1),
)
def test_processes_and_resumed_runs_share_one_sequence(
    examples, per_process, processes, start, seed
):
    def rows(process, processes, size, start, steps):
        batches = BatchOrder(examples, size, seed, start, process, processes)
        return [batches[i] for i in range(steps)]

    size, steps = per_process * processes, 4
    alone = rows(0, 1, size, 0, start + steps)
    together = [
        list(chain(*parts))
        for parts in zip(
            *(rows(p, processes, size, start, steps) for p in range(processes)), strict=True
        )
    ]
    assert together == alone[start:]
    stream = list(chain(*alone))
    for epoch in range(len(stream) // examples):  # every example once an epoch
        assert sorted(stream[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


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
