"""What notebooks ask for beyond the rooms' own functions: paths, settings and small tables.

Relative paths are those of the project, whatever folder the kernel works in.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genesplice.config import Config, load_preset, override
from genesplice.data.bundle import Bundle
from genesplice.data.bundle import load_bundle as read_bundle
from genesplice.data.prepare import is_outdated, prepare_files, prepare_recipe
from genesplice.data.sources import RECIPES, WELL_KNOWN_GENES
from genesplice.errors import InputError
from genesplice.evaluate.metrics import fold_profiles
from genesplice.runtime import project_path
from genesplice.show.figures import metric_bars

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
    path = project_path(out)
    if recipe is None:
        return prepare_files(out=path, **files)
    return prepare_recipe(recipe, path, **files)


def open_run(folder: Path | str = "reports/interactive") -> Path:
    """Make the folder that a notebook writes to, if it is not there yet, and give its path."""
    path = project_path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


@overload
def find_output(run: Path, name: str) -> Path: ...
@overload
def find_output(run: Path, name: str, *, missing_ok: bool) -> Path | None: ...
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
    columns = ["name", "source", "licence", "sha256"]
    inputs = pd.DataFrame(bundle.manifest["inputs"], columns=columns)
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
    names = bundle.names
    listed = list(among)
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
    columns = {
        "level, log2(TPM+1)": bundle.observed.mean(axis=1),
        "spread over conditions, log2(TPM+1)": residuals(bundle).std(axis=1),
    }
    return pd.DataFrame(columns)


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
    rows = max(map(len, near.values()), default=0)
    return pd.DataFrame(near, index=pd.RangeIndex(1, rows + 1, name="rank"))


def write_summary(path: Path, /, **values: Any) -> Path:
    """Write plain values as JSON."""
    path.write_text(json.dumps(values, indent=1, default=str) + "\n")
    return path


def neighbour_bars(
    embeddings: pd.DataFrame, bundle: Bundle, gene: str, *, count: int = 20
) -> go.Figure:
    """Draw the cosine of the genes of closest embedding, the gene itself left out."""
    near = similarity_to(embeddings, gene).drop(gene).nlargest(count)
    rows = {"metric": "cosine", "model": near.index.map(bundle.names) + " (" + near.index + ")"}
    table = pd.DataFrame({**rows, "value": near.to_numpy(), "split": "genome"})
    table[["ci_low", "ci_high", "fold"]], table["n"] = np.nan, len(embeddings)
    title = f"Promoters most similar to that of {bundle.names[gene]}"
    return metric_bars(table, "cosine", split="genome", title=title)
