"""What the world around refuses is one line and exit code 1, before the work where it can be."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import call

from genesplice.cli import never_silent, system_failure
from genesplice.cli.notebooks import called
from genesplice.data.bundle import load_bundle
from genesplice.errors import WorkError
from genesplice.runtime import Countdown, claimed

CLAIM = """
import sys, time
from pathlib import Path
from genesplice.runtime import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(60)
"""

SLOW = """
import sys, time
from pathlib import Path
from genesplice import cli
from genesplice.runtime import atomic_directory
from genesplice.show import notebooks

def slowly(folder):
    with atomic_directory(folder):
        print("begun", flush=True)
        time.sleep(60)

notebooks.list_notebooks = slowly
cli.main()
"""
# As numpy's C code does while it looks at a buffer: another error, with no more than a cause.
CHANGED = SLOW.replace(
    "        time.sleep(60)",
    """
        error = ValueError("not a valid buffer")
        try:
            time.sleep(60)
        except KeyboardInterrupt as stop:
            error.__cause__ = stop
        raise error
""",
)


VERBS = pytest.mark.parametrize("verb", ["prepare", "baselines", "pretrain", "verdict"])


@pytest.mark.parametrize("out", ["/proc/out", "/proc/self/deep/out"])
@VERBS
def test_a_folder_that_cannot_be_written_is_told_before_the_work(verb, out, tmp_path):
    data = [] if verb == "prepare" else ["--data", tmp_path / "nothing"]
    answer = call(verb, *data, "--out", out)
    assert (answer.code, answer.out) == (1, "")
    (line,) = answer.err.splitlines()
    assert line.startswith(f"genesplice: {out} cannot be written: /")


@VERBS
def test_a_folder_in_a_file_is_refused_before_the_work(verb, tmp_path):
    data = [] if verb == "prepare" else ["--data", tmp_path / "nothing"]
    answer = call(verb, *data, "--out", "/dev/null/out")
    said = "genesplice: found /dev/null is a file, expected a folder to write to\n"
    assert (answer.code, answer.out, answer.err) == (2, "", said)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(tmp_path):
    tmp_path.chmod(0o555)
    assert "Permission denied" in call("baselines", "--data", "x", "--out", tmp_path / "out").err


def test_two_at_once_in_one_folder_are_told_apart(tmp_path):
    (tmp_path / "else").mkdir()
    with claimed(tmp_path / "out"), claimed(tmp_path / "other"):
        for same in (tmp_path / "out", tmp_path / "else" / ".." / "out"):
            line = call("baselines", "--data", tmp_path / "nothing", "--out", same).err
            assert line == f"genesplice: {same} is being written by process {os.getpid()}\n"
    answer = call("baselines", "--data", tmp_path / "nothing", "--out", tmp_path / "out")
    assert (answer.code, "no such folder" in answer.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["else"]


def test_a_dead_process_holds_nothing(tmp_path):
    words = [sys.executable, "-c", CLAIM, str(tmp_path / "out")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        with (
            pytest.raises(WorkError, match=f"written by process {process.pid}"),
            claimed(tmp_path / "out"),
        ):
            pytest.fail("claimed twice")
        process.send_signal(signal.SIGKILL)
    with claimed(tmp_path / "out"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("script", [SLOW, CHANGED], ids=["interrupted", "changed"])
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "ended from outside"), (signal.SIGINT, 130, "interrupted")],
)
def test_ended_by_a_signal_nothing_half_written_is_left(tmp_path, number, code, word, script):
    folder = tmp_path / "data"
    words = [sys.executable, "-c", script, "list", "--notebooks", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "begun\n"
        assert len(list(tmp_path.iterdir())) == 1
        one.send_signal(number)
        _, said = one.communicate(timeout=60)
    assert (one.returncode, said) == (code, f"genesplice: {word}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_at_work_is_not_taken_up_by_another(tmp_path):
    run = tmp_path / "reports" / "runs" / "now"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text('{"notebooks": [], "kind": "run", "preset": "quick"}')
    words = ["run", "--notebooks", tmp_path, "--out", tmp_path / "reports", "--resume", "latest"]
    with claimed(run):
        answer = call(*words)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"genesplice: {run} is being written by process {os.getpid()}\n"


OPENED: list[Path] = []
WATCHED: list[Path] = []


def remember(event: str, about: tuple) -> None:
    """Note what Python opens to write below a watched folder."""
    is_written = event == "open" and bool((about[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    if is_written and WATCHED and isinstance(about[0], str | Path):
        path = Path(about[0])
        if path.is_relative_to(WATCHED[0]):
            OPENED.append(path.relative_to(WATCHED[0]))


@pytest.mark.slow
def test_nothing_is_written_under_its_final_name(tiny_bundle, tmp_path):
    """A kill at any moment leaves no half file that looks whole."""
    sys.addaudithook(remember)
    settings = [
        "model.width=16", "model.heads=2", "model.base_width=4", "model.region_layers=1",
        "model.summary_layers=1", "pretrain.window_bp=2048", "pretrain.batch_windows=2",
        "pretrain.steps=3", "pretrain.measure=false", "pretrain.checkpoint_minutes=0.00001",
        "finetune.core_bp=65536", "finetune.flank_bp=1024", "finetune.head_steps=2",
        "finetune.epochs=1", "finetune.baselines=false", "finetune.sequence_epochs=1",
        "finetune.delta=true", "finetune.checkpoint_minutes=0.00001", "finetune.fewest_genes=1",
    ]  # fmt: skip
    small = [word for setting in settings for word in ("--set", setting)]
    edges = tmp_path / "edges.tsv"
    edges.write_text("source\ttarget\ng0001\tg0002\n")
    data = ["--data", tiny_bundle.path]
    WATCHED.append(tmp_path / "out")
    try:
        for words in (
            ["pretrain", *data, "--out", tmp_path / "out" / "pre", *small],
            ["finetune", *data, "--out", tmp_path / "out" / "tuned", "--network", edges,
             "--init", tmp_path / "out" / "pre", *small],
        ):  # fmt: skip
            answer = call(*words)
            assert answer.code == 0, answer.err
    finally:
        WATCHED.clear()
    made = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")}
    assert len(OPENED) > 12
    assert made.isdisjoint(OPENED)
    assert not [path for path in made if path.name[0] == "." or "partial" in path.name]


def test_a_full_disk_is_one_line_however_it_is_wrapped():
    with pytest.raises(OSError, match="No space left") as full:
        Path("/dev/full").write_text("x")
    assert system_failure(full.value) == "No space left on device"
    wrapped = RuntimeError("PytorchStreamWriter failed")
    wrapped.__context__ = full.value
    assert system_failure(wrapped) == "No space left on device"
    assert system_failure(FileNotFoundError(2, "No such file", "a")) == "a: No such file"
    several = OSError(27, "Unable to extend file, errno = 27\n, filename = x")
    assert system_failure(several) == "File too large"
    short = OSError("600 requested and 12 written")
    assert system_failure(short) == "writing or reading failed: 600 requested and 12 written"
    assert system_failure(ValueError("a bug")) is None


def test_a_silent_stage_says_its_last_line_again(capsys):
    with never_silent(0.2):
        print("prepare: reading", file=sys.stderr)
        time.sleep(0.7)
        assert not sys.stderr.isatty()
    before = capsys.readouterr().err.splitlines()
    assert before[0] == "prepare: reading"
    assert 2 <= len(before) <= 4
    assert all(line.startswith("prepare: reading; no news for ") for line in before[1:])
    assert before[-1].endswith(" s")
    time.sleep(0.4)
    print("as before", file=sys.stderr)
    assert capsys.readouterr().err == "as before\n"
    with never_silent(0.2, lambda: "[2/3] what runs"):
        print("[1/3] a: done", file=sys.stderr)
        time.sleep(0.5)
    first, again, *_ = capsys.readouterr().err.splitlines()
    assert (first, again) == ("[1/3] a: done", "[2/3] what runs; no news for 0 s")


def test_a_hint_calls_the_program_as_it_was_called(tmp_path, monkeypatch):
    for folder in ("bin", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "genesplice").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for program, words in (
        (str(tmp_path / "bin" / "genesplice"), ["genesplice"]),
        (str(tmp_path / "elsewhere" / "genesplice"), [str(tmp_path / "elsewhere" / "genesplice")]),
        ("/x/genesplice/__main__.py", [sys.executable, "-m", "genesplice"]),
    ):
        monkeypatch.setattr(sys, "argv", [program])
        assert called() == words
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", [".venv/bin/genesplice"])
    assert called() == [".venv/bin/genesplice"]


def test_a_countdown_speaks_now_and_then(monkeypatch):
    told: list[str] = []
    assert list(Countdown(3, "genes", told.append).over("abc")) == ["a", "b", "c"]
    assert told == []
    monkeypatch.setattr("genesplice.runtime.SECONDS_BETWEEN_LINES", 0)
    assert list(Countdown(3, "genes", told.append).over("abc")) == ["a", "b", "c"]
    assert told == ["genes: 1 of 3, 0 s left", "genes: 2 of 3, 0 s left"]


@pytest.mark.slow
def test_what_a_library_prints_of_a_full_disk_passes_through_our_hook():
    script = (
        "import sys, genesplice.cli as cli\nsys.argv = ['genesplice', 'list']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "for text in ('decrement id ref count (file write failed', 'another'):\n"
        "    sys.excepthook(RuntimeError, RuntimeError(text), None)\n"
    )
    words = [sys.executable, "-c", script]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    assert answer.stderr == "RuntimeError: another\n"


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 20], ids=["enough", "full"])
def test_any_folder_locale_and_home(tmp_path, limit):
    """Blanks, umlauts, relative paths, no HOME, and a locale that knows no Greek; a small disk."""
    here = tmp_path / "my däta"
    generator, numbers = np.random.default_rng(0), range(60)
    bases = "".join(generator.choice(list("ACGT"), 60_000))
    genes = [
        f"chr\tx\tgene\t{900 * i + 101}\t{900 * i + 700}\t.\t+\t.\tID=g{i};Name=β{i}\n"
        for i in numbers
    ]
    rows = [f"β{i}\t{1e6 / 60}\t{1e6 / 60}\n" for i in numbers]
    here.mkdir()
    (here / "g.fa").write_text(f">chr\n{bases}\n")
    (here / "g.gff").write_text("".join(["##gff-version 3\n", *genes]), encoding="utf-8")
    (here / "e.tsv").write_text("".join(["gene\ta\tb\n", *rows]), encoding="utf-8")
    words = ["--fasta", "g.fa", "--annotation", "g.gff", "--expression", "e.tsv",
             "--expression-unit", "tpm", "--block-bp", "5000"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "LANG")}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = f"ulimit -f {limit}; " if limit else ""
    command += 'exec "$0" -m genesplice prepare "$@" --out "ö ut/data"'
    answer = subprocess.run(
        ["bash", "-c", command, sys.executable, *words],
        cwd=here, env=environment, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if limit is None:
        assert answer.returncode == 0, answer.stderr
        assert load_bundle(here / "ö ut" / "data").names["g7"] == "β7"
    else:
        assert answer.returncode == 1, answer.stderr
        assert "Traceback" not in answer.stderr
        assert answer.stderr.splitlines()[-1].startswith("genesplice: ")
        assert not (here / "ö ut").exists()
