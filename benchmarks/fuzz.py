"""Coverage-guided fuzzing of everything that reads a user's file.

`pip install atheris`, then
`python -m benchmarks.fuzz --seconds 1200 --out reports/results/reliability.json`

Each reader has a process of its own, an equal share of the time, and begins from small good files.
Whatever is read, only an `InputError` of one line may come out. `fuzz` of the JSON file gets how
often each reader was called, and what else came out (kind, place, and the file that did it).
"""

import argparse
import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

NOTE_EVERY = 500
"""Calls between two notes of how many there were: libFuzzer ends without a word to Python."""
GFF, PAIR = "##gff-version 3\n", "g0001\tg0002\n"
MEMORY, ROOT = Path("/dev/shm"), Path(__file__).resolve().parent.parent


class Target(NamedTuple):
    """A reader: what it is called with, the ending of its files, and good ones to begin from."""

    read: Callable[[Path], Any]
    suffix: str
    seeds: tuple[str | bytes, ...]


def targets(folder: Path) -> dict[str, Target]:
    """Every reader, on a small simulated organism that is written to `folder`."""
    from genesplice.data import (
        alignments,
        annotation,
        archives,
        assay,
        gene_sets,
        measurements,
        network,
        splits,
        tables,
    )
    from genesplice.data.expression import make_expression
    from genesplice.data.genome import decode, read_fasta
    from genesplice.data.simulate import make_bundle
    from genesplice.variants import measured, vcf

    shutil.rmtree(folder / "made_up", ignore_errors=True)
    bundle = make_bundle(folder / "made_up", n_genes=10, genome_bp=10_000, n_conditions=2)
    genome, genes = bundle.genome, bundle.genes
    aliases, contig = network.gene_aliases(genes), genome.contigs[0].name
    first = decode(genome.tokens[:60])
    gff = "".join(
        f"{contig}\tx\tgene\t{one.start + 1}\t{one.end}\t.\t{one.strand}\t.\tID={one.gene_id};"
        f"Name={one.name};gene_biotype=protein_coding\n"
        for one in genes.head(4).itertuples()
    )
    gtf = f'{contig}\tx\texon\t1\t90\t.\t+\t0\tgene_id "g1"; transcript_id "t1"; Name=a%20b\n'
    gbk = (
        f"LOCUS       {contig}             60 bp    DNA     circular BCT 01-JAN-2020\n"
        f"ACCESSION   {contig}\nVERSION     {contig}\nFEATURES             Location/Qualifiers\n"
        "     gene            complement(join(3..9,12..20))\n"
        '                     /locus_tag="g0001"\n                     /gene="syn1"\n'
        f"ORIGIN\n        1 {' '.join(first.lower()[i : i + 10] for i in range(0, 60, 10))}\n//\n"
    )
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    calls = (
        f"##fileformat=VCFv4.2\n##contig=<ID={contig},length=10000>\n"
        '##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n'
        f"{columns}\tFORMAT\ts1\n{contig}\t5\trs1\t{first[4]}\tG,<DEL>\t50\tPASS\tAF=0.1;X\tGT\t0/1\n"
    )
    obo = (
        "format-version: 1.2\n\n[Term]\nid: GO:1\nname: one\nalt_id: GO:9\nis_a: GO:2 ! two\n"
        "relationship: part_of GO:3\n\n[Term]\nid: GO:2\nname: two\nis_obsolete: true\n"
    )
    gaf = "!gaf-version: 2.2\nx\tg0001\tsyn1\tenables\tGO:1\tr\tIDA" + "\t" * 10 + "\n"
    maf = (
        f"##maf version=1\na score=1\ns ref.{contig} 0 9 + 10000 {first[:9]}\n"
        "s other.c 10 8 - 100 ACGT-ACGT\ni other.c C 0 C 0\n\n"
    )
    assay_rows = "id\tsequence\tvalue\tsplit\n" + "".join(
        f"r{i}\t{first[i : i + 20]}\t{i % 3}\t{('train', 'test')[i % 2]}\n" for i in range(12)
    )
    wide = "gene\ts1\ts2\ng0001\t1.5\t2\ng0002\t0\t3e4\n"
    counts = "Geneid\tChr\tStart\tEnd\tStrand\tLength\ts1\ng0001\tc\t1\t2\t+\t99\t7\n"
    star = "N_unmapped\t1\t1\t1\nN_multimapping\t1\t1\t1\ng0001\t3\t1\t2\n"
    gct = "#1.2\n2\t1\nName\tDescription\ts1\ng0001\tx\t3\n"
    meme = (
        "MEME version 4\nALPHABET= ACGT\nMOTIF a b\n"
        "letter-probability matrix: alength= 4 w= 1\n 0.2 0.3 0.1 0.4\n"
    )
    bed, sites = f"track x\n{contig}\t5\t9\tname\t0\t+\n", f"{contig}\t5\t9\tsite\n"

    def sets(path: Path) -> Any:
        return gene_sets.read_gene_sets(path, genes, aliases)

    def expression(unit: Any) -> Callable[[Path], Any]:
        def read(path: Path) -> Any:
            values, obs, own, _ = measurements.read_measurements(path, unit)
            lengths = None if own is None else own.to_dict()
            return make_expression(values, unit, obs, lengths=lengths, path=path)

        return read

    def variants(path: Path) -> Any:
        return vcf.read_header(path), vcf.contig_lengths(path), list(vcf.read_records(path))

    def genbank_both(path: Path) -> Any:
        return (
            read_fasta(path),
            archives.read_records(path),
            annotation.parse_annotation(path, genome),
        )

    packed = gzip.compress(f">{contig} x\n{first}\n".encode())
    known = "source\ttarget\tsign\ng0001\tg0002\t+\nsyn1;g0003\tg0004\t-\n"
    return {
        "FASTA": Target(read_fasta, ".fa", (f">{contig} x\n{first}\nNNacgtRY\n>d\r\nAC\n", packed)),
        "GFF and GTF": Target(
            lambda path: annotation.parse_annotation(path, genome), ".gff", (GFF + gff, gtf)
        ),
        "GenBank": Target(genbank_both, ".gbk", (gbk,)),
        "VCF": Target(variants, ".vcf", (calls,)),
        "GMT": Target(sets, ".gmt", ("S1\twords\tg0001\tsyn2\nS2\t\tg0002\n",)),
        "GAF and two columns": Target(sets, ".txt", (gaf, "gene\tset\ng0001\tS1\n", "g0002,S2\n")),
        "OBO": Target(gene_sets.read_obo, ".obo", (obo,)),
        "MAF": Target(lambda path: alignments.read_maf(path, genome), ".maf", (maf,)),
        "BED": Target(lambda path: list(tables.bed_rows(path, 3, "BED")), ".bed", (bed,)),
        "sites": Target(lambda path: measured.read_sites(path, bundle), ".bed", (sites,)),
        "operons": Target(
            lambda path: splits.read_operons(path, aliases), ".txt", ("g0001\top1\n", "syn1;syn2\n")
        ),
        "MEME": Target(network.read_meme, ".meme", (meme,)),
        "expression, TPM": Target(expression("tpm"), ".tsv", (wide, gct)),
        "expression, counts": Target(expression("counts"), ".txt", (counts, star)),
        "edges": Target(
            lambda path: network.read_network(path, genes, aliases), ".tsv", (known, PAIR)
        ),
        "task table": Target(assay.read_assay, ".tsv", (assay_rows,)),
        "measured variants": Target(
            assay.read_measured, ".tsv", ("contig\tposition\tref\talt\tvalue\nc\t3\tA\tG\t0.5\n",)
        ),
    }  # fmt: skip


def fuzz(name: str, seconds: int, folder: Path) -> None:
    """Call one reader for so long; does not return."""
    import atheris

    with atheris.instrument_imports(include=["genesplice"]):
        target = targets(folder)[name]
    from genesplice.errors import InputError

    warnings.simplefilter("ignore")
    path, notes, corpus = folder / f"x{target.suffix}", folder / "notes.json", folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed.encode() if isinstance(seed, str) else seed)
    calls, refused, found = 0, 0, dict[str, list[str]]()

    def one(data: bytes) -> None:
        nonlocal calls, refused
        calls += 1
        path.write_bytes(data)
        try:
            target.read(path)
        except Exception as error:
            is_one_line = str(error).isprintable()
            refused += isinstance(error, InputError)
            if not (isinstance(error, InputError) and is_one_line):
                place = traceback.extract_tb(error.__traceback__)
                at = [one for one in place if "/genesplice/" in one.filename][-1]
                where = f"{Path(at.filename).name}:{at.lineno} {at.name}"
                found.setdefault(f"{type(error).__name__} in {where}", [str(error), data.hex()])
        if calls % NOTE_EVERY == 0:
            notes.write_text(json.dumps({"calls": calls, "refused": refused, "found": found}))

    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=60", "-rss_limit_mb=4096"]
    artefacts = f"-artifact_prefix={folder}/"
    atheris.Setup([sys.argv[0], *options, artefacts, "-print_final_stats=0", str(corpus)], one)
    atheris.Fuzz()


def run(name: str, seconds: int) -> dict[str, Any]:
    """Fuzz one reader in a process of its own; calls, refusals, and what else came out."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        folder = Path(scratch)
        words = ["--target", name, "--seconds", str(seconds), "--folder", scratch]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ended = subprocess.run(
            # As a file: importing this package imports genesplice, before it can be instrumented.
            [sys.executable, __file__, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True,
            text=True, errors="replace", check=False,
        )  # fmt: skip
        notes = folder / "notes.json"
        counts: dict[str, Any] = {"calls": 0, "refused": 0, "found": {}}
        if notes.exists():
            counts = json.loads(notes.read_text())
        if ended.returncode:  # out of time or memory in one call, or no fuzzing at all
            counts["found"] |= {f"ended with {ended.returncode}: {ended.stderr[-400:]}": []}
            for left in (*folder.glob("timeout-*"), *folder.glob("oom-*")):
                counts["found"] |= {left.name.partition("-")[0]: ["", left.read_bytes().hex()]}
        return counts


def main() -> None:
    """Fuzz all readers, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=1200, help="of all readers together")
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--out", type=Path, help="JSON file whose `fuzz` is written")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.target:
        fuzz(given.target, given.seconds, given.folder)
    with tempfile.TemporaryDirectory() as scratch:
        names = [given.only] if given.only else list(targets(Path(scratch)))
    counts = {}
    for name in names:
        counts[name] = run(name, given.seconds // len(names))
        found = counts[name]["found"]
        print(
            f"{name}: {counts[name]['calls']} calls, {len(found)} kinds of other errors", flush=True
        )
        for what, about in found.items():
            print(f"    {what}", *(text[:2000] for text in about), sep="\n        ", flush=True)
    total = sum(one["calls"] for one in counts.values())
    print(f"{total} calls, {sum(len(one['found']) for one in counts.values())} other errors")
    if given.out:
        from benchmarks import record

        command = shlex.join(["python", "-m", "benchmarks.fuzz", *sys.argv[1:]])
        record(given.out, "fuzz", {"calls": total, "readers": counts}, command)


if __name__ == "__main__":
    main()
