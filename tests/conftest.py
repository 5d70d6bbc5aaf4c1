"""Shapes and types are checked at run time here, and only here."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Of several processes each takes one core, and what it starts does, too.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("genesplice", "beartype.beartype")

import fcntl  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from tiny_runs import write_passed_controls  # noqa: E402

import genesplice as gs  # noqa: E402
from genesplice.data.bundle import Bundle  # noqa: E402
from genesplice.data.simulate import make_bundle  # noqa: E402
from genesplice.runtime import keep_freed_memory  # noqa: E402
from genesplice.show.runner import RunResult, run_notebooks  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_configure() -> None:
    """Hear Ctrl-C, and let what is started hear it: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for all notebooks comes first: it is the longest. `make check` leaves it out."""
    for item in items:
        if "tiny_run" in getattr(item, "fixturenames", ()):
            item.add_marker("notebook")
    items.sort(key=lambda item: "tiny_run" not in getattr(item, "fixturenames", ()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side, a file of tests stays in one process, and so do those that run notebooks."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "notebooks" if Path(file).name in ("test_notebooks.py", "test_lab.py") else file

    return Files(config, log)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(THREADS)
    keep_freed_memory()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small circular control with planted truth."""
    return make_bundle(tmp_path_factory.mktemp("controls") / "tiny")


@pytest.fixture(scope="session")
def ecoli() -> Bundle:
    """All of E. coli K-12, prepared once through the recipe."""
    where = ROOT / "data" / "ecoli"
    with (where.parent / ".ecoli.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of this run may be at it
        return gs.load_bundle(where)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> "Iterator[Browser]":
    """Chromium under Playwright; imported here, so that other tests run without either."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield started
        started.close()


SMALL_VERDICT = (
    "verdict.contexts_bp=512,2048,8192 verdict.core_bp=32768 verdict.width=16 "
    "verdict.references=short_cnn verdict.perturbation_genes=2 verdict.workers=1 "
    "verdict.control_domains=10 verdict.control_epochs=1 verdict.control_seeds=0,1 "
    "verdict.control_contexts_bp=512,8192 verdict.control_smallest_effect=100 "
    "finetune.fewest_genes=1"
)


@pytest.fixture(scope="session")
def tiny_run(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """All notebooks through the runner that users call, on the small control."""
    controls = write_passed_controls(tmp_path_factory.mktemp("passed") / "controls", SMALL_VERDICT)
    return run_notebooks(
        ROOT / "notebooks",
        tmp_path_factory.mktemp("reports"),
        parameters={
            "data_dir": str(tiny_bundle.path),
            "steps": "4",
            "epochs": "2",
            "ig_steps": "4",
            "settings": SMALL_VERDICT,
            "controls_dir": str(controls),
        },
    )
