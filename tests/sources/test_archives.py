"""Folders and zips from any machine: files of macOS, links, damaged zips, composed names."""

import unicodedata
import zipfile
from pathlib import Path

import pytest

from satmip_jax.metadata.record import Problems
from satmip_jax.sources.archives import Archives
from satmip_jax.sources.base import SourceError, UnreadableExample
from satmip_jax.sources.fgsc23 import FGSC23
from satmip_jax.sources.folder import Folder
from satmip_jax.sources.resisc45 import RESISC45
from tests.sources.pictures import picture, read_all, write_csv, write_images

NFC, NFD = (unicodedata.normalize(form, "Wäld/ä1.png") for form in ("NFC", "NFD"))
MACOS = ("__MACOSX/d/._a.jpg", "d/._a.jpg", "._b.jpg", ".DS_Store", "d/.DS_Store")


def write_zip(path: Path, names, data: bytes = b"...") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, data)
    return path


def names(archives: Archives) -> list[str]:
    return [name for _, _, name in archives.files()]


def test_files_of_macos_are_left_out(tmp_path):
    archive = write_zip(tmp_path / "z" / "data.zip", ["d/a.jpg", *MACOS])
    write_images(tmp_path / "f", ["d/a.jpg", *MACOS])
    (tmp_path / "z" / "._data.zip").write_bytes(b"no zip")
    for path in (archive, tmp_path / "z", tmp_path / "f"):
        for suffixes in ((".jpg",), ("",)):
            archives = Archives([path], suffixes)
            assert names(archives) == ["d/a.jpg"]
            assert not archives.skipped


def test_files_of_macos_change_no_drawn_split(tmp_path):
    chips = [f"NWPU/{c}/{c}_{i:03}.jpg" for c in ("airport", "beach") for i in range(15)]
    beside = [f"__MACOSX/{path.rpartition('/')[0]}/._{path.rpartition('/')[2]}" for path in chips]
    write_zip(tmp_path / "plain.zip", chips)
    write_zip(tmp_path / "mac.zip", [*chips, *beside])
    write_images(tmp_path / "folder", [*chips, *(path.replace("__MACOSX/", "") for path in beside)])

    def splits(path):
        source = RESISC45([tmp_path / path])
        result = {ref.id: ref.split for ref in source.refs()}
        assert source.skipped == {}
        return result

    assert splits("mac.zip") == splits("plain.zip") == splits("folder")


def test_a_table_of_macos_is_no_table(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    write_csv(root / "t.csv", [{"path": "a.png"}])
    (root / "._t.csv").write_bytes(b"\0\5\x16\7")
    assert Folder([root]).table.name == "t.csv"


# --- damaged zips ---------------------------------------------------------------------------------


def test_a_damaged_zip_does_not_end_the_rest(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    write_zip(root / "good.zip", ["b.png"], picture(1))
    (root / "bad.zip").write_bytes(b"PK no zip")
    rows = [{"path": name} for name in ("a.png", "b.png", "c.png")]
    source = Folder([root], write_csv(tmp_path / "t.csv", rows))
    assert [ref.id for ref in source.refs()] == ["a.png", "b.png"]
    assert source.skipped == {
        "bad.zip: cannot be read as a zip (File is not a zip file)": 1,
        "row without an image": 1,
    }


def test_only_damaged_zips(tmp_path):
    bad, other = tmp_path / "d" / "bad.zip", tmp_path / "d" / "other.zip"
    bad.parent.mkdir()
    bad.write_bytes(b"PK no zip")
    other.write_bytes(b"")
    write_csv(tmp_path / "t.csv", [{"path": "a.png"}])
    for paths in ([bad], [bad, other], [bad.parent]):
        with pytest.raises(SourceError, match=r"bad\.zip: cannot be read as a zip"):
            FGSC23(paths).refs()
        with pytest.raises(SourceError, match=r"bad\.zip: cannot be read as a zip"):
            Folder(paths, tmp_path / "t.csv").refs()


def test_an_encrypted_member_is_called_so(tmp_path):
    path = write_zip(tmp_path / "locked.zip", ["a.png"], picture(3))
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # local header, directory
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)
    source = Folder([path], write_csv(tmp_path / "t.csv", [{"path": "a.png"}]))
    (ref,) = source.refs()
    with pytest.raises(UnreadableExample, match="encrypted zip member: unpack it"):
        source.read(ref, Problems())


# --- links ----------------------------------------------------------------------------------------


def test_no_link_to_a_zip_leads_out_of_the_folder(tmp_path):
    outside = write_zip(tmp_path / "outside.zip", ["test/1/x.jpg"])
    root = write_images(tmp_path / "images", ["test/0/a.jpg"])
    (root / "data.zip").symlink_to(outside)
    reason = "symbolic link that leads out of its folder: data.zip"
    ships = FGSC23([root])
    assert [ref.id for ref in ships.refs()] == ["test/0/a.jpg"]
    assert ships.skipped == {reason: 1}
    rows = [{"path": "test/0/a.jpg"}, {"path": "test/1/x.jpg"}]
    source = Folder([root], write_csv(tmp_path / "t.csv", rows))
    assert [ref.id for ref in source.refs()] == ["test/0/a.jpg"]
    assert source.skipped == {reason: 1, "row without an image": 1}
    named = FGSC23([root, root / "data.zip"])  # a link that is given is followed
    assert [ref.id for ref in named.refs()] == ["test/0/a.jpg", "test/1/x.jpg"]
    (root / "data.zip").unlink()
    inside = write_zip(root / "zips" / "inside.zip", ["test/1/x.jpg"])
    (root / "data.zip").symlink_to(inside)
    assert len(FGSC23([root]).refs()) == 2


def test_no_link_to_a_table_leads_out_of_the_folder(tmp_path):
    root = write_images(tmp_path / "images", ["a.png"])
    secret = tmp_path / "secret.csv"
    secret.write_text("path,password\na.png,hunter2\n")
    (root / "metadata.csv").symlink_to(secret)
    with pytest.raises(
        SourceError, match=r"no table .*leads out of its folder: metadata\.csv"
    ) as e:
        Folder([root])
    assert "password" not in str(e.value)
    assert len(Folder([root], metadata=root / "metadata.csv").refs()) == 1  # as the message advises
    write_csv(root / "other.csv", [{"path": "a.png"}])
    source = Folder([root])
    assert source.table.name == "other.csv"
    source.refs()
    assert "symbolic link that leads out of its folder: metadata.csv" in source.summary
    assert source.skipped == {"symbolic link that leads out of its folder": 1}


# --- composed and decomposed names ----------------------------------------------------------------


@pytest.mark.parametrize("stored", [NFC, NFD])
@pytest.mark.parametrize("listed", [NFC, NFD, NFD.rpartition("/")[2]])
@pytest.mark.parametrize("as_zip", [True, False])
def test_composed_and_decomposed_names_are_equal(stored, listed, as_zip, tmp_path):
    root = write_images(tmp_path / "images", [] if as_zip else [stored])
    if as_zip:
        root = write_zip(tmp_path / "images.zip", [stored], picture(3))
    table = write_csv(tmp_path / "t.csv", [{"path": listed, "label": listed}])
    source = Folder([root], table)
    found, _ = read_all(source)
    assert list(found) == [NFC]
    assert found[NFC].image
    assert source.classes == (unicodedata.normalize("NFC", listed),)


def test_names_of_zips_of_macos_which_lack_the_utf8_flag(tmp_path):
    path = write_zip(tmp_path / "mac.zip", [NFD], picture(3))
    data = path.read_bytes()
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # local header, directory
        at = data.index(signature) + flags
        assert data[at + 1] == 0x08
        data = data[: at + 1] + b"\0" + data[at + 2 :]
    path.write_bytes(data)
    source = Folder([path], write_csv(tmp_path / "t.csv", [{"path": NFC}]))
    found, _ = read_all(source)
    assert found[NFC].image == picture(3)


def test_equal_labels_are_one_class(tmp_path):
    root = write_images(tmp_path / "images", ["a.png", "b.png"])
    rows = [{"path": "a.png", "label": NFC}, {"path": "b.png", "label": NFD}]
    assert Folder([root], write_csv(tmp_path / "t.csv", rows)).classes == (NFC,)
