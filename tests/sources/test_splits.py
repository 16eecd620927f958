"""Splits of data sets without published ones: random, or by lists."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satmip_jax.sources.base import SourceError
from satmip_jax.sources.splits import SIXTY_TWENTY_TWENTY, Splits

IMAGES = [f"{c}/{c}_{i:03d}.jpg" for c in ("beach", "lake") for i in range(10)]
LABELS = {key: key.partition("/")[0] for key in IMAGES}


def write_lists(folder: Path, lists: dict[str, list[str]], name: str = "demo") -> None:
    for split, lines in lists.items():
        (folder / f"{name}-{split}.txt").write_text("\n".join(lines) + "\n")


def in_three(images=IMAGES) -> dict[str, list[str]]:
    names = [image.rpartition("/")[2] for image in images]
    return {"train": names[::2], "val": names[1::4], "test": names[3::4]}


def find(*beside, folder=None, seed=0, shares=SIXTY_TWENTY_TWENTY, **options) -> Splits:
    return Splits.find("demo", shares, seed, beside, folder=folder, **options)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(0, 5),
    st.sampled_from([SIXTY_TWENTY_TWENTY, (("train", 0.8), ("test", 0.2))]),
)
def test_a_draw_is_complete_disjoint_and_stratified(sizes, seed, shares):
    labels = {f"c{c}/x{i}.jpg": f"c{c}" for c, n in enumerate(sizes) for i in range(n)}
    drawn = find(seed=seed, shares=shares).assign(labels, Counter())
    assert drawn.keys() == labels.keys()  # one split for each image, and no image without
    for c, n in enumerate(sizes):
        counts = Counter(drawn[key] for key in labels if labels[key] == f"c{c}")
        for split, share in shares:
            assert abs(counts[split] - share * n) <= 1
    backwards = dict(reversed(labels.items()))
    assert find(seed=seed, shares=shares).assign(backwards, Counter()) == drawn


def test_a_draw_depends_on_the_seed_only():
    labels = {f"c/x{i}.jpg": "c" for i in range(100)}
    first, again = find(seed=1).assign(labels, Counter()), find(seed=1).assign(labels, Counter())
    assert first == again
    assert Counter(first.values()) == {"train": 60, "val": 20, "test": 20}
    other = find(seed=2).assign(labels, Counter())
    assert 20 < sum(first[key] != other[key] for key in labels) < 80
    # the same images in another format, as TFDS has them
    png = find(seed=1).assign({key.replace(".jpg", ".png"): "c" for key in labels}, Counter())
    assert {key.replace(".png", ".jpg"): split for key, split in png.items()} == first
    assert (
        find(seed=1).description
        == "drawn within each class with seed 1: train 60%, val 20%, test 20%"
    )


def test_lists_decide_the_split(tmp_path):
    write_lists(tmp_path, in_three())
    expected = {}
    for split, names in in_three().items():
        expected |= {key: split for key in IMAGES if key.rpartition("/")[2] in names}
    skipped: Counter[str] = Counter()
    splits = find(tmp_path)
    assert splits.assign(LABELS, skipped) == expected
    assert not skipped
    assert splits.description == "the lists demo-train.txt, demo-val.txt, demo-test.txt"
    assert find(folder=tmp_path).assign(LABELS, skipped) == expected
    # TorchGeo's lists of EuroSAT name .jpg where its files are .tif; a class before the name is
    # allowed, and so are Windows' line ends, a byte order mark, empty lines and doubles
    for split, names in in_three().items():
        lines = [f"2750/{name[:-8]}/{name[:-4]}.tif" for name in names]
        text = "\ufeff" + "\r\n\r\n".join([*lines, lines[0]])
        (tmp_path / f"demo-{split}.txt").write_text(text, encoding="utf-8", newline="")
    assert find(tmp_path).assign(LABELS, skipped) == expected
    assert not skipped


def test_images_on_no_list_are_counted(tmp_path):
    lists = in_three()
    lists["train"] = [*lists["train"][1:], "cloud_001.jpg"]
    write_lists(tmp_path, lists)
    skipped: Counter[str] = Counter()
    assigned = find(tmp_path).assign(LABELS, skipped)
    assert len(assigned) == len(IMAGES) - 1
    assert skipped == {"image on no list": 1, "line of demo-train.txt without an image": 1}


def test_published_lists_are_recognized(tmp_path):
    write_lists(tmp_path, in_three())
    checksums = {
        split: hashlib.md5((tmp_path / f"demo-{split}.txt").read_bytes()).hexdigest()
        for split in in_three()
    }
    assert "(published, as TorchGeo has them)" in find(tmp_path, checksums=checksums).description
    with (tmp_path / "demo-val.txt").open("a") as file:
        file.write("more.jpg\n")
    assert "(not the published ones)" in find(tmp_path, checksums=checksums).description


def test_inconsistent_lists_are_errors(tmp_path):
    assert not find(tmp_path, tmp_path).lists  # no lists: a random draw
    with pytest.raises(SourceError, match=r"no demo-train\.txt, .* provide all of"):
        find(folder=tmp_path)
    write_lists(tmp_path, in_three())
    (tmp_path / "demo-test.txt").unlink()
    with pytest.raises(SourceError, match=r"no demo-test\.txt: provide all .* or none for a ra"):
        find(tmp_path)
    lists = in_three()
    lists["test"].append(lists["train"][0])
    write_lists(tmp_path, lists)
    with pytest.raises(SourceError, match=r"'beach_000.jpg' is also on the list of train"):
        find(tmp_path).assign(LABELS, Counter())
    write_lists(tmp_path, in_three())
    with pytest.raises(
        SourceError, match=r"matches a/beach_000.jpg and b/beach_000.jpg: write the cl"
    ):
        find(tmp_path).assign({"a/beach_000.jpg": "a", "b/beach_000.jpg": "b"}, Counter())
    with pytest.raises(SourceError, match=r"none of the lines .* should look like 'zzz.jpg'"):
        find(tmp_path).assign({"a/zzz.jpg": "a"}, Counter())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=120) | st.text(st.sampled_from("beach_lake/0123.jpg\n\0\\"), max_size=80))
def test_any_list_is_read_or_rejected(tmp_path, text):
    write_lists(tmp_path, in_three())
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "demo-test.txt").write_bytes(data)
    try:
        assigned = find(tmp_path).assign(LABELS, Counter())
    except SourceError:
        return
    assert assigned.keys() <= LABELS.keys()
    assert {key for key in assigned if assigned[key] == "train"} == {
        key for key in IMAGES if key.rpartition("/")[2] in in_three()["train"]
    }
