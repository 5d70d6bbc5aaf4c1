"""Substitutions whose effect is known, and whether the scores find it.

None of the classes uses the model: start and stop codons against coding changes (a change that
leaves a stop a stop is no case); changes to a stop within a frame, codon positions 1
and 2 against 3, non-synonymous against synonymous (the gene's genetic code); the -10 and -35
hexamers of an operon's first gene against what lies around and between them. High means that the
model finds the change unlikely. Cases are ranked among controls of the same two bases: what depends
on these alone gives 0.5. Below 0.5: a model that knows the frame and not where genes end finds a
stop codon unlikely. `count_two_sided` is what counts of neighbouring bases give, `column` the log
ratio of counts + 1/4 in the alignment column.

Of a list of genes, such as essential ones: whether premature stops are less likely in these.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped, UInt8

from genesplice.baselines.features import CONTEXTS, CountModel, fit_count_model
from genesplice.data.bundle import Bundle, Progress
from genesplice.data.coding import UNKNOWN, coding_positions, coding_sequence, codon_meanings
from genesplice.data.features import find_promoter
from genesplice.data.genome import Genome, decode
from genesplice.data.relatives import column_log_counts
from genesplice.data.splits import first_of_operon
from genesplice.data.tables import numbered_lines
from genesplice.errors import InputError, require
from genesplice.evaluate.bootstrap import MOST_UNITS, N_BOOTSTRAP, make_draws, to_metric
from genesplice.predict.gene_output import Explainer
from genesplice.results import Metric
from genesplice.variants.annotate import Models
from genesplice.variants.levels import LevelModel, Locus, Window
from genesplice.variants.likelihood import (
    BASES,
    STRIDE_BP,
    WINDOW_BP,
    Hidden,
    MaskedBases,
    Reading,
    substitutions,
)

UPSTREAM_BP = 250
FLANK_BP = 8
INSIDE_BP = 300
LEVEL_WINDOW_BP = 4096
MOST_UNKNOWN, FEWEST_GENES = 0.05, 10
COLUMNS = [
    "gene_id", "site", "codon_position", "ref", "alt", "is_synonymous", "is_nonsense", "llr",
    "llr_counts", "llr_column",
]  # fmt: skip


SCORES = {"genesplice": "llr", "count_two_sided": "llr_counts", "column": "llr_column"}


def auroc_metric(
    name: str,
    is_case: Bool[np.ndarray, " rows"],
    value: Float[np.ndarray, " rows"],
    unit: Shaped[np.ndarray, " rows"],
    *,
    model: str = "genesplice",
    seed: int = 0,
) -> list[Metric]:
    """AUROC with its interval over units; none where a kind is missing. `n` counts the cases.

    Of a resample it follows from how often cases of one unit are above the others of another.
    """
    if is_case.all() or not is_case.any():
        return []
    _, of_row = np.unique(np.unique(unit, return_inverse=True)[1] % MOST_UNITS, return_inverse=True)
    count = int(of_row.max()) + 1
    # How often a case of a unit (row) is above another row of a unit (column).
    wins = np.zeros((count, count))
    of_case, cases = of_row[is_case], value[is_case]
    for column in range(count):
        others = np.sort(value[~is_case & (of_row == column)])
        below, up_to = (np.searchsorted(others, cases, side) for side in ("left", "right"))
        wins[:, column] = np.bincount(of_case, (below + up_to) / 2, count)
    draws = make_draws(count, N_BOOTSTRAP, seed)
    kinds = (np.bincount(of_row[rows], minlength=count) for rows in (is_case, ~is_case))
    n_pairs = np.prod([draws @ each for each in kinds], axis=0)
    values = np.where(n_pairs > 0, ((draws @ wins) * draws).sum(1) / np.maximum(n_pairs, 1), np.nan)
    found: dict[str, Any] = {"n_blocks": count, "limits": (0.0, 1.0), "seed": seed}
    return [to_metric(name, values, int(is_case.sum()), model=model, split="genome", **found)]


def class_table(
    score: MaskedBases,
    bundle: Bundle,
    *,
    n_genes: int = 100,
    among: Collection[str] | None = None,
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> pd.DataFrame:
    """Every substitution at chosen sites of random genes with a reading frame, or of some `among`.

    Columns: gene_id, site (start, stop, body, hexamer, flank), codon_position (0 outside of
    codons), ref, alt (on the sense strand), is_synonymous, is_nonsense (None outside of codons),
    llr, llr_counts, llr_column (0 everywhere without relatives). Bodies are `INSIDE_BP` on from the
    start and up to the end; hexamers those of first genes of operons. Every 32nd base of a window
    is hidden at once.
    """
    genes = bundle.genes
    size = genes["exons"].map(lambda edges: sum(edges[1::2]) - sum(edges[::2]))
    is_usable = (size >= 2 * INSIDE_BP) & (genes["genetic_code"] != UNKNOWN)
    is_usable &= True if among is None else genes["gene_id"].isin(among)
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(is_usable.to_numpy()))[:n_genes]
    is_first = first_of_operon(bundle.genome, genes, bundle.splits).to_numpy()
    counts, found = neighbour_counts(bundle.genome), list[tuple]()
    for number, row in enumerate(np.sort(rows).tolist()):
        if number % 10 == 0:
            progress(f"variants: known classes, gene {number + 1} of {len(rows)}")
        gene, first = genes.iloc[row], bool(is_first[row])
        found += _gene_changes(score, counts, bundle.genome, gene, first)
    return pd.DataFrame(found, columns=COLUMNS)


def _gene_changes(
    score: MaskedBases, counts: CountModel, genome: Genome, gene: Any, is_first: bool
) -> Iterator[tuple]:
    """Rows of the table, from windows around the start and the end of the coding sequence."""
    read, along = coding_sequence(genome, gene), coding_positions(gene)
    first, sign = int(along[0]), -1 if gene.strand == "-" else 1
    along, tss = (along - first) * sign, (int(gene.tss) - first) * sign
    meanings = codon_meanings(int(gene.genetic_code))
    for numbers in (range(INSIDE_BP), range(len(read) - INSIDE_BP, len(read))):
        low = (0 if numbers[0] == 0 else int(along[-1]) + 1) - WINDOW_BP // 2
        span = (first + low, first + low + WINDOW_BP)
        if sign < 0:
            span = (first + 1 - low - WINDOW_BP, first + 1 - low)
        tokens = genome.fetch(gene.contig, *span, gene.strand)
        columns = genome.fetch_columns(gene.contig, *span, gene.strand)
        here = {int(along[n]) - low: n for n in numbers if 0 <= along[n] - low < WINDOW_BP}
        sites = {at: "start" if n < 3 else "stop" if n >= len(read) - 3 else "body"
                 for at, n in here.items()}  # fmt: skip
        if is_first and numbers[0] == 0 and tss - low >= UPSTREAM_BP:
            sites = _promoter_sites(tokens, tss - low) | sites
        positions = np.array(sorted(sites), np.int64)
        turns = (positions[positions % STRIDE_BP == turn] for turn in range(STRIDE_BP))
        rows = [Hidden(tokens, own, columns) for own in turns if len(own)]
        logs = base_scores(score, counts, rows)
        for at in positions.tolist():
            number = here.get(at)
            codon = None if number is None else read[number - number % 3 :][:3]
            for alt, *codons in base_changes(int(tokens[at]), codon, (number or 0) % 3, meanings):
                ratios = (each[at, alt] - each[at, tokens[at]] for each in logs)
                yield gene.gene_id, sites[at], *codons, *ratios


def neighbour_counts(genome: Genome) -> CountModel:
    """What `count_two_sided` knows: the bases on both sides of each base of the genome."""
    contigs = [(contig.name, 0, contig.length) for contig in genome.contigs]
    return fit_count_model(genome, contigs, *CONTEXTS[-1])


def base_scores(
    score: MaskedBases, counts: CountModel, rows: Sequence[Hidden]
) -> tuple[Float[np.ndarray, "window _"], ...]:
    """Log of each base by every score of `SCORES`, up to a constant a position.

    All rows are of one window; by the model its hidden positions alone.
    """
    tokens, _, columns = rows[0]
    llr = np.full((len(tokens), 4), np.nan)
    for row, change in zip(rows, substitutions(score, rows), strict=True):
        llr[row.positions] = change.mean(0)
    return llr, np.log(counts.probabilities(tokens)), column_log_counts(columns)


def _promoter_sites(tokens: UInt8[np.ndarray, " window"], zero: int) -> dict[int, str]:
    """Positions of both hexamers before `zero`, and of their flanks."""
    first = zero - UPSTREAM_BP
    hits = find_promoter(tokens[first:zero])
    if not hits:
        return {}
    low, high = hits[0].start - FLANK_BP, min(hits[-1].end + FLANK_BP, UPSTREAM_BP)
    sites = dict.fromkeys(range(first + low, first + high), "flank")
    for hit in hits:
        sites |= dict.fromkeys(range(first + hit.start, first + hit.end), "hexamer")
    return sites


def base_changes(
    base: int, codon: UInt8[np.ndarray, "3"] | None, phase: int, amino_acids: Mapping[str, str]
) -> Iterator[tuple]:
    """The three substitutions of a base: alt, codon position, letters, synonymous, nonsense."""
    if base > 3 or (codon is not None and (codon > 3).any()):
        return
    for alt in range(4):
        if alt == base:
            continue
        letters = BASES[base], BASES[alt]
        if codon is None:
            yield alt, 0, *letters, None, None
            continue
        old = decode(codon)
        before, after = (amino_acids[old[:phase] + one + old[phase + 1 :]] for one in letters)
        yield alt, phase + 1, *letters, before == after, before != after == "*"


def class_metrics(
    table: pd.DataFrame, *, seed: int = 0, progress: Progress = lambda text: None
) -> list[Metric]:
    """AUROC of each class against its controls, with intervals over genes.

    `auroc_start`, `auroc_stop`, `auroc_start_stop`, `auroc_nonsense` (against coding changes),
    `auroc_codon_12_3`, `auroc_nonsynonymous`, `auroc_hexamers`; all against changes of the same two
    bases. Of "genesplice", and of "count_two_sided" and "column" where the table has their scores.
    """
    site, is_body = table["site"], table["site"] == "body"
    is_start, is_stop = site == "start", (site == "stop") & table["is_synonymous"].eq(False)
    is_nonsense, is_12 = table["is_nonsense"].eq(True), table["codon_position"] < 3
    is_changed = table["is_synonymous"].eq(False)
    classes = {
        "start": (is_start, is_body),
        "stop": (is_stop, is_body),
        "start_stop": (is_start | is_stop, is_body),
        "nonsense": (is_body & is_nonsense, is_body & ~is_nonsense),
        "codon_12_3": (is_body & is_12, is_body & ~is_12),
        "nonsynonymous": (is_body & is_changed, is_body & ~is_changed),
        "hexamers": (site == "hexamer", site == "flank"),
    }
    for name, (cases, controls) in classes.items():
        progress(f"variants: {name}: {cases.sum()} substitutions, {controls.sum()} controls")
    return [
        metric
        for model in known_scores(table)
        for name, (cases, controls) in classes.items()
        for metric in matched_auroc(f"auroc_{name}", table[cases], table[controls], model, seed)
    ]


def known_scores(table: pd.DataFrame) -> list[str]:
    """Those of `SCORES` that say anything."""
    return [name for name, column in SCORES.items() if column in table and table[column].any()]


def matched_auroc(
    name: str,
    cases: pd.DataFrame,
    controls: pd.DataFrame,
    model: str,
    seed: int,
    unit: str = "gene_id",
) -> list[Metric]:
    """Ratios by a score, ranked among controls of the same two bases; cases against controls.

    The interval is over what the column `unit` numbers.
    """
    column = SCORES[model]
    both = pd.concat([cases.assign(is_case=True), controls.assign(is_case=False)])
    ranked = []
    for _, part in both.groupby(["ref", "alt"]):
        among = np.sort(part.loc[~part["is_case"], column].to_numpy())
        if len(among) and part["is_case"].any():
            low, high = (np.searchsorted(among, part[column], side) for side in ("left", "right"))
            ranked.append(part.assign(rank=(low + high) / 2 / len(among)))
    if not ranked:
        return []
    table = pd.concat(ranked)
    columns = table["is_case"].to_numpy(bool), -table["rank"].to_numpy()
    return auroc_metric(name, *columns, table[unit].to_numpy(str), model=model, seed=seed)


def read_gene_list(path: Path, bundle: Bundle) -> list[str]:
    """Ids of the genes in the first column of a text file, by id, name or synonym; others are lost.

    Raises
    ------
    InputError
        If more than a twentieth of the names are unknown, or there are fewer than ten genes.
    """
    rows = [(line, text.split("\t")[0].strip()) for line, text in numbered_lines(path)]
    rows = [(line, name) for line, name in rows if name and not name.startswith("#")]
    known = dict(zip(bundle.aliases["alias"], bundle.aliases["gene_id"], strict=True))
    lost = [(line, name) for line, name in rows if name.lower() not in known]
    if len(lost) > MOST_UNKNOWN * len(rows):
        line, name = lost[0]
        found = f"gene {name!r}, and {len(lost)} of {len(rows)} that the data lack"
        raise InputError(found, "at most a twentieth", path=path, line=line)
    ids = list(dict.fromkeys(known[name.lower()] for _, name in rows if name.lower() in known))
    require(len(ids) >= FEWEST_GENES, f"{len(ids)} genes", f"at least {FEWEST_GENES}", path)
    return ids


def listed_metrics(
    table: pd.DataFrame, listed: Collection[str], block_of: pd.Series, *, seed: int = 0
) -> list[Metric]:
    """`auroc_nonsense_listed`: whether premature stops are less likely in listed genes.

    A gene counts by the mean ratio of its premature stops, by every score of `SCORES` that says
    anything. The interval is over blocks of the genome, which are given by gene.
    """
    stops = table[(table["site"] == "body") & table["is_nonsense"].eq(True)]
    means = stops.groupby("gene_id")[list(SCORES.values())].mean()
    is_listed, block = means.index.isin(list(listed)), block_of[means.index].to_numpy()
    metrics = []
    for model in known_scores(means):
        harm = -means[SCORES[model]].to_numpy()
        metrics += auroc_metric(
            "auroc_nonsense_listed", is_listed, harm, block, model=model, seed=seed
        )
    return metrics


def hexamer_levels(
    model: LevelModel, bundle: Bundle, *, n_genes: int = 60, seed: int = 0
) -> list[Metric]:
    """Hexamers of operons' first genes against flanks by the predicted level, units are genes.

    `auroc_hexamers_level_size` by the size of its change, `auroc_hexamers_level` by its loss.
    """
    explainer = Explainer(
        model.model, bundle, window_bp=LEVEL_WINDOW_BP, vectors=model.gene_features
    )
    is_first = first_of_operon(bundle.genome, bundle.genes, bundle.splits)
    usable = np.array(is_first.index[is_first & is_first.index.isin(bundle.expression.var_names)])
    picked = np.random.default_rng(seed).permutation(usable)[:n_genes]
    parts = []
    for gene_id in picked.tolist():
        window = explainer.window(gene_id)
        tokens, phase = window.tokens[0].numpy(), window.phase[0].numpy()
        sites = _promoter_sites(tokens, window.start)
        edits = [(at, alt) for at in sorted(sites) for alt in range(4)
                 if tokens[at] < 4 and alt != tokens[at]]  # fmt: skip
        if not edits:
            continue
        windows = [Window(tokens, phase, window.columns[0].numpy())]
        for at, alt in edits:
            changed = np.concatenate([tokens[:at], np.array([alt], np.uint8), tokens[at + 1 :]])
            windows.append(windows[0]._replace(tokens=changed, like=0, changed=(at, at + 1)))
        place = window.start, window.end, window.exons.tolist()
        loci = [Locus(window.row, i, *place) for i in range(len(windows))]
        level = model(windows, loci)[:, 0]
        part = pd.DataFrame({"gene_id": gene_id, "change": level[1:] - level[0]})
        parts.append(part.assign(is_hexamer=[sites[at] == "hexamer" for at, _ in edits]))
    if not parts:
        return []
    table = pd.concat(parts)
    change, unit = table["change"].to_numpy(), table["gene_id"].to_numpy(str)
    scores = {"auroc_hexamers_level_size": np.abs(change), "auroc_hexamers_level": -change}
    return [
        metric
        for name, value in scores.items()
        for metric in auroc_metric(name, table["is_hexamer"].to_numpy(), value, unit, seed=seed)
    ]


def class_benchmarks(
    models: Models,
    bundle: Bundle,
    *,
    n_genes: int = 100,
    listed: Collection[str] = (),
    relatives: Reading = "all",
    seed: int = 0,
    progress: Progress = lambda text: None,
) -> list[Metric]:
    """AUROCs of known classes: zero-shot, and of hexamers by the first expression model.

    With ids of `listed` genes also whether premature stops are less likely in these. `relatives`
    is what the masked-base model reads of them (see `MaskedBases`).
    """
    metrics = []
    if models.masked is not None:
        masked = MaskedBases(models.masked, relatives)
        table = class_table(masked, bundle, n_genes=n_genes, seed=seed, progress=progress)
        metrics += class_metrics(table, seed=seed, progress=progress)
        if listed:
            progress(f"variants: premature stops in {n_genes} listed genes, and in as many others")
            others = set(bundle.genes["gene_id"]).difference(listed)
            tables = (
                class_table(masked, bundle, n_genes=n_genes, among=among, seed=seed)
                for among in (listed, others)
            )
            metrics += listed_metrics(pd.concat(tables), listed, bundle.block_of, seed=seed)
    if models.levels:
        progress(f"variants: level of changed hexamers, {n_genes} genes")
        model = LevelModel(models.levels[0], bundle)
        metrics += hexamer_levels(model, bundle, n_genes=n_genes, seed=seed)
    return metrics
