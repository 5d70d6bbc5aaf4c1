"""`python -m benchmarks.results`: what was measured, in one file, and the tables of README.

Reads the files of `reports/results/` (long runs, each made by the command that it names), and
writes `results.json` beside them, in the form of `genesplice run --publish`, and the part of
README between its markers. Nothing is measured here, and what no file has is "not measured".
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from genesplice.evaluate.reliability import claim_records
from genesplice.results import SPLITS, read_json
from genesplice.runtime import write_json

Record = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "reports" / "results"
OF_CLAIMS = (
    "finetune_relatives", "finetune_encoders", "finetune_standard", "pretrain_relatives",
    "verdict_standard",
)  # fmt: skip
"""Where an ingredient may have been measured; the first that has it counts."""
BEST_SIMPLE = "mean_gbm_ridge_everything"
METRICS = ("level_spearman", "profile_r")
NOT_MEASURED = "not measured"
RENAMED = {
    "The arms say": "The conditions say", "it listens, and gains": "it gains",
    "The instruments disagree": "The methods disagree",
    '"worthwhile"': '"smallest_effect"', '"counts_shared_luck"': '"counts_shared_variance"',
    '"visible"': '"minimum_detectable"', '"instruments"': '"distance_dependence"',
    '"listens"': '"depends_beyond"', '"world_steps"': '"control_steps"',
    '"worlds"': '"controls"', '"arms"': '"conditions"',
}  # fmt: skip
"""In verdicts that were made before words had changed."""
INGREDIENTS = {
    "related genomes": ("related genomes", "alignment columns of another gene as long"),
    "graph attention": ("gene network", "a rewired network, same degrees and signs"),
    "pathway knowledge": ("pathways", "random gene sets, same sizes and overlaps"),
    "pre-training": ("pre-training", "random weights of the encoder"),
    "hierarchical attention": ("hierarchical attention", "neither summaries nor regions"),
    "adaptive schedule": ("learning-rate schedule", "a constant rate"),
    "longer context": ("longer context", "half as much, 512 bp to the chromosome"),
}
"""In the order of the table: its name there, and what it is compared with."""
CLASSES = {
    "auroc_nonsynonymous": "non-synonymous against synonymous",
    "auroc_codon_12_3": "codon positions 1 and 2 against 3",
    "auroc_start": "start codons",
    "auroc_stop": "stop codons",
    "auroc_nonsense": "a stop inside of a gene",
    "auroc_sites_minus10": "-10 boxes against their flanks",
    "auroc_sites_tf_site": "transcription-factor sites against their flanks",
}
MARKERS = "<!-- from reports/results/results.json: python -m benchmarks.results -->", "<!-- end -->"


def read_files(folder: Path) -> dict[str, Record]:
    """Every JSON file of the folder but `results.json` itself, by its stem."""
    paths = sorted(path for path in folder.glob("*.json") if path.stem != "results")
    return {path.stem: read_json(path) for path in paths}


def read_verdict(content: Record) -> Record:
    """A verdict under today's names, without its metrics."""
    text = json.dumps({name: part for name, part in content.items() if name != "metrics"})
    for before, now in RENAMED.items():
        text = text.replace(before, now)
    verdict: Record = json.loads(text)
    return verdict


def slope_records(verdict: Record) -> list[Record]:
    """The changes per doubling of context as metrics."""
    return [
        {"metric": f"{slope['metric']}_per_doubling", "value": slope["slope"], "model": "context",
         "split": "test", "fold": None, "seed": None}
        | {name: slope[name] for name in ("ci_low", "ci_high", "n")}
        for slope in verdict["slopes"]
    ]  # fmt: skip


def pooled(records: list[Record]) -> list[Record]:
    """What pools all folds, and folds where nothing does; neither parts of the genes nor costs."""
    kept = [row for row in records if row["split"] in ("test", "genome", "measured", "explained")]
    whole = {(row["metric"], row["model"]) for row in kept if row["fold"] is None}
    return [r for r in kept if r["fold"] is None or (r["metric"], r["model"]) not in whole]


def gather(folder: Path = RESULTS) -> Record:
    """`results.json` of the files of a folder: every record says which file it is `from`."""
    files = read_files(folder)
    metrics: list[Record] = []
    claims: dict[str, list[Record]] = {}
    verdict = read_verdict(files["verdict_standard"]) if "verdict_standard" in files else {}
    for stem, content in files.items():
        metrics += [row | {"from": stem} for row in pooled(content.get("metrics", []))]
    slopes = slope_records(verdict) if verdict else []
    metrics += [row | {"from": "verdict_standard"} for row in slopes]
    for stem in OF_CLAIMS:
        if stem not in files:
            continue
        is_verdict = stem == "verdict_standard"
        records = files[stem]["metrics"] + (slopes if is_verdict else [])
        found = claim_records(records, verdict if is_verdict else {}, files[stem]["made_by"])
        for name in {row["hypothesis"]: None for row in found}:
            rows = [row for row in found if row["hypothesis"] == name]
            measured = [row | {"from": stem} for row in rows if row["answer"] != NOT_MEASURED]
            if measured and not any(row["value"] is not None for row in claims.get(name, [])):
                claims[name] = measured
            claims.setdefault(name, [row | {"from": None} for row in rows])
    results: Record = {
        "metrics": [row for row in metrics if all(row["split"] not in s for s in SPLITS.values())],
        "claims": [row for name in INGREDIENTS for row in claims[name]],
        "verdict": verdict,
        "bench": files.get("bench", {}).get("rows", []),
        "reliability": files.get("reliability", {}),
        "made_by": {
            stem: {name: content[name] for name in ("made_by", "notes") if name in content}
            for stem, content in files.items()
        } | {"results": "python -m benchmarks.results"},
    }  # fmt: skip
    for name, splits in SPLITS.items():
        results[name] = [row for row in metrics if row["split"] in splits]
    return results


def find(results: Record, metric: str, model: str, *stems: str) -> Record | None:
    """The pooled record of the first of the files that has it; of the first seed."""
    for stem in stems:
        for row in results["metrics"]:
            if (row["metric"], row["model"], row["from"]) == (metric, model, stem):
                return dict(row)
    return None


def spell(row: Record | None, *, is_change: bool = False) -> str:
    """Value and interval; four decimals where three would all be zero."""
    if row is None or row["value"] is None:
        return NOT_MEASURED
    ends = [row[name] for name in ("ci_low", "ci_high")]
    digits = 4 if is_change and max(map(abs, [row["value"], *ends])) < 0.005 else 3
    value = f"{row['value']:{'+' if is_change else ''}.{digits}f}"
    return f"{value} ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"


def answer(row: Record | None) -> str:
    """What the interval of a difference from another method says."""
    if row is None:
        return ""
    words = {row["ci_low"] > 0: " better", row["ci_high"] < 0: " worse"}
    return words.get(True, " cannot tell")


def tables(results: Record) -> str:
    """The tables of README: beside the best simple method; every ingredient; known classes."""
    stem = "finetune_relatives"
    seeds = {
        r["seed"] for r in results["metrics"] if (r["model"], r["from"]) == ("genesplice", stem)
    }
    is_mean = find(results, METRICS[0], "genesplice_ensemble", stem) is not None
    model = "genesplice_ensemble" if is_mean else "genesplice"
    label = f"mean of {len(seeds)} seeds" if is_mean else "one seed"
    rows = [(f"GeneSplice, {label}", model), ("best simple method", BEST_SIMPLE)]
    lines = [f"| | {METRICS[0]} | {METRICS[1]} |", "|---|--:|--:|"]
    for name, one in rows:
        cells = [spell(find(results, metric, one, stem, "baselines")) for metric in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    cells = []
    for metric in METRICS:
        pairs = [f"{one} - {BEST_SIMPLE}" for one in (model, "genesplice")]
        found = [find(results, f"{metric}_difference", pair, stem) for pair in pairs]
        row = next((one for one in found if one), None)
        cells.append(spell(row, is_change=True) + answer(row))
    lines += [f"| difference | {' | '.join(cells)} |", ""]
    lines += [f"| ingredient | compared with the same model with | {METRICS[0]} | {METRICS[1]} |",
              "|---|---|--:|--:|"]  # fmt: skip
    notes = 0
    for name, (label, control) in INGREDIENTS.items():
        # With several ablations the strongest, the one with the least effect, is what counts.
        least: dict[str, Record] = {}
        for row in results["claims"]:
            if row["hypothesis"] == name and row["value"] is not None:
                before = least.setdefault(row["metric"], row)
                least[row["metric"]] = min(before, row, key=lambda one: one["value"])
        cells = []
        for metric in METRICS:
            row = least.get(metric) or least.get("level_r2")
            if row is None:
                cells.append(NOT_MEASURED)
                continue
            other = "" if row["metric"] == metric else f"{row['metric']} "
            cells.append(f"{other}{spell(row, is_change=True)} {row['answer']}")
        without = {row["from"] for row in least.values()} == {"finetune_standard"}
        note = " (without relatives)" if without else ""
        notes += bool(note)
        lines.append(f"| {label}{note} | {control} | {' | '.join(cells)} |")
    if notes:
        lines += [
            "",
            "Rows without relatives are of an earlier model, which read the genome alone.",
        ]
    rows = {(r["metric"], r["model"]): r for r in results["variants"]}
    lines += ["", "| zero-shot, AUROC (0.5 is chance) | GeneSplice | the alignment column alone |",
              "|---|--:|--:|"]  # fmt: skip
    for name, label in CLASSES.items():
        cells = [spell(rows.get((name, one))) for one in ("genesplice", "column")]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fill(text: str, results: Record) -> str:
    """A text with the tables between its markers."""
    start, end = map(re.escape, MARKERS)
    made = f"{MARKERS[0]}\n\n{tables(results)}\n\n{MARKERS[1]}"
    return re.sub(f"{start}.*?{end}", lambda _: made, text, flags=re.DOTALL)


def main() -> None:
    """Write `results.json` and README's tables."""
    argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__).parse_args()
    results = gather()
    write_json(RESULTS / "results.json", results)
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(RESULTS / "results.json")


if __name__ == "__main__":
    main()
