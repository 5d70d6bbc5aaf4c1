"""From a recipe, or from the user's own files, to a bundle."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from genesplice.data import measurements, sources
from genesplice.data.alignments import MAF_SUFFIXES, read_maf
from genesplice.data.annotation import parse_annotation
from genesplice.data.archives import input_record
from genesplice.data.bundle import Bundle, BundleParts, write_bundle
from genesplice.data.coding import judge_coding
from genesplice.data.expression import (
    ExpressionUnit,
    Measurements,
    check_unit,
    hide_deleted,
    make_expression,
    no_expression,
)
from genesplice.data.gene_sets import read_gene_sets
from genesplice.data.genome import read_fasta
from genesplice.data.leakage import EVIDENCE_WORDS, evidence_of
from genesplice.data.network import NETWORK_COLUMNS, read_network
from genesplice.data.relatives import align_relatives, check_aligner
from genesplice.data.splits import choose_operons
from genesplice.data.tables import Progress, on_disk, open_input, plain_suffix, readable
from genesplice.data.tracks import COVERAGE, KINDS
from genesplice.errors import InputError, require
from genesplice.runtime import file_sha256, scratch_folder

BIGWIG_MAGIC = b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26"
"""Of either byte order."""


def prepare_recipe(
    name: str,
    out: Path | str,
    *,
    relatives: Path | str | None = None,
    conservation: Path | str | None = None,
    tracks: Iterable[Path | str] = (),
    blacklist: Path | str | None = None,
    overwrite: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Prepare an organism that is known by name: `RECIPES`, `FILE_RECIPES` of `…data.sources`.

    Parameters
    ----------
    out
        Folder to write; it appears only when the bundle is whole.
    relatives
        In place of those that the recipe brings: a folder or file as in `prepare_files`, or
        "recipe" for the genomes that the recipe names, from the public archive
        (`genesplice.data.sources.fetch_relatives`). Where that cannot be reached, what the recipe
        brings is kept, and the manifest says so.
    conservation
        In place of any relatives: a bigWig file as in `prepare_files`.
    tracks, blacklist
        Coverage and peaks, and intervals where neither counts (`genesplice.data.tracks`).
    cache
        Where downloads and aligned relatives are kept; see `genesplice.data.sources.default_cache`.
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
    known = [*sources.RECIPES, *sources.FILE_RECIPES]
    require(name in known, f"recipe {name!r}", " or ".join(map(repr, known)))
    _refuse_taken(Path(out), overwrite)
    _check_given(tracks := list(tracks), relatives, conservation)
    if name in sources.FILE_RECIPES:
        is_there = str(relatives) != sources.FROM_ARCHIVE or Path(sources.FROM_ARCHIVE).exists()
        found = f"--relatives {sources.FROM_ARCHIVE} with {name}"
        require(is_there, found, "a folder or a MAF file")
        fetched = sources.FILE_RECIPES[name](cache, progress)
        return prepare_files(
            **fetched.given, out=out, name=name, relatives=relatives, conservation=conservation,
            tracks=tracks, blacklist=blacklist, overwrite=overwrite, progress=progress,
            fetched=fetched,
        )  # fmt: skip
    parts = sources.RECIPES[name](cache, progress)
    if relatives is not None:
        chosen: Path | None = Path(relatives)
        if str(relatives) == sources.FROM_ARCHIVE and not Path(relatives).exists():
            chosen, said = sources.fetch_relatives(sources.default_cache(cache), progress)
            parts = parts._replace(notes=[*parts.notes, *said])
        if chosen is not None:
            parts = _with_relatives(parts, chosen, cache, progress)
    parts = _with_tracks(parts, tracks, blacklist, conservation)
    options = {"recipe": name, "relatives": relatives, "conservation": conservation}
    return write_bundle(
        parts,
        Path(out),
        command=_command(options | {"tracks": tracks, "blacklist": blacklist}, out),
        started=started,
        overwrite=overwrite,
        progress=progress,
    )


def prepare_files(
    fasta: Path | str,
    annotation: Path | str,
    expression: Path | str | None = None,
    expression_unit: ExpressionUnit | None = None,
    *,
    out: Path | str,
    samples: Path | str | None = None,
    network: Path | str | None = None,
    gene_sets: Path | str | None = None,
    obo: Path | str | None = None,
    operons: Path | str | None = None,
    tss: Path | str | None = None,
    network_evidence: str = "",
    gene_set_evidence: str = "",
    relatives: Path | str | None = None,
    conservation: Path | str | None = None,
    tracks: Iterable[Path | str] = (),
    blacklist: Path | str | None = None,
    name: str | None = None,
    circular: Iterable[str] = (),
    allow_missing: bool = False,
    block_bp: int = 100_000,
    n_folds: int = 5,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    fetched: sources.FetchedFiles | None = None,
) -> Bundle:
    """Prepare an organism from FASTA, GFF3 or GTF, and an expression table.

    Without an expression table the bundle is enough to pre-train, scan and score variants. Genes
    of the expression table are matched to the annotation by id, then by name, synonym and id
    without version, whatever their case; genes that match nothing are left out, and counted in the
    manifest (`expression_rows`) and by `progress` at the end.

    Parameters
    ----------
    samples
        Table with sample id, `condition`, and `deleted`; see `genesplice.data.measurements`.
    obo
        The Gene Ontology, for the names of GO terms and the genes of terms above others.
    operons
        "none", "distance" or a file; see `genesplice.data.splits.choose_operons`.
    tss
        Transcription start sites; see `genesplice.data.measurements`.
    network_evidence, gene_set_evidence
        What edges and gene sets rest on, where their file does not declare it: a word of
        `genesplice.data.leakage.EVIDENCE_WORDS` such as "binding" or "curated".
    relatives
        Folder of genomes of related species (`genesplice.data.relatives.align_relatives`), or a MAF
        file of an alignment to this genome (`genesplice.data.alignments.read_maf`).
    conservation
        In their place: a bigWig file of one number a base, high where it is conserved, such as
        phyloP or phastCons (`genesplice.data.alignments.write_conservation`).
    tracks, blacklist
        Coverage and peaks, and intervals where neither counts (`genesplice.data.tracks`).
    circular
        Contigs whose ends join, beyond those that the annotation declares (`Is_circular=true`).
    allow_missing
        Whether more than a twentieth of the expression table's genes may be left out.
    name
        Name of the bundle; that of the folder `out` if not given.
    fetched
        Of a recipe: what the manifest says of the files in place of "the user's file".

    Raises
    ------
    InputError
        For anything wrong with a file (one line: file, line, found, expected), and when too few
        of the expression table's genes are in the annotation. Nothing is written then.
    """
    started = time.monotonic()
    tell = progress or (lambda text: None)
    out = Path(out)
    _refuse_taken(out, overwrite)
    _check_given(tracks := list(tracks), relatives, conservation)
    for declared in filter(None, (network_evidence, gene_set_evidence)):
        if evidence_of(declared) == "unknown":
            raise InputError(f"evidence {declared!r}", f"such as {', '.join(EVIDENCE_WORDS)}")
    both = {"--expression": expression, "--expression-unit": expression_unit}
    lacking = [flag for flag, value in both.items() if value is None]
    if len(lacking) == 1 or (lacking and samples is not None):
        expected = f"{' with '.join(both)}, or neither and no --samples"
        raise InputError(f"no {', '.join(lacking)}", expected)
    paths = {"fasta": fasta, "annotation": annotation, "expression": expression,
             "samples": samples, "network": network, "gene-sets": gene_sets,
             "obo": obo, "tss": tss,
             "operons": None if operons in ("none", "distance") else operons}  # fmt: skip
    files = {flag: Path(path) for flag, path in paths.items() if path is not None}
    measured: Measurements | None = None
    if expression_unit is not None:
        tell("reading expression")
        path = files["expression"]
        measured = measurements.read_measurements(path, expression_unit, files.get("samples"))
        check_unit(measured.values, expression_unit, path)
    with scratch_folder(out) as scratch:
        tell("reading the genome")
        genome = read_fasta(files["fasta"], scratch).with_circular(circular)
        tell("reading the annotation")
        reading = parse_annotation(files["annotation"], genome)
        genome = genome.with_circular(reading.circular)
        coding = judge_coding(reading.genes, reading.partial, genome, files["annotation"])
        notes = [*(() if fetched is None else fetched.notes), *reading.notes]
        notes += [*(() if measured is None else measured.notes), *filter(None, [coding["text"]])]
        matched, account = no_expression(), dict[str, Any](rows=0, matched={}, left_out={})
        if measured is not None and expression_unit is not None:
            values, obs, own, _ = measured
            obs = measurements.name_deleted(obs, reading, files.get("samples", path))
            matches, account = measurements.match_genes(values, reading, path, allow_missing)
            values = values.loc[list(matches)].rename(index=matches)
            lengths = reading.lengths if own is None else own.rename(matches).to_dict()
            matched = make_expression(values, expression_unit, obs, lengths=lengths, path=path)
            matched, said = hide_deleted(matched)
            notes += said
        tell("reading network and gene sets")
        if "tss" in files:
            placed, told_tss = measurements.place_tss(files["tss"], reading, genome)
            reading, notes = reading._replace(genes=placed), notes + told_tss
        edges = pd.DataFrame(columns=list(NETWORK_COLUMNS)).astype({"sign": "int8"})
        sets: dict[str, tuple[str, ...]] = {}
        evidence, set_names = "", dict[str, str]()
        if "network" in files:
            edges, _, _, more = read_network(files["network"], reading.genes, reading.aliases)
            declared = edges["provenance"].where(edges["provenance"] != "", network_evidence)
            edges = edges.assign(provenance=declared)
            notes += more
        if "gene-sets" in files:
            every, evidence, set_names, more = read_gene_sets(
                files["gene-sets"], reading.genes, reading.aliases, files.get("obo")
            )
            sets = {key: ids for key, ids in every.items() if len(ids) >= sources.MIN_SET_GENES}
            lost = f"are left out: {len(every) - len(sets)}"
            notes += [*more, f"gene sets of fewer than {sources.MIN_SET_GENES} genes {lost}"]
        chosen = files.get("operons", operons)
        units, told_units = choose_operons(chosen, reading.genes, reading.aliases)
        by = ", ".join(f"{key} {n}" for key, n in account["matched"].items())
        notes += [told_units, f"genes matched: {matched.n_vars} of {account['rows']} ({by})"]
        if measured is None:
            notes[-1] = "no expression: enough to pretrain, scan and score variants, and no more"
        for reason, group in account["left_out"].items():
            notes.append(f"genes left out, {reason}: {measurements.counted_group(group)}")
        own_inputs = (one for flag, path in files.items() for one in _inputs(flag, path))
        parts = BundleParts(
            name=name or out.name,
            genome=genome,
            genes=reading.genes,
            expression=matched,
            network=edges,
            gene_sets=sets,
            motifs={},
            operons=units,
            inputs=list(own_inputs) if fetched is None else fetched.inputs,
            notes=notes,
            gene_set_evidence=evidence or gene_set_evidence,
            aliases=reading.aliases,
            set_names={name: words for name, words in set_names.items() if name in sets},
            extra={
                "contig_aliases": reading.contig_aliases,
                "expression_unit": expression_unit,
                "coding": coding,
                "expression_rows": account,
            },
        )
        if relatives is not None:
            parts = _with_relatives(parts, Path(relatives), None, progress)
        parts = _with_tracks(parts, tracks, blacklist, conservation)
        switch, bases = "", {"relatives": relatives, "conservation": conservation}
        options: dict[str, object] = {"recipe": name, **bases}
        if fetched is None:
            switch = "--allow-missing " * allow_missing
            options = {**files, **bases, "expression-unit": expression_unit, "operons": chosen,
                       "block-bp": block_bp, "folds": n_folds,
                       "network-evidence": network_evidence,
                       "gene-set-evidence": gene_set_evidence}  # fmt: skip
        bundle = write_bundle(
            parts,
            out,
            command=_command(options | {"tracks": tracks, "blacklist": blacklist}, out, switch),
            started=started,
            overwrite=overwrite,
            block_bp=block_bp,
            n_folds=n_folds,
            seed=seed,
            progress=progress,
        )
        for note in notes:
            tell(note)
        return bundle


def _with_relatives(
    parts: BundleParts, path: Path, cache: Path | None, progress: Progress | None
) -> BundleParts:
    """The parts with the genomes of a folder, or what is aligned in a file, and these inputs."""
    if path.name.lower().endswith(MAF_SUFFIXES):
        relatives, files = read_maf(path, parts.genome, progress=progress), [path]
    else:
        kept = sources.default_cache(cache) / "relatives"
        relatives = align_relatives(path, parts.genome, kept, progress=progress)
        files = [path / name for name in relatives.table["file"]]
    inputs = [*parts.inputs, *(_inputs("relatives", file)[0] for file in files)]
    return parts._replace(relatives=relatives, inputs=inputs)


def _with_tracks(
    parts: BundleParts,
    tracks: Iterable[Path | str],
    blacklist: Path | str | None,
    conservation: Path | str | None,
) -> BundleParts:
    """The parts with files of tracks and of a score in place of relatives, and all as inputs."""
    given, inputs = list(tracks), list(parts.inputs)
    require(given or not blacklist, "--blacklist without --tracks", "both")
    paths = [("tracks", part) for one in given for part in str(one).split(",")]
    more = {"blacklist": blacklist, "conservation": conservation}
    for flag, path in [*paths, *((flag, str(one)) for flag, one in more.items() if one)]:
        readable(Path(path))
        inputs += _inputs(flag, Path(path))
    if conservation:
        notes = [note for note in parts.notes if not note.startswith("relatives:")]
        inputs = [one for one in inputs if one["source"] != sources.SUMMARY_SOURCE]
        parts = parts._replace(relatives=None, notes=notes, conservation=Path(conservation))
    black = None if blacklist is None else Path(blacklist)
    return parts._replace(tracks=given, blacklist=black, inputs=inputs)


def _check_given(
    tracks: Iterable[Path | str], relatives: Path | str | None, conservation: Path | str | None
) -> None:
    """What a file's name and first bytes tell, before the work rather than after it."""
    if relatives is not None and conservation is not None:
        raise InputError("--relatives together with --conservation", "one or the other")
    check_aligner(relatives)
    given = [Path(part) for one in tracks for part in str(one).split(",")]
    bigwigs = [path for path in given if KINDS.get(plain_suffix(path)) == COVERAGE]
    for path in [*bigwigs, *([] if conservation is None else [Path(conservation)])]:
        with open_input(path) as file:
            is_bigwig = file.read(4) in BIGWIG_MAGIC
        require(is_bigwig, "no bigWig (by its first bytes)", "a whole bigWig file", path)


def _refuse_taken(out: Path, overwrite: bool) -> None:
    """Say so before the work rather than after it."""
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} exists and is not empty", "a new folder (or --overwrite)")


def _inputs(flag: str, path: Path) -> list[dict[str, Any]]:
    """A record of each file."""
    records = []
    for one in measurements.sample_files(path).values():
        name, file = one.name if one == path else str(one.relative_to(path.parent)), on_disk(one)
        about = {"name": name, "part": flag.replace("-", "_"), "sha256": file_sha256(file)}
        size = file.stat().st_size
        records.append(input_record(about, "the user's file", "not stated", bytes=size))
    return records


def _command(options: Mapping[str, object], out: Path | str, switch: str = "") -> str:
    """The command line that prepares this: options that are given, of a list each in turn."""
    flags = ""
    for flag, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            flags += f"--{flag} {one} " if one else ""
    return f"genesplice prepare {flags}{switch}--out {out}"
