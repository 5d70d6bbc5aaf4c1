"""What notebooks ask for beyond the folders' own functions: paths, settings, tables and explorers.

Relative paths are those of the project, whatever folder the kernel works in. What needs torch is
imported where it is used.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.config import Config, load_preset, override
from genesplice.data.bundle import Bundle, is_outdated
from genesplice.data.bundle import load_bundle as read_bundle
from genesplice.data.prepare import prepare_files, prepare_recipe
from genesplice.data.sources import RECIPES, WELL_KNOWN_GENES
from genesplice.errors import InputError
from genesplice.evaluate.metrics import fold_profiles
from genesplice.results import Metric, MotifHit, label, metrics_frame, over_folds
from genesplice.runtime import project_path, write_json
from genesplice.show.explorers import Explorer, ScanExplorer
from genesplice.show.figures import metric_bars, scores_by_context

RUNS = "reports/runs"


def load_bundle(folder: Path | str) -> Bundle:
    """Load what `prepare` wrote.

    A folder that has a recipe's name is prepared first where it is missing, or where another
    version made it by that recipe.

    Raises
    ------
    InputError
        If there is no such folder and no recipe of its name.
    """
    path = project_path(folder)
    if path.name in RECIPES and (not path.exists() or is_outdated(path, path.name)):
        return prepare_recipe(path.name, path, overwrite=True)
    return read_bundle(path)


def prepare(recipe: str | None = None, *, out: Path | str, **files: Any) -> Bundle:
    """Prepare a data folder by a recipe's name, or from your own files.

    Parameters
    ----------
    recipe
        Such as "ecoli".
    out
        Folder to write.
    files
        What `genesplice.data.prepare.prepare_files` takes, such as `fasta`, `annotation`,
        `expression` and `expression_unit` (or neither); or further options of `prepare_recipe`.

    Raises
    ------
    InputError
        For an unknown recipe, or a file that cannot be read (which, where, and what was expected).
    """
    if recipe is None:
        return prepare_files(out=project_path(out), **files)
    return prepare_recipe(recipe, project_path(out), **files)


def open_run(folder: Path | str = "reports/interactive") -> Path:
    """Make the folder that a notebook writes to, if it is not there yet, and give its path."""
    path = project_path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def find_output(run: Path, name: str, *, missing_ok: bool = False) -> Path | None:
    """Find what another notebook left: in `run`, else in the newest run that has it.

    Parameters
    ----------
    name
        A path inside the run; it may hold wildcards, and the first that fits is taken.
    missing_ok
        Give None where no run has it.

    Raises
    ------
    InputError
        If no run has it.
    """
    runs = project_path(RUNS)
    for folder in (run, *sorted(runs.glob("*"), reverse=True)):
        if list(folder.glob(name)):
            return sorted(folder.glob(name))[0]
    if missing_ok:
        return None
    raise InputError(f"no {name} in {run} or a run under {runs}", "genesplice run first")


def configure(preset: str = "quick", settings: str = "", **sections: dict[str, Any]) -> Config:
    """Give a preset's settings with some of them changed.

    >>> configure("quick", "model.width=64", pretrain={"seed": 1, "steps": None})

    Parameters
    ----------
    settings
        As after `--set`, with spaces between them.
    sections
        Section → name → value; None leaves the preset's.

    Raises
    ------
    InputError
        For an unknown name ("did you mean …") and a value out of bounds.
    """
    changed = [
        f"{section}.{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for section, values in sections.items()
        for name, value in values.items()
        if value is not None
    ]
    return override(load_preset(preset), [*changed, *settings.split()])


def describe_bundle(bundle: Bundle) -> pd.Series:
    """Counts of everything in a bundle."""
    counts = {
        "bases": bundle.genome.length,
        "contigs": len(bundle.genome.contigs),
        "annotated genes": len(bundle.genes),
        "measured genes": bundle.expression.n_vars,
        "samples": bundle.expression.n_obs,
        "conditions": bundle.expression.obs["condition"].nunique(),
        "regulatory edges": len(bundle.network),
        "gene sets": len(bundle.gene_sets),
        "motifs": len(bundle.motifs),
    }
    return pd.Series(counts, name="count")


def list_inputs(bundle: Bundle) -> pd.DataFrame:
    """Every input of a bundle with its source, licence and the start of its checksum."""
    inputs = pd.DataFrame(
        bundle.manifest["inputs"], columns=["name", "source", "licence", "sha256"]
    )
    return inputs.assign(sha256=inputs["sha256"].astype(str).str[:12])


def residuals(bundle: Bundle) -> pd.DataFrame:
    """Measured genes x conditions: log2(TPM+1) less the gene's level and the condition's mean."""
    centred = bundle.observed.sub(bundle.observed.mean(axis=1), axis=0)
    return centred - centred.mean()


def gene_groups(bundle: Bundle) -> pd.DataFrame:
    """Function (COG category, where known), strand and biotype of every gene."""
    genes = bundle.genes.set_index("gene_id")
    sets = {name: members for name, members in bundle.gene_sets.items() if name.startswith("COG:")}
    called = bundle.set_names
    cog = {gene: called.get(name, name[4:]) for name, ids in sets.items() for gene in ids}
    function = [cog.get(gene_id, "none known") for gene_id in genes.index]
    return genes[["strand"]].assign(function=function, kind=genes["biotype"])


def well_known_genes(bundle: Bundle, among: Iterable[str], count: int) -> list[str]:
    """Up to `count` gene_ids of `among`: those of `WELL_KNOWN_GENES`, then the most active."""
    rank = {name: position for position, name in enumerate(WELL_KNOWN_GENES)}
    names, listed = bundle.names, list(among)
    known = sorted((g for g in listed if names[g] in rank), key=lambda g: rank[names[g]])
    measured = bundle.observed.index.intersection(listed)
    active = bundle.observed.loc[measured].mean(axis=1).nlargest(count).index
    return list(dict.fromkeys([*known, *active]))[:count]


def expected_profiles(bundle: Bundle, genes: Iterable[str]) -> pd.DataFrame:
    """Each gene's own level, plus what training genes of its fold do in each condition."""
    profiles = fold_profiles(bundle.observed, bundle.fold_of)
    level = bundle.observed.loc[list(genes)].mean(axis=1)
    return profiles.loc[bundle.fold_of[level.index]].set_axis(level.index).add(level, axis=0)


def level_and_spread(bundle: Bundle) -> pd.DataFrame:
    """Level of every measured gene and the spread of its residuals, in log2(TPM+1)."""
    level, spread = bundle.observed.mean(axis=1), residuals(bundle).std(axis=1)
    return pd.DataFrame(
        {"level, log2(TPM+1)": level, "spread over conditions, log2(TPM+1)": spread}
    )


def similarity_to(embeddings: pd.DataFrame, gene_id: str) -> pd.Series:
    """Cosine of every gene's standardised embedding with that of one gene."""
    unit = (embeddings - embeddings.mean()) / embeddings.std().replace(0, 1)
    unit = unit.div(np.linalg.norm(unit, axis=1), axis=0)
    return (unit @ unit.loc[gene_id]).rename("similarity")


def nearest_genes(
    embeddings: pd.DataFrame, bundle: Bundle, genes: Iterable[str], *, count: int = 5
) -> pd.DataFrame:
    """For each gene (a column), the genes of closest embedding that share no promoter base."""
    table = bundle.genes.set_index("gene_id").loc[embeddings.index]
    near = {}
    for gene_id in genes:
        is_apart = (table["tss"] - table["tss"][gene_id]).abs() >= 1024
        is_apart |= table["contig"] != table["contig"][gene_id]
        close = similarity_to(embeddings, gene_id)[is_apart].nlargest(count)
        near[table["name"][gene_id]] = [f"{table['name'][g]} ({v:.2f})" for g, v in close.items()]
    ranks = range(1, 1 + max(map(len, near.values()), default=0))
    return pd.DataFrame(near, index=pd.Index(ranks, name="rank"))


def write_summary(path: Path, /, **values: Any) -> Path:
    """Write plain values as JSON."""
    write_json(path, values)
    return path


def neighbour_bars(embeddings: pd.DataFrame, bundle: Bundle, gene: str) -> go.Figure:
    """Draw the cosine of the 20 genes of closest embedding, the gene itself left out."""
    near = similarity_to(embeddings, gene).drop(gene).nlargest(20)
    rows = {"metric": "cosine", "model": near.index.map(bundle.names) + " (" + near.index + ")"}
    table = pd.DataFrame({**rows, "value": near.to_numpy(), "split": "genome"})
    table[["ci_low", "ci_high", "fold"]], table["n"] = np.nan, len(embeddings)
    title = f"Promoters most similar to that of {bundle.names[gene]}"
    return metric_bars(table, "cosine", split="genome", title=title)


def metric_table(
    metrics: Sequence[Metric] | pd.DataFrame, prefix: str, model: str = ""
) -> pd.DataFrame:
    """Records whose metric begins with `prefix` and whose model contains `model`.

    Those of single folds are left out where there is one over all folds. Columns metric, model (as
    people read it), value, ci_low, ci_high and n.
    """
    table = over_folds(metrics_frame(metrics))
    is_chosen = table["metric"].str.startswith(prefix)
    is_chosen &= table["model"].str.contains(model, regex=False)
    shown = ["metric", "model", "value", "ci_low", "ci_high", "n"]
    table = table.assign(model=table["model"].map(label)).loc[is_chosen, shown]
    return table.reset_index(drop=True)


def pivot_metrics(metrics: Sequence[Metric] | pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    """Metrics (`prefix` cut off) x models, the mean over seeds; differences are left out."""
    table = metrics_frame(metrics)
    pooled = table[table["fold"].isna()] if table["fold"].isna().any() else table
    is_chosen = pooled["metric"].str.startswith(prefix)
    pooled = pooled[is_chosen & ~pooled["metric"].str.contains("_difference")]
    rows = pooled["metric"].str.removeprefix(prefix).str.strip("_").replace("", "all")
    shape = {"index": "metric", "columns": "model", "values": "value"}
    wide = pooled.assign(metric=rows).pivot_table(**shape, sort=False)
    return wide.rename_axis(index=None, columns=None)


def describe_methods(names: Iterable[str]) -> pd.Series:
    """What simple methods are and read, by the names that people read."""
    from genesplice.baselines.methods import BASELINES

    return pd.Series({label(one): BASELINES[one].about for one in names}, name="what it is")


def best_simple_model(scores: pd.DataFrame) -> str:
    """Name the model with the best level that is not one of ours."""
    wide = pivot_metrics(scores).T
    return str(wide.loc[~wide.index.str.startswith("genesplice"), "level_spearman"].idxmax())


def find_rates(bundle: Bundle, config: Config, *, steps: int) -> Any:
    """Try rising learning rates on the training folds: the curve, and the range it proposes."""
    from genesplice.training.comparisons import range_test
    from genesplice.training.corpus import bundle_source

    settings = config.pretrain
    source = bundle_source(bundle, settings.holdout_fold, settings.validation_blocks)
    return range_test(source, config, steps=steps)


def schedule_curves(config: Config) -> pd.DataFrame:
    """Learning rate at each step of pre-training, for every schedule: the columns of a figure."""
    from genesplice.training.schedules import SCHEDULES, schedule_factors

    total, peak = config.pretrain.steps, config.pretrain.learning_rate
    steps = np.unique(np.linspace(0, total - 1, 300).astype(int))
    curves = pd.DataFrame({name: peak * schedule_factors(name, total) for name in SCHEDULES})
    rates = curves.loc[steps].rename_axis("step").reset_index()
    return rates.melt("step", var_name="schedule", value_name="learning_rate")


def best_trials(compared: Any) -> pd.DataFrame:
    """The best trial of every schedule of a `compare_schedules`, and how many it had."""
    trials = compared.trials
    table = trials[trials["is_best"]].set_index("schedule").drop(columns="is_best")
    return table.assign(trials=trials.groupby("schedule").size())


def scan_explorer(scan: Any, bundle: Bundle, **options: Any) -> Explorer:
    """Explore a promoter scan (`scan_promoter`); `options` are those of `ScanExplorer`."""
    scans = scan.table.assign(gene_id=scan.gene_id, position_bp=scan.table["distance_bp"])
    hexamers = pd.DataFrame(scan.hexamers, columns=list(MotifHit._fields))
    hexamers = hexamers.assign(gene_id=scan.gene_id)
    options["conservation"] = scan.conservation and [scan.conservation]
    return ScanExplorer(scans, hexamers, names=bundle.names, **options)


def strongest_changes(scan: Any, *, count: int = 8) -> pd.DataFrame:
    """The substitutions of a promoter scan that the model finds least likely."""
    long = scan.table.melt(["distance_bp", "ref"], [f"to_{b}" for b in "ACGT"], "alt", "log ratio")
    long["alt"] = long["alt"].str.removeprefix("to_")
    return long[long["alt"] != long["ref"]].nsmallest(count, "log ratio").reset_index(drop=True)


def substitutions_around(scan: Any, bundle: Bundle, *, count: int, seed: int = 0) -> pd.DataFrame:
    """Random substitutions of a scanned promoter: contig, position (from 1), ref and alt."""
    from genesplice.variants.scan import Region, random_substitutions

    low = int(scan.table["position"].min()) - 1
    region = Region(scan.table["contig"].iloc[0], low, int(scan.table["position"].max()))
    return random_substitutions(bundle.genome, region, count, seed)


def attribution_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Share of absolute attribution (`explain_genes`) by distance from the TSS, gene by gene."""
    at = table["position_bp"]
    low, high = int(at.min()), int(at.max()) + 1  # of the window that was read
    inner = (-1024, -512, -256, -128, -64, 0, 64, 256, 1024)
    edges = [low, *(edge for edge in inner if low < edge < high), high]
    interval = pd.cut(at, edges, right=False).rename("interval")
    size = table["value"].abs().groupby([table["gene_id"], interval], observed=True).sum()
    share = size.unstack("gene_id")
    return share / share.sum()


def level_errors(predicted: pd.DataFrame, bundle: Bundle, fold: int) -> pd.DataFrame:
    """Observed and predicted level of every measured gene, its error, and if it is held out."""
    level = bundle.observed.mean(axis=1).to_frame("observed")
    level["predicted"] = predicted.mean(axis=1)
    level["error"] = (level["predicted"] - level["observed"]).abs()
    is_test = level.index.isin(bundle.test_genes(fold))
    return level.assign(genes=np.where(is_test, "held out", "trained on"))


def edge_attributions(
    explainer: Any, genes: Sequence[str], *, condition: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Nodes and edges that the predictions of genes rest on, and how far they add up, in words.

    The 80 edges of largest attribution into `genes`, which is their `weight`.
    """
    from genesplice.explain.pathways import explain_edges

    found = explain_edges(explainer, genes, condition=condition)
    edges = found.table[found.table["target"].isin(genes)]
    edges = edges[edges["source"] != edges["target"]].rename(columns={"value": "weight"})
    edges = edges.loc[edges["weight"].abs().nlargest(80).index]
    nodes = pd.DataFrame(index=pd.Index(sorted({*edges["source"], *edges["target"]}), name="id"))
    nodes["name"] = nodes.index.map(explainer.bundle.labels)
    return nodes, edges, found.completeness


def describe_rule(config: Config) -> pd.Series:
    """What is agreed on before a context verdict."""
    rule = config.verdict
    words = {
        "context lengths (bp)": ", ".join(f"{length:,}" for length in rule.contexts_bp),
        "smallest effect of interest (per doubling)": rule.smallest_effect,
        "probability of a false yes or no": rule.alpha,
        "held-out folds": "numbers " + ", ".join(map(str, rule.folds)) if rule.folds else "all",
        "seeds": "numbers " + ", ".join(map(str, rule.seeds)),
        "other architectures": ", ".join(rule.references) or "none in this preset",
    }
    return pd.Series(words, name="agreed on before")


def decide_again(report: Any, bundle: Bundle, config: Config, smallest_effect: float) -> Any:
    """Apply the rule to the predictions of a `context_test` with another smallest effect."""
    from genesplice.context.conditions import judge_conditions, plan_conditions

    plan = plan_conditions(config, bundle, config.verdict.contexts_bp, config.verdict.references)
    made = report.predictions, bundle, plan, config
    return judge_conditions(*made, smallest_effect=smallest_effect)


def context_tables(report: Any, decision: Any = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores by context length, and slopes of the data and of every control, for an explorer.

    `decision` is that of `decide_again`; left out, the verdict's own.
    """
    verdict = report.verdict
    slopes = [slope._asdict() for slope in decision.slopes] if decision else verdict["slopes"]
    answer = decision.answer if decision else verdict["answer"]
    parts = [pd.DataFrame(slopes).assign(source="these data", answer=answer)]
    for one in verdict["controls"]["controls"]:
        about = {"source": f"control: {one['control']}", "answer": one["answer"]}
        parts.append(pd.DataFrame(one["slopes"]).assign(**about))
    scores = scores_by_context(verdict["conditions"], metrics_frame(report.metrics))
    is_decided = scores["metric"].isin([slope["metric"] for slope in slopes])
    return scores[is_decided], pd.concat(parts, ignore_index=True)
