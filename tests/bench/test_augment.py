"""Benchmark of augmentation."""

from satmip_jax.bench import augment, torch_loader


def test_views_are_measured_by_operation(monkeypatch):
    monkeypatch.setattr(torch_loader, "installed", lambda: False)
    measurements = augment.bench([2], stored=32, size=20, rounds=1)
    assert [m.variant for m in measurements] == ["crop", "crop, jitter", "crop, blur", "all"]
    assert {m.unit for m in measurements} == {"images/s"}
    assert measurements[0].facts == {"batch": 2, "stored": 32, "size": 20}
