"""Verbs for a table of your own (task), and around the notebooks (run, sweep, report, lab …)."""

import json
import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

import genesplice as gs
from genesplice import cli
from genesplice.config import PRESETS, load_preset
from genesplice.errors import InputError, require
from genesplice.runtime import PROJECT_VARIABLE, atomic_directory, claimed, file_sha256, versions

if TYPE_CHECKING:
    from genesplice.data.assay import Assay
    from genesplice.show.notebooks import Task
    from genesplice.show.report import Part
    from genesplice.training.tasks import TaskResult


@cli.app.command()
def task(
    table: Annotated[
        Path, cli.reads("TSV, CSV, Parquet or FASTA; [SPLIT/]CLASS/*.txt.", or_folder=True)
    ],
    out: cli.Out,
    init: Annotated[Path | None, typer.Option(help="Folder of `pretrain`, or ecoli-k12.")] = None,
    mode: Annotated[
        Literal["probe", "lora", "ia3", "full"], typer.Option(help="What of the encoder learns.")
    ] = "probe",
    labels: Annotated[Path | None, cli.reads("Of a FASTA: name and value.")] = None,
    sequence: Annotated[str | None, typer.Option(help="Column of sequences.")] = None,
    value: Annotated[str | None, typer.Option(help="Column of values or classes.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Column of folds, or of train and test; or clusters.")
    ] = None,
    kind: Annotated[
        Literal["class", "value"] | None, typer.Option(help="What the values are.")
    ] = None,
    both_strands: Annotated[
        bool, typer.Option("--both-strands", help="The other strand is the same sequence.")
    ] = False,
    measured: Annotated[
        Path | None, cli.reads("Changes of its sequences: id, position, ref, alt, value.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of clusters of similar sequences.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and of all that learns.")] = 0,
    overwrite: cli.Overwrite = False,
    as_json: cli.Json = False,
) -> None:
    """Learn a value or class from each sequence of a table, and score it on held-out ones.

    The encoder's result stands beside k-mer ridge and boosting, a small convolutional network and
    the same encoder with random weights. Rows without a value are predicted (unmeasured.parquet),
    and measured changes by the model that held the unchanged sequence out (changed.parquet).
    """
    from genesplice.data.assay import add_changes
    from genesplice.predict import find_pretrained

    assay = gs.read_assay(
        table, labels, sequence=sequence, value=value, split=split, kind=kind, n_folds=folds,
        seed=seed,
    )  # fmt: skip
    for note in assay.notes:
        cli.say(f"task: {note}")
    encoder, changes = None if init is None else find_pretrained(init), None
    if measured is not None:
        assay, changes = add_changes(assay, measured)
    with atomic_directory(out, overwrite=overwrite) as scratch:
        result = gs.run_task(
            assay, init=encoder, mode=mode, both_strands=both_strands, changes=changes, seed=seed,
            progress=cli.say,
        )  # fmt: skip
        result.predictions.to_parquet(scratch / "predictions.parquet", index=False)
        if len(result.unmeasured):
            result.unmeasured.to_parquet(scratch / "unmeasured.parquet", index=False)
        if result.changed is not None:
            result.changed.to_parquet(scratch / "changed.parquet", index=False)
        read = {"encoder": encoder / "model.safetensors"} if encoder else {}
        data = {**assay.data_sha256, **{name: file_sha256(path) for name, path in read.items()}}
        notes = [*assay.notes, *result.notes, *result.answers]
        extra = {"init": init, "mode": mode, "both_strands": both_strands, "notes": notes,
                 "leakage": assay.leakage}  # fmt: skip
        _write_page(scratch, assay, result, mode)
        cli.write_receipt(scratch, result.metrics, seeds={"task": seed}, data=data, extra=extra)
    for sentence in (*result.notes, *result.answers):
        cli.say(f"task: {sentence}")
    names = ("metrics.json", "predictions.parquet", "index.html")
    cli.emit({"files": [out / name for name in names]}, as_json)


def _write_page(folder: Path, assay: "Assay", result: "TaskResult", mode: str) -> None:
    """Write the report: scores, learning curve, and what was read."""
    import pandas as pd

    from genesplice.show.report import write_page

    metrics, main = gs.metrics_frame(result.metrics), result.metric
    names = sorted({name for name in metrics["metric"] if not name.endswith("_difference")})
    of_changes = [one for one in names if one.startswith("change_")]
    shown = [main, *(one for one in names if one not in (main, *of_changes))]
    parts: list[Part] = [
        "## Scores on held-out sequences\n\nEvery method learned from the same rows. "
        "*Random weights* are the same encoder without what it learned: what they reach owes "
        "nothing to pre-training.",
        gs.figures.metric_bars(metrics, shown, highlight="genesplice", title="Held-out sequences"),
    ]
    curve = metrics[(metrics["split"] == "learning_curve") & (metrics["metric"] == main)]
    if len(curve):
        parts += [
            "## Learning curve\n\nFold 0, with fewer sequences to learn from. Lines that still "
            "climb on the right say that more measurements would help.",
            gs.figures.sample_curve(curve, metric=main),
        ]
    ours = result.predictions[result.predictions["model"] == "genesplice"]
    if assay.classes:
        parts += [
            "## Which classes are mistaken for which\n\nHeld-out sequences by their class "
            "(rows) and the predicted one.",
            pd.crosstab(ours["observed"], ours["predicted"])
            .reset_index()
            .rename_axis(columns=None),
        ]
    else:
        some = ours.sample(min(len(ours), 2000), random_state=0)
        title = "Predicted and measured value of held-out sequences"
        points = some.plot.scatter(
            x="observed", y="predicted", hover_data=["id", "fold"], title=title, backend="plotly"
        )
        parts += ["## Predicted and measured", points]
    if result.changed is not None:
        parts += [
            "## Measured changes\n\nWhat changing bases of a sequence did, and what the model "
            "predicts that never saw the unchanged sequence's value.",
            gs.figures.metric_bars(
                metrics, of_changes, highlight="genesplice", title="Measured changes"
            ),
        ]
    notes = [*assay.notes, *result.notes]
    parts += ["## What was read\n\n" + "\n".join(f"- {note}" for note in notes)]
    facts = [f"mode {mode}", f"{assay.n_folds} folds", f"{len(assay.rows):,} sequences"]
    write_page(
        folder / "index.html", f"Task: {assay.name}", parts, facts=facts, lead=result.answers,
        footer="metrics.json and predictions.parquet are in the same folder.",
    )  # fmt: skip


# --- notebooks ---


def _pairs(items: list[str] | None) -> dict[str, str]:
    parts = [item.partition("=") for item in items or []]
    for key, equals, value in parts:
        require(equals and key.strip(), f"-p {key}{equals}{value}", "key=value")
    return {key.strip(): value for key, _, value in parts}


Parameter = Annotated[list[str] | None, typer.Option("-p", help="key=value, repeatable.")]
Notebooks = Annotated[Path, typer.Option(help="Folder with the notebooks.")]
AtOnce = Annotated[
    int, typer.Option("--at-once", min=0, help="Notebooks side by side; 0: two, on two cores.")
]


@cli.app.command()
def run(
    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = None,
    only: Annotated[str | None, typer.Option(help="One notebook, such as 03.")] = None,
    parameter: Parameter = None,
    out: cli.Reports = Path("reports"),
    resume: Annotated[str | None, typer.Option(help="A run, or latest: go on with it.")] = None,
    publish: Annotated[bool, typer.Option(help="Gather its numbers in OUT/results.")] = False,
    at_once: AtOnce = 0,
    notebooks: Notebooks = Path("notebooks"),
    as_json: cli.Json = False,
) -> None:
    """Run the notebooks and write one offline report for each, as soon as it ends."""
    from genesplice.show.execution import Progress
    from genesplice.show.runner import find_run, run_notebooks

    if preset is not None:
        load_preset(preset)
    if not sys.stderr.isatty():  # a terminal has a clock
        cli.HELD.enter_context(cli.never_silent(still=lambda: progress.still()))
    progress = Progress()
    if resume is not None:
        cli.HELD.enter_context(claimed(find_run(out, resume)))
    result = run_notebooks(
        notebooks, out, preset, progress=progress,
        only=only, parameters=_pairs(parameter), resume=resume, at_once=at_once,
        has_weights=_has_weights,
    )  # fmt: skip
    written = {"run": result.run_dir, "reports": list(result.reports), "index": result.page}
    if publish and not result.exit_code:
        written["results"] = publish_results(result.run_dir, out / "results")
    cli.emit(written if as_json else {"index": result.page}, as_json)
    if result.exit_code:
        own = ["--out", str(out)] if out != Path("reports") else []
        own += ["--notebooks", str(notebooks)] if notebooks != Path("notebooks") else []
        again = shlex.join([*called(), "run", "--resume", str(result.run_dir), *own])
        cli.say(f"to go on from there: {again}")
        raise SystemExit(result.exit_code)


def _has_weights(task: "Task") -> bool:
    """Whether published weights were trained on the genome that a notebook reads."""
    given, default = task.values.get("data_dir"), task.notebook.parameters["data_dir"].default
    # As the kernel sees it, which works beside the folder of notebooks.
    folder = task.notebook.path.resolve().parents[1] / str(given or default)
    try:
        return gs.published_encoder(gs.load_bundle(folder)) is not None
    except InputError:  # the notebook says what is wrong
        return False


def called() -> list[str]:
    """The words this program was called by, to call it again: it need not be on the PATH."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return [sys.executable, "-m", "genesplice"]
    found = shutil.which(program.name)
    return [program.name if found and Path(found).samefile(program) else sys.argv[0]]


def publish_results(run_dir: Path, results_dir: Path) -> Path:
    """Gather what a run measured (`run_results`) into `results_dir/results.json`.

    Raises
    ------
    InputError
        If the run is not done, or as `gather_results`.
    """
    from genesplice.evaluate.reliability import claim_records
    from genesplice.results import run_results
    from genesplice.runtime import write_json
    from genesplice.show.runner import read_manifest

    manifest = read_manifest(run_dir)
    is_done = manifest["state"] == "done"
    require(is_done, f"a run that is {manifest['state']}", "one that is done", run_dir)
    results = run_results(run_dir, manifest["command"], claim_records)
    results_dir.mkdir(parents=True, exist_ok=True)
    write_json(results_dir / "results.json", results)
    return results_dir / "results.json"


@cli.app.command()
def sweep(
    notebook: Annotated[Path, typer.Argument(help="A notebook.")],
    parameter: Parameter = None,
    preset: cli.Preset = "quick",
    out: cli.Reports = Path("reports"),
    at_once: AtOnce = 0,
    as_json: cli.Json = False,
) -> None:
    """Run one notebook over every combination of `-p key=a,b,c`."""
    from genesplice.show.runner import sweep_notebook

    load_preset(preset)
    result = sweep_notebook(notebook, _pairs(parameter), out, preset, at_once=at_once)
    cli.emit({"index": result.page}, as_json)
    if result.exit_code:
        raise SystemExit(result.exit_code)


@cli.app.command()
def report(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or latest.")],
    out: cli.Reports = Path("reports"),
    as_json: cli.Json = False,
) -> None:
    """Write a run's reports again, from its executed notebooks."""
    from genesplice.show.runner import find_run, render_run

    cli.emit({"index": render_run(find_run(out, run_name))}, as_json)


@cli.app.command("list")
def list_(notebooks: Notebooks = Path("notebooks"), as_json: cli.Json = False) -> None:
    """List the notebooks, and the parameters that `-p` takes."""
    from genesplice.show.notebooks import list_notebooks

    found = list_notebooks(notebooks)
    if as_json:
        shown = [
            {"name": one.stem, "title": one.title, "needs": one.needs,
             "parameters": {name: info.default for name, info in one.parameters.items()}}
            for one in found
        ]  # fmt: skip
        print(json.dumps(shown))
        return
    for notebook in found:
        needs = f"  (needs {', '.join(notebook.needs)})" if notebook.needs else ""
        print(f"{notebook.stem}  {notebook.title}{needs}")
        for key, info in notebook.parameters.items():
            print(f"    -p {key}={info.default}  {info.help}".rstrip())


@cli.app.command()
def lab(
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to JupyterLab.")] = None,
) -> None:
    """Open JupyterLab on the notebooks; it asks for no news and looks for no updates."""
    command = [sys.executable, "-m", "jupyter", "lab", "--notebook-dir=.", *(arguments or [])]
    if not arguments:
        command.append("--LabApp.default_url=/lab/tree/notebooks")
    # Notebooks find `data/` and `reports/` from here, wherever their kernels work.
    # Our defaults (labconfig/) come before those of the machine, and after a person's own settings.
    config = os.pathsep.join(
        [str(Path(__file__).parent), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    )
    more = {PROJECT_VARIABLE: str(Path.cwd()), "JUPYTER_CONFIG_PATH": config}
    os.execve(sys.executable, command, os.environ | more)


class Check(NamedTuple):
    """One finding. Fatal, where it is not fine: nothing will run before it is mended."""

    name: str
    found: str
    is_fine: bool
    is_fatal: bool = False


def examine() -> list[Check]:
    """Look at packages, processor, memory, disk, browser and data; changes nothing."""
    import psutil
    import torch

    checks = [
        Check(name, version, version != "not installed", version == "not installed")
        for name, version in versions().items()
    ]
    memory = psutil.virtual_memory()
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    kernel, flash = (find_spec(one) is not None for one in ("ipykernel", "flash_attn"))
    cuda = torch.cuda.is_available()
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    recipe = Path("data/ecoli/manifest.json")
    has_mkldnn = torch.backends.mkldnn.is_available()
    one_dnn = "there" if has_mkldnn else "missing: matrix products take the slower way"
    memory_gb = f"{memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB free"
    data = "prepared" if recipe.exists() else "not there yet: the first run fetches 50 MB"
    attention = "there" if flash else "not installed: torch SDPA is used"
    checks += [
        Check("cores", str(os.cpu_count()), (os.cpu_count() or 1) >= 2),
        Check("memory", memory_gb, memory.available > 4e9),
        Check("disk", f"{free_gb:.0f} GB free here", free_gb > 5),
        Check("torch threads", str(torch.get_num_threads()), True),
        Check("oneDNN", one_dnn, has_mkldnn),
        Check("CUDA", torch.cuda.get_device_name() if cuda else "none: runs on the CPU", True),
        Check("flash-attn", attention, flash or not cuda),
        Check("Jupyter kernel", "there" if kernel else "ipykernel is missing", kernel, not kernel),
        Check("Chromium", browser or "none: the browser tests are skipped", browser is not None),
        Check("data/ecoli", data, True),
    ]
    return checks


@cli.app.command()
def doctor(
    fits: Annotated[Path | None, typer.Option(help="Data: do a preset's stages fit?")] = None,
    preset: cli.Preset = "standard",
    assignments: cli.Set = None,
    as_json: cli.Json = False,
) -> None:
    """Say what this machine has, and what would be slow or missing."""
    checks = examine()
    if fits is not None:
        from genesplice.data.bundle import load_bundle
        from genesplice.training.corpus import finetune_need, memory_limit, pretrain_need

        config = cli.read_config(preset, assignments)
        bundle, limit = load_bundle(fits), memory_limit()
        needs = [pretrain_need(config, bundle.genome)]
        needs += [finetune_need(config, bundle)] if bundle.is_measured else []
        found = f"of {limit / 1e9:.2g} GB"
        checks += [Check(one.stage, f"{one} ({found})", one.total <= limit, True) for one in needs]
    if as_json:
        print(json.dumps([check._asdict() for check in checks]))
    else:
        for check in checks:
            print(f"{'ok  ' if check.is_fine else 'note'} {check.name}: {check.found}")
    if any(check.is_fatal and not check.is_fine for check in checks):
        raise SystemExit(1)
