"""Every stage of two checkouts in turn, one command at a time: seconds, memory and scores.

`python -m benchmarks.stages --before OTHER/CHECKOUT --out reports/results/stages.json`

Each stage runs before, then after, in a process of its own with the same Python; times are CPU
time, with those of its children. Both begin with `prepare`, so each reads data of its own state.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from genesplice.data.bundle import load_bundle
from genesplice.data.genome import decode
from genesplice.errors import WorkError

N_VARIANTS = 1000
STAGES = {
    "prepare": "prepare --recipe ecoli --out {at}/prepare",
    "pretrain": "pretrain --data {data} --preset quick --out {at}/pretrain",
    "finetune": "finetune --data {data} --init {at}/pretrain --preset quick --out {at}/finetune",
    "finetune_published": "finetune --data {data} --init ecoli-k12 --preset quick "
    "--out {at}/finetune_published",
    "predict": "predict --data {data} --model {fold} --out {at}/predict",
    "explain": "explain --data {data} --model {fold} --genes trpE,fis,metE --out {at}/explain",
    "variants": "variants --data {data} --model {at}/pretrain --model {fold} "
    "--vcf {at}/../some.vcf --out {at}/variants.vcf",
    "scan": "scan --data {data} --model {at}/pretrain --region {contig}:1-20000 --out {at}/scan",
    "baselines": "baselines --data {data} --out {at}/baselines",
    "verdict": "verdict --data {data} --preset quick --out {at}/verdict",
}
MEASURE = """import contextlib, ctypes, json, os, resource, subprocess, sys, time
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
began = time.monotonic()
code = subprocess.Popen(sys.argv[1:], stdout=sys.stderr).wait()
seconds = time.monotonic() - began
with contextlib.suppress(ChildProcessError):
    while True:
        os.wait()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, seconds, used.ru_maxrss]))"""
"""In a small process of its own: a child's largest size is at least that of who starts it.

Workers that outlive the command become its children, so that their time counts too (on Linux).
"""
SCORES = {
    "pretrain": ("bits_per_base",),
    "finetune": ("level_spearman", "profile_r"),
    "finetune_published": ("level_spearman", "profile_r"),
    "baselines": ("level_spearman", "profile_r"),
}


def random_substitutions(data: Path, out: Path, n: int = N_VARIANTS) -> str:
    """Write a VCF of random substitutions of the first contig, and return its name."""
    genome = load_bundle(data).genome
    contig, rng = genome.contigs[0], np.random.default_rng(0)
    lines = ["##fileformat=VCFv4.2", f"##contig=<ID={contig.name},length={contig.length}>"]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for at in np.sort(rng.choice(contig.length, n, replace=False)).tolist():
        base = decode(genome.fetch(contig.name, at, at + 1))
        other = rng.choice([one for one in "ACGT" if one != base])
        lines.append(f"{contig.name}\t{at + 1}\t.\t{base}\t{other}\t.\t.\t.")
    out.write_text("\n".join(lines) + "\n")
    return contig.name


def run_stage(name: str, checkout: Path, folder: Path, contig: str) -> dict[str, Any]:
    """Run one command of a checkout: seconds of CPU and of the clock, largest process in MB.

    Raises
    ------
    WorkError
        If the command fails: what it took until then is no measurement.
    """
    places = {"at": folder, "data": folder / "prepare", "fold": folder / "finetune/fold0_seed0"}
    words = STAGES[name].format(**places, contig=contig).split()
    path = os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "genesplice", *words]
    with (folder / f"{name}.log").open("w") as log:
        told = subprocess.run(
            command, cwd=checkout, env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE, stderr=log, text=True, check=True,
        ).stdout  # fmt: skip
    code, cpu_seconds, seconds, kilobytes = json.loads(told)
    if code:
        raise WorkError(f"{name} of {checkout} ended with {code}: see {folder / name}.log")
    return {
        "cpu_seconds": round(cpu_seconds, 1),
        "clock_seconds": round(seconds, 1),
        "largest_process_mb": kilobytes // 1024,
        "scores": best_scores(folder / name / "metrics.json", name),
    }


def best_scores(written: Path, name: str) -> dict[str, float]:
    """The model's scores of a stage, also from the genome alone; of simple methods the best.

    A model that reads no relatives has one number of bits.
    """
    if name not in SCORES or not written.exists():
        return {}
    found = [one for one in json.loads(written.read_text()) if one["split"] == "test"]
    pooled = [one for one in found if one["fold"] is None]
    whole = {(one["metric"], one["model"]) for one in pooled}
    found = pooled + [one for one in found if (one["metric"], one["model"]) not in whole]
    ours = ("genesplice", "genesplice_ensemble")
    scores: dict[str, float] = {}
    for score in SCORES[name]:
        rows = {(one["model"], one["value"]) for one in found if one["metric"] == score}
        values = [value for model, value in rows if name == "baselines" or model in ours]
        scores |= {score: round(max(values), 4)} if values else {}
        alone = [value for model, value in rows if model == "genome_alone"]
        scores |= {f"{score}_genome_alone": round(max(alone), 4)} if alone else {}
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages that are asked for, before and after in turn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of another commit")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--keep", type=Path, help="folder that keeps what is written")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args(arguments)
    root = given.keep or Path(tempfile.mkdtemp(prefix="stages-"))
    sides = {"before": given.before.resolve(), "after": Path.cwd()}
    commit = ["git", "-C", str(given.before), "rev-parse", "--short", "HEAD"]
    before = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
    table: dict[str, Any] = {}
    contig = ""
    for name in given.stages.split(","):
        table[name] = {}
        for side, checkout in sides.items():
            if name == "finetune_published" and not (checkout / "genesplice/weights").exists():
                continue
            folder = root / side
            folder.mkdir(parents=True, exist_ok=True)
            table[name][side] = run_stage(name, checkout, folder, contig)
            print(name, side, table[name][side], flush=True)
        contig = contig or random_substitutions(root / "after/prepare", root / "some.vcf")
        if given.out:
            command = f"python -m benchmarks.stages --before {before}"
            record(given.out, "stages", {"before": before, "stages": table}, command)
    if given.keep is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
