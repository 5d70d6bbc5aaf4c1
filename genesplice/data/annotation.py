"""Genes from GFF3, GTF or GenBank, with contig names matched to those of the genome."""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from genesplice.data.archives import is_genbank, read_features
from genesplice.data.coding import (
    BACTERIAL,
    BIOTYPE_KEYS,
    GENE_KEYS,
    NAME_KEYS,
    Feature,
    add_coding,
    read_attributes,
    whole_gene,
)
from genesplice.data.genome import Contig, Genome
from genesplice.data.tables import WHOLE_NUMBER, counted, numbered_lines, some, unique_owners
from genesplice.errors import InputError, require

GENE_COLUMNS = (
    "gene_id", "name", "contig", "start", "end", "strand", "tss", "biotype", "exons",
    "genetic_code",
)  # fmt: skip
ID_PREFIX = re.compile(r"^(gene|locus)[-:]", re.IGNORECASE)
MITOCHONDRION = re.compile("m$|mitochondri")
OTHER_GENOME = "(another version, or a FASTA cut short?)"
SAME_LOCUS_BP = 1_000
"""Transcripts of one gene_id that are further apart are copies at different loci."""


class Annotation(NamedTuple):
    """What an annotation file says, beyond the table of genes.

    `aliases` maps every name a gene goes by (lower case: id, name, synonyms) to its gene_id,
    where only one gene claims it, a gene's own id and name before synonyms. `contig_aliases`
    maps contig names of the file to those of the genome where they differ. `circular` lists the
    genome's contigs that the file declares circular. `lengths` is the transcribed length of
    each gene in bp: the union of its exons (or CDS where there are no exons), else its span.
    `partial` names the genes whose coding sequence is not all there.
    """

    genes: pd.DataFrame
    aliases: dict[str, str]
    contig_aliases: dict[str, str]
    circular: tuple[str, ...]
    lengths: dict[str, int]
    notes: list[str]
    partial: frozenset[str]


def parse_annotation(path: Path, genome: Genome) -> Annotation:
    """Read the genes of a GFF3, GTF or GenBank file, and what `Annotation` holds.

    Genes have columns `gene_id, name, contig, start, end, strand, tss, biotype, exons,
    genetic_code` (the last two as in `genesplice.data.coding`), sorted by contig order in the
    genome, then start. Coordinates are 0-based half-open; `tss` is the first base
    of the gene on its strand (`start` on +, `end - 1` on -), which for most bacterial annotations
    is the start codon. A gene across the origin of a circular contig has `end` beyond the
    contig's length. A gene written on several lines with a `part` attribute is one gene that
    spans them. RNA features without a gene are genes; in a file without gene lines so are
    transcripts and coding sequences, grouped by locus_tag, gene_id or what they descend from.

    Raises
    ------
    InputError
        If the file is empty, truncated or not GFF/GTF, has no genes, is of a contig that the
        genome lacks or that has another length there, names a gene twice, or coordinates outside
        the contig (with the line).
    """
    contigs = FileContigs(path, genome)
    genes: dict[str, list[Feature]] = defaultdict(list)
    parts: list[Feature] = []
    for line in _lines(path, contigs):
        if line.kind == "gene" or line.kind.endswith("_gene") or line.kind == "pseudogene":
            gene_id = line.get(*GENE_KEYS, "ID") or ""
            expected = "locus_tag, gene_id or ID"
            require(gene_id, "a gene without an id", expected, path, line.number)
            genes[ID_PREFIX.sub("", gene_id)].append(line)
        else:
            parts.append(line)
    owner, has_genes = _owners(genes, parts), bool(genes)
    for line in parts:
        is_rna = line.kind.endswith("RNA") and line.kind != "mRNA"
        if not has_genes or (is_rna and owner(line) not in genes):
            key = line.get(*GENE_KEYS) or owner(line)
            if key:
                genes[ID_PREFIX.sub("", key)].append(line)
    require(genes, "no gene", "lines of type gene with an ID or gene_id", path)
    notes = [] if has_genes else ["no gene lines: genes are the spans of their transcripts"]
    rows, unplaced = [], []
    for gene_id, group in genes.items():
        try:
            rows.append(_gene(path, gene_id, group, contigs, notes))
        except Unplaced as error:
            unplaced.append((gene_id, error))
    if unplaced:
        if 2 * len(unplaced) >= len(genes):
            raise unplaced[0][1]
        names = some(gene_id for gene_id, _ in unplaced)
        notes.append(f"genes left out, without a strand or a contig in the genome: {names}")
    of_gene: dict[str, list[Feature]] = defaultdict(list)
    for line in parts:
        if line.kind in ("exon", "CDS", "stop_codon") and (owned := owner(line)) in genes:
            called = contigs.renamed.get(line.contig)
            of_gene[str(owned)].append(line._replace(contig=called) if called else line)
    above = {line.get("ID") for group in genes.values() for line in group if has_genes}
    genome = genome.with_circular(contigs.circular)
    notes += contigs.renames()
    partial, more = add_coding(path, rows, of_gene, above, genome, contigs.mitochondria)
    table = make_genes(pd.DataFrame(rows), genome)
    aliases, circular = _aliases(table, genes), tuple(sorted(contigs.circular))
    lengths = {row["gene_id"]: row["length"] for row in rows}
    return Annotation(table, aliases, contigs.renamed, circular, lengths, [*notes, *more], partial)


def make_genes(table: pd.DataFrame, genome: Genome) -> pd.DataFrame:
    """Sort genes as a bundle needs them and work out `tss`.

    Parameters
    ----------
    table
        Columns `gene_id, name, contig, start, end, strand, biotype` in any order; `exons` and
        `genetic_code` where they are known (see `genesplice.data.coding`), else a protein-coding
        gene is one exon of bacterial code.

    Raises
    ------
    InputError
        If a gene_id is there twice.
    """
    twice = table["gene_id"][table["gene_id"].duplicated()]
    if len(twice):
        raise InputError(f"gene {twice.iloc[0]!r} twice", "each gene_id once")
    rank = {contig.name: i for i, contig in enumerate(genome.contigs)}
    table = table.reindex(columns=[name for name in GENE_COLUMNS if name != "tss"])
    exons = (
        whole_gene(gene) if isinstance(gene["exons"], float) else tuple(gene["exons"])
        for gene in table.to_dict("records")
    )
    table = table.assign(
        exons=list(exons),
        genetic_code=table["genetic_code"].fillna(BACTERIAL).astype("int64"),
        tss=table["start"].where(table["strand"] == "+", table["end"] - 1),
        rank=table["contig"].map(rank),
    )
    table = table.sort_values(["rank", "start", "end", "gene_id"], kind="stable")
    table = table[list(GENE_COLUMNS)].reset_index(drop=True)
    return table.astype({"start": "int64", "end": "int64", "tss": "int64"})


class Unplaced(InputError):
    """A gene without a position on the genome."""


class FileContigs:
    """Matches the file's contig names to the genome's, or refuses them by name.

    `lengths` are those that the file declares, and the lines that say so (0 in a binary file);
    `aliases` are contigs of other files by their names in the genome.
    """

    def __init__(
        self, path: Path, genome: Genome, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.path, self.contigs = path, {contig.name: contig for contig in genome.contigs}
        self.lengths: dict[str, tuple[int, int]] = {}
        self.renamed: dict[str, str] = {}
        self.circular = {contig.name for contig in genome.contigs if contig.is_circular}
        keys = {name: _contig_key(name) for name in self.contigs}
        self.mitochondria = {name for name, key in keys.items() if MITOCHONDRION.match(key)}
        self._by_key = unique_owners((key, name) for name, key in keys.items())
        self._by_length = unique_owners((str(c.length), c.name) for c in genome.contigs)
        for name, own in (aliases or {}).items():
            self.contigs.setdefault(name, genome.contig(own))

    def find(self, name: str, number: int) -> Contig:
        """The genome's contig of this name.

        Raises
        ------
        Unplaced
            If there is none.
        InputError
            If its length is not the one declared.
        """
        length, line = self.lengths.get(name, (None, 0))
        if name not in self.contigs:
            match = self._by_key.get(_contig_key(name)) or self._by_length.get(str(length))
            if match is None or match in self.renamed.values():
                expected = some(dict.fromkeys(contig.name for contig in self.contigs.values()))
                found = f"contig {name!r}, which the genome lacks"
                raise Unplaced(found, expected, path=self.path, line=number or None)
            self.renamed[name], self.contigs[name] = match, self.contigs[match]
        contig = self.contigs[name]
        found = f"contig {name!r} of {length} bp"
        expected = f"{contig.length} bp, the length of {contig.name} in the genome {OTHER_GENOME}"
        require(length in (None, contig.length), found, expected, self.path, line or None)
        return contig

    def renames(self) -> list[str]:
        """A line on contigs that have other names in the genome, if there are any."""
        pairs = [f"{name} is {contig}" for name, contig in self.renamed.items()]
        what = f"contigs of {self.path.name} by other names in the genome"
        return [counted(what, pairs)] * bool(pairs)


def _contig_key(name: str) -> str:
    key = name.lower().rstrip("|").rsplit("|", 1)[-1]
    key = re.sub(r"\.\d+$", "", key)
    key = re.sub(r"^(chromosome|chrom|chr)_?(?=.)", "", key)
    return {"mt": "m", "mito": "m"}.get(key, key)


def _lines(path: Path, contigs: FileContigs) -> Iterator[Feature]:
    """Features that genes are made of; contigs' lengths and circles go to `contigs`."""
    circles, organelles = list[tuple[str, int]](), list[tuple[str, int]]()
    said = dict[str, dict[str, list[str]]]()
    if is_flat := is_genbank(path):
        yield from map(Feature._make, read_features(path, contigs.lengths, circles, organelles))
    for number, text in () if is_flat else numbered_lines(path):
        if text.startswith("##sequence-region"):
            words = [*text.split(), "", "", ""]
            if words[2] == "1" and WHOLE_NUMBER.fullmatch(words[3]):
                contigs.lengths.setdefault(words[1], (int(words[3]), number))
        if text.rstrip() == "##FASTA" or text.startswith(">"):
            break
        if text.startswith("#") or not text.strip():
            continue
        fields = text.split("\t")
        if len(fields) != 9:
            found = f"{len(fields)} tab-separated fields"
            raise InputError(found, "9 (GFF3 or GTF)", path=path, line=number)
        name, _, kind, first, last, _, strand, phase, attributes = fields
        kind = kind.removeprefix("noncoding_")  # SGD's exons of RNA genes
        if kind == "region" and "genome=mitochondrion" in attributes:
            organelles.append((name, number))
        if kind in ("region", "chromosome") and "Is_circular=true" in attributes:
            circles.append((name, number))
            if first == "1" and WHOLE_NUMBER.fullmatch(last):
                contigs.lengths.setdefault(name, (int(last), number))
        is_part = kind in ("exon", "CDS", "stop_codon")
        if not (is_part or kind.endswith(("gene", "RNA", "transcript"))):
            continue
        is_whole = WHOLE_NUMBER.fullmatch(first) and WHOLE_NUMBER.fullmatch(last)
        if not is_whole or int(first) > int(last):
            found = f"coordinates {first[:20]!r}-{last[:20]!r}"
            raise InputError(found, "whole numbers, start <= end", path=path, line=number)
        if kind == "CDS" and phase not in ("0", "1", "2", "."):
            raise InputError(f"phase {phase[:20]!r}", "0, 1, 2 or '.'", path=path, line=number)
        start, end, skipped = int(first) - 1, int(last), int(phase) if phase in ("1", "2") else 0
        own = read_attributes(kind, attributes)
        # The exons of a transcript say the same: one copy of it is enough.
        said[kind] = own = said[kind] if own == said.get(kind) else own
        name, kind, strand = map(sys.intern, (name, kind, strand))
        yield Feature(number, name, kind, start, end, strand, skipped, own)
    for those, named in ((contigs.circular, circles), (contigs.mitochondria, organelles)):
        for name, number in named:
            with suppress(Unplaced):
                those.add(contigs.find(name, number).name)


def _owners(
    genes: Mapping[str, list[Feature]], parts: list[Feature]
) -> Callable[[Feature], str | None]:
    """From a feature to its gene: by its own gene id, else by whom it descends from."""
    gene_of = {own: gene for gene, group in genes.items() for line in group
               if (own := line.get("ID"))}  # fmt: skip
    parent_of = {own: parent for line in parts
                 if (own := line.get("ID")) and (parent := line.get("Parent"))}  # fmt: skip

    def owner(line: Feature) -> str | None:
        gene_id = line.get(*GENE_KEYS)
        if gene_id in genes:
            return gene_id
        above = line.get("Parent") or (None if line.kind == "exon" else line.get("ID"))
        for _ in range(9):
            if above is None or above in gene_of or above not in parent_of:
                break
            above = parent_of[above]
        return None if above is None else gene_of.get(above, above)

    return owner


def _gene(
    path: Path, gene_id: str, group: list[Feature], contigs: FileContigs, notes: list[str]
) -> dict[str, Any]:
    """A row of the gene table; parts elsewhere than most of the gene are left out and noted."""
    is_gene = group[0].kind.endswith("gene")
    for line in group:
        _check_position(path, line, contigs)
    if len(group) > 1 and is_gene and any("part" not in line.attributes for line in group):
        found = f"gene {gene_id!r} a second time (first on line {group[0].number})"
        raise InputError(found, "each gene once", path=path, line=group[1].number)
    longest = max(group, key=lambda line: line.end - line.start)
    where = (longest.contig, longest.strand)
    kept = [line for line in group if (line.contig, line.strand) == where]
    if len(kept) < len(group):
        notes.append(f"gene {gene_id}: parts on another strand or contig than {where} left out")
    if not is_gene:
        loci = _loci(kept)
        kept = max(loci, key=lambda locus: sum(line.end - line.start for line in locus))
        if len(loci) > 1:
            notes.append(f"gene {gene_id}: at {len(loci)} loci, all but the longest left out")
    first, contig = kept[0], contigs.find(longest.contig, longest.number)
    circular_bp = contig.length if contig.name in contigs.circular else None
    start, end = _span([(line.start, line.end) for line in kept], circular_bp)
    names = (first.get(key) for key in ("gene", "gene_name", "Name"))
    is_rna = first.kind.endswith("RNA") and first.kind != "mRNA"
    own_kind = first.kind if is_rna or first.kind == "pseudogene" else None
    return {
        "gene_id": gene_id,
        "name": next((name for name in names if name and " " not in name), gene_id),
        "contig": contig.name,
        "start": start,
        "end": end,
        "strand": longest.strand,
        "biotype": first.get(*BIOTYPE_KEYS) or own_kind,
    }


def _check_position(path: Path, line: Feature, contigs: FileContigs) -> None:
    contig = contigs.find(line.contig, line.number)
    if line.strand not in ("+", "-"):
        kind = Unplaced if line.strand in (".", "?") else InputError
        raise kind(f"a gene on strand {line.strand!r}", "'+' or '-'", path=path, line=line.number)
    limit = 2 * contig.length if contig.name in contigs.circular else contig.length
    is_inside = 0 <= line.start < line.end <= limit and line.start < contig.length
    hint = f" {OTHER_GENOME}" if line.start >= contig.length else ""
    if 0 <= line.start < contig.length == limit < line.end:
        hint = f" (if its ends join: --circular {contig.name})"
    expected = f"1 <= start <= end <= {contig.length}, the length of {contig.name}{hint}"
    require(is_inside, f"a gene at {line.start + 1}-{line.end}", expected, path, line.number)


def _loci(lines: list[Feature]) -> list[list[Feature]]:
    """Transcripts, in groups that lie apart."""
    transcripts: dict[str | None, list[Feature]] = defaultdict(list)
    for line in lines:
        transcripts[line.get("transcript_id", "Parent", "ID")].append(line)
    groups = sorted(transcripts.values(), key=lambda group: min(line.start for line in group))
    loci: list[list[Feature]] = []
    for group in groups:
        before = max((line.end for line in loci[-1]), default=0) if loci else 0
        if loci and min(line.start for line in group) - before <= SAME_LOCUS_BP:
            loci[-1] += group
        else:
            loci.append(list(group))
    return loci


def _span(parts: list[tuple[int, int]], circular_bp: int | None) -> tuple[int, int]:
    """Give the shortest interval over all parts; on a circle it may cross the origin."""
    start, end = min(p[0] for p in parts), max(p[1] for p in parts)
    if circular_bp is not None and len(parts) > 1:
        ordered = sorted(parts)
        for i in range(1, len(ordered)):
            around = (ordered[i][0], max(p[1] for p in ordered[:i]) + circular_bp)
            if around[1] - around[0] < end - start and around[1] >= max(p[1] for p in ordered):
                start, end = around
    return start, end


def _aliases(genes: pd.DataFrame, lines: Mapping[str, list[Feature]]) -> dict[str, str]:
    ids = list(genes["gene_id"])
    synonyms = (
        (synonym.strip(), gene_id)
        for gene_id in ids
        for line in lines[gene_id]
        for key in NAME_KEYS
        for synonym in line.attributes.get(key, [])
    )
    versionless = ((re.sub(r"\.\d+$", "", gene_id), gene_id) for gene_id in ids)
    names = zip(genes["name"], ids, strict=True)
    aliases: dict[str, str] = {}
    for pairs in (synonyms, versionless, names, zip(ids, ids, strict=True)):
        aliases |= unique_owners(pairs)
    return aliases
