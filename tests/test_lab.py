"""Notebook 4 in a live JupyterLab: Run All, then a slider changes a figure."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_listening(port: int, seconds: float = 60) -> None:
    for _ in range(int(seconds * 5)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"JupyterLab did not listen within {seconds} s")


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """`genesplice lab` in a folder, for someone who has never opened JupyterLab; its address."""
    port = free_port()
    options = [
        "--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
        "--IdentityProvider.token=", "--ServerApp.password=",
    ]  # fmt: skip
    home = folder / "home"
    home.mkdir()
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "genesplice", "lab", "--", *options],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ | {"HOME": str(home), "JUPYTER_PREFER_ENV_PATH": "1"},
            start_new_session=True,
        )
        try:
            wait_until_listening(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


@pytest.fixture
def lab(tiny_run, tiny_bundle, tmp_path) -> Iterator[str]:
    """`genesplice lab` in a project that has data and a finished run; paths are the defaults.

    The kernel works in `notebooks/`: it must find the project's `data/` and the run's models.
    """
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ecoli").symlink_to(tiny_bundle.path)
    runs = tmp_path / "reports" / "runs"
    runs.mkdir(parents=True)
    (runs / tiny_run.run_dir.name).symlink_to(tiny_run.run_dir)
    notebook = nbformat.read(ROOT / "notebooks" / "04_interpretability.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    two = ",".join(tiny_bundle.test_genes(0)[:2])
    cell.source += f"\ngenes = {json.dumps(two)}\nig_steps = 4"
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "04.ipynb")
    with serve(tmp_path) as address:
        yield f"{address}/lab/tree/notebooks/04.ipynb"


@pytest.mark.browser
@pytest.mark.slow
def test_the_launcher_opens_and_asks_nothing(browser, tmp_path):
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "01_data_preparation.ipynb", tmp_path / "notebooks")
    with serve(tmp_path) as address:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        calls: list[str] = []
        page.on("request", lambda request: calls.append(request.url))
        page.goto(f"{address}/lab/tree/notebooks")
        page.locator(".jp-Launcher-content").wait_for(timeout=60_000)
        page.get_by_role("menuitem", name="Run", exact=True).wait_for(timeout=60_000)
        page.locator(".jp-DirListing-item").get_by_text("01_data_preparation").wait_for()
        page.wait_for_timeout(3000)  # it asks after a while
        assert page.get_by_text("news").count() == 0
        assert page.locator(".Toastify__toast, .jp-Dialog").count() == 0
        assert all(call.startswith((address, "ws:", "data:", "blob:")) for call in calls), calls
        assert not any("/api/news" in call or "/api/update" in call for call in calls)
        page.close()


@pytest.mark.browser
def test_a_slider_changes_a_live_figure(lab, browser, tmp_path):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(lab)
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for(timeout=60_000)
    # Run All before the notebook has its kernel runs nothing.
    page.locator(".jp-StatusBar-Widget, #jp-main-statusbar").get_by_text("| Idle").first.wait_for(
        timeout=60_000
    )
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    explorer = page.locator(".jp-OutputArea-output:has(.widget-slider)").first
    slider = explorer.locator(".widget-slider .noUi-handle")
    slider.wait_for(timeout=420_000)
    slider.scroll_into_view_if_needed()
    live = explorer.locator(".js-plotly-plot")
    live.locator("svg.main-svg").first.wait_for(timeout=30_000)
    shown = "f => JSON.stringify([f.data.map(t => [t.x, t.y, t.text]), f.layout])"
    before = live.evaluate(shown)
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        f"([f, before]) => ({shown})(f) !== before",
        arg=[live.element_handle(), before],
        timeout=30_000,
    )
    page.close()
    assert sorted(path.name for path in (tmp_path / "notebooks").iterdir() if path.is_dir()) in (
        [], [".ipynb_checkpoints"],
    )  # fmt: skip
    assert (tmp_path / "reports" / "interactive").is_dir()
