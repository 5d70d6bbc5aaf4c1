"""From a recipe, or from the user's own files, to a bundle."""

import difflib
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from genesplice.data.annotation import Annotation, parse_annotation
from genesplice.data.bundle import Bundle, BundleParts, write_bundle
from genesplice.data.expression import ExpressionUnit, read_expression
from genesplice.data.genome import read_fasta
from genesplice.data.network import NETWORK_COLUMNS, parse_gene_sets, parse_network
from genesplice.data.sources import MIN_SET_GENES, RECIPES
from genesplice.data.splits import make_operons
from genesplice.errors import InputError
from genesplice.runtime import file_sha256

Progress = Callable[[str], None]


def prepare_recipe(
    name: str,
    out: Path | str,
    *,
    overwrite: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Prepare an organism that is known by name (`genesplice.data.sources.RECIPES`).

    Parameters
    ----------
    out
        Folder to write; it appears only when the bundle is whole.
    cache
        Where downloads are kept; see `genesplice.data.sources.default_cache`.
    progress
        Called with one line per step.

    Raises
    ------
    InputError
        For an unknown recipe, an `out` that is not empty (without `overwrite`), and a download
        whose checksum is not the pinned one.
    WorkError
        If the data cannot be downloaded.
    """
    started = time.monotonic()
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"{close[0]!r}" if close else " or ".join(map(repr, RECIPES))
        raise InputError(f"recipe {name!r}", hint)
    _refuse_taken(Path(out), overwrite)
    parts = RECIPES[name](cache, progress)
    return write_bundle(
        parts,
        Path(out),
        command=f"genesplice prepare --recipe {name} --out {out}",
        started=started,
        overwrite=overwrite,
        progress=progress,
    )


def prepare_files(
    fasta: Path | str,
    annotation: Path | str,
    expression: Path | str,
    expression_unit: ExpressionUnit,
    *,
    out: Path | str,
    samples: Path | str | None = None,
    network: Path | str | None = None,
    gene_sets: Path | str | None = None,
    name: str | None = None,
    circular: Iterable[str] = (),
    block_bp: int = 100_000,
    n_folds: int = 5,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Prepare an organism from FASTA, GFF3 or GTF, and an expression table.

    Genes of the expression table are matched to the annotation by id, then by name, synonym and
    id without version, whatever their case; genes that match nothing are left out and counted
    in the manifest.

    Parameters
    ----------
    samples
        Table with sample id and `condition`; see `genesplice.data.expression.read_expression`.
    circular
        Contigs whose ends join, beyond those that the annotation declares (`Is_circular=true`).
    name
        Name of the bundle; that of the folder `out` if not given.

    Raises
    ------
    InputError
        For anything wrong with a file (one line: file, line, found, expected), and when fewer
        than half of the expression table's genes are in the annotation. Nothing is written then.
    """
    started = time.monotonic()
    tell = progress or (lambda text: None)
    out = Path(out)
    _refuse_taken(out, overwrite)
    paths = {"fasta": fasta, "annotation": annotation, "expression": expression,
             "samples": samples, "network": network, "gene_sets": gene_sets}  # fmt: skip
    files = {part: Path(path) for part, path in paths.items() if path is not None}
    tell("reading the genome")
    genome = read_fasta(files["fasta"]).with_circular(circular)
    tell("reading the annotation")
    reading = parse_annotation(files["annotation"], genome)
    genome = genome.with_circular(reading.circular)
    tell("reading expression")
    lengths = _Lengths(reading) if expression_unit == "counts" else None
    table = read_expression(files["expression"], expression_unit, files.get("samples"), lengths)
    matched, notes = _match_genes(table, reading, files["expression"])
    aliases = reading.aliases
    tell("reading network and gene sets")
    edges = pd.DataFrame(columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})
    if "network" in files:
        found = parse_network(files["network"], reading.genes, aliases)
        edges = found.edges
        notes += [
            _left_out("regulators that are no genes keep their name", found.unmatched_regulators),
            _left_out("targets that are no genes are left out", found.unmatched_targets),
        ]
    sets: dict[str, tuple[str, ...]] = {}
    evidence = "unknown"
    if "gene_sets" in files:
        got = parse_gene_sets(files["gene_sets"], reading.genes, aliases)
        evidence = got.evidence
        sets = {key: ids for key, ids in got.gene_sets.items() if len(ids) >= MIN_SET_GENES}
        notes += [
            _left_out("names in gene sets that are no genes are left out", got.unmatched),
            f"gene sets of fewer than {MIN_SET_GENES} genes are left out: "
            f"{len(got.gene_sets) - len(sets)}",
        ]
    operons = make_operons(reading.genes)
    notes.append("operons are neighbours on one strand with a gap below 50 bp (no operon table)")
    parts = BundleParts(
        name=name or out.name,
        genome=genome,
        genes=reading.genes,
        expression=matched,
        network=edges,
        gene_sets=sets,
        motifs={},
        operons=operons.to_dict(),
        inputs=[_input(part, path) for part, path in files.items()],
        notes=[*reading.notes, *notes],
        gene_set_evidence=evidence,
        extra={"contig_aliases": reading.contig_aliases, "expression_unit": expression_unit},
    )
    flags = {"fasta": "fasta", "annotation": "annotation", "expression": "expression",
             "samples": "samples", "network": "network", "gene_sets": "gene-sets"}  # fmt: skip
    words = [f"--{flags[part]} {path}" for part, path in files.items()]
    return write_bundle(
        parts,
        out,
        command=" ".join(
            ["genesplice prepare", *words, f"--expression-unit {expression_unit} --out {out}"]
        ),
        started=started,
        overwrite=overwrite,
        block_bp=block_bp,
        n_folds=n_folds,
        seed=seed,
        progress=progress,
    )


class _Lengths(Mapping[str, float]):
    """Gene lengths by any name of a gene that `_match_genes` would accept."""

    def __init__(self, reading: Annotation) -> None:
        self._lengths, self._aliases = reading.lengths, reading.aliases

    def __getitem__(self, name: str) -> float:
        return float(self._lengths[_resolve([name], self._lengths, self._aliases)[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)


def _refuse_taken(out: Path, overwrite: bool) -> None:
    """Say so before the work rather than after it."""
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} exists and is not empty", "a new folder (or --overwrite)")


def _match_genes(
    table: ad.AnnData, reading: Annotation, path: Path
) -> tuple[ad.AnnData, list[str]]:
    """Rename measured genes to gene ids, leave out what matches none, refuse if that is most."""
    ids = set(reading.genes["gene_id"])
    found = _resolve(table.var_names, ids, reading.aliases)
    taken: dict[str, str] = {}
    for written, gene_id in found.items():
        if gene_id in taken:
            raise InputError(
                f"two rows for gene {gene_id!r} ({taken[gene_id]!r} and {written!r})",
                "each gene once", path=path,
            )  # fmt: skip
        taken[gene_id] = written
    lost = [name for name in table.var_names if name not in found]
    if 2 * len(found) < len(table.var_names) or not found:
        raise InputError(
            f"{len(lost)} of {len(table.var_names)} genes that the annotation lacks "
            f"({', '.join(lost[:3])})",
            f"names such as {', '.join(reading.genes['gene_id'][:3])}",
            path=path,
        )
    kept = table[:, list(found)].copy()
    kept.var_names = pd.Index(list(found.values()), name="gene_id")
    renamed = sum(written != gene_id for written, gene_id in found.items())
    note = f"measured genes found in the annotation: {len(found)} of {len(table.var_names)}"
    note += f", {renamed} of them by name, synonym or id without version" if renamed else ""
    return kept, [note, *([_left_out("measured genes left out", lost)] if lost else [])]


def _resolve(
    names: Iterable[str], ids: Container[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    found = {}
    for name in names:
        key = name.lower()
        gene_id = name if name in ids else aliases.get(key) or aliases.get(key.rsplit(".", 1)[0])
        if gene_id is not None:
            found[name] = gene_id
    return found


def _left_out(what: str, names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{what}: {len(names)}" + (f" ({shown})" if names else "")


def _input(part: str, path: Path) -> dict[str, Any]:
    return {"name": path.name, "part": part, "sha256": file_sha256(path),
            "source": "the user's file", "licence": "not stated",
            "counts": {"bytes": path.stat().st_size}}  # fmt: skip
