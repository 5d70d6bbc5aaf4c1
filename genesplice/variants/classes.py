"""Substitutions whose effect is known beforehand, and whether the ratios tell them apart.

- Start and stop codons against substitutions of the same bases in the coding parts of the same
  windows. A change that leaves a stop a stop is no case.
- Changes within a reading frame that make a stop, against coding changes of the same two bases.
- Codon positions 1 and 2 against 3; non-synonymous against synonymous (genetic code 11).
- The -10 and -35 hexamers against what lies around and between them. A promoter is where the
  consensus TTGACA and TATAAT, 16 to 18 bases apart, fit best upstream of an operon's first gene;
  none of this uses the model.

Every score is the negative ratio: high means that the model finds the change unlikely. Cases are
ranked among controls of the same two bases, so that what depends on these alone gives 0.5.

Below 0.5 is no fault: a model that knows the reading frame and not where genes end finds a stop
codon's own bases unlikely, and a change of them likely. Its figure for stops is about 1 less that
for nonsense changes. What counts of neighbouring bases say (`count_two_sided`) is given beside.
"""

import numpy as np
import pandas as pd
from Bio.Data.CodonTable import unambiguous_dna_by_id
from jaxtyping import Float, UInt8

from genesplice.baselines.count_models import CONTEXTS, CountModel, fit_count_model
from genesplice.data.bundle import Bundle
from genesplice.data.splits import first_of_operon
from genesplice.explain.mutagenesis import mutate
from genesplice.predict.gene_output import Explainer
from genesplice.results import Metric
from genesplice.variants.auroc import auroc_metric
from genesplice.variants.comb import EVERY_BP, substitutions
from genesplice.variants.likelihood import WINDOW_BP, Hidden, MaskedBases

MINUS_35, MINUS_10 = "TTGACA", "TATAAT"
SPACERS = (16, 17, 18)
FLANK_BP = 8
REACH_BP = 250
INSIDE_BP = 300
TABLE = unambiguous_dna_by_id[11]


def translate(codon: str) -> str:
    """The amino acid of three bases, or * for a stop."""
    return "*" if codon in TABLE.stop_codons else TABLE.forward_table[codon]


def find_promoter(upstream: UInt8[np.ndarray, " length"]) -> tuple[int, int, int]:
    """Where -35 and -10 begin in a sequence, 5' to 3', and how many of their 12 bases match."""
    code = {base: i for i, base in enumerate("ACGT")}
    best = (0, 0, -1)
    boxes = [np.array([code[b] for b in box]) for box in (MINUS_35, MINUS_10)]
    match = []
    for box in boxes:
        starts = range(max(len(upstream) - 5, 0))
        match.append(np.array([int((upstream[i : i + 6] == box).sum()) for i in starts]))
    for spacer in SPACERS:
        gap = 6 + spacer
        total = match[0][: max(len(match[0]) - gap, 0)] + match[1][gap:]
        if len(total) and total.max() > best[2]:
            at = int(total.argmax())
            best = (at, at + gap, int(total[at]))
    return best


def benchmark_classes(
    score: MaskedBases, bundle: Bundle, *, n_genes: int = 100, seed: int = 0
) -> list[Metric]:
    """The figures of `class_metrics` from `n_genes` random genes."""
    return class_metrics(class_table(score, bundle, n_genes=n_genes, seed=seed), seed=seed)


def class_table(
    score: MaskedBases, bundle: Bundle, *, n_genes: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Every substitution of a few places of random genes with a reading frame.

    Columns: gene_id, place (start, stop, body, box, flank), codon_position (0 outside of codons),
    ref, alt (on the sense strand), is_synonymous, is_nonsense (None outside of codons), llr.
    Bodies are `INSIDE_BP` on from the start and up to the end; boxes are there for first genes of
    operons. Every 32nd base of a window is hidden at once.
    """
    genes = bundle.genes
    size = genes["end"] - genes["start"]
    is_usable = (genes["biotype"] == "protein_coding") & (size % 3 == 0) & (size >= 2 * INSIDE_BP)
    rows = np.flatnonzero(is_usable.to_numpy())
    picked = np.random.default_rng(seed).permutation(rows)[:n_genes]
    first = first_of_operon(bundle.genome, bundle.genes, bundle.splits).to_numpy()
    contigs = [(contig.name, 0, contig.length) for contig in bundle.genome.contigs]
    counts = fit_count_model(bundle.genome, contigs, *CONTEXTS[-1])
    tables = [_gene(score, counts, bundle, int(row), bool(first[row])) for row in np.sort(picked)]
    kept = [table for table in tables if len(table)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=COLUMNS)


COLUMNS = [
    "gene_id",
    "place",
    "codon_position",
    "ref",
    "alt",
    "is_synonymous",
    "is_nonsense",
    "llr",
    "llr_counts",
]


def _gene(
    score: MaskedBases, counts: CountModel, bundle: Bundle, row: int, is_first: bool
) -> pd.DataFrame:
    gene = bundle.genes.iloc[row]
    first, last = int(gene.start), int(gene.end)
    length, found = last - first, list[tuple]()
    for anchor, is_start in ((0, True), (length, False)):
        low = anchor - WINDOW_BP // 2
        span = (first + low, first + low + WINDOW_BP)
        if gene.strand == "-":
            span = (last - low - WINDOW_BP, last - low)
        tokens = bundle.genome.fetch(gene.contig, *span, gene.strand)
        counted = np.log(counts.probabilities(tokens))
        wanted = _wanted(tokens, -low, length, is_start, is_first)
        places = np.array(sorted(wanted), np.int64)
        turns = [places[places % EVERY_BP == turn] for turn in range(EVERY_BP)]
        hidden = [Hidden(tokens, some) for some in turns if len(some)]
        for one, told in zip(hidden, substitutions(score, hidden), strict=True):
            ratio = told.mean(0)
            for i, place in enumerate(one.places.tolist()):
                ratios = np.stack([ratio[i], counted[place] - counted[place][tokens[place] % 4]])
                found += _changes(gene.gene_id, tokens, place, -low, wanted[place], ratios)
    return pd.DataFrame(found, columns=COLUMNS)


def _wanted(
    tokens: UInt8[np.ndarray, " window"], zero: int, length: int, is_start: bool, is_first: bool
) -> dict[int, str]:
    """Places of a window to their class; the gene's first base is at `zero`."""
    if not is_start:
        last = zero + length
        body = {place: "body" for place in range(last - INSIDE_BP, last - 3)}
        return body | dict.fromkeys(range(last - 3, last), "stop")
    wanted = {place: "body" for place in range(zero + 3, zero + INSIDE_BP)}
    wanted |= dict.fromkeys(range(zero, zero + 3), "start")
    if is_first:
        first = zero - REACH_BP
        box_35, box_10, _ = find_promoter(tokens[first:zero])
        low, high = first + box_35 - FLANK_BP, min(first + box_10 + 6 + FLANK_BP, zero)
        wanted |= dict.fromkeys(range(low, high), "flank")
        for box in (box_35, box_10):
            wanted |= dict.fromkeys(range(first + box, first + box + 6), "box")
    return wanted


def _changes(
    gene_id: str,
    tokens: UInt8[np.ndarray, " window"],
    place: int,
    zero: int,
    kind: str,
    ratios: Float[np.ndarray, "2 4"],
) -> list[tuple]:
    """The three substitutions of one place."""
    if tokens[place] > 3:
        return []
    is_coding = kind in ("start", "stop", "body")
    phase = (place - zero) % 3
    codon = tokens[place - phase : place - phase + 3]
    rows = []
    for alt in range(4):
        if alt == tokens[place]:
            continue
        same = is_stop = None
        if is_coding:
            if (codon > 3).any():
                continue
            changed = codon.copy()
            changed[phase] = alt
            before, after = ("".join("ACGT"[b] for b in c) for c in (codon, changed))
            same = translate(before) == translate(after)
            is_stop = not same and translate(after) == "*"
        position = phase + 1 if is_coding else 0
        ref = "ACGT"[tokens[place]]
        told = ratios[:, alt].tolist()
        rows.append((gene_id, kind, position, ref, "ACGT"[alt], same, is_stop, *told))
    return rows


def class_metrics(table: pd.DataFrame, *, seed: int = 0) -> list[Metric]:
    """AUROC of each class against its controls, with intervals over genes.

    `auroc_start`, `auroc_stop`, `auroc_start_stop`, `auroc_nonsense` (against coding changes),
    `auroc_codon_12_3`, `auroc_nonsynonymous`, `auroc_boxes`; all against changes of the same two
    bases. Of "genesplice", and of "count_two_sided" where the table has `llr_counts`.
    """
    found = _class_metrics(table, seed)
    if "llr_counts" in table:
        counted = _class_metrics(table.assign(llr=table["llr_counts"]), seed)
        found += [metric._replace(model="count_two_sided") for metric in counted]
    return found


def _class_metrics(table: pd.DataFrame, seed: int) -> list[Metric]:
    body = table[table["place"] == "body"]
    metrics = []
    lost = (table["place"] == "stop") & (table["is_synonymous"] == False)  # noqa: E712
    is_start = table["place"] == "start"
    for name, cases in (
        ("auroc_start", is_start), ("auroc_stop", lost), ("auroc_start_stop", is_start | lost),
    ):  # fmt: skip
        metrics += _matched(name, table[cases], body, seed)
    is_nonsense = body["is_nonsense"] == True  # noqa: E712
    metrics += _matched("auroc_nonsense", body[is_nonsense], body[~is_nonsense], seed)
    is_12, is_changed = body["codon_position"] < 3, body["is_synonymous"] == False  # noqa: E712
    metrics += _matched("auroc_codon_12_3", body[is_12], body[~is_12], seed)
    metrics += _matched("auroc_nonsynonymous", body[is_changed], body[~is_changed], seed)
    boxes = table[table["place"].isin(["box", "flank"])]
    is_box = boxes["place"] == "box"
    return metrics + _matched("auroc_boxes", boxes[is_box], boxes[~is_box], seed)


def _matched(name: str, cases: pd.DataFrame, body: pd.DataFrame, seed: int) -> list[Metric]:
    """Ratios ranked among controls of the same two bases; then cases against controls."""
    both = pd.concat([cases.assign(is_case=True), body.assign(is_case=False)])
    changes = set(zip(cases["ref"], cases["alt"], strict=True))
    is_shared = [pair in changes for pair in zip(both["ref"], both["alt"], strict=True)]
    both = both[is_shared]
    if both.empty:
        return []
    controls = both[~both["is_case"]].groupby(["ref", "alt"])["llr"]
    ranked = np.full(len(both), np.nan)
    groups = both.reset_index(drop=True).groupby(["ref", "alt"])
    sorted_controls = {key: np.sort(part.to_numpy()) for key, part in controls}
    for key, part in groups:
        among = sorted_controls.get(key)
        if among is None:
            continue
        low, high = (np.searchsorted(among, part["llr"], side) for side in ("left", "right"))
        ranked[part.index] = (low + high) / 2 / len(among)
    is_there = np.isfinite(ranked)
    return auroc_metric(
        name,
        both["is_case"].to_numpy(bool)[is_there],
        -ranked[is_there],
        both["gene_id"].to_numpy(str)[is_there],
        seed=seed,
    )


def box_levels(explainer: Explainer, *, n_genes: int = 60, seed: int = 0) -> list[Metric]:
    """Boxes against flanks through the predicted level.

    `auroc_boxes_level_size` by the size of its change, `auroc_boxes_level` by its loss; intervals
    over genes.
    """
    bundle = explainer.bundle
    measured = set(bundle.expression.var_names)
    first = first_of_operon(bundle.genome, bundle.genes, bundle.splits)
    usable = [gene_id for gene_id in first.index[first] if gene_id in measured]
    picked = np.random.default_rng(seed).permutation(np.array(usable))[:n_genes]
    is_box, change, unit = [], [], []
    for gene_id in picked.tolist():
        window = explainer.window(gene_id)
        upstream = window.tokens[0, window.start - REACH_BP : window.start].numpy()
        boxes = [REACH_BP - start for start in find_promoter(upstream)[:2]]
        high = max(boxes[1] - 6 - FLANK_BP, 0)
        found = mutate(explainer, gene_id, upstream_bp=boxes[0] + FLANK_BP, downstream_bp=-high)
        for i, effects in enumerate(found.effects):
            before = boxes[0] + FLANK_BP - i
            inside = any(box - 6 < before <= box for box in boxes)
            for alt in range(4):
                if alt != found.tokens[i] and np.isfinite(effects[alt]):
                    is_box.append(inside)
                    change.append(float(effects[alt]))
                    unit.append(gene_id)
    value, by_gene = np.array(change, float), np.array(unit, str)
    metrics = []
    for name, scored in (("auroc_boxes_level_size", np.abs(value)), ("auroc_boxes_level", -value)):
        metrics += auroc_metric(name, np.array(is_box, bool), scored, by_gene, seed=seed)
    return metrics
