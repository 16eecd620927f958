"""Scores of a run against scikit-learn on the same features, as split and in spatial blocks."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from satmip_jax.data.shard_dataset import ShardDataset
from satmip_jax.errors import SatmipError
from satmip_jax.evaluation import evaluate as evaluate_module
from satmip_jax.evaluation.baselines import BASELINES, extract_baseline
from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline
from satmip_jax.evaluation.features import Features, extract
from satmip_jax.evaluation.fusion import WEIGHTS
from satmip_jax.evaluation.loading import load_model
from satmip_jax.evaluation.protocols import EvaluationError, score
from satmip_jax.evaluation.results import is_worst, write_scores
from satmip_jax.report.scores import scores
from satmip_jax.sources import fmow
from satmip_jax.training.loop import train


def features(run, data, split, init="trained", **options):
    return extract(load_model(run, init=init), ShardDataset(data, split), **options)


def value(rows, **wanted):
    (row,) = [r for r in rows if all(getattr(r, key) == want for key, want in wanted.items())]
    return row.value


def test_scores_are_those_of_scikit_learn(tiny_run, tiny_shards_dir):
    rows = evaluate(tiny_run, str(tiny_shards_dir), protocols=["knn5"], block=0)
    bank, queries = (features(tiny_run, tiny_shards_dir, split) for split in ("train", "val"))
    assert (len(bank.labels), len(queries.labels)) == (64, 24)
    standard = {}
    for kind in ("image", "metadata"):
        scaler = StandardScaler().fit(bank.by_kind[kind].astype(np.float64))
        standard[kind] = [scaler.transform(part.by_kind[kind]) for part in (bank, queries)]
    answers = {}
    for name, weights in {"image": [None], "metadata": [None], "both": WEIGHTS}.items():
        for weight in weights:
            if name == "both":
                weighed = (standard["image"], 1.0), (standard["metadata"], weight)
            else:
                weighed = ((standard[name], 1.0),)
            x, y = (
                np.concatenate([w * b[i] / np.sqrt(b[i].shape[1]) for b, w in weighed], axis=1)
                for i in (0, 1)
            )
            knn = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(x, bank.labels)
            answers.setdefault(name, []).append(knn.predict(y))
    for name, predictions in answers.items():
        for metric, function in (
            ("accuracy", accuracy_score),
            ("macro_f1", lambda t, p: f1_score(t, p, average="macro")),
        ):
            got = value(rows, features=name, protocol="knn5", metric=metric)
            wanted = [function(queries.labels, predicted) for predicted in predictions]
            assert any(got == pytest.approx(want) for want in wanted), (name, metric, wanted)
    assert {row.n for row in rows} == {24}
    assert {row.dataset for row in rows} == {"synthetic"}
    assert all(row.low <= row.value <= row.high for row in rows)
    assert any(row.low < row.high for row in rows)


@pytest.mark.slow
def test_every_protocol_has_rows_as_split_and_in_blocks(tiny_run, tiny_shards_dir):
    rows = evaluate(tiny_run, str(tiny_shards_dir), features=["both"])
    names = ("knn5", "knn20-weighted", "linear", "precision10")
    blocked = {f"{name} blocked 1deg" for name in names}
    assert {row.protocol for row in rows} == {*names, *blocked}
    (placed,) = {row.n for row in rows if row.protocol in blocked and not is_worst(row.metric)}
    queries = features(tiny_run, tiny_shards_dir, "val")
    assert placed == np.isfinite(queries.locations).all(axis=1).sum() < 24


def place_is_class(n, *, cells, seed):
    """Metadata that tells the cell, and images that tell the class; a cell has one class."""
    rng = np.random.default_rng(seed)
    cell = rng.integers(cells, size=n)
    labels = (cell % 3).astype(np.int32)
    locations = np.stack([cell + rng.uniform(0, 1, n), np.full(n, 0.5)], axis=1)
    image = np.eye(3)[labels] + rng.normal(0, 0.6, (n, 3))
    codes = np.random.default_rng(0).normal(0, 1, (cells, 24))
    metadata = codes[cell] + rng.normal(0, 0.01, (n, 24))
    by_kind = {"image": image.astype(np.float32), "metadata": metadata.astype(np.float32)}
    return Features(by_kind, labels, locations.astype(np.float32), np.arange(n))


@pytest.mark.slow
def test_knowing_the_place_helps_no_more_in_blocks(tiny_shards):
    """The metadata names the cell and says nothing else: 100 % at random, chance in blocks."""
    bank, queries = (place_is_class(n, cells=120, seed=s) for n, s in ((2400, 1), (600, 2)))
    rows = score(
        bank,
        queries,
        kinds=["image", "metadata", "both"],
        dataset=tiny_shards,
        model="",
        protocols=["knn5", "linear"],
    )
    scores = {(r.features, r.protocol): r.value for r in rows if r.metric == "accuracy"}
    for protocol in ("knn5", "linear"):
        assert scores["metadata", protocol] > (0.95 if protocol == "knn5" else 0.5)
        assert scores["metadata", f"{protocol} blocked 1deg"] < 0.5
        image = scores["image", f"{protocol} blocked 1deg"]
        assert 0.65 < image < 0.95
        # the weight is chosen in blocks, so metadata that only knows places does no harm
        assert scores["both", f"{protocol} blocked 1deg"] > image - 0.05


def voted_by_train(folder):
    """Accuracy of scikit-learn's nearest neighbours in train by the colours of val."""
    train_set, val_set = (
        extract_baseline(BASELINES["colour"], ShardDataset(folder, split))
        for split in ("train", "val")
    )
    knn = KNeighborsClassifier(5).fit(train_set.by_kind["image"].astype(float), train_set.labels)
    return knn.score(val_set.by_kind["image"].astype(float), val_set.labels)


def test_tuning_on_a_split_takes_it_into_the_bank(tiny_run, tiny_shards_dir, tmp_path):
    folder = tmp_path / "with_a_twin"  # of the split val
    shutil.copytree(tiny_shards_dir, folder)
    for path in folder.glob("synthetic-val.*"):
        shutil.copy(path, path.with_name(path.name.replace("-val.", "-twin.")))
    facts = json.loads((folder / "schema.json").read_text())
    facts["splits"]["twin"] = facts["splits"]["val"]
    (folder / "schema.json").write_text(json.dumps(facts))
    options = {"features": ["image"], "protocols": ["knn5"], "block": 0}
    alone = evaluate(tiny_run, str(folder), **options)
    joined = evaluate(tiny_run, str(folder), tune="twin", **options)
    retrieving = {**options, "protocols": ["precision10"]}
    found = [evaluate(tiny_run, str(folder), tune=tune, **retrieving) for tune in (None, "twin")]
    # each query then has a copy of itself among its nearest
    assert value(found[1], metric="precision") > value(found[0], metric="precision")
    # and none of the three takes another's place, in the file or on the page
    by_twin = evaluate_baseline("colour", str(folder), bank="twin", protocols=["knn5"], block=0)
    by_both = evaluate_baseline(
        "colour", str(folder), bank="twin", tune="train", protocols=["knn5"], block=0
    )
    assert {row.protocol for row in by_twin} == {"knn5 (bank twin)"}
    assert {row.protocol for row in by_both} == {"knn5 (bank twin, tune train)"}
    # of protocols that take val for the choice alone, the twin has no vote
    options = {"protocols": ["torchgeo-knn5"], "block": 0}
    of_train, by_choice = (
        evaluate_baseline("colour", str(folder), tune=tune, **options) for tune in (None, "twin")
    )
    assert value(by_choice, metric="accuracy") == pytest.approx(
        voted_by_train(str(folder)), abs=1e-9
    )
    assert len(by_choice) == len(of_train)
    write_scores(tmp_path / "evaluation.json", alone)
    assert write_scores(tmp_path / "evaluation.json", joined) == alone + joined
    for table in scores([("run", alone + joined)]).tables:
        assert [name for name, _ in table.protocols] == ["knn5", "knn5 (tune twin)"]
        assert all(line.cells[0] and line.cells[1] for line in table.lines)


@pytest.mark.parametrize("roles", [{"tune": "val"}, {"bank": "val"}, {"tune": "train"}])
def test_examples_are_never_classified_by_themselves(tiny_run, tiny_shards_dir, roles):
    with pytest.raises(EvaluationError, match=r"must differ.*available splits: train, val"):
        evaluate(tiny_run, str(tiny_shards_dir), **roles)
    with pytest.raises(EvaluationError, match="must differ"):
        evaluate_baseline("colour", str(tiny_shards_dir), **roles)


def test_fmow_has_the_score_of_its_challenge(tiny_shards):
    bank, queries = (place_is_class(n, cells=30, seed=s) for n, s in ((300, 1), (200, 2)))
    dataset = copy.copy(tiny_shards)
    weights = tuple(fmow.CHALLENGE_WEIGHTS[name] for name in fmow.CLASSES)
    dataset.schema = replace(
        tiny_shards.schema, classes=fmow.CLASSES, class_weights={"challenge_f1": weights}
    )
    options = {"kinds": ["image"], "model": "", "protocols": ["knn5"], "block": 0}
    rows = score(bank, queries, dataset=dataset, **options)
    scaler = StandardScaler().fit(bank.by_kind["image"].astype(np.float64))
    x, y = (scaler.transform(part.by_kind["image"]) for part in (bank, queries))
    knn = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(x, bank.labels)
    f1 = f1_score(queries.labels, knn.predict(y), average=None)
    # airport counts 0.6 times; airport_hangar and airport_terminal once
    wanted = np.average(f1, weights=[0.6, 1, 1])
    assert wanted != pytest.approx(f1.mean(), abs=1e-3)
    assert value(rows, metric="challenge_f1") == pytest.approx(wanted)
    others = score(bank, queries, dataset=tiny_shards, **options)
    assert {row.metric for row in others} == {"accuracy", "macro_f1", "worst_class"}


def test_selected_fields_are_named_in_the_rows(tiny_run, tiny_shards_dir):
    rows = evaluate(
        tiny_run, str(tiny_shards_dir), fields="Time", protocols=["knn5"], block=0
    ) + evaluate_baseline("fields", str(tiny_shards_dir), fields="Time", protocols=["knn5"])
    assert {row.features for row in rows} == {"image", "metadata (Time)", "both (Time)"}


def test_the_untrained_twin_is_named(tiny_run, tiny_shards_dir):
    rows = evaluate(
        tiny_run, str(tiny_shards_dir), features=["image"], protocols=["knn5"], init="random"
    )
    assert {row.model for row in rows} == {"satmips mu/8 (untrained)"}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_have_rows(name, tiny_shards_dir):
    rows = evaluate_baseline(name, str(tiny_shards_dir), protocols=["knn5"])
    kinds = {"fields": {"metadata", "both"}, "numbers": {"metadata"}}
    assert {row.features for row in rows} == kinds.get(name, {"image"})
    assert {row.model for row in rows} == {name}


def test_an_unknown_baseline_or_protocol_is_named(tiny_shards_dir):
    with pytest.raises(
        EvaluationError, match="no baseline 'color': choose from colour, imagestats, patches"
    ):
        evaluate_baseline("color", str(tiny_shards_dir))
    with pytest.raises(EvaluationError, match=r"no protocol \['knn7'\]: choose from knn5, knn20"):
        evaluate_baseline("colour", str(tiny_shards_dir), protocols=["knn5", "knn7"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocols": ["knn7"]}, r"no protocol \['knn7'\]: choose from knn5, knn20"),
        ({"features": ["images"]}, r"no features \['images'\]: choose from image, metadata"),
        ({"fields": "Tide"}, "Tide"),
        ({"fields": []}, "leaves no field"),
        ({"bank": "training"}, "has no split training: choose from train, val"),
        ({"tune": "val2"}, "has no split val2: choose from train, val"),
    ],
)
def test_wrong_arguments_are_answered_before_anything_is_loaded(
    options, message, tiny_shards_dir, tmp_path, monkeypatch
):
    def load(*args, **kwargs):
        raise AssertionError("loaded or encoded")

    for name in ("load_model", "extract_each", "extract_baseline"):
        monkeypatch.setattr(evaluate_module, name, load)
    with pytest.raises(SatmipError, match=message):
        evaluate(tmp_path, str(tiny_shards_dir), **options)
    if "features" not in options:
        with pytest.raises(SatmipError, match=message):
            evaluate_baseline("colour", str(tiny_shards_dir), **options)


def test_a_method_without_metadata_has_image_features_only(tiny_config, tiny_shards_dir, tmp_path):
    train(tiny_config("simclr", "--config.optimizer.images=16"), tmp_path)
    rows = evaluate(tmp_path, str(tiny_shards_dir), protocols=["knn5"])
    assert {row.features for row in rows} == {"image"}
    with pytest.raises(EvaluationError, match="simclr has no metadata encoder"):
        evaluate(tmp_path, str(tiny_shards_dir), features=["metadata"])
    with pytest.raises(EvaluationError, match="colour"):
        evaluate(tmp_path, str(tiny_shards_dir), features=["image", "colour"])


def test_each_selection_of_fields_is_scored_as_alone(tiny_run, tiny_shards_dir, monkeypatch):
    data, options = str(tiny_shards_dir), {"protocols": ["knn5"], "block": 0}
    specs = ["all-leak", "Time"]
    alone = [row for spec in specs for row in evaluate(tiny_run, data, fields=spec, **options)]
    read, each = [], evaluate_module.extract_each
    monkeypatch.setattr(
        evaluate_module, "extract_each", lambda m, d, s: read.append(d.split) or each(m, d, s)
    )
    rows = evaluate(tiny_run, data, fields=[*specs, "Time"], **options)  # one of them twice
    assert read == ["train", "val"]  # once, whatever the number of selections
    assert len(rows) == len({row.identity for row in rows})
    assert {row.features for row in rows} == {"image"} | {
        f"{kind} ({spec})" for kind in ("metadata", "both") for spec in specs
    }
    by_identity = {row.identity: row for row in alone}
    assert all(by_identity[row.identity] == row for row in rows)
    assert set(by_identity) == {row.identity for row in rows}


def test_each_selection_of_raw_fields_is_scored_as_alone(tiny_shards_dir):
    data, options = str(tiny_shards_dir), {"protocols": ["knn5"], "block": 0}
    specs = ["GSD", "Location"]
    alone = [evaluate_baseline("fields", data, fields=spec, **options) for spec in specs]
    assert evaluate_baseline("fields", data, fields=specs, **options) == alone[0] + alone[1]
    colour = evaluate_baseline("colour", data, **options)
    assert evaluate_baseline("colour", data, fields=specs, **options) == colour


def test_data_without_metadata_are_scored_by_their_images(tiny_run, tiny_shards_dir, tmp_path):
    folder = tmp_path / "without"
    shutil.copytree(tiny_shards_dir, folder)
    facts = json.loads((folder / "schema.json").read_text())
    facts["fields"] = {}
    (folder / "schema.json").write_text(json.dumps(facts))
    rows = evaluate(tiny_run, str(folder), protocols=["knn5"], block=0)
    assert {row.features for row in rows} == {"image"}
    with pytest.raises(EvaluationError, match="has no metadata: evaluate --features image"):
        evaluate(tiny_run, str(folder), features=["metadata", "both"])
    # of several selections, those that have values are scored
    facts["fields"] = json.loads((tiny_shards_dir / "schema.json").read_text())["fields"]
    facts["fields"].pop("gsd")
    (folder / "schema.json").write_text(json.dumps(facts))
    specs = ["gsd", "Time"]
    found = evaluate(tiny_run, str(folder), fields=specs, protocols=["knn5"], block=0)
    assert {row.features for row in found} == {"image", "metadata (Time)", "both (Time)"}
