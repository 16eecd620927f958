"""A sixteenth field, of a new kind, through the whole package: run as a program.

    python -m tests.metadata.sixteenth SHARDS WORKDIR OUT

It adds the field before any other module of the package is imported, as an entry in `FIELDS` would.
SHARDS and WORKDIR are prepared data and a finished run of the fifteen fields; the scores of that
run go to OUT/scores.json.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from satmip_jax.metadata import fields
from satmip_jax.metadata.fields import Field
from satmip_jax.metadata.kinds import BadValueError, Kind
from tests.conftest import REPOSITORY, TINY


@dataclasses.dataclass(frozen=True)
class Grade(Kind[str]):
    """Grades A to E: texts in shards, one standardized number in arrays, no vocabulary."""

    grades: ClassVar[str] = "ABCDE"
    stored_as_text = True

    @property
    def n_standardized(self):
        return 1

    def parse(self, raw):
        if raw is None:
            raise BadValueError("missing")
        if not (isinstance(raw, str) and len(raw) == 1 and raw in self.grades):
            raise BadValueError("unknown grade")
        return raw

    def dump(self, value):
        return value

    def standardized(self, value):
        return (float(self.grades.index(value)),)

    def to_numbers(self, values):
        return [self.standardized(value) for value in values]

    def n_features(self, stats, frequencies):
        return 1

    def features(self, x, present, stats, frequencies):
        from satmip_jax.metadata.kinds.base import standardize

        return standardize(x, stats)


def check_values():
    """Parse, count, store, encode and describe grades."""
    from satmip_jax.data import shard_format
    from satmip_jax.metadata import caption, tabular
    from satmip_jax.metadata.record import Metadata, Problems
    from satmip_jax.metadata.schema import Schema
    from tests.metadata.records import make_schema

    problems = Problems()
    records = [Metadata.parse({"grade": g}, problems) for g in ("A", "C", "F", None, "E")]
    assert [r.values.get("grade") for r in records] == ["A", "C", None, None, "E"]
    assert problems.to_json()["grade"] == {"missing": 1, "unknown grade": 1}
    assert records[1].to_json() == {"grade": "C"}
    schema = make_schema(records)
    stats = schema.fields["grade"]
    assert (stats.count, stats.mean, stats.vocabulary) == (3, (2.0,), ())
    assert Schema.from_json(schema.to_json()) == schema
    arrays = tabular.encode(records, schema)
    assert arrays["present"].shape == (5, 16)
    assert arrays["values"].shape == (5, 19)
    assert arrays["values"][:, -1].tolist() == [0, 2, 0, 0, 4]
    features = tabular.raw_features(arrays, schema, fields.select_fields("grade"))
    expected = (np.array([0.0, 2, 2, 2, 4]) - 2) / np.sqrt(8 / 3)
    np.testing.assert_allclose(np.asarray(features)[:, 0], expected, atol=1e-6)
    assert caption.decode(caption.fragments(records)[1, -1]) == "grade C; "

    from tensorflow_datasets.proto import tf_example_pb2

    for record in records:
        data = shard_format.encode(shard_format.Record("x", b"jpeg", record))
        feature = tf_example_pb2.Example.FromString(data).features.feature
        assert shard_format.decode(feature, 0, "record")["metadata"] == record
    assert "grade" in shard_format.tfds_features(16, [])


def check_old(shards, workdir, out):
    """Old shards and an old checkpoint work as before."""
    from satmip_jax.checkpoints.manager import Checkpoints
    from satmip_jax.data.shard_dataset import ShardDataset
    from satmip_jax.evaluation.evaluate import evaluate
    from satmip_jax.metadata.schema import Schema
    from satmip_jax.models import build_towers, example_batch
    from satmip_jax.objectives import build_method

    dataset = ShardDataset(shards, "train")
    assert all("grade" not in dataset[i]["metadata"].values for i in range(len(dataset)))
    old = [f.name for f in fields.FIELDS[:-1]]
    with Checkpoints(workdir, read_only=True) as checkpoints:
        config, schema = checkpoints.run()
    assert config.metadata.fields == "Location"  # the group of the new field
    for any_schema in (dataset.schema, schema, Schema.from_json(schema.to_json())):
        assert any_schema.unlisted == {"grade"}
        assert [f.name for f in any_schema.select_fields("all")] == old
        assert "grade" not in any_schema.to_json()["fields"]
    for encoder in ("tabular", "text"):  # the shapes of parameters are those of fifteen fields
        shapes = []
        for selection in ("all", "+".join(old)):
            config.metadata.update(encoder=encoder, fields=selection, caption_length=10_000)
            towers = build_towers(config, schema, build_method(config))
            batch = example_batch(config, schema)
            shapes.append(jax.eval_shape(towers.init, jax.random.key(0), *batch))
        assert shapes[0] == shapes[1]
    scores = evaluate(workdir, str(shards), protocols=["knn5"])
    (out / "scores.json").write_text(json.dumps([score.value for score in scores]))


def check_new(out):
    """Prepare data with the field, train on it, predict it, and evaluate."""
    from satmip_jax.config.loading import load_config
    from satmip_jax.data.shard_dataset import ShardDataset
    from satmip_jax.evaluation.evaluate import evaluate
    from satmip_jax.metadata.record import Metadata
    from satmip_jax.training.loop import train
    from tests.prepare.fake_source import FakeSource, make

    raws = [{"gsd": 1.0 + i, "grade": "ABCDE"[i % 5]} for i in range(32)]
    changes = {i: {"metadata": Metadata.parse(raw)} for i, raw in enumerate(raws)}
    make(out / "shards", FakeSource(32, 8, changes=changes), image_size=32)
    dataset = ShardDataset(out / "shards", "train")
    assert dataset.schema.fields["grade"].count == 32
    assert not dataset.schema.unlisted
    assert {dataset[i]["metadata"].values["grade"] for i in range(32)} == set("ABCDE")
    for method in ("satmip", "metapred"):
        workdir = out / method
        overrides = [
            *TINY,
            f"--config.data.dir={out / 'shards'}",
            "--config.metadata.fields=all",
            "--config.optimizer.images=32",
        ]
        state = train(
            load_config(f"{REPOSITORY / 'configs/eurosat.py'}:{method},cpu", overrides), workdir
        )
        names = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state.params)}
        assert any("grade" in name for name in names), names
    log = (out / "metapred" / "metrics.jsonl").read_text()
    assert all(np.isfinite(row["grade_loss"]) for row in map(json.loads, log.splitlines()))
    scores = evaluate(out / "satmip", str(out / "shards"), fields="grade", protocols=["knn5"])
    assert {score.features for score in scores} == {"image", "metadata (grade)", "both (grade)"}


if __name__ == "__main__":
    field = Field("grade", Grade(), "Location", "A to E", "grade {0}")
    fields.FIELDS = (*fields.FIELDS, field)
    shards, workdir, out = map(Path, sys.argv[1:])
    check_values()
    check_old(shards, workdir, out)
    check_new(out)
