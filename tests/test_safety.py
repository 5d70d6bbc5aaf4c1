"""What is shared or typed can do no harm: no code in data, no network, nobody else at the lab."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import papermill.iorw
import papermill.parameterize
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lab import free_port, wait_until_listening
from tiny_notebooks import code, write_notebook

from genesplice.data import sources
from genesplice.show.notebooks import check_parameters, list_notebooks

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("genesplice/**/*.py"), *ROOT.glob("benchmarks/*.py")])

# --- files are data ---

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml"}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "pd.read_pickle",
         "pandas.read_pickle", "torch.hub.load", "shutil.unpack_archive"}  # fmt: skip
EXTRACTING = {"extract", "extractall"}


def dangers(text: str) -> list[str]:
    """What in a module could run code that a file brings, or write where a file says."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {one.arg: one.value for one in node.keywords}
            words = {key: ast.unparse(value) for key, value in given.items()}
            if name in CALLS or name.rpartition(".")[2] in EXTRACTING:
                found.append(name)
            if name == "torch.load" and words.get("weights_only") != "True":
                found.append("torch.load without weights_only")
            found += [f"{name}({key}=True)" for key in ("shell", "allow_pickle")
                      if words.get(key, "False") != "False"]  # fmt: skip
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_a_file_brings(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from joblib import load", "eval(x)", "yaml.load(x)", "torch.load(x)",
     "torch.load(x, weights_only=False)", "np.load(x, allow_pickle=True)", "archive.extractall()",
     "subprocess.run(x, shell=True)", "import yaml"],
)  # fmt: skip
def test_what_is_dangerous_is_found(text):
    assert len(dangers(text)) == 1


def test_an_archive_writes_nothing_outside(tmp_path):
    """A wheel whose members have other paths, beside those that are read."""
    wheel, folder = tmp_path / "a.whl", tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in sources.MEMBERS.values():
            archive.writestr(member, "x")
        for member in ("../../outside", "../in/../outside"):
            archive.writestr(member, "x")
    files = sources._extract(wheel, folder)
    assert {path.parent for path in files.values()} == {folder}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.whl", "in"]


# --- parameters are values ---


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text("\"'\\\n\r#{}()\u2028;=x", max_size=20)))
def test_a_parameter_cannot_become_code(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("notebooks")
    path = write_notebook(
        folder / "01_a.ipynb", code('x: str = "a"', "parameters"), code("x", "other")
    )
    values = check_parameters(list_notebooks(folder), {"x": text})["01_a"]
    assert values == {"x": text.strip()}
    loaded = papermill.iorw.load_notebook_node(str(path))
    filled = papermill.parameterize.parameterize_notebook(loaded, dict(values))
    (cell,) = (one for one in filled.cells if "injected-parameters" in one.metadata.get("tags", []))
    (assigned,) = ast.parse(cell.source).body
    assert isinstance(assigned, ast.Assign)
    assert ast.unparse(assigned.targets[0]) == "x"
    assert ast.literal_eval(assigned.value) == values["x"]


# --- no network ---

OFFLINE = """
import json, pkgutil, importlib, sys
asked = []
def watch(event, about):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        asked.append([event, repr(about)])
        raise OSError("no network here")
sys.addaudithook(watch)
import genesplice
for one in pkgutil.walk_packages(genesplice.__path__, "genesplice."):
    if one.name != "genesplice.__main__":
        importlib.import_module(one.name)
from genesplice.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["genesplice", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
print(json.dumps(asked))
"""


@pytest.mark.slow
def test_nothing_asks_for_the_network(tiny_bundle, tmp_path):
    small = (
        "model.width=16 model.heads=2 model.base_width=4 model.region_layers=1 pretrain.steps=2 "
        "model.summary_layers=1 pretrain.window_bp=2048 pretrain.measure=false "
        "finetune.core_bp=65536 finetune.flank_bp=1024 finetune.head_steps=2 finetune.epochs=0 "
        "finetune.baselines=false finetune.fewest_genes=1"
    )
    settings = [word for pair in small.split() for word in ("--set", pair)]
    data = ["--data", str(tiny_bundle.path)]
    pre, tuned = str(tmp_path / "pre"), str(tmp_path / "tuned")
    words = [
        ["doctor"],
        ["pretrain", *data, "--out", pre, *settings],
        ["finetune", *data, "--out", tuned, "--init", pre, *settings],
        ["predict", *data, "--model", tuned, "--out", str(tmp_path / "p.parquet")],
    ]
    answer = subprocess.run(
        [sys.executable, "-c", OFFLINE, json.dumps(words)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert json.loads(answer.stdout.splitlines()[-1]) == []


# --- the lab ---


@pytest.mark.slow
def test_the_lab_listens_to_this_machine_and_to_those_with_its_token(tmp_path):
    port, log = free_port(), tmp_path / "log"
    words = ["lab", "--", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "genesplice", *words],
            cwd=tmp_path, stdout=stream, stderr=stream, start_new_session=True,
            env=os.environ | {"HOME": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1"},
        )  # fmt: skip
    try:
        wait_until_listening(port)
        listening = [one.laddr for one in psutil.Process(server.pid).net_connections("tcp")
                     if one.status == psutil.CONN_LISTEN and one.laddr.port == port]  # fmt: skip
        assert {one.ip for one in listening} <= {"127.0.0.1", "::1"}
        assert listening
        where = f"http://127.0.0.1:{port}/api/contents"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(where, timeout=20)
        deadline = time.monotonic() + 30
        while not (token := re.search(r"token=([0-9a-f]{40,})", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        with urllib.request.urlopen(f"{where}?token={token[1]}", timeout=20) as told:
            assert told.status == 200
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)
