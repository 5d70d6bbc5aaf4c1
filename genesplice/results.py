"""The values that stages hand to one another and write to disk, and what a difference answers."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from genesplice.errors import InputError, require


class Metric(NamedTuple):
    """One measured number with its interval and what it was measured on.

    `split` is "test" for held-out genes, "train" or "val" otherwise; `fold` and `seed` are None
    where a value pools all folds or needs no seed. `n` counts what was averaged over (genes,
    or entries, or bases).
    """

    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    n: int
    model: str
    split: str
    fold: int | None = None
    seed: int | None = None


def metrics_frame(records: Iterable[Metric] | pd.DataFrame) -> pd.DataFrame:
    """Records as a table, a row each."""
    return pd.DataFrame(records, columns=list(Metric._fields))


def over_folds(table: pd.DataFrame) -> pd.DataFrame:
    """Those of `metrics_frame`, without single folds where there is a record over all of them."""
    is_pooled = table["fold"].isna()
    same = [table["metric"], table["model"], table["split"]]
    return table[is_pooled | ~is_pooled.groupby(same).transform("any")]


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Write `metrics` as the list of records that `metrics.json` is."""
    records = [metric._asdict() for metric in metrics]
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(records, indent=1, allow_nan=False) + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_metrics(path: Path) -> list[Metric]:
    """Read back what `write_metrics` wrote.

    Raises
    ------
    InputError
        If it is anything else.
    """
    try:
        return [Metric(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise InputError("no list of metrics", "a metrics.json", path=path) from error


def to_metrics(table: pd.DataFrame) -> list[Metric]:
    """Records from a table with the columns of `Metric`; what is missing becomes None.

    A column of whole numbers with gaps is one of floats in pandas: n, fold and seed are made whole.
    """
    whole = {"n": "Int64", "fold": "Int64", "seed": "Int64"}
    rows = table[list(Metric._fields)].astype(whole).astype(object)
    return [Metric(*row) for row in rows.where(rows.notna(), None).to_numpy().tolist()]


LISTS = ("metrics", "ablations", "variants", "faithfulness", "bench")
OBJECTS = ("verdict", "reliability")


def gather_results(folder: Path) -> dict[str, Any]:
    """What lies in files of a folder and below: lists of records, and objects.

    Read are `metrics.json`, `ablations.json`, `variants.json`, `faithfulness.json` and `bench.json`
    (lists of records, or an object whose `rows` are one) and `verdict.json` and `reliability.json`
    (objects). A record found twice is there once. What no file gives is an empty list or object.

    Raises
    ------
    InputError
        If a file holds something else, or two verdicts differ.
    """
    results: dict[str, Any] = {name: [] for name in LISTS} | {name: {} for name in OBJECTS}
    for path in sorted(path for path in folder.rglob("*.json") if path.stem in results):
        name, content = path.stem, read_json(path)
        if name in OBJECTS:
            require(isinstance(content, dict), type(content).__name__, "an object", path)
            require(results[name] in ({}, content), f"a second {name}", "one in a run", path)
            results[name] = content
            continue
        rows = content.get("rows") if isinstance(content, dict) else content
        if not isinstance(rows, list):
            raise InputError(type(rows).__name__, "a list of records", path=path)
        results[name] += [row for row in rows if row not in results[name]]
    return results


SPLITS = {"variants": ("genome", "measured"), "faithfulness": ("explained",)}
"""Of the records that `results.json` has under these names as well."""


def run_results(folder: Path, command: str, claims: Callable[..., Any]) -> dict[str, Any]:
    """As `gather_results` of a run, and its command.

    `claims` are those of `evaluate.reliability.claim_records` over all of its notebooks; `variants`
    and `faithfulness` are the records of known classes and of attributions.
    """
    results = gather_results(folder)
    results.pop("ablations")  # a verdict's own, which knows of no other notebook
    results["claims"] = claims(results["metrics"], results["verdict"], command)
    for name, splits in SPLITS.items():
        results[name] += [row for row in results["metrics"] if row["split"] in splits]
    return results | {"made_by": command}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON ({error})", path=path) from None


class Conservation(NamedTuple):
    """How the bases of an interval are conserved in each group of relatives, on one strand.

    Of the `sizes[group]` relatives `aligned[i, g]` have a base or a gap at base i, and `same[i, g]`
    have this base. `information` is that of the column over all groups, in bits: 2 less the entropy
    of its bases, each counted a quarter too often; 0 where nothing is aligned. Where the data have
    a score in place of relatives there are no groups, `information` is the score, and `score` its
    name and usual range.
    """

    sizes: dict[str, int]
    aligned: np.ndarray
    same: np.ndarray
    information: np.ndarray
    score: tuple[str, float, float] | None = None

    def part(self, at: slice) -> "Conservation":
        """The same of some of the bases."""
        aligned, same, information = (each[at] for each in self[1:4])
        return self._replace(aligned=aligned, same=same, information=information)


class Attribution(NamedTuple):
    """What each base of a window contributed to one predicted number of one gene.

    Everything is on the gene's sense strand, 5' to 3': `tokens` and `values` have one entry a
    base, and entry 0 lies `offset_bp` from the TSS (negative: upstream). `by_group` has what each
    group of relatives contributed with each base's alignment column, where the model reads these.
    Both together sum to `output - baseline_output` up to `delta`, the method's completeness error.
    """

    gene_id: str
    name: str
    target: str
    method: str
    baseline: str
    offset_bp: int
    tokens: np.ndarray
    values: np.ndarray
    output: float
    baseline_output: float
    delta: float
    by_group: np.ndarray | None = None
    conservation: Conservation | None = None

    @property
    def relative_delta(self) -> float:
        """|delta| over |output - baseline_output|; nan where that difference is 0."""
        change = abs(self.output - self.baseline_output)
        return abs(self.delta) / change if change else float("nan")


class MotifHit(NamedTuple):
    """A known motif on a scanned sequence: 0-based half-open, log-odds score in bits."""

    start: int
    end: int
    name: str
    score: float
    strand: str


PREDICTION_COLUMNS = ("gene_id", "condition", "fold", "model", "seed", "observed", "predicted")
"""Of `predictions.parquet`: held-out rows, log2(TPM + 1)."""


LABELS = {
    "genesplice_random": "random weights", "nearest_copy": "most similar gene",
    "ridge_kmers": "ridge on k-mers", "gbm_kmers": "boosting on k-mers",
    "cnn": "convolutional network", "ridge_kmer_codon": "ridge: k-mers, codons",
    "gbm_kmer_codon": "boosting: k-mers, codons", "ridge_regulators": "ridge: regulators",
    "ridge_kegg": "ridge: KEGG", "ridge_go": "ridge: GO", "ridge_all": "ridge: no relatives",
    "gbm_all": "boosting: no relatives", "mean_gbm_ridge_all": "boosting+ridge: no relatives",
    "gbm_conservation": "boosting: relatives alone", "gbm_dna": "boosting: DNA and relatives",
    "mean_gbm_ridge_everything": "boosting+ridge: everything",
    "bases_only": "bases alone", "kmer_ridge": "ridge on smoothed k-mers",
    "count_one_sided": "counts of the bases before", "column": "alignment column",
    "count_two_sided": "counts of neighbouring bases",
    "start": "start codons", "stop": "stop codons", "start_stop": "start and stop codons",
    "codon_12_3": "codon positions 1 and 2", "nonsynonymous": "non-synonymous",
    "hexamers": "−10/−35 hexamers", "hexamers_level": "−10/−35: loss of level",
    "hexamers_level_size": "−10/−35: size of change",
    "llr": "masked-base log-likelihood ratio", "dlevel": "change of predicted level",
}  # fmt: skip
"""What people read of simple methods, classes of changes and scores; files keep the names."""


def label(model: object) -> str:
    """Name a model, a class or a difference ("a - b") for people; other names as they are."""
    return " - ".join(LABELS.get(name, name) for name in str(model).split(" - "))


CARD_ROWS = 24
CARDS = {
    "pretrain": "An encoder, pre-trained on masked bases and views of intervals: `--init DIR`.",
    "finetune": "Predicts log2(TPM + 1) from DNA, a gene network and pathways. "
    "`genesplice.GeneSplice.from_pretrained(DIR)` loads it.",
    "tracks": "Predicts coverage and peaks in bins of 128 bp: `genesplice variants --model DIR`.",
}
"""What a model is for, by the stage that makes it."""


def model_card(
    title: str,
    stage: str,
    made_by: str,
    metrics: Sequence[Metric],
    genome: str,
    data: Sequence[str],
) -> str:
    """The text of a model's README.md: data, command, the first of the metrics, licence."""
    own = [m for m in metrics if " - " not in m.model]
    pooled = [m for m in own if m.fold is None] or own
    rows = [
        f"| `{m.metric}` | {label(m.model)} | {m.value:.3f} | "
        + (f"{m.ci_low:.3f} to {m.ci_high:.3f} |" if m.ci_low is not None else "|")
        for m in pooled[:CARD_ROWS]
    ]
    return "\n".join([
        "---", "library_name: genesplice", "license: mit", "tags: [genomics]", "---",
        f"# {title}", "", CARDS[stage], "", f"**Data.** {genome}", "",
        *(f"- {one}" for one in data), "", f"**Made by** {made_by}.", "",
        "**Measured** on what was held out, 95 % intervals (`metrics.json` has every row):", "",
        "| metric | model | value | 95 % interval |", "|---|---|--:|--:|", *rows, "",
        "**Licence.** Of the weights: MIT. The data keep theirs. It answers for the genome and the "
        "conditions it was trained on, and for nothing else.", "",
    ])  # fmt: skip


# --- what a difference answers ---

Answer = Literal["yes", "no", "cannot tell"]
NOT_RUN: Literal["not run"] = "not run"


def answer_from_interval(
    low: float | None, high: float | None, smallest_effect: float = 0.0
) -> Answer:
    """*yes* above 0 where the effect may matter, *no* where it is below what matters, or neither.

    Parameters
    ----------
    low, high
        95 % interval of a difference, more is better; without one nobody can tell.
    smallest_effect
        The smallest effect of interest.
    """
    if low is None or high is None:
        return "cannot tell"
    if low > 0 and high >= smallest_effect:
        return "yes"
    return "no" if high < smallest_effect else "cannot tell"


class Judgement(NamedTuple):
    """What was asked, the answer ("not run" without a record), and why, in a sentence."""

    hypothesis: str
    answer: Answer | Literal["not run"]
    sentence: str


def judge(hypothesis: str, difference: Metric, *, is_lower_better: bool = False) -> Judgement:
    """Answer from the interval of the difference between a model and its ablation.

    Raises
    ------
    InputError
        If the metric is not a difference.
    """
    is_difference = difference.metric.endswith("_difference")
    require(is_difference, f"metric {difference.metric!r}", "a difference from an ablation")
    low, high = difference.ci_low, difference.ci_high
    interval, ends = "no interval", (low, high)
    if low is not None and high is not None:
        interval = f"{low:+.4f} to {high:+.4f}"
        ends = (-high, -low) if is_lower_better else (low, high)
    answer = answer_from_interval(*ends)
    name = difference.metric.removesuffix("_difference")
    sentence = (
        f"{hypothesis}: {answer}. {name} of {label(difference.model)}: {difference.value:+.4f} "
        f"({interval}, n = {difference.n:,}; {'lower' if is_lower_better else 'higher'} is better)."
    )
    return Judgement(hypothesis, answer, sentence)


def judge_difference(
    hypothesis: str, metrics: Sequence[Metric], pair: str, metric: str, **direction: bool
) -> Judgement:
    """Judge a hypothesis by the record of a difference, such as "model - ablation".

    `direction` is `is_lower_better` of `judge`. "not run" where nothing was measured: a genome
    without usable probe tasks has no probes.
    """
    for one in metrics:
        if (one.model, one.metric) == (pair, metric):
            return judge(hypothesis, one, **direction)
    sentence = f"{hypothesis}: {NOT_RUN}. These data have no {metric} of {pair}."
    return Judgement(hypothesis, NOT_RUN, sentence)
