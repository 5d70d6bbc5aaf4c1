"""Recipes: organisms that can be prepared by name, fetched once and checked by checksum."""

import http.client
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from genesplice.data.alignments import read_summary
from genesplice.data.annotation import Annotation, make_genes, parse_annotation
from genesplice.data.archives import (
    fetch_checked,
    fetch_file,
    input_record,
    write_reactome_sets,
    write_string_edges,
)
from genesplice.data.bundle import BundleParts
from genesplice.data.coding import judge_coding
from genesplice.data.expression import DELETED, hide_deleted, make_expression
from genesplice.data.gene_sets import set_name
from genesplice.data.genome import Genome, read_fasta
from genesplice.data.measurements import name_deleted, read_measurements
from genesplice.data.network import PROTEINS, NetworkReading, make_network, read_meme
from genesplice.data.tables import Progress, find_columns, numbered_lines, read_table
from genesplice.errors import InputError, WorkError, require
from genesplice.runtime import file_sha256

WHEEL = "pymodulon-0.2.1-py3-none-any.whl"
REQUIREMENT = "pymodulon==0.2.1"
WHEEL_SHA256 = "24cf88b53e7dfe69c3bc1d4f3e28b2d30a0bf874eab1930d22208aff3ddd81b8"
WHEEL_SOURCE, WHEEL_LICENCE = "pymodulon 0.2.1 on PyPI", "MIT"
ECOLI = "pymodulon/data/ecoli/"
MEMBERS = {
    **{name: ECOLI + name for name in (
        "genome.fasta", "genome.gff3", "log_tpm.csv", "sample_table.csv", "gene_table.csv",
        "trn.csv", "eggNOG_annotations.txt")},
    "SwissRegulon_e_coli.meme": "pymodulon/data/meme/SwissRegulon_e_coli.meme",
}  # fmt: skip
CHECKOUT = Path(__file__).resolve().parents[2]
RELATIVES_TABLE = Path(__file__).with_name("ecoli_relatives.tsv")
RELATIVES_SUMMARY = CHECKOUT / "data" / "ecoli_relatives.xz"
"""Columns of eighteen relatives (see `data/README.md`); an installed package has none."""
SUMMARY_SOURCE = "RefSeq assemblies (accessions in relatives.tsv), aligned with minimap2"
SUMMARY_LICENCE = "public domain (INSDC)"
FROM_ARCHIVE = "recipe"
"""In place of a folder of relatives: the genomes that the recipe names."""
ARCHIVE = (
    "https://eutils.ncbi.nlm.nih.gov/entrez/eutils/efetch.fcgi"
    "?db=nuccore&rettype=fasta&retmode=text&id="
)
STRAIN_LACKS = re.compile(r"(?:\bdel_|\bEEP_|\bFPS |\b(?=PGI))([A-Za-z_]+)")
"""Deletions in the description of a strain, and those that a strain was evolved from."""
PARENT = {"BW25113": "del_araA_araB_araD_lacZ_rhaA_rhaB_rhaD"}  # Baba et al., Keio collection, 2006
HUMAN_TABLE = Path(__file__).with_name("human_files.tsv")
MIN_SET_GENES = 3


def default_cache(cache: Path | None = None) -> Path:
    """`cache`, else $GENESPLICE_CACHE, else data/cache of the checkout or folder."""
    if chosen := cache or os.environ.get("GENESPLICE_CACHE"):
        return Path(chosen)
    root = CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path.cwd()
    return root / "data" / "cache"


def fetch_wheel(cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Give the path of the pymodulon wheel, downloading it with pip the first time.

    The wheel is data here: it is read as a zip and never installed or imported.

    Raises
    ------
    WorkError
        If pip cannot get it (no network); the message says where to put the file by hand.
    InputError
        If the file, cached or downloaded, has another sha256 than the pinned one.
    """
    cache = default_cache(cache)
    target = cache / WHEEL
    if target.is_file():
        _check_wheel(target, f"delete {target} to fetch it again")
        return target
    if progress:
        progress(f"downloading {REQUIREMENT} (50 MB) with pip, once")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheel.", dir=cache) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
                   "--disable-pip-version-check", "--retries", "1", "--timeout", "20",
                   "--quiet", "--dest", scratch, REQUIREMENT]  # fmt: skip
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(scratch) / WHEEL
        if answer.returncode != 0 or not fetched.is_file():
            errors = re.findall(r"^ERROR: (.+)$", answer.stderr, flags=re.MULTILINE)
            said = f" ({errors[-1].strip()[:160]})" if errors else ""
            raise WorkError(
                f"pip could not download {REQUIREMENT}{said}: connect to the network and run "
                f"again, or put {WHEEL} into {cache} by hand"
            )
        _check_wheel(fetched, "refused, nothing was kept")
        os.replace(fetched, target)
    return target


def _check_wheel(path: Path, advice: str) -> None:
    found = file_sha256(path)
    expected = f"{WHEEL_SHA256[:16]}… ({advice})"
    require(found == WHEEL_SHA256, f"a wheel with sha256 {found[:16]}…", expected, path)


def prepare_ecoli(cache: Path | None = None, progress: Progress | None = None) -> BundleParts:
    """Read Escherichia coli K-12 MG1655 from the wheel.

    Genes are those of the GFF file by locus_tag. A pseudogene whose pieces are measured one by
    one is replaced by its pieces as gene_table.csv has them. Conditions are `project__condition`;
    descriptions of strains say what is deleted. Files derived from expression (iModulons) are out.

    Raises
    ------
    WorkError, InputError
        As `fetch_wheel`, and if the wheel lacks a file.
    """
    tell = progress or (lambda text: None)
    wheel = fetch_wheel(cache, progress)
    with tempfile.TemporaryDirectory(prefix="genesplice.") as scratch:
        files = _extract(wheel, Path(scratch))
        tell("reading genome and annotation")
        genome = read_fasta(files["genome.fasta"])
        annotation = parse_annotation(files["genome.gff3"], genome)
        genome = genome.with_circular(annotation.circular)
        coding = judge_coding(annotation.genes, annotation.partial, genome)
        tell(coding["text"])
        table = _table(files["gene_table.csv"], "start", "end", "strand", "gene_name", "operon",
                       "COG", "accession").astype({"start": int, "end": int})  # fmt: skip
        tell("reading expression")
        values = read_measurements(files["log_tpm.csv"], "log2tpm").values
        columns = "project", "condition", "Strain", "Strain Description"
        samples = _table(files["sample_table.csv"], *columns)
        samples["condition"] = samples["project"] + "__" + samples["condition"]
        strains = samples[columns[2]].str.cat(samples[columns[3]], " ").replace(PARENT, regex=True)
        samples[DELETED] = strains.str.findall(STRAIN_LACKS).str.join(";").str.replace("_", ";")
        about = samples[["condition", "project", DELETED]]
        about = name_deleted(about, annotation, files["sample_table.csv"])
        expression = make_expression(values, "log2tpm", about)
        expression, said = hide_deleted(expression, is_derived=True)
        tell("; ".join(said))
        genes, pieces, notes = _genes(annotation, table, list(values.index), genome)
        tell("reading network, gene sets and motifs")
        known = set(genes["gene_id"])
        aliases = {name: gene for name, gene in annotation.aliases.items() if gene in known}
        aliases |= {gene.lower(): gene for gene in known}
        split = {name: pieces[gene] for name, gene in annotation.aliases.items() if gene in pieces}
        reading = _network(files["trn.csv"], aliases, PROTEINS | split)
        gene_sets, n_small = _gene_sets(files["eggNOG_annotations.txt"], table, genes)
        motifs = read_meme(files["SwissRegulon_e_coli.meme"])
        inputs = _inputs(wheel, files)
    notes += [
        *said,
        "regulators made of several genes (flhD;flhC, ihf, hU, hipAB, …) give one edge from each "
        "of their genes; two signs from one regulator to one gene become sign 0",
        "regulators that are no genes keep their name: " + ", ".join(reading.unmatched_regulators),
        f"edges to targets that are not among the genes are left out: "
        f"{len(reading.unmatched_targets)} targets",
        f"gene sets of fewer than {MIN_SET_GENES} genes are left out: {n_small}",
        "tss is the annotated start of the gene, for coding genes the start codon, not the "
        "transcription start",
    ]
    relatives = None
    if RELATIVES_SUMMARY.is_file():
        relatives = read_summary(RELATIVES_SUMMARY, genome)
        n_species = len(relatives.table)
        tell(f"relatives: {n_species} species, from the summary {RELATIVES_SUMMARY.name}")
        notes.append(
            "relatives: columns of near, middle and far ones from a summary; --relatives aligns "
            "genomes of your own"
        )
        about = {"name": RELATIVES_SUMMARY.name, "sha256": file_sha256(RELATIVES_SUMMARY)}
        inputs.append(input_record(about, SUMMARY_SOURCE, SUMMARY_LICENCE, relatives=n_species))
    return BundleParts(
        name="ecoli",
        genome=genome,
        genes=genes,
        expression=expression,
        network=reading.edges,
        gene_sets=gene_sets,
        motifs=motifs,
        operons={gene: name for gene, name in table["operon"].items() if gene in known and name},
        inputs=inputs,
        notes=notes,
        aliases=aliases,
        set_names={name: words for name in gene_sets if (words := set_name(name))},
        extra={"coding": coding},
        relatives=relatives,
        gene_set_evidence="orthology (eggNOG; GO by non-electronic evidence of the orthologues)",
    )


def fetch_relatives(cache: Path, progress: Progress | None = None) -> tuple[Path | None, list[str]]:
    """The folder of the genomes of `ecoli_relatives.tsv`, and what to say of it; None without all.

    Each is fetched once, by the accessions of its records, and kept when its sequences are those
    that were pinned: the sha256 is `Genome.digest`, of the sequences, whatever their headers and
    lines. What is there already is not fetched again; the first one that cannot be ends it.

    Raises
    ------
    InputError
        If the archive gives other sequences than the pinned ones; nothing of them is kept.
    """
    tell = progress or (lambda text: None)
    folder, table = cache / "ecoli_relatives", read_table(RELATIVES_TABLE)
    for number, row in enumerate(table.itertuples()):
        path = folder / f"{row.name}.fna"
        if path.is_file():
            continue
        tell(f"relatives: fetching {path.name} ({number + 1} of {len(table)})")

        def check(fetched: Path, row: Any = row, path: Path = path) -> None:
            found = read_fasta(fetched).digest
            expected = f"{row.sha256[:16]}…, which was pinned"
            require(found == row.sha256, f"{row.records} of sha256 {found[:16]}…", expected, path)

        try:
            fetch_file(ARCHIVE + row.records, path, check)
        except (OSError, http.client.HTTPException) as error:
            said = (
                f"relatives: the archive cannot be reached ({error}): {number} of {len(table)} "
                "genomes are there, and the summary is used; the same command goes on"
            )
            tell(said)
            return None, [said]
    return folder, ["relatives: the genomes of ecoli_relatives.tsv, from the archive"]


class FetchedFiles(NamedTuple):
    """What `prepare_files` takes, records of it for the manifest, and what became of it before."""

    given: dict[str, Any]
    inputs: list[dict[str, Any]]
    notes: list[str]


def fetch_human(cache: Path | None = None, progress: Progress | None = None) -> FetchedFiles:
    """Fetch the files of `human_files.tsv`.

    GRCh38 with GENCODE's basic annotation; GTEx's median TPM, each tissue a condition of its own;
    STRING without coexpression, which would leak; Reactome. `InputError`, `WorkError` as
    `genesplice.data.archives.fetch_checked`.
    """
    folder = default_cache(cache) / "human"
    inputs = fetch_checked(read_table(HUMAN_TABLE), folder, progress or (lambda text: None))
    paths = {record["part"]: folder / record["name"] for record in inputs}
    edges, sets = folder / "string_edges.tsv", folder / "reactome.gmt"
    said = write_string_edges(paths.pop("network"), paths.pop("proteins"), edges)
    write_reactome_sets(paths.pop("gene_sets"), sets)
    given = {"network": edges, "gene_sets": sets, "gene_set_evidence": "curated (Reactome)",
             "expression_unit": "tpm", "circular": ("chrM",), "allow_missing": True}  # fmt: skip
    return FetchedFiles(paths | given, inputs, [said])


FILE_RECIPES = {"human": fetch_human}
"""Recipe name to the function that fetches its files: `(cache, progress)`."""
RECIPES = {"ecoli": prepare_ecoli}
"""Recipe name to the function that reads its parts: `(cache, progress)`."""


def _extract(wheel: Path, folder: Path) -> dict[str, Path]:
    files = {name: folder / name for name in MEMBERS}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, member in MEMBERS.items():
                files[name].write_bytes(archive.read(member))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"no usable wheel ({error})", "the published wheel", path=wheel) from error
    return files


def _table(path: Path, *columns: str) -> pd.DataFrame:
    """A table by its first column, which must have `columns`."""
    table = read_table(path)
    find_columns(table, {name: (name.lower(),) for name in columns}, path=path)
    return table.set_index(table.columns[0])


def _genes(
    annotation: Annotation, table: pd.DataFrame, measured: list[str], genome: Genome
) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]], list[str]]:
    """All genes of the GFF, with measured pieces of split pseudogenes in place of the whole."""
    annotated = set(annotation.genes["gene_id"])
    extra = [gene for gene in measured if gene not in annotated]
    unknown = [gene for gene in extra if gene not in table.index]
    if unknown:
        raise InputError(f"measured gene {unknown[0]!r} in no annotation", "a gene of the GFF")
    wholes = {gene.rsplit("_", 1)[0] for gene in extra if "_" in gene}
    pieces: dict[str, tuple[str, ...]] = {}
    for gene in sorted(table.index):
        whole = gene.rsplit("_", 1)[0]
        if "_" in gene and whole in wholes:
            pieces[whole] = (*pieces.get(whole, ()), gene)
    added = sorted({*extra, *(gene for group in pieces.values() for gene in group)})
    new = table.loc[added].rename(columns={"gene_name": "name", "accession": "contig"})
    new = new[["name", "contig", "start", "end", "strand"]].assign(
        gene_id=added,
        biotype=["pseudogene" if "_" in gene else "protein_coding" for gene in added],
    )
    kept = annotation.genes[~annotation.genes["gene_id"].isin(wholes)]
    genes = make_genes(pd.concat([kept.drop(columns="tss"), new], ignore_index=True), genome)
    single = [gene for gene in extra if "_" not in gene]
    notes = [
        *annotation.notes,
        "genes are the gene and pseudogene features of genome.gff3 by locus_tag; a gene written "
        "in several parts spans them",
        f"{len(extra)} measured genes are not in genome.gff3 and come from gene_table.csv: "
        f"{', '.join(single) or 'none'} as it is, and pieces of split genes, which replace the "
        f"whole together with their sister pieces ({', '.join(sorted(pieces))})",
    ]
    return genes, pieces, notes


def _network(
    path: Path, aliases: dict[str, str], complexes: dict[str, tuple[str, ...]]
) -> NetworkReading:
    """Edges of trn.csv; a gene that was replaced by its pieces stands for all of them."""
    table = read_table(path)
    find_columns(table, {name: (name,) for name in ("regulator", "gene_id", "effect")}, path=path)
    edges = table.rename(columns={"regulator": "source", "gene_id": "target"}).assign(
        sign=table["effect"].map({"+": 1, "-": -1, "+-": 0, "?": 0}),
        provenance="RegulonDB (curated), trn.csv of pymodulon 0.2.1",
    )
    return make_network(edges, aliases, complexes)


def _gene_sets(
    path: Path, table: pd.DataFrame, genes: pd.DataFrame
) -> tuple[dict[str, tuple[str, ...]], int]:
    """GO terms and KEGG pathways of eggNOG, COG categories of the gene table; small sets out."""
    members: dict[str, dict[str, None]] = defaultdict(dict)
    known = set(genes["gene_id"])
    for number, text in numbered_lines(path):
        if text.startswith("#") or not text.strip():
            continue
        fields = text.split("\t")
        require(len(fields) >= 10, f"{len(fields)} columns", "eggNOG's 17", path, number)
        if fields[0] in known:
            terms = [term for term in fields[6].split(",") if term.startswith("GO:")]
            terms += [f"KEGG:{term}" for term in fields[9].split(",") if term.startswith("ko")]
            for term in terms:
                members[term][fields[0]] = None
    for gene, category in table["COG"].items():
        if gene in known and category and category != "No COG Annotation":
            members[f"COG:{category}"][str(gene)] = None
    kept = {name: tuple(ids) for name, ids in sorted(members.items()) if len(ids) >= MIN_SET_GENES}
    return kept, len(members) - len(kept)


def _inputs(wheel: Path, files: dict[str, Path]) -> list[dict[str, Any]]:
    about = {"name": wheel.name, "sha256": WHEEL_SHA256}
    records = [input_record(about, WHEEL_SOURCE, WHEEL_LICENCE, files_read=len(files))]
    for name, path in files.items():
        about = {"name": MEMBERS[name], "sha256": file_sha256(path)}
        source = f"{WHEEL_SOURCE}: {wheel.name}"
        n_lines = sum(1 for _ in numbered_lines(path))
        records.append(input_record(about, source, WHEEL_LICENCE, lines=n_lines))
    return records


WELL_KNOWN_GENES = (
    "lacZ", "araB", "trpE", "recA", "lexA", "crp", "rpsL", "rplJ", "tufA", "lacI", "araC", "trpL",
    "sulA", "uvrA", "fis", "metE", "cysK", "gadA", "ompF", "ompC", "malE", "fliC", "rpsT", "dnaA",
)  # fmt: skip
"""Genes of *E. coli* that textbooks know: what notebooks show first, where the data have them."""
