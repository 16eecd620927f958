"""Processes whose devices lie between each other's along the batch, against a single process."""

import numpy as np
import pytest

from satmip_jax.config.conversion import to_json
from satmip_jax.distributed.sharding import make_mesh
from tests.distributed.order_worker import results
from tests.distributed.test_multihost import finish, launch

LAYOUTS = {  # devices along the batch; the first ones belong to process 0
    "alternating, 2 processes": (2, "0,4,1,5,2,6,3,7"),
    "as on v5e, 4 processes": (4, "0,2,3,4,1,6,7,5"),
}


@pytest.fixture(scope="module")
def alone(tiny_config, tiny_shards_dir):
    return results(make_mesh(), tiny_shards_dir, tiny_config("satmip"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_records_order_and_bits_are_those_of_one_process(
    name, alone, tiny_config, tiny_shards_dir, tmp_path
):
    processes, layout = LAYOUTS[name]
    config = tmp_path / "config.json"
    config.write_text(to_json(tiny_config("satmip")))
    runs = launch(
        *("-m", "tests.distributed.order_worker", "{coordinator}", str(processes), "{process}"),
        *(layout, str(tiny_shards_dir), str(config), str(tmp_path)),
        cache=tmp_path / "cache",
        processes=processes,
    )
    printed = finish(runs)
    assert [run.returncode for run in runs] == [0] * processes, printed
    saved = [np.load(tmp_path / f"{process}.npz") for process in range(processes)]
    for one in saved:
        assert one["stopped"] == "SIGTERM to process 1"
        for key, expected in alone.items():
            if key.startswith("loss."):  # sums of several processes
                np.testing.assert_allclose(one[key], expected, rtol=1e-6)
            elif key != "read":
                np.testing.assert_array_equal(one[key], expected, err_msg=key)
    assert len(alone["indices"]) in range(47, 50)
    read = np.concatenate([one["read"] for one in saved])
    assert sorted(read) == list(range(64))  # each record by one process
