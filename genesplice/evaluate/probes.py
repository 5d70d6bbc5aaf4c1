"""Linear probes: what a linear map of frozen features says about the annotation.

A multinomial logistic regression per task, on features that have mean 0 and variance 1 over the
training sites, labels weighted to equal shares. The penalty is the one that predicts left-out
*blocks* of the training folds best; held-out sites are looked at once, at the end.

=================  =================================================================================
`probe_TASK`       balanced accuracy on the held-out fold: the mean over the labels of the share of
                   their sites that are predicted right; 1 / number of labels by guessing
`probe_mean`       its mean over the tasks
`..._difference`   the same, minus that of a reference model on the same sites
=================  =================================================================================

Intervals are 95 % intervals over resampled genome blocks of the held-out fold, the same resamples
for all tasks and models. A site is a base that is read on one strand; its input is sequence only:

=============  =====================================================================================
`coding`       a base of a reading frame, or of no gene; read on either strand
`strand`       a coding base, read in its gene's sense or against it
`frame`        codon position (1 to 3) of a coding base, read in sense
`start_codon`  first base of an annotated start codon, or of another ATG, GTG or TTG: half of those
               are codons inside of genes, in frame, half lie anywhere on either strand. Both
               labels have the same share of ATG, GTG and TTG.
`promoter`     a base 20 to 100 bp before an operon's first gene, in no gene, read in that gene's
               sense; or (half and half) a coding base or one of no gene and none of the 300 bp
               before such a gene, read on either strand
`operon`       first coding base of an operon's first gene, or of another; in sense
`rna`          a base of a tRNA or rRNA gene, or of a protein's; in sense. (Copies of rRNA operons
               are all but identical, and lie in all folds.)
`replichore`   the strand that is read is the leading or the lagging one: leading is + from the
               origin of replication to the terminus, - from there on
=============  =====================================================================================

Source: probing, Alain & Bengio 2016; balanced accuracy, Brodersen et al. 2010; tasks, the
Nucleotide Transformer (Dalla-Torre et al. 2024), as far as the annotation of a bacterium gives
them; composition of the leading strand, Lobry 1996.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64
from threadpoolctl import threadpool_limits

from genesplice.data.bundle import Bundle
from genesplice.data.coding import exons_read
from genesplice.data.features import (
    PROMOTER_DISTANCE_BP,
    RNA_BIOTYPES,
    codon_codes,
    gene_bases,
    region_masks,
    standardise,
    upstream_mask,
)
from genesplice.data.genome import Contig
from genesplice.data.splits import first_of_operon
from genesplice.data.windows import annotation_track
from genesplice.errors import require
from genesplice.evaluate import bootstrap
from genesplice.evaluate.bootstrap import N_BOOTSTRAP, make_draws, ratio_draws, to_metric
from genesplice.results import Metric

TASKS = {
    "coding": ("coding", "intergenic"),
    "strand": ("sense", "antisense"),
    "frame": ("1", "2", "3"),
    "start_codon": ("start", "other"),
    "promoter": ("promoter", "other"),
    "operon": ("first", "inner"),
    "rna": ("rna", "protein"),
    "replichore": ("leading", "lagging"),
}
"""Labels of each task."""
SITE_COLUMNS = ("task", "label", "contig", "position", "strand", "block", "fold")
REPLICATION = {"NC_000913.3": (3_925_743, 1_590_763)}
"""First base of the origin of replication and middle of the terminus by contig, 0-based.

Source: RefSeq NC_000913.3 (E. coli K-12 MG1655): `origin_of_replication` oriC, 3,925,744 to
3,925,975; `recombination_feature` dif, 1,590,750 to 1,590,777.
"""
NO_PROMOTER_BP, EDGE_BP = 300, 128
START_CODONS = (14, 46, 62)
"""ATG, GTG and TTG as numbers of base 4."""
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-9, 0, 2))
"""scikit-learn's C (inverse penalty, against the summed loss): 10^-4.5 to 10^-0.5."""
N_SPLITS = 4

Labels = Int64[np.ndarray, " sites"]
Sites = Int64[np.ndarray, " _"]
"""Twice the index into `Genome.tokens`, plus 1 where the - strand is read."""


def make_probe_sites(
    bundle: Bundle, generator: np.random.Generator, *, n_sites: int = 1500
) -> pd.DataFrame:
    """Draw labelled sites for each of `TASKS`: `SITE_COLUMNS`, in the order of the tasks.

    No site is nearer to an end of its genome block than `EDGE_BP`.

    `position` is 0-based, `strand` ("+", "-") is the one to be read, `block` and `fold` are those
    that the base lies in. A task is left out where a label has no site, and `replichore` where
    `REPLICATION` does not know the longest contig.

    Parameters
    ----------
    n_sites
        Per task, in equal parts for each label (`frame`, `replichore`: as they fall); where the
        genome has fewer of a label, fewer.
    """
    genome = bundle.genome
    block_of = np.full(genome.length, -1, np.int64)
    for block in bundle.blocks.itertuples():
        contig = genome.contig(block.contig)
        inner = np.arange(block.start + EDGE_BP, block.end - EDGE_BP) % contig.length
        block_of[contig.offset + inner] = block.block
    drawn = _Draw(bundle, generator, block_of >= 0).all_tasks(n_sites)
    longest = max(genome.contigs, key=lambda contig: contig.length)
    if longest.name in REPLICATION:
        sites = np.concatenate([drawn["coding", "coding"], drawn["coding", "intergenic"]])
        leading, lagging = _replichores(longest, sites)
        drawn["replichore", "leading"], drawn["replichore", "lagging"] = leading, lagging

    def is_there(key: tuple[str, str]) -> bool:
        return len(drawn.get(key, ())) > 0

    pairs = [[(task, label) for label in labels] for task, labels in TASKS.items()]
    kept = [key for keys in pairs if all(map(is_there, keys)) for key in keys]
    if not kept:
        return pd.DataFrame(columns=list(SITE_COLUMNS))
    names = np.repeat(np.array(kept, object), [len(drawn[key]) for key in kept], axis=0)
    sites = np.concatenate([drawn[key] for key in kept])
    offsets = np.array([contig.offset for contig in genome.contigs])
    at = np.searchsorted(offsets, sites // 2, side="right") - 1
    block = block_of[sites // 2]
    on = np.array([contig.name for contig in genome.contigs], object)[at]
    strand = np.where(sites % 2 == 0, "+", "-")
    fold = bundle.blocks.set_index("block")["fold"].loc[block].to_numpy()
    columns = (*names.T, on, sites // 2 - offsets[at], strand, block, fold)
    return pd.DataFrame(dict(zip(SITE_COLUMNS, columns, strict=True)))


class _Draw:
    """Draws sites of every kind among the bases that are allowed."""

    def __init__(
        self, bundle: Bundle, generator: np.random.Generator, is_allowed: np.ndarray
    ) -> None:
        self.bundle, self.generator, self.is_allowed = bundle, generator, is_allowed
        self.track = annotation_track(bundle.genome, bundle.genes)
        regions = region_masks(bundle, self.track)
        self.coding, self.intergenic = regions["coding"], regions["intergenic"] & is_allowed
        self.is_first = first_of_operon(bundle.genome, bundle.genes, bundle.splits).to_numpy()

    def all_tasks(self, n_sites: int) -> dict[tuple[str, str], Sites]:
        """Sites by task and label, without `replichore`."""
        half, quarter, genome = n_sites // 2, n_sites // 4, self.bundle.genome
        coding = np.flatnonzero(self.coding & self.is_allowed)
        sense = self._pick(2 * coding + (self.track[0, coding] == 0), n_sites + half)
        sense, against = sense[: len(sense) * 2 // 3], sense[len(sense) * 2 // 3 :] ^ 1
        intergenic = self._either(self._pick(np.flatnonzero(self.intergenic), half))
        either = np.concatenate([sense[:quarter], against[:quarter]])
        first = self.bundle.genes[self.is_first]
        before_first = upstream_mask(genome, first, 1, NO_PROMOTER_BP).any(axis=0)
        elsewhere = np.flatnonzero(self.intergenic & ~before_first)
        elsewhere = self._either(self._pick(elsewhere, quarter))
        promoter = upstream_mask(genome, first, *PROMOTER_DISTANCE_BP) & self.intergenic
        genes = {is_first: self._pick(self._starts(is_first), half) for is_first in (True, False)}
        start, other = self._start_codons(np.concatenate(list(genes.values())), half)
        frame = self.track[sense % 2, sense // 2]
        return {
            ("coding", "coding"): either,
            ("coding", "intergenic"): intergenic,
            ("strand", "sense"): sense[:half],
            ("strand", "antisense"): against[:half],
            **{("frame", str(phase)): sense[frame == phase] for phase in (1, 2, 3)},
            ("start_codon", "start"): start,
            ("start_codon", "other"): other,
            ("promoter", "promoter"): self._pick(_directed(promoter), half),
            ("promoter", "other"): np.concatenate([elsewhere, self._pick(either, quarter)]),
            ("operon", "first"): genes[True],
            ("operon", "inner"): genes[False],
            ("rna", "rna"): self._rna(half),
            ("rna", "protein"): sense[:half],
        }

    def _pick(self, candidates: Sites, count: int) -> Sites:
        """Up to `count` of them, in random order."""
        return self.generator.permutation(candidates)[:count]

    def _either(self, positions: Sites) -> Sites:
        return 2 * positions + self.generator.integers(0, 2, len(positions))

    def _starts(self, is_first: bool) -> Sites:
        """First coding bases of protein genes, read in sense."""
        genes = self.bundle.genes[self.is_first == is_first]
        genes = genes[genes["biotype"] == "protein_coding"]
        contigs = {one.name: (one.offset, one.length) for one in self.bundle.genome.contigs}
        offset, length = np.array([contigs[c] for c in genes["contig"]], np.int64).reshape(-1, 2).T
        is_minus = (genes["strand"] == "-").to_numpy()
        edges = [exons_read(gene)[0] for gene in genes.itertuples()]
        first = np.array(edges, np.int64).reshape(-1, 2)
        positions = offset + np.where(is_minus, first[:, 1] - 1, first[:, 0]) % length
        sites = 2 * positions + is_minus
        return np.unique(sites[self.is_allowed[positions]])

    def _start_codons(self, starts: Sites, half: int) -> tuple[Sites, Sites]:
        """Those of `starts` that begin a frame with a start codon, and as many others."""
        codons = codon_codes(self.bundle.genome)
        is_start = np.isin(codons, START_CODONS) & self.is_allowed
        begins = _directed((self.track == 1) & is_start)
        annotated = np.concatenate([self._starts(True), self._starts(False)])
        true = self._pick(starts[np.isin(starts, begins)], half)
        others = []
        inside, anywhere = (np.setdiff1d(s, annotated) for s in (begins, _directed(is_start)))
        for codon in START_CODONS:
            count = int((codons[true % 2, true // 2] == codon).sum())
            internal = inside[codons[inside % 2, inside // 2] == codon]
            internal = self._pick(internal, count // 2)
            rest = anywhere[codons[anywhere % 2, anywhere // 2] == codon]
            rest = self._pick(np.setdiff1d(rest, internal), count - len(internal))
            others += [internal, rest]
        return true, np.concatenate(others)

    def _rna(self, count: int) -> Sites:
        """Bases of tRNA and rRNA genes, as many of each gene where it is long enough."""
        genes = self.bundle.genes[self.bundle.genes["biotype"].isin(RNA_BIOTYPES)]
        sites = [np.empty(0, np.int64)]
        for gene in genes.itertuples():
            bases = gene_bases(self.bundle.genome, gene)
            bases = self._pick(bases[self.is_allowed[bases]], -(-count // len(genes)))
            sites.append(2 * bases + (gene.strand == "-"))
        return self._pick(np.unique(np.concatenate(sites)), count)


def _directed(mask: Bool[np.ndarray, "2 length"]) -> Sites:
    """Sites of a mask whose rows are the strands to read."""
    strand, position = np.nonzero(mask)
    return 2 * position + strand


def _replichores(contig: Contig, sites: Sites) -> tuple[Sites, Sites]:
    """Those that read the leading and the lagging strand, of the sites on a contig."""
    origin_bp, terminus_bp = REPLICATION[contig.name]
    position = sites // 2 - contig.offset
    sites = sites[(position >= 0) & (position < contig.length)]
    along = (sites // 2 - contig.offset - origin_bp) % contig.length
    is_leading = (along < (terminus_bp - origin_bp) % contig.length) == (sites % 2 == 0)
    return sites[is_leading], sites[~is_leading]


def probe_metrics(
    features: Mapping[str, Float[np.ndarray, "sites _"]],
    sites: pd.DataFrame,
    *,
    fold: int,
    references: Sequence[str] = (),
    seed: int = 0,
) -> list[Metric]:
    """Fit one probe per model and task outside of `fold` and score it on the sites in `fold`.

    `n` is the number of held-out sites. A task is left out where a label has no site in the fold,
    none outside of it, or the sites outside lie in one block only. No task: no metrics.

    Parameters
    ----------
    features
        By model name, one row for each row of `sites`.
    sites
        As from `make_probe_sites`: task, label, block and fold are read.
    references
        Names of models; for every other one the differences to each follow, under the model's name
        "A - reference".

    Raises
    ------
    InputError
        If there are no features, their rows are not those of `sites` or hold a value that is not
        finite, or a reference is not among them.
    """
    found = f"references {list(references)} among {sorted(features)}"
    require(features and set(references) <= set(features), found, "features of each model")
    for name, values in features.items():
        is_fine = len(values) == len(sites) and np.isfinite(values).all()
        require(is_fine, f"features {name!r}", f"{len(sites)} rows of finite numbers")
    is_held_out = (sites["fold"] == fold).to_numpy()
    label, block = sites["label"].to_numpy(), sites["block"].to_numpy()
    held_out_blocks = np.unique(block[is_held_out])
    draws = make_draws(len(held_out_blocks), N_BOOTSTRAP, seed)
    scores: dict[str, dict[str, np.ndarray]] = {name: {} for name in features}
    count: dict[str, int] = {}
    with threadpool_limits(1):
        for task in TASKS:
            rows = np.flatnonzero(sites["task"] == task)
            train, test = rows[~is_held_out[rows]], rows[is_held_out[rows]]
            labels = set(label[train])
            if len(labels) < 2 or labels != set(label[test]) or len(set(block[train])) < 2:
                continue
            count[task] = len(test)
            number = np.searchsorted(sorted(labels), label)
            where = np.searchsorted(held_out_blocks, block[test])
            for name, values in features.items():
                scaled = np.zeros(values.shape)
                scaled[rows] = standardise(values[rows].astype(float), ~is_held_out[rows])
                guess = predict_labels(scaled[train], number[train], block[train], scaled[test])
                scores[name][task] = balanced_accuracy(guess, number[test], where, draws)
    if not count:
        return []
    for by_task in scores.values():
        by_task["mean"] = np.mean(list(by_task.values()), axis=0)
    count["mean"] = sum(count.values())
    for reference in references:
        for name in [name for name in features if name not in references]:
            scores[f"{name} - {reference}"] = {
                f"{task}_difference": values - scores[reference][task]
                for task, values in scores[name].items()
            }
    metrics = []
    about: dict[str, Any] = {"n_blocks": draws.shape[1], "fold": fold, "seed": seed}
    for name, by_task in scores.items():
        for task, values in by_task.items():
            n, label = count[task.removesuffix("_difference")], f"probe_{task}"
            metrics.append(to_metric(label, values, n, model=name, limits=(-1.0, 1.0), **about))
    return metrics


def predict_labels(
    values: Float[np.ndarray, "training features"],
    label: Int64[np.ndarray, " training"],
    block: np.ndarray,
    new_values: Float[np.ndarray, "test features"],
) -> Int64[np.ndarray, " test"]:
    """Labels of `new_values`, by the strength that predicts left-out blocks best.

    Of equally good strengths the lowest counts, which is the heaviest penalty.
    """
    # Imported here: it takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    def fit(rows: np.ndarray | slice, strength: float) -> LogisticRegression:
        model = LogisticRegression(C=strength, class_weight="balanced", tol=1e-3, max_iter=2000)
        return model.fit(values[rows], label[rows])

    splitter = GroupKFold(min(N_SPLITS, len(np.unique(block))))
    splits = list(splitter.split(values, label, block))
    once, everything = np.ones((1, 1), np.int64), np.zeros(len(label), np.int64)
    accuracy = []
    for strength in STRENGTHS:
        guess = np.full(len(label), -1)
        for rest, left_out in splits:
            # What is left of a small genome may lack a label: its part counts as wrong.
            if len(np.unique(label[rest])) == len(np.unique(label)):
                guess[left_out] = fit(rest, strength).predict(values[left_out])
        accuracy.append(float(balanced_accuracy(guess, label, everything, once)[0]))
    return fit(slice(None), STRENGTHS[int(np.argmax(accuracy))]).predict(new_values)


def balanced_accuracy(
    guess: Labels, label: Labels, block: Labels, draws: bootstrap.Counts
) -> bootstrap.Draws:
    """Mean over labels of the share predicted right; NaN in a draw without one of the labels."""
    is_label = (label[:, None] == np.unique(label)).astype(np.float64)
    is_right = is_label * (guess == label)[:, None]
    return ratio_draws(is_right, is_label, block, draws).mean(axis=1)
