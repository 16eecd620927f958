"""Hardware and versions of a run."""

from satmip_jax.report.hardware import history


def test_hardware_is_listed_with_every_change():
    start = {"step": 0, "device_kind": "H100", "devices": 8, "versions": {"jax": "0.10.2"}}
    more = {"step": 1500, "processes": 2}
    assert history([start, start | {"step": 900}, start | more]) == [
        ("hardware", "8 × H100; 8 × H100, 2 processes from step 1,500"),
        ("versions", "jax 0.10.2"),
    ]
    assert history([start | more])[0][1] == "not recorded; 8 × H100, 2 processes from step 1,500"
    assert [text for _, text in history([])] == ["not recorded"] * 2
    cpu = {"step": 0, "device_kind": "cpu", "devices": 1, "processor": "Xeon", "cores": 2}
    assert history([cpu])[0][1] == "1 × cpu (Xeon, 2 cores)"
