"""A bundle as one file: the same bits back, and everything else refused in a line."""

import json
import shutil
import stat
import zipfile

import numpy as np
import pandas as pd
import pytest
from command_line import call

import genesplice as gs
from genesplice.errors import InputError


@pytest.fixture
def shared(tiny_bundle, tmp_path):
    return gs.export_bundle(tiny_bundle.path, tmp_path / "tiny.zip")


def again(file, out, change, *, drop=()):
    """The same members, each as `change` (name, bytes) gives it."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            if info.filename not in drop:
                new.writestr(info.filename, change(info.filename, old.read(info)))
    return out


def test_what_comes_back_is_the_same_to_the_last_bit(shared, tiny_bundle, tmp_path):
    second = gs.export_bundle(tiny_bundle.path, tmp_path / "again.zip")
    assert second.read_bytes() == shared.read_bytes()
    opened = gs.open_bundle(shared, tmp_path / "opened")
    before, after = tiny_bundle.path, opened.path
    names = {path.name for path in after.iterdir()}
    assert names == {"manifest.json", *tiny_bundle.data_sha256}
    assert all((before / name).read_bytes() == (after / name).read_bytes() for name in names)
    np.testing.assert_array_equal(opened.genome.tokens, tiny_bundle.genome.tokens)
    pd.testing.assert_frame_equal(opened.observed, tiny_bundle.observed)
    assert gs.verify_bundle(shared) == gs.verify_bundle(after) == len(names)


def test_by_command(shared, tiny_bundle, tmp_path):
    out = tmp_path / "by_command.zip"
    answer = call("bundle", "export", tiny_bundle.path, out)
    assert (answer.code, answer.out) == (0, f"{out}\n")
    assert out.read_bytes() == shared.read_bytes()
    assert call("bundle", "verify", out).code == 0
    answer = call("bundle", "open", out, tmp_path / "data")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'data'}\n")
    answer = call("bundle", "open", out, tmp_path / "data", "--overwrite", "--json")
    assert json.loads(answer.out) == {"data": str(tmp_path / "data")}
    answer = call("bundle", "export", tiny_bundle.path, out)
    assert answer.code == 2
    assert "exists, expected a new file (or --overwrite)" in answer.err


def test_the_first_file_that_differs_is_named(shared, tiny_bundle, tmp_path):
    def change(name, data):
        return data[:-1] + bytes([data[-1] ^ 1]) if name == "genome.npy" else data

    bad = again(shared, tmp_path / "bad.zip", change)
    for path in (bad, tmp_path / "copy"):
        if path != bad:
            shutil.copytree(tiny_bundle.path, path)
            data = (path / "genome.npy").read_bytes()
            (path / "genome.npy").write_bytes(change("genome.npy", data))
        with pytest.raises(InputError, match=r"another genome.npy.*, expected sha256 [0-9a-f]{64}"):
            gs.verify_bundle(path)
    with pytest.raises(InputError, match=r"another genome.npy"):
        gs.export_bundle(tmp_path / "copy", tmp_path / "copy.zip")
    with pytest.raises(InputError, match=r"another genome.npy"):
        gs.open_bundle(bad, tmp_path / "opened")
    assert not (tmp_path / "opened").exists()
    assert not (tmp_path / "copy.zip").exists()
    # A byte of the archive itself.
    raw = bytearray(shared.read_bytes())
    with zipfile.ZipFile(shared) as archive:
        raw[archive.getinfo("genes.parquet").header_offset + 200] ^= 255
    (tmp_path / "flipped.zip").write_bytes(raw)
    with pytest.raises(InputError, match=r"a damaged genes.parquet in it|another genes.parquet"):
        gs.verify_bundle(tmp_path / "flipped.zip")


def add(file, name, data=b"x", mode=0o644):
    with zipfile.ZipFile(file, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "mode", "match"),
    [
        ("../escaped.txt", 0o644, r"the member \.\./escaped\.txt"),
        ("/absolute.txt", 0o644, "the member /absolute.txt"),
        ("folder/genome.npy", 0o644, "the member folder/genome.npy"),
        ("genome.npy", 0o644, r"the member genome\.npy"),
        ("tracks.npy", stat.S_IFLNK | 0o777, r"tracks\.npy, which is a link"),
        ("tracks.npy", 0o644, "another SHA256SUMS, expected the files of manifest.json"),
    ],
)
def test_nothing_else_may_be_in_it(shared, tmp_path, name, mode, match):
    add(shared, name, mode=mode)
    for act in (gs.verify_bundle, lambda file: gs.open_bundle(file, tmp_path / "a" / "out")):
        with pytest.raises(InputError, match=match):
            act(shared)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.zip"]


def test_lists_that_do_not_agree_or_are_endless_are_refused(shared, tmp_path, monkeypatch):
    def other_list(name, data):
        if name != "manifest.json":
            return data
        return json.dumps(
            {"files": json.loads(data)["files"] | {"genes.parquet": "0" * 64}}
        ).encode()

    bad = again(shared, tmp_path / "bad.zip", other_list)
    with pytest.raises(InputError, match="another SHA256SUMS"):
        gs.verify_bundle(bad)
    less = again(shared, tmp_path / "less.zip", lambda name, data: data, drop=("genes.parquet",))
    with pytest.raises(InputError, match="another SHA256SUMS"):
        gs.verify_bundle(less)
    none = again(shared, tmp_path / "none.zip", lambda name, data: data, drop=("manifest.json",))
    with pytest.raises(InputError, match=r"no manifest.json that can be read"):
        gs.verify_bundle(none)
    monkeypatch.setattr("genesplice.data.LISTS_BYTES", 10)
    with pytest.raises(InputError, match="of more than 10 bytes"):
        gs.verify_bundle(shared)


def test_what_is_no_bundle_is_refused(tmp_path):
    text = tmp_path / "text.zip"
    text.write_text("no archive")
    for act in (gs.verify_bundle, lambda file: gs.open_bundle(file, tmp_path / "out")):
        with pytest.raises(InputError, match="or no ZIP file, expected what genesplice bundle exp"):
            act(text)
    with pytest.raises(InputError, match="no file"):
        gs.open_bundle(tmp_path / "nothing.zip", tmp_path / "out")
    with pytest.raises(InputError, match="no such folder"):
        gs.verify_bundle(tmp_path / "nothing")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": "genesplice-bundle", "format_version": 2}')
    with pytest.raises(InputError, match=r"a manifest.json without the bundle's files"):
        gs.export_bundle(folder, tmp_path / "f.zip")
