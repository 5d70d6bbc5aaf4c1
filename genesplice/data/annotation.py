"""Genes from GFF3 or GTF, with contig names matched to those of the genome."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from gffutils.feature import Feature, feature_from_line

from genesplice.data.genome import Contig, Genome
from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError

GENE_COLUMNS = ("gene_id", "name", "contig", "start", "end", "strand", "tss", "biotype")
ID_PREFIX = re.compile(r"^(gene|locus)[-:]", re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
BIOTYPE_KEYS = ("gene_biotype", "biotype", "gene_type")


class Annotation(NamedTuple):
    """What an annotation file says, beyond the table of genes.

    `aliases` maps every name a gene goes by (lower case: id, name, synonyms) to its gene_id,
    where only one gene claims it, a gene's own id and name before synonyms. `contig_aliases`
    maps contig names of the file to those of the genome where they differ. `circular` lists the
    genome's contigs that the file declares circular. `lengths` is the transcribed length of
    each gene in bp: the union of its exons (or CDS where there are no exons), else its span.
    """

    genes: pd.DataFrame
    aliases: dict[str, str]
    contig_aliases: dict[str, str]
    circular: tuple[str, ...]
    lengths: dict[str, int]
    notes: list[str]


class _Line(NamedTuple):
    number: int
    feature: Feature
    contig: str


def read_annotation(path: Path, genome: Genome) -> pd.DataFrame:
    """Read the genes of a GFF3 or GTF file (plain or gzipped).

    Columns `gene_id, name, contig, start, end, strand, tss, biotype`, sorted by contig order in
    the genome, then start. Coordinates are 0-based half-open; `tss` is the first base of the
    gene on its strand (`start` on +, `end - 1` on -), which for most bacterial annotations is
    the start codon. A gene across the origin of a circular contig has `end` beyond the contig's
    length. A gene written on several lines with a `part` attribute is one gene that spans them.

    Raises
    ------
    InputError
        If the file is empty, truncated or not GFF/GTF, has no genes, names a contig that the
        genome lacks, a gene twice, or coordinates outside the contig (with the line).
    """
    return parse_annotation(path, genome).genes


def parse_annotation(path: Path, genome: Genome) -> Annotation:
    """Read all that `Annotation` holds; the rules are those of `read_annotation`."""
    path = Path(path)
    resolver = _ContigResolver(path, genome)
    lines: dict[str, list[_Line]] = defaultdict(list)
    is_gtf = False
    fallback: dict[str, list[_Line]] = defaultdict(list)
    sub_features: list[_Line] = []
    for number, text in _feature_lines(path, resolver):
        kind = text.split("\t", 3)[2]
        is_gene = kind == "gene" or kind.endswith("_gene") or kind == "pseudogene"
        if kind in ("region", "chromosome") and "Is_circular=true" in text:
            resolver.add_circular(text.split("\t", 1)[0], number)
        if not is_gene and kind not in ("exon", "CDS", "mRNA", "transcript"):
            continue
        feature = _feature(path, number, text)
        is_gtf = is_gtf or feature.dialect.get("fmt") == "gtf"
        line = _Line(number, feature, "" if not is_gene else resolver.name(feature.seqid, number))
        if is_gene:
            lines[_gene_id(path, line)].append(line)
        else:
            sub_features.append(line)
    if not lines:
        for line in sub_features:
            key = _attribute(line.feature, "locus_tag", "gene_id")
            if key:
                contig = resolver.name(line.feature.seqid, line.number)
                fallback[key].append(line._replace(contig=contig))
        if not fallback:
            raise InputError("no gene", "lines of type gene with an ID or gene_id", path=path)
    notes: list[str] = []
    source = lines or fallback
    circular = resolver.circular
    rows = [
        _gene(path, gene_id, group, resolver, circular, notes, is_parts=not lines)
        for gene_id, group in source.items()
    ]
    exons, coding = _exonic_lengths(sub_features, source)
    for row in rows:
        if row["biotype"] is None:
            row["biotype"] = "protein_coding" if row["gene_id"] in coding else "gene"
    genes = make_genes(pd.DataFrame(rows), genome)
    spans = (genes["end"] - genes["start"]).tolist()
    return Annotation(
        genes,
        _aliases(genes, source),
        dict(resolver.renamed),
        tuple(sorted(circular)),
        {gene: exons.get(gene, bp) for gene, bp in zip(genes["gene_id"], spans, strict=True)},
        notes + ([] if lines else ["no gene lines: genes are the spans of their transcripts"]),
    )


def make_genes(table: pd.DataFrame, genome: Genome) -> pd.DataFrame:
    """Sort genes as a bundle wants them and work out `tss`.

    Parameters
    ----------
    table
        Columns `gene_id, name, contig, start, end, strand, biotype` in any order.

    Raises
    ------
    InputError
        If a gene_id is there twice.
    """
    twice = table["gene_id"][table["gene_id"].duplicated()]
    if len(twice):
        raise InputError(f"gene {twice.iloc[0]!r} twice", "each gene_id once")
    rank = {contig.name: i for i, contig in enumerate(genome.contigs)}
    table = table.assign(
        tss=table["start"].where(table["strand"] == "+", table["end"] - 1),
        rank=table["contig"].map(rank),
    )
    table = table.sort_values(["rank", "start", "end", "gene_id"], kind="stable")
    table = table[list(GENE_COLUMNS)].reset_index(drop=True)
    return table.astype({"start": "int64", "end": "int64", "tss": "int64"})


class _ContigResolver:
    """Matches the file's contig names to the genome's, or refuses them by name."""

    def __init__(self, path: Path, genome: Genome) -> None:
        self.path, self.genome = path, genome
        self.lengths: dict[str, int] = {}
        self.renamed: dict[str, str] = {}
        self.circular = {contig.name for contig in genome.contigs if contig.is_circular}
        self._known: dict[str, str] = {contig.name: contig.name for contig in genome.contigs}
        self._by_key = _unique(genome.contigs, lambda contig: _contig_key(contig.name))
        self._by_length = _unique(genome.contigs, lambda contig: str(contig.length))

    def add_circular(self, name: str, number: int) -> None:
        self.circular.add(self.name(name, number))

    def name(self, name: str, number: int) -> str:
        if name in self._known:
            return self._known[name]
        found = self._by_key.get(_contig_key(name))
        if found is None and name in self.lengths:
            found = self._by_length.get(str(self.lengths[name]))
        if found is None or found in self.renamed.values():
            names = [contig.name for contig in self.genome.contigs]
            shown = ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
            raise InputError(
                f"contig {name!r}, which the genome lacks", shown, path=self.path, line=number
            )
        self._known[name] = self.renamed[name] = found
        return found


def _unique(contigs: tuple[Contig, ...], key: Callable[[Contig], str]) -> dict[str, str]:
    groups: dict[str, list[str]] = defaultdict(list)
    for contig in contigs:
        groups[key(contig)].append(contig.name)
    return {k: names[0] for k, names in groups.items() if len(names) == 1}


def _contig_key(name: str) -> str:
    key = re.sub(r"\.\d+$", "", name.lower())
    key = re.sub(r"^(chromosome|chrom|chr)_?(?=.)", "", key)
    return {"mt": "m", "mito": "m"}.get(key, key)


def _feature_lines(path: Path, resolver: _ContigResolver) -> Iterator[tuple[int, str]]:
    for number, text in numbered_lines(path):
        if text.startswith("##sequence-region"):
            words = text.split()
            if len(words) >= 4 and WHOLE_NUMBER.fullmatch(words[3]):
                resolver.lengths[words[1]] = int(words[3])
        elif text.startswith(("##FASTA", ">")):
            return
        elif text.strip() and not text.startswith("#"):
            n_fields = text.count("\t") + 1
            if n_fields != 9:
                raise InputError(
                    f"{n_fields} tab-separated fields", "9 (GFF3 or GTF)", path=path, line=number
                )
            yield number, text


def _feature(path: Path, number: int, text: str) -> Feature:
    fields = text.split("\t", 8)
    if not (WHOLE_NUMBER.fullmatch(fields[3]) and WHOLE_NUMBER.fullmatch(fields[4])):
        found = f"coordinates {fields[3][:20]!r}-{fields[4][:20]!r}"
        raise InputError(found, "two whole numbers", path=path, line=number)
    return feature_from_line(text, strict=True)


def _attribute(feature: Feature, *keys: str) -> str | None:
    for key in keys:
        values = feature.attributes.get(key)
        if values and values[0]:
            return values[0]
    return None


def _gene_id(path: Path, line: _Line) -> str:
    found = _attribute(line.feature, "locus_tag", "gene_id", "ID")
    if found is None:
        raise InputError(
            "a gene without an id", "locus_tag, gene_id or ID", path=path, line=line.number
        )
    return ID_PREFIX.sub("", found)


def _gene(
    path: Path,
    gene_id: str,
    group: list[_Line],
    resolver: _ContigResolver,
    circular: set[str],
    notes: list[str],
    *,
    is_parts: bool,
) -> dict[str, object]:
    for line in group:
        _check_place(path, line, resolver.genome.contig(line.contig), line.contig in circular)
    if len(group) > 1:
        if not is_parts and any("part" not in line.feature.attributes for line in group):
            raise InputError(
                f"gene {gene_id!r} a second time (first on line {group[0].number})",
                "each gene once",
                path=path,
                line=group[1].number,
            )
        longest = max(group, key=lambda line: line.feature.end - line.feature.start)
        place = (longest.contig, longest.feature.strand)
        kept = [line for line in group if (line.contig, line.feature.strand) == place]
        if len(kept) < len(group):
            notes.append(f"gene {gene_id}: parts on another strand or contig than {place} left out")
        group = kept
    first = group[0]
    contig = resolver.genome.contig(first.contig)
    start, end = _span(
        [(line.feature.start - 1, line.feature.end) for line in group],
        contig.length if first.contig in circular else None,
    )
    attributes = first.feature
    return {
        "gene_id": gene_id,
        "name": _attribute(attributes, "gene", "gene_name", "Name") or gene_id,
        "contig": first.contig,
        "start": start,
        "end": end,
        "strand": attributes.strand,
        "biotype": _attribute(attributes, *BIOTYPE_KEYS)
        or (attributes.featuretype if attributes.featuretype == "pseudogene" else None),
    }


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


def _check_place(path: Path, line: _Line, contig: Contig, is_circular: bool) -> None:
    feature = line.feature
    if feature.strand not in ("+", "-"):
        raise InputError(
            f"a gene on strand {feature.strand!r}", "'+' or '-'", path=path, line=line.number
        )
    limit = 2 * contig.length if is_circular else contig.length
    if not 1 <= feature.start <= feature.end <= limit or feature.start > contig.length:
        raise InputError(
            f"a gene at {feature.start}-{feature.end}",
            f"1 <= start <= end <= {contig.length}, the length of {contig.name}",
            path=path,
            line=line.number,
        )


def _exonic_lengths(
    lines: list[_Line], genes: Mapping[str, list[_Line]]
) -> tuple[dict[str, int], set[str]]:
    """Add up exons (else CDS) of each gene without counting a base twice; name coding genes."""
    gene_of = {
        own: gene_id
        for gene_id, group in genes.items()
        for line in group
        if (own := _attribute(line.feature, "ID"))
    }
    transcripts: dict[str, str] = {}
    for line in lines:
        own, parent = _attribute(line.feature, "ID"), _attribute(line.feature, "Parent")
        if line.feature.featuretype in ("mRNA", "transcript") and own and parent in gene_of:
            transcripts[own] = gene_of[parent]
    spans: dict[str, dict[str, list[tuple[int, int]]]] = {"exon": {}, "CDS": {}}
    for line in lines:
        if line.feature.featuretype not in spans:
            continue
        gene_id = _attribute(line.feature, "locus_tag", "gene_id")
        if gene_id not in genes:
            parent = _attribute(line.feature, "Parent") or ""
            gene_id = transcripts.get(parent) or gene_of.get(parent)
        if gene_id is not None:
            interval = (line.feature.start - 1, line.feature.end)
            spans[line.feature.featuretype].setdefault(gene_id, []).append(interval)
    merged = spans["CDS"] | spans["exon"]
    return {gene: _union_bp(parts) for gene, parts in merged.items()}, set(spans["CDS"])


def _union_bp(parts: list[tuple[int, int]]) -> int:
    total, reach = 0, 0
    for start, end in sorted(parts):
        total += max(0, end - max(start, reach))
        reach = max(reach, end)
    return total


def _aliases(genes: pd.DataFrame, lines: Mapping[str, list[_Line]]) -> dict[str, str]:
    def claims(names: Iterator[tuple[str, str]]) -> dict[str, str]:
        owners: dict[str, set[str]] = defaultdict(set)
        for name, gene_id in names:
            owners[name.lower()].add(gene_id)
        return {name: next(iter(ids)) for name, ids in owners.items() if len(ids) == 1}

    ids = list(genes["gene_id"])
    synonyms = (
        (synonym.strip(), gene_id)
        for gene_id in ids
        for line in lines[gene_id]
        for key in ("gene_synonym", "Alias", "ID", "gene_id", "Name", "gene", "old_locus_tag")
        for synonym in line.feature.attributes.get(key, [])
    )
    versionless = ((re.sub(r"\.\d+$", "", gene_id), gene_id) for gene_id in ids)
    by_name = claims(zip(genes["name"], ids, strict=True))
    by_id = claims(zip(ids, ids, strict=True))
    return claims(synonyms) | claims(versionless) | by_name | by_id
