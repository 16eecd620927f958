"""A corrected table or image is noticed when the same command is given again."""

import json
import zipfile

import pytest
from click.testing import CliRunner

from satmip_jax.cli import cli
from satmip_jax.prepare.run import PrepareError, prepare
from satmip_jax.sources.folder import Folder
from tests.prepare.fake_source import contents
from tests.sources.pictures import picture, write_csv, write_images

ROWS = [
    {"path": f"{i}.png", "label": "xy"[i % 2], "gsd": 0.5 + i, "notes": f"n{i}"} for i in range(4)
]


@pytest.fixture
def root(tmp_path):
    write_csv(tmp_path / "t.csv", ROWS)
    return write_images(tmp_path / "images", [row["path"] for row in ROWS])


def run(root, path=None, **options):
    source = Folder([path or root], root.parent / "t.csv")
    options = {"image_size": 8, "workers": 0, "progress": False, "shard_size": 2, **options}
    return prepare(source, root.parent / "out", **options)


def change(row: int, **cells) -> list[dict]:
    return [{**r, **cells} if i == row else r for i, r in enumerate(ROWS)]


def test_unchanged_data_resume(root):
    before = run(root)
    report = run(root)
    assert (before.resumed, report.resumed, report.notice) == (0, 4, "")
    changed = change(1, notes="corrected")  # not read
    write_csv(root.parent / "t.csv", changed)
    (root / "0.png").touch()
    assert run(root).resumed == 4
    moved = root.rename(root.with_name("moved"))  # the same data in another place
    assert run(root, moved).resumed == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (change(1, label="x"), "the table changed since"),
        (change(3, gsd=9.0), "the table changed since"),
        (change(0, label="z"), "the table or the images changed since"),  # another class
        (ROWS[1:], "the table or the images changed since"),
    ],
)
def test_a_changed_table_is_refused(rows, message, root):
    run(root)
    before = contents(root.parent / "out")
    write_csv(root.parent / "t.csv", rows)
    with pytest.raises(PrepareError, match=f"{message}.*choose another folder, or delete this one"):
        run(root)
    assert contents(root.parent / "out") == before
    write_csv(root.parent / "t.csv", ROWS)
    assert run(root).resumed == 4


def test_a_changed_image_is_refused(root):
    run(root)
    (root / "2.png").write_bytes(picture(9) + b"\0")
    with pytest.raises(PrepareError, match="the images changed since"):
        run(root)


def test_a_changed_image_of_the_same_size_in_a_zip_is_refused(root):
    archive = root.parent / "images.zip"

    def write(value: int) -> None:
        with zipfile.ZipFile(archive, "w") as file:
            for i, row in enumerate(ROWS):
                file.writestr(row["path"], picture(value if i == 2 else i))

    write(2)
    run(root, archive)
    write(2)
    assert run(root, archive).resumed == 4
    assert len(picture(3)) == len(picture(2))
    write(3)
    with pytest.raises(PrepareError, match="the images changed since"):
        run(root, archive)


def test_other_options_are_named_alone(root):
    run(root)
    write_csv(root.parent / "t.csv", change(1, gsd=9.0))
    with pytest.raises(PrepareError, match=r"limit was None and is now 1\. Use the same options"):
        run(root, limit=1)


def test_plans_of_earlier_versions_resume(root):
    run(root)
    path = root.parent / "out" / ".prepare" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in plan.items() if k not in ("rows", "file_sizes")}))
    report = run(root)
    assert report.resumed == 4
    assert "was started by an earlier version" in report.notice
    assert json.loads(path.read_text()) == plan
    write_csv(root.parent / "t.csv", change(1, gsd=9.0))
    with pytest.raises(PrepareError, match="the table changed since"):
        run(root)


def test_columns_and_classes_are_printed(root):
    def output(*columns):
        out = root.parent / f"out{len(columns)}"
        arguments = ["prepare", "folder", "--source", root, "--metadata", root.parent / "t.csv"]
        arguments += ["--out", out, "--workers", 0, *columns]
        result = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output, json.loads((out / "prepare_report.json").read_text())["reading"]

    printed, reading = output()
    assert "columns: path <- path, label <- label, gsd <- gsd\nignored columns: notes\n" in printed
    assert "2 classes: x, y\n" in printed
    assert reading[1:] == printed.splitlines()[1:4]
    unlabelled = output("--columns", "label=")[0]
    assert "no labels: images are stored without a class, which `satmip train` does" in unlabelled
    assert "(--columns label=NAME takes a column of the table)\n" in unlabelled
