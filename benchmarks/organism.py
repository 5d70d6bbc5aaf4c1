"""A small organism, commands on it that take seconds, and what makes two results equal."""

import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

TIMES = {
    "seconds",
    "clock_seconds",
    "cpu_seconds",
    "started",
    "command",
    "made_by",
    "when",
    "made",
    "versions",
}
"""Keys of JSON files that no two runs share."""


def _words(text: str) -> list[str]:
    return text.split()


RUN = re.compile(r"runs/\d{8}-\d{6}-\w+(-\d+)?")
"""A run's folder is called after the time."""
SMALL = _words(
    "model.width=16 model.heads=2 model.base_width=4 model.region_layers=1 model.summary_layers=1 "
    "pretrain.window_bp=2048 pretrain.batch_windows=2 pretrain.steps=20 "
    "pretrain.contrastive_width=8 pretrain.views=strand,gene pretrain.view_genes=4 "
    "pretrain.queue=50 pretrain.checkpoint_minutes=0.001 "
    "finetune.core_bp=65536 finetune.flank_bp=1024 "
    "finetune.head_steps=8 "
    "finetune.epochs=1 finetune.checkpoint_minutes=0.001 finetune.folds=0,1 "
    "finetune.baselines=false pretrain.measure=false finetune.fewest_genes=1"
)
VERDICT = _words(
    "verdict.contexts_bp=512,4096 verdict.core_bp=32768 verdict.epochs=1 verdict.width=16 "
    "verdict.seeds=0 verdict.folds=0 verdict.control_domains=10 "
    "verdict.control_contexts_bp=512,8192 "
    "verdict.control_epochs=1 verdict.control_seeds=0 verdict.control_folds=0,1 verdict.workers=1 "
    "verdict.validation_blocks=0 verdict.perturbation_genes=1 verdict.references=short_cnn "
    "verdict.reference_bp=4096 verdict.control_smallest_effect=100 finetune.fewest_genes=1"
)
STEP = """import json, pathlib
pathlib.Path(run_dir, "{0}").mkdir(exist_ok=True)
for number in range(30):
    pathlib.Path(run_dir, "{0}", str(number)).write_text("x" * number)
"""


def _settings(pairs: Sequence[str]) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


class Verb(NamedTuple):
    """A command: its words, given the organism's folder and where it writes."""

    name: str
    share: int
    given: Callable[[Path], Sequence[str]]
    repeat: Sequence[str]
    is_needed: bool = False
    file: str = ""

    def words(self, folder: Path, out: Path) -> list[str]:
        """The command line."""
        return [self.name, *map(str, self.given(folder)), "--out", str(out / self.file)]

    def again(self, out: Path) -> Sequence[str]:
        """What is added when it is given again."""
        if self.name == "run":
            return ("--resume", "latest") if list(out.glob("runs/*/manifest.json")) else ()
        return self.repeat


def _files(folder: Path) -> list[str]:
    names = {"fasta": "genome.fa", "annotation": "genes.gff3", "expression": "tpm.tsv",
             "samples": "samples.tsv", "relatives": "relatives", "network": "edges.tsv",
             "gene-sets": "sets.gmt"}  # fmt: skip
    words = [word for kind, name in names.items() for word in (f"--{kind}", str(folder / name))]
    return [*words, *_words("--name organism --expression-unit tpm --block-bp 8000")]


RESUME, OVERWRITE = ("--resume",), ("--overwrite",)
CONTIG = "chr"


def _made(folder: Path, *verbs: str) -> list[str]:
    """What earlier commands made, as options."""
    kinds = {"prepare": "--data", "pretrain": "--model", "finetune": "--model"}
    return [word for verb in verbs for word in (kinds[verb], str(folder / verb / "whole"))]


VERBS = (
    Verb("prepare", 20, _files, OVERWRITE, is_needed=True),
    Verb("pretrain", 12, lambda f: [*_made(f, "prepare"), *_settings(SMALL)], RESUME, True),
    Verb("finetune", 8, lambda f: [
        *_made(f, "prepare"), "--init", f / "pretrain/whole", *_settings(SMALL)], RESUME, True),
    Verb("variants", 8, lambda f: [
        *_made(f, "prepare", "pretrain", "finetune"), "--vcf", f / "in.vcf", "--no-percentile",
        ], OVERWRITE, file="scored.vcf.gz"),
    Verb("scan", 12, lambda f: [
        *_made(f, "prepare", "pretrain"), "--region", f"{CONTIG}:1-20000"], OVERWRITE),
    Verb("task", 5, lambda f: [
        "--table", f / "strength.tsv", "--init", f / "pretrain/whole", "--folds", "2"], OVERWRITE),
    Verb("verdict", 3, lambda f: [
        *_made(f, "prepare"), "--controls", f / "controls", *_settings(VERDICT)], RESUME),
    Verb("run", 8, lambda f: ["--notebooks", f / "project" / "notebooks"], ()),
)  # fmt: skip


def make_organism(folder: Path) -> None:
    """Write the files of a small organism: genome, relatives, expression, variants, notebooks."""
    from genesplice.config import load_preset, override
    from genesplice.context.controls import control_environment
    from genesplice.data.bundle import load_bundle
    from genesplice.data.genome import decode
    from genesplice.data.simulate import CONTROLS, make_own_files
    from genesplice.runtime import processor, versions, write_json

    make_own_files(folder, n_sequences=80)
    bundle, generator = load_bundle(folder / "made_up"), np.random.default_rng(0)
    bundle.network[["source", "target", "sign"]].to_csv(folder / "edges.tsv", sep="\t", index=False)
    sets = [f"{name}\tx\t" + "\t".join(genes) for name, genes in bundle.gene_sets.items()]
    (folder / "sets.gmt").write_text("\n".join(sets) + "\n")
    tokens = np.array(bundle.genome.tokens)
    (folder / "relatives").mkdir()
    for number, share in enumerate((0.05, 0.1, 0.15)):
        other, is_other = tokens.copy(), generator.random(len(tokens)) < share
        other[is_other] = (other[is_other] + generator.integers(1, 4, is_other.sum())) % 4
        (folder / "relatives" / f"r{number}.fa").write_text(f">r{number}\n{decode(other)}\n")
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for at in np.sort(generator.choice(len(tokens), 100, replace=False)):
        ref, alt = "ACGT"[tokens[at]], "ACGT"[(tokens[at] + 1) % 4]
        lines.append(f"{CONTIG}\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\t.")
    (folder / "in.vcf").write_text("\n".join(lines) + "\n")
    _write_notebooks(folder / "project" / "notebooks")
    # The faults are not to wait for simulated controls: a record as if they had passed.
    config = override(load_preset("quick"), VERDICT)
    slope = {"slope": 0.0, "ci_low": -0.01, "ci_high": 0.01, "minimum_detectable": 0.02}
    made = {"when": "2999", "processor": processor(), "versions": versions(), "system": "x"}
    controls = [
        {"control": kind, "expected": answer, "answer": answer, "sentence": "", "made": made,
         "slopes": [{"metric": "level_r2", **slope}]}
        for kind, answer in CONTROLS.items()
    ]  # fmt: skip
    next(one for one in controls if one["control"] == "nothing")["made"] = made | {"when": "2026"}
    about = {"passed": True, "failures": {}, "steps": 0, "cpu_seconds": 0.0, "seed": 0}
    about |= {"smallest_effect": 0.02, "element_distance_bp": [1024, 3312], "controls": controls}
    (folder / "controls").mkdir()
    write_json(folder / "controls" / "controls.json", about | control_environment(config))


def _write_notebooks(folder: Path) -> None:
    import nbformat

    folder.mkdir(parents=True)
    v4 = nbformat.v4
    parameters = v4.new_code_cell(
        'preset: str = "quick"\nrun_dir: str = ""', metadata={"tags": ["parameters"]}
    )
    for name in ("01_first", "02_second"):
        cells = [v4.new_markdown_cell(f"# {name}"), parameters, v4.new_code_cell(STEP.format(name))]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        about = {"kernelspec": kernel, "language_info": {"name": "python"}}
        nbformat.write(v4.new_notebook(cells=cells, metadata=about), folder / f"{name}.ipynb")


# --- what is in a file ---


def content(path: Path, out: Path) -> Any:
    """What a file holds, without times and its own folder; raises if it is cut short."""
    import torch
    from safetensors.torch import load_file

    name = path.name
    if name.endswith(".parquet"):
        return (
            pd.read_parquet(path)
            .drop(columns="cpu_seconds", errors="ignore")
            .to_csv(float_format="%r")
        )
    if name.endswith((".json", ".ipynb")):
        text = path.read_text().replace(str(out), "OUT")
        found = json.loads(RUN.sub("runs/RUN", text))
        return None if name.endswith(".ipynb") else _timeless(found)
    if name.endswith(".safetensors"):
        load_file(path)
    elif name.endswith(".ckpt"):
        torch.load(path, weights_only=True)
        return None
    elif name.endswith(".npy"):
        return np.load(path).tobytes()
    elif name.endswith(".h5ad"):
        import anndata

        found = anndata.read_h5ad(path)
        return found.to_df().to_csv() + found.obs.to_csv() + found.var.to_csv()
    elif name == "README.md":
        # A model's card names its folder and its command, which has --resume the second time.
        return re.sub(r"(?m)^(# |\*\*Made by\*\* ).*$", "", path.read_text())
    elif name.endswith(".html"):
        return None if path.read_text().rstrip().endswith("</html>") else 1 / 0
    elif name.endswith((".tbi", ".log")):
        return None
    elif name.endswith(".gz"):
        with gzip.open(path) as handle:
            return handle.read()
    return path.read_bytes().replace(str(out).encode(), b"OUT")


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [
            _timeless(v)
            for v in value
            if not (isinstance(v, dict) and v.get("metric") == "cpu_seconds")
        ]
    return value


def _final(folder: Path) -> list[Path]:
    """Files under their final names."""
    return [
        path for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not re.search(r"(^|/)\.|\.partial(/|$)", path.relative_to(folder).as_posix())
    ]  # fmt: skip


def unreadable(out: Path) -> list[str]:
    """Files under their final names that do not open, each with why."""
    found = []
    for path in _final(out):
        try:
            content(path, out)
        except Exception as error:
            found.append(f"{path.relative_to(out)} does not open: {type(error).__name__}: {error}")
    return found


def differences(whole: Path, out: Path) -> list[str]:
    """In what a result differs from an unbroken one."""

    def files(folder: Path) -> dict[str, Path]:
        named = {str(path.relative_to(folder)): path for path in _final(folder)}
        # What a kernel that was killed printed past Jupyter is no result.
        return {RUN.sub("runs/RUN", n): path for n, path in named.items() if path.suffix != ".log"}

    ours, theirs = files(out), files(whole)
    found = [f"{name} is only in one of both" for name in sorted({*ours} ^ {*theirs})]
    for name in sorted({*ours} & {*theirs}):
        new, old = content(ours[name], out), content(theirs[name], whole)
        if new != old:
            is_named = isinstance(new, dict) and isinstance(old, dict)
            keys = [key for key in new if new[key] != old.get(key)] if is_named else ""
            found.append(f"{name} differs from the unbroken run's {keys}")
    return found
