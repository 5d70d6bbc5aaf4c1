"""Outputs are whole or not there, and say what made them."""

import hashlib
import json
import math
import platform
import signal
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from genesplice.config import load_preset
from genesplice.errors import GeneSpliceError, InputError, WorkError
from genesplice.results import Attribution, Metric, read_metrics, write_metrics
from genesplice.runtime import (
    atomic_directory,
    atomic_file,
    atomic_files,
    claimed,
    file_sha256,
    git_commit,
    require_file,
    require_folder,
    versions,
    write_json,
    write_manifest,
)

ROOT = Path(__file__).resolve().parent.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_inside(context, error: type[BaseException] = ZeroDivisionError) -> None:
    with context as scratch:
        inside = scratch / "half" if scratch.is_dir() else scratch
        inside.write_text("half")
        raise error


# --- files ---


def test_a_file_appears_when_its_body_is_done(tmp_path):
    target = tmp_path / "new" / "out.txt"
    with atomic_file(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        assert partial.parent == target.parent
    assert target.read_text() == "half"
    assert names(target.parent) == ["out.txt"]


def test_a_failed_file_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_inside(atomic_file(tmp_path / "out.txt"))
    assert names(tmp_path) == []


def test_a_failed_file_leaves_the_old_one(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail_inside(atomic_file(target), KeyboardInterrupt)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


# --- folders ---


def test_a_folder_appears_when_its_body_is_done(tmp_path):
    target = tmp_path / "deep" / "out"
    with atomic_directory(target) as scratch:
        (scratch / "a").write_text("a")
        assert not target.exists()
    assert names(target) == ["a"]
    assert names(target.parent) == ["out"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_inside(atomic_directory(tmp_path / "out"))
    assert names(tmp_path) == []


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_directory(tmp_path / "out") as scratch:
        (scratch / "a").touch()
    assert names(tmp_path / "out") == ["a"]
    assert names(tmp_path) == ["out"]


def test_a_full_folder_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with (
        pytest.raises(InputError, match=r"out exists and is not empty, expected a new folder"),
        atomic_directory(tmp_path / "out"),
    ):
        pytest.fail("the body ran")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["mine"]


def test_a_file_in_the_way_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / "out").write_text("mine")
    for overwrite in (False, True):
        with (
            pytest.raises(InputError, match="out is a file, expected a folder"),
            atomic_directory(tmp_path / "out", overwrite=overwrite),
        ):
            pytest.fail("the body ran")
    assert (tmp_path / "out").read_text() == "mine"


def test_overwrite_replaces_all_of_it_and_only_when_done(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    manifest(target)
    with pytest.raises(ZeroDivisionError):
        fail_inside(atomic_directory(target, overwrite=True))
    assert names(target) == ["manifest.json"]
    with atomic_directory(target, overwrite=True) as scratch:
        (scratch / "new").touch()
        assert names(target) == ["manifest.json"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json"])
def test_a_folder_that_no_stage_wrote_is_never_replaced(tmp_path, name):
    target = tmp_path / "out"
    target.mkdir()
    (target / name).write_text('{"name": "of another program"}')
    with (
        pytest.raises(InputError, match="out exists, and genesplice did not write it, expected a"),
        atomic_directory(target, overwrite=True),
    ):
        pytest.fail("the body ran")
    assert names(target) == [name]


def test_a_file_is_replaced_where_that_is_asked_for_and_a_folder_never(tmp_path):
    for overwrite in (False, True):
        require_file(tmp_path / "new" / "out", overwrite=overwrite)
        with pytest.raises(InputError, match="is a folder, expected a file to write"):
            require_file(tmp_path, overwrite=overwrite)
    (tmp_path / "out").touch()
    require_file(tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match=r"out exists, expected a new file \(or --overwrite\)"):
        require_file(tmp_path / "out")
    for check in (require_file, require_folder):
        with pytest.raises(InputError, match="out is a file, expected a folder to write to"):
            check(tmp_path / "out" / "deep" / "in")


KILLED = """
import time
from pathlib import Path
from genesplice.runtime import {context}
with {context}(Path({target!r}){more}) as scratch:
    inside = scratch / "half" if scratch.is_dir() else scratch
    inside.write_text("half")
    Path({ready!r}).touch()
    time.sleep(60)
"""


def kill_inside(context: str, target: Path, ready: Path, more: str = "") -> None:
    """Stop a process for good in the middle of the body."""
    code = KILLED.format(context=context, target=str(target), ready=str(ready), more=more)
    process = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(600):
        if ready.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert ready.exists()


def test_killed_there_is_no_file(tmp_path):
    target = tmp_path / "out" / "predictions.parquet"
    kill_inside("atomic_file", target, tmp_path / "ready")
    assert not target.exists()
    assert all(name.startswith(".") for name in names(target.parent))
    with atomic_file(target) as partial:
        partial.write_text("whole")
    assert target.read_text() == "whole"
    assert names(target.parent) == ["predictions.parquet"]


def test_files_of_a_library_appear_together_when_all_are_done(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "card").write_text("old")
    with atomic_files(tmp_path / "out") as scratch:
        (scratch / "card").write_text("new")
        (scratch / "weights").write_text("w")
        assert (tmp_path / "out" / "card").read_text() == "old"
    assert names(tmp_path / "out") == ["card", "weights"]
    assert (tmp_path / "out" / "card").read_text() == "new"
    with pytest.raises(ZeroDivisionError):
        fail_inside(atomic_files(tmp_path / "out"))
    assert names(tmp_path / "out") == ["card", "weights"]


@pytest.mark.parametrize("more", ["", ", overwrite=True"])
def test_the_next_to_claim_a_folder_takes_away_what_a_kill_left(tmp_path, more):
    target, others = tmp_path / "data", [".data.20261130", ".data.x.12345678.scratch"]
    for other in others:
        (tmp_path / other).mkdir()
    kill_inside("atomic_directory", target, tmp_path / "first", more)
    kill_inside("scratch_folder", target, tmp_path / "second")
    for ready in ("first", "second"):
        (tmp_path / ready).unlink()
    assert len(names(tmp_path)) == 4
    with claimed(target):
        assert names(tmp_path) == others


def test_killed_while_it_is_replaced_the_old_folder_comes_back(tmp_path):
    target, old = tmp_path / "data", tmp_path / ".data.12345678.before"
    (old / "old").mkdir(parents=True)
    (old / "old" / "a").touch()
    with claimed(target):
        assert (names(tmp_path), names(target)) == (["data"], ["a"])
    # The new one had its name already.
    (old / "old").mkdir(parents=True)
    with claimed(target):
        assert (names(tmp_path), names(target)) == (["data"], ["a"])


def test_killed_there_is_no_folder(tmp_path):
    target = tmp_path / "data"
    kill_inside("atomic_directory", target, tmp_path / "ready")
    assert not target.exists()
    with atomic_directory(target) as scratch:
        (scratch / "a").touch()
    assert names(target) == ["a"]


def test_killed_the_old_folder_is_still_whole(tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    manifest(target)
    kill_inside("atomic_directory", target, tmp_path / "ready", ", overwrite=True")
    assert names(target) == ["manifest.json"]


# --- manifests ---


def manifest(folder: Path, **given) -> dict:
    made = write_manifest(folder, command="genesplice test", started=time.monotonic(), **given)
    assert json.loads((folder / "manifest.json").read_text()) == json.loads(json.dumps(made))
    return made


def test_a_manifest_says_all_that_is_needed_to_do_it_again(tmp_path):
    config = load_preset("quick").to_dict()
    made = manifest(
        tmp_path,
        config=config,
        seeds={"pretrain": 3},
        data={"genome.npy": "abc"},
        backend="sdpa",
        extra={"init": "model"},
    )
    assert set(made) == {
        "command", "versions", "seeds", "config", "config_sha256", "data_sha256", "git_commit",
        "backend", "seconds", "init",
    }  # fmt: skip
    assert made["command"] == "genesplice test"
    assert made["seeds"] == {"pretrain": 3}
    assert made["config"] == config
    assert made["data_sha256"] == {"genome.npy": "abc"}
    assert made["backend"] == "sdpa"
    plain = json.dumps(config, sort_keys=True).encode()
    assert made["config_sha256"] == hashlib.sha256(plain).hexdigest()
    assert names(tmp_path) == ["manifest.json"]


def test_the_digest_follows_the_settings_and_not_their_order(tmp_path):
    one = manifest(tmp_path, config={"a": 1, "b": 2})["config_sha256"]
    assert manifest(tmp_path, config={"b": 2, "a": 1})["config_sha256"] == one
    assert manifest(tmp_path, config={"a": 1, "b": 3})["config_sha256"] != one


def test_seconds_are_those_since_the_start(tmp_path):
    made = write_manifest(tmp_path, command="x", started=time.monotonic() - 12)
    assert 12 <= made["seconds"] < 20


def test_versions_are_the_installed_ones(monkeypatch):
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    for package in ("genesplice", "numpy", "torch", "torch-geometric", "captum", "lightning"):
        assert found[package] == version(package)
    monkeypatch.setattr("genesplice.runtime.RECORDED_PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] == "not installed"


def test_the_commit_is_that_of_the_source():
    if not (ROOT / ".git").exists():
        assert git_commit() is None
        return
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    assert git_commit() == (head or None)


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": [1, None], "where": Path("x")})
    assert json.loads(path.read_text()) == {"a": [1, None], "where": "x"}
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        write_json(path, circle)
    assert json.loads(path.read_text())["where"] == "x"
    assert names(tmp_path) == ["value.json"]


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_the_digest_is_that_of_the_bytes(tmp_path, size):
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# --- results ---


def test_metrics_survive_the_file(tmp_path):
    metrics = [
        Metric("level_r2", 0.1 + 0.2, 0.1, 1 / 3, 12, "ridge", "test", fold=0, seed=1),
        Metric("bits_per_base", 2.0, None, None, 5, "genesplice", "train"),
    ]
    write_metrics(tmp_path / "metrics.json", metrics)
    assert read_metrics(tmp_path / "metrics.json") == metrics
    for record in json.loads((tmp_path / "metrics.json").read_text()):
        assert list(record) == [
            "metric", "value", "ci_low", "ci_high", "n", "model", "split", "fold", "seed"
        ]  # fmt: skip


def test_no_metrics_are_an_empty_list(tmp_path):
    write_metrics(tmp_path / "metrics.json", [])
    assert read_metrics(tmp_path / "metrics.json") == []


def test_a_metric_that_is_no_number_is_never_written(tmp_path):
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_metrics(
                tmp_path / "metrics.json", [Metric("x", value, None, None, 1, "m", "test")]
            )
    assert names(tmp_path) == []


def test_the_completeness_error_is_relative_to_the_change():
    bases = np.zeros(2, np.uint8), np.zeros(2)
    found = Attribution("g", "g", "level", "ig", "uniform", 0, *bases, 5.0, 3.0, -0.5)
    assert found.relative_delta == 0.25
    assert math.isnan(found._replace(baseline_output=5.0).relative_delta)


# --- errors ---


def test_an_error_says_where_what_and_what_else():
    assert str(InputError("x")) == "x"
    assert str(InputError("x", "y")) == "found x, expected y"
    assert str(InputError("x", "y", path="f.tsv")) == "f.tsv: found x, expected y"
    assert str(InputError("x", "y", path="f.tsv", line=3)) == "f.tsv:3: found x, expected y"
    hostile = InputError("'a\x1b[2J\n\u202eb\udc80'", "\r", path="d\a", line=1)
    assert str(hostile) == r"d\x07:1: found 'a\x1b[2J\n\u202eb\udc80', expected \r"
    assert (hostile.found, hostile.expected) == (r"'a\x1b[2J\n\u202eb\udc80'", r"\r")
    assert str(InputError("Ünïcode Ж 'µ'")) == "Ünïcode Ж 'µ'"


def test_errors_have_the_exit_codes_of_the_command_line():
    assert (InputError("x").exit_code, WorkError("x").exit_code) == (2, 1)
    assert InputError.__bases__ == (GeneSpliceError, ValueError)
    assert WorkError.__bases__ == (GeneSpliceError, RuntimeError)


FAULTS = """
import resource, sys
import torch
from genesplice.runtime import keep_freed_memory
if sys.argv[1] != "plain":
    assert keep_freed_memory()
if sys.argv[1] == "back":
    assert keep_freed_memory(False)
torch.zeros(16_000_000).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(16_000_000).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_used_again():
    """A tensor of 64 MB has 15,625 pages: mapped anew twenty times, or a few times.

    How few depends on where the heap begins, which differs from process to process: the median.
    After `keep_freed_memory(False)` it is as it was without.
    """

    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    keep, *mapped = (
        statistics.median(faults(how) for _ in range(3)) for how in ("keep", "plain", "back")
    )
    assert min(mapped) > 20 * 12_000
    assert keep < min(mapped) / 3
