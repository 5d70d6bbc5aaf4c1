"""The bundle: a folder with everything that the other stages read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float

from genesplice.data.alignments import (
    SCORE_FILES,
    ConservationScore,
    read_conservation,
    write_conservation,
)
from genesplice.data.expression import condition_means
from genesplice.data.gene_sets import read_gmt, write_gmt
from genesplice.data.genome import Contig, Genome, Strand
from genesplice.data.leakage import make_leakage_report
from genesplice.data.network import gene_aliases, read_meme, write_meme
from genesplice.data.relatives import FILES as RELATIVES_FILES
from genesplice.data.relatives import Relatives, judge_relatives, read_relatives, write_relatives
from genesplice.data.similarity import gene_similarity
from genesplice.data.splits import make_blocks
from genesplice.data.tables import Progress
from genesplice.data.tracks import FILES as TRACKS_FILES
from genesplice.data.tracks import Tracks, read_tracks, write_tracks
from genesplice.errors import InputError, require
from genesplice.results import Conservation
from genesplice.runtime import atomic_directory, file_sha256, write_json, write_manifest

FORMAT = "genesplice-bundle"
FORMAT_VERSION = 2
NETWORK, GENE_SETS = "network.parquet", "gene_sets.gmt"
TABLES = ("genes", "aliases", "network", "blocks", "splits", "similarity")
FILES = (
    "genome.npy", "soft_masked.npy", "contigs.json", "expression.h5ad", GENE_SETS, "motifs.meme",
    "leakage.json", *(f"{name}.parquet" for name in TABLES),
)  # fmt: skip


class BundleParts(NamedTuple):
    """What a recipe or the user's files give; the rest of a bundle is worked out from it.

    `inputs` are the records of the manifest (`name, sha256, source, licence, counts`), `notes`
    the sentences a reader of the manifest needs to know, `aliases` every name of a gene in lower
    case, with its gene_id, beyond ids and names; `set_names` what people read for ids of sets;
    `tracks` and `blacklist` are files, see `genesplice.data.tracks`; `conservation` is a bigWig in
    place of `relatives`, see `genesplice.data.alignments.write_conservation`.
    """

    name: str
    genome: Genome
    genes: pd.DataFrame
    expression: ad.AnnData
    network: pd.DataFrame
    gene_sets: dict[str, tuple[str, ...]]
    motifs: dict[str, np.ndarray]
    operons: dict[str, str]
    inputs: list[dict[str, Any]]
    notes: list[str]
    gene_set_evidence: str = ""
    aliases: Mapping[str, str] = {}
    set_names: Mapping[str, str] = {}
    relatives: Relatives | None = None
    conservation: Path | None = None
    tracks: Sequence[str | Path] = ()
    blacklist: Path | None = None
    extra: dict[str, Any] = {}  # noqa: RUF012 - never written to


@dataclass(frozen=True)
class Bundle:
    """A prepared organism: genome, genes, expression, network, gene sets, folds, leakage.

    `genes` lists all annotated genes; `expression.var` those that were measured, in an order of its
    own, or none: see `is_measured`. `blocks` and `splits` are those of
    `genesplice.data.splits.make_blocks`; `similarity` has each gene's nearest gene of another fold;
    `aliases` every name of a gene, in lower case, with its `gene_id`; `relatives` is None where
    none were given, and so are `conservation_score` and `tracks`. The genome, its relatives, score
    and tracks are memory-mapped.
    """

    path: Path
    name: str
    genome: Genome = field(repr=False)
    genes: pd.DataFrame = field(repr=False)
    aliases: pd.DataFrame = field(repr=False)
    expression: ad.AnnData = field(repr=False)
    network: pd.DataFrame = field(repr=False)
    gene_sets: dict[str, tuple[str, ...]] = field(repr=False)
    set_names: dict[str, str] = field(repr=False)
    blocks: pd.DataFrame = field(repr=False)
    splits: pd.DataFrame = field(repr=False)
    similarity: pd.DataFrame = field(repr=False)
    motifs: dict[str, Float[np.ndarray, "_ 4"]] = field(repr=False)
    leakage: dict[str, Any] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    relatives: Relatives | None = field(default=None, repr=False)
    conservation_score: ConservationScore | None = field(default=None, repr=False)
    tracks: Tracks | None = field(default=None, repr=False)

    @cached_property
    def observed(self) -> pd.DataFrame:
        """log2(TPM+1), measured genes x conditions: the mean over replicates.

        NaN where a gene is deleted in all of them.
        """
        self.require_expression()
        return condition_means(self.expression)

    @property
    def is_measured(self) -> bool:
        """Whether there is expression."""
        return self.expression.n_obs > 0

    def require_expression(self, fewest_genes: int = 0) -> None:
        """Raise `InputError` where there is no expression, or that of fewer genes."""
        expected = "expression: prepare it with --expression"
        require(self.is_measured, "a bundle without expression", expected, self.path)
        n_genes = self.expression.n_vars
        expected = f"at least {fewest_genes:,} (finetune.fewest_genes)"
        require(n_genes >= fewest_genes, f"{n_genes:,} measured genes", expected, self.path)

    @cached_property
    def fold_of(self) -> pd.Series:
        """The fold of every annotated gene, by gene_id."""
        return self.splits.set_index("gene_id")["fold"]

    @cached_property
    def block_of(self) -> pd.Series:
        """The genome block of every annotated gene, by gene_id."""
        return self.splits.set_index("gene_id")["block"]

    @cached_property
    def names(self) -> pd.Series:
        """The name of every annotated gene, by gene_id."""
        return self.genes.set_index("gene_id")["name"]

    @cached_property
    def labels(self) -> pd.Series:
        """The name of every annotated gene and of gene sets that have one, by id."""
        return pd.concat([self.names, pd.Series(self.set_names, dtype=object)])

    @property
    def n_folds(self) -> int:
        """Number of folds; they are numbered from 0."""
        return int(self.blocks["fold"].max()) + 1

    @property
    def leakage_warning(self) -> str:
        """What a red leakage report means for scores; nothing where it is not red."""
        red = [one["check"] for one in self.leakage["checks"] if one["status"] == "red"]
        text = f"leakage red ({', '.join(red)}): scores on these folds do not mean what they say"
        return text if red else ""

    @property
    def data_sha256(self) -> dict[str, str]:
        """File of the bundle to its sha256, for the manifest of what is made from it."""
        return dict(self.manifest["files"])

    @property
    def conserved_by(self) -> Relatives | ConservationScore | None:
        """What says how conserved a base is, and what speaks for or against another one."""
        return self.relatives or self.conservation_score

    def conservation(
        self, contig: str, start: int, end: int, strand: Strand = "+"
    ) -> Conservation | None:
        """How relatives, or a score, say the bases of an interval are conserved; None: neither."""
        at = contig, start, end, strand
        if self.conservation_score is not None:
            return self.conservation_score.conservation(self.genome, *at)
        if self.relatives is None:
            return None
        return self.relatives.conservation(self.genome.fetch_columns(*at), self.genome.fetch(*at))

    def test_genes(self, fold: int) -> pd.Index:
        """Measured genes of a fold, as in `expression.var`; `InputError` without such a fold."""
        return self.expression.var_names[self._is_in(fold)]

    def train_genes(self, fold: int) -> pd.Index:
        """Measured genes of all other folds, as in `expression.var`; `InputError` as above."""
        return self.expression.var_names[~self._is_in(fold)]

    def _is_in(self, fold: int) -> np.ndarray:
        self.require_expression()
        require(0 <= fold < self.n_folds, f"fold {fold}", f"0 to {self.n_folds - 1}")
        return (self.fold_of.reindex(self.expression.var_names) == fold).to_numpy()


def write_bundle(
    parts: BundleParts,
    out: Path,
    *,
    command: str,
    started: float,
    overwrite: bool = False,
    block_bp: int = 100_000,
    n_folds: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bundle:
    """Work out folds and leakage and write the bundle; `out` is whole or untouched.

    Raises
    ------
    InputError
        If `out` exists and is not empty (without `overwrite`), a measured gene is not among the
        genes, or the genome is too small for the folds.
    """
    tell = progress or (lambda text: None)
    unknown = parts.expression.var_names.difference(parts.genes["gene_id"])
    if len(unknown):
        raise InputError(f"measured gene {unknown[0]!r} without annotation", "annotated genes")
    with atomic_directory(Path(out), overwrite=overwrite) as folder:
        tell("folds: cutting the genome between operons")
        genome, genes = parts.genome, parts.genes
        blocks, splits = make_blocks(genome, genes, parts.operons, block_bp, n_folds, seed)
        files, said, aliases = FILES, list[str](), parts.extra.get("contig_aliases")
        if parts.tracks:
            tell("tracks: in bins")
            said += write_tracks(
                parts.tracks, genome, blocks, folder, blacklist=parts.blacklist, aliases=aliases
            )
            files += TRACKS_FILES
        if parts.conservation is not None:
            tell(f"conservation: reading {parts.conservation.name}")
            said += write_conservation(parts.conservation, genome, folder, aliases)
            files += SCORE_FILES
        for note in said:
            tell(note)
        tell("leakage: comparing genes across folds")
        similarity = gene_similarity(genome, genes, splits["fold"].tolist())
        leakage = make_leakage_report(
            genome, genes, parts.expression, parts.network, parts.gene_sets, splits,
            similarity=similarity, gene_set_evidence=parts.gene_set_evidence,
        )  # fmt: skip
        if parts.relatives is not None:
            leakage = judge_relatives(leakage, parts.relatives.table)
            write_relatives(parts.relatives, folder)
            files += RELATIVES_FILES
        tell("writing the bundle")
        genome.save(folder)
        parts.expression.write_h5ad(folder / "expression.h5ad")
        write_gmt(folder / GENE_SETS, parts.gene_sets, parts.set_names)
        names = (gene_aliases(genes) | dict(parts.aliases)).items()
        aliases = pd.DataFrame(names, columns=["alias", "gene_id"])
        tables = (genes, aliases, parts.network, blocks, splits, similarity.nearest)
        for name, table in zip(TABLES, tables, strict=True):
            table.to_parquet(folder / f"{name}.parquet", index=False)
        write_meme(folder / "motifs.meme", parts.motifs)
        write_json(folder / "leakage.json", leakage)
        write_manifest(
            folder,
            command=command,
            started=started,
            config={"block_bp": block_bp, "n_folds": n_folds},
            seeds={"folds": seed},
            data={record["name"]: record["sha256"] for record in parts.inputs},
            extra={
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "name": parts.name,
                "inputs": parts.inputs,
                "counts": _counts(parts, blocks),
                "notes": [*parts.notes, *said],
                "files": {name: file_sha256(folder / name) for name in files},
                **parts.extra,
            },
        )
    return load_bundle(Path(out))


def load_bundle(path: Path | str) -> Bundle:
    """Open a bundle that `genesplice prepare` wrote.

    Raises
    ------
    InputError
        If the folder is no bundle, is not complete, is damaged, or is of a format that this
        version cannot read.
    """
    path = Path(path)
    manifest = read_manifest(path)
    listed = manifest.get("files", {})
    has_relatives, has_score, has_tracks = (
        files[0] in listed for files in (RELATIVES_FILES, SCORE_FILES, TRACKS_FILES)
    )
    files = FILES + RELATIVES_FILES * has_relatives + SCORE_FILES * has_score
    for name in files + TRACKS_FILES * has_tracks:
        expected = "a complete bundle: prepare it again"
        require((path / name).is_file(), f"no {name}", expected, path)
    try:
        contigs = json.loads((path / "contigs.json").read_text())
        relatives = read_relatives(path) if has_relatives else None
        gene_sets, set_names = read_gmt(path / GENE_SETS)
        return Bundle(
            path=path,
            name=manifest["name"],
            genome=Genome(
                np.load(path / "genome.npy", mmap_mode="r"),
                tuple(Contig(**contig) for contig in contigs),
                np.load(path / "soft_masked.npy"),
                None if relatives is None else relatives.columns,
            ),
            expression=ad.read_h5ad(path / "expression.h5ad"),
            gene_sets=gene_sets,
            set_names=set_names,
            **{name: pd.read_parquet(path / f"{name}.parquet") for name in TABLES},
            motifs=read_meme(path / "motifs.meme") if manifest["counts"]["motifs"] else {},
            leakage=json.loads((path / "leakage.json").read_text()),
            manifest=manifest,
            relatives=relatives,
            conservation_score=read_conservation(path) if has_score else None,
            tracks=read_tracks(path) if has_tracks else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        changed = (name for name in listed if file_sha256(path / name) != listed[name])
        damaged = next(changed, "manifest.json")
        expected = "a whole bundle: prepare it again"
        raise InputError(f"a damaged {damaged}", expected, path=path) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle in a folder; `InputError` where it is none."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        what = "no manifest.json" if path.is_dir() else "no such folder"
        raise InputError(what, "a bundle made by genesplice prepare", path=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError("a damaged manifest.json", "JSON", path=path) from error
    if not isinstance(manifest, Mapping) or manifest.get("format") != FORMAT:
        raise InputError("a manifest of something else", f"format {FORMAT!r}", path=path)
    version = manifest.get("format_version")
    expected = f"{FORMAT_VERSION}: prepare it again with this version"
    require(version == FORMAT_VERSION, f"bundle format {version}", expected, path)
    return dict(manifest)


def is_outdated(path: Path, recipe: str) -> bool:
    """Whether the folder is a bundle of that recipe which another version wrote."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        is_recipe = f"--recipe {recipe} " in manifest["command"] and manifest["format"] == FORMAT
        return bool(is_recipe and manifest["format_version"] != FORMAT_VERSION)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _counts(parts: BundleParts, blocks: pd.DataFrame) -> dict[str, int]:
    return {
        "contigs": len(parts.genome.contigs),
        "bases": parts.genome.length,
        "genes": len(parts.genes),
        "measured_genes": parts.expression.n_vars,
        "samples": parts.expression.n_obs,
        "deleted_measurements": int(np.isnan(parts.expression.X).sum()),
        "conditions": int(parts.expression.obs["condition"].nunique()),
        "edges": len(parts.network),
        "regulators": int(parts.network["source"].nunique()),
        "gene_sets": len(parts.gene_sets),
        "motifs": len(parts.motifs),
        "relatives": 0 if parts.relatives is None else len(parts.relatives.table),
        "tracks": len(parts.tracks),
        "blocks": len(blocks),
        "folds": int(blocks["fold"].nunique()),
    }
