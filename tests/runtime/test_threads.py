"""Calls in threads: the order of the results, their bound in memory, errors."""

import threading

import pytest

from satmip_jax.runtime.threads import map_in_order


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_are_in_order_whichever_call_ends_first(threads):
    later = threading.Event()

    def call(item):
        if threads > 1 and item == 0:
            assert later.wait(10)  # the first call ends after the second
        later.set()
        return 10 * item

    assert list(map_in_order(call, range(9), threads)) == [10 * item for item in range(9)]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_items_are_taken_as_results_are(threads):
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    results = map_in_order(abs, items(), threads)
    for _ in range(5):
        next(results)
    assert len(taken) <= 5 + threads
    results.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_raised_in_its_place(threads):
    results = map_in_order(lambda item: 1 // item, [1, 1, 0, 1], threads)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
