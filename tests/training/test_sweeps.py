"""Sweeps: real processes, some of which are killed; what is done is never done again."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from genesplice.errors import InputError, WorkError
from genesplice.training.sweeps import CPU_SECONDS, Task, count_workers, run_tasks, run_tasks_on_ray

sys.path.insert(0, str(Path(__file__).parents[1]))
import sweep_tasks

LIGHT = {"preload": ("torch", "pandas"), "workers": 2}


def squares(n):
    return [Task(f"square{i}", sweep_tasks.square, {"value": i}) for i in range(n)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep with two good tasks and all ways of going wrong."""
    folder, marks, lines = tmp_path_factory.mktemp("sweep"), tmp_path_factory.mktemp("marks"), []
    tasks = [
        *squares(2),
        Task("killed_once", sweep_tasks.die_once, {"folder": marks, "value": 7}),
        Task("killed_twice", sweep_tasks.die, {"value": 8}),
        Task("raises", sweep_tasks.fail, {"value": 9}),
        Task("threads", sweep_tasks.threads, {}),
    ]
    return folder, tasks, run_tasks(tasks, folder, progress=lines.append, **LIGHT), lines


def test_tables_come_together_with_their_cost(swept):
    table = swept[2].table.dropna(subset="square").set_index("task")
    assert table.loc[["square0", "square1", "killed_once"], "square"].tolist() == [0, 1, 49]
    assert (table[CPU_SECONDS] >= 0).all()
    assert swept[2].cpu_seconds == pytest.approx(swept[2].table[CPU_SECONDS].sum())


def test_every_task_has_a_process_of_its_own(swept):
    processes = swept[2].table["process"].dropna()
    assert processes.nunique() == len(processes) == 3
    assert os.getpid() not in set(processes)


def test_a_killed_task_is_run_once_more_and_then_reported(swept):
    _, _, result, lines = swept
    assert result.failures == {
        "killed_twice": "died (its process was killed)",
        "raises": "failed: ValueError: nothing to be had from 9",
    }
    assert lines.count("sweep: killed_once died (its process was killed); once more") == 1
    assert lines.count("sweep: killed_twice died (its process was killed); once more") == 1
    assert lines.count("sweep: killed_twice died (its process was killed); given up") == 1


def test_progress_gives_cost_so_far_and_to_come(swept):
    lines = [line for line in swept[3] if "s of CPU so far" in line]
    assert len(lines) == 4
    assert all("s to come" in line for line in lines)


def test_workers_have_the_threads_they_were_given(swept):
    row = swept[2].table.set_index("task").loc["threads"]
    assert (row["torch"], row["variable"]) == (1, "1")


def test_only_what_is_missing_is_run_again(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    tasks = [
        Task(f"count{i}", sweep_tasks.count_calls, {"folder": marks, "value": i}) for i in range(3)
    ]
    first = run_tasks(tasks, tmp_path / "s", progress=lambda text: None, **LIGHT)
    (tmp_path / "s" / "count1.parquet").unlink()
    lines = []
    second = run_tasks(tasks, tmp_path / "s", progress=lines.append, **LIGHT)
    assert sorted(path.name[0] for path in marks.iterdir()) == ["0", "1", "1", "2"]
    assert lines[0] == "sweep: 2 of 3 tasks are there already"
    assert second.table["square"].tolist() == first.table["square"].tolist() == [0, 1, 4]
    assert not list((tmp_path / "s").glob(".*"))


def test_workers_fill_the_cores():
    cores = len(os.sched_getaffinity(0))
    assert count_workers(0, 1) == cores
    assert count_workers(0, 2 * cores) == 1
    assert count_workers(5, 1) == 5


def test_names_must_differ(tmp_path):
    with pytest.raises(InputError, match="two tasks of one name"):
        run_tasks([*squares(1), *squares(1)], tmp_path)


# --- Ray ---


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"no ray, expected pip install 'genesplice\[cluster\]'"):
        run_tasks_on_ray(squares(1), tmp_path, address="auto")


@pytest.fixture
def two_nodes(monkeypatch):
    """A real local cluster: a head without CPUs for tasks, and two nodes, as processes."""
    ray = pytest.importorskip("ray", reason="ray is not installed (extra `cluster`)")
    from ray.cluster_utils import Cluster

    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster, nodes
    if ray.is_initialized():
        ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_node_that_is_killed_midway_loses_nothing(two_nodes, tmp_path):
    cluster, nodes = two_nodes
    marks, lines = tmp_path / "marks", []
    marks.mkdir()
    tasks = [
        Task(f"slow{i}", sweep_tasks.slow, {"folder": marks, "value": i, "seconds": 3.0})
        for i in range(5)
    ]

    def kill() -> None:
        while len(list(marks.iterdir())) < 2:
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    where = {"address": cluster.address, "progress": lines.append}
    result = run_tasks_on_ray(tasks, tmp_path / "out", **where)
    killer.join()
    assert result.failures == {}
    assert result.table.set_index("task")["square"].tolist() == [0, 1, 4, 9, 16]
    assert any("; once more" in line for line in lines)
    again = run_tasks_on_ray(tasks, tmp_path / "out", **where)
    assert lines[-1] == "sweep: 5 of 5 tasks are there already"
    pd.testing.assert_frame_equal(again.table, result.table)


@pytest.mark.filterwarnings("ignore")
def test_no_cluster_at_the_address(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed (extra `cluster`)")
    with pytest.raises(WorkError, match="no Ray cluster at"):
        run_tasks_on_ray(squares(1), tmp_path, address="127.0.0.1:1")


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import sweep_tasks
from genesplice.training.sweeps import Task, run_tasks
if __name__ == '__main__':
    folder = Path({folder!r})
    about = {{'folder': folder, 'value': 1, 'seconds': 600.0}}
    try:
        run_tasks([Task('slow', sweep_tasks.slow, about)], folder / 's', preload=('torch',))
    except KeyboardInterrupt:
        print('interrupted')
"""


def start_slow_sweep(folder):
    """A process, in a group of its own, that runs a task of ten minutes."""
    path = folder / "sweep.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1]), folder=str(folder)))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_until(is_so):
    for _ in range(2400):
        if is_so():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to that")


@pytest.mark.slow
@pytest.mark.parametrize("one", ["all", "the first"])
@pytest.mark.parametrize("state", ["loading", "running"])
def test_interrupted_it_ends_at_once_and_nothing_else_is_said(tmp_path, state, one):
    """Ctrl-C goes to all processes of a terminal, a batch system's signal to the first."""
    process = start_slow_sweep(tmp_path)
    if state == "running":
        wait_until((tmp_path / "started-1").exists)
    else:
        children = psutil.Process(process.pid).children
        wait_until(lambda: any("forkserver" in " ".join(one.cmdline()) for one in children()))
        time.sleep(0.3)
    (os.killpg if one == "all" else os.kill)(process.pid, signal.SIGINT)
    began = time.monotonic()
    assert process.communicate(timeout=60) == ("interrupted\n", "")
    assert time.monotonic() - began < 20
    assert process.returncode == 0
    assert_nothing_is_left_of(process)


@pytest.mark.slow
def test_a_sweep_that_is_killed_leaves_no_process_behind(tmp_path):
    process = start_slow_sweep(tmp_path)
    wait_until(lambda: (tmp_path / "started-1").exists() or process.poll() is not None)
    assert (tmp_path / "started-1").exists()
    process.kill()
    process.communicate()
    assert_nothing_is_left_of(process)


def assert_nothing_is_left_of(process):
    for _ in range(100):
        alive = subprocess.run(
            ["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False
        )
        if not alive.stdout.strip():
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {alive.stdout.split()}")


@pytest.mark.slow
def test_a_script_that_would_start_itself_again_is_told_so(tmp_path):
    script = tmp_path / "mine.py"
    call = "print(run_tasks(tasks, Path('out'), preload=(), workers=1).table['square'].tolist())"
    here = str(Path(sweep_tasks.__file__).parent)
    lines = [
        "import sys", "from pathlib import Path", f"sys.path.insert(0, {here!r})",
        "import sweep_tasks", "from genesplice.training.sweeps import Task, run_tasks",
        "tasks = [Task('a', sweep_tasks.square, {'value': 3})]",
    ]  # fmt: skip
    script.write_text("\n".join([*lines, call]))
    command = [sys.executable, script]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "WorkError" in answer.stderr
    assert f"{script} works in several processes" in answer.stderr.splitlines()[-1]
    script.write_text("\n".join([*lines, 'if __name__ == "__main__":', f"    {call}"]))
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.stdout == "[9]\n", answer.stderr
