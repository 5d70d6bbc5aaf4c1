"""What simple methods reach on the held-out genes: the numbers that a model has to beat.

A baseline is a method for the level and one for the profile; its prediction is
level[g] + m[c] + residual[g, c] (see `genesplice.evaluate.metrics`). Everything that is fitted or
chosen (coefficients, penalties, scales, m[c]) comes from the training genes of the fold.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from threadpoolctl import threadpool_limits

from genesplice.baselines.features import (
    conservation_features,
    gene_set_features,
    kmer_codon_features,
    regulator_features,
    smoothed_kmers,
)
from genesplice.baselines.ridge import fit_ridge, ridge_on_bins
from genesplice.data.bundle import Bundle
from genesplice.data.expression import fill_missing
from genesplice.data.features import standardise
from genesplice.data.tracks import BIN_BP, CHUNK_BP, bin_blocks, bin_offsets, n_bins, scale_targets
from genesplice.errors import InputError, require
from genesplice.results import PREDICTION_COLUMNS
from genesplice.runtime import tell

RELATED = 0.04
"""Similarity (shared 14-mers, as in the leakage report) of a relative: about 80 %
identity. Below, single shared k-mers decide, and the nearest gene is sought by composition."""
BOOSTING = dict(max_iter=300, learning_rate=0.05, max_leaf_nodes=15, max_features=0.2, max_bins=63)
"""Fixed for all folds: small steps, small trees, a fifth of the features at each split."""
THREADS = 1
"""For linear algebra and boosting alike. Two are a fifth faster on an idle machine and many times
slower on a busy one (they wait for each other); more than two add up gradients in an order that
changes from run to run."""

Progress = Callable[[str], None]


class Baseline(NamedTuple):
    """What predicts the level and what the profile, and from which features.

    `level` is some of "mean", "copy", "ridge" and "gbm", averaged; `profile` is one of "mean",
    "copy" and "ridge". `features` is "" for "mean"; "copy" needs the sequence only.
    """

    level: tuple[str, ...]
    profile: str
    features: str
    about: str


BASELINES: dict[str, Baseline] = {
    "mean": Baseline(("mean",), "mean", "", "training genes' mean in each condition"),
    "nearest_copy": Baseline(("copy",), "copy", "kmer_codon",
        "expression of the most similar training gene, as it is"),
    "ridge_kmer_codon": Baseline(("ridge",), "ridge", "kmer_codon",
        "ridge on 4-mers of 300 bp upstream and codon use"),
    "gbm_kmer_codon": Baseline(("gbm",), "ridge", "kmer_codon",
        "the same features: boosting for level, ridge for profile"),
    "ridge_regulators": Baseline(("ridge",), "ridge", "regulators",
        "ridge on each gene's regulators and their signs"),
    "ridge_kegg": Baseline(("ridge",), "ridge", "kegg", "ridge on KEGG pathways"),
    "ridge_go": Baseline(("ridge",), "ridge", "go", "ridge on GO terms"),
    "ridge_all": Baseline(("ridge",), "ridge", "all", "ridge on all of these and all gene sets"),
    "gbm_all": Baseline(("gbm",), "ridge", "all",
        "all of these: boosting for level, ridge for profile"),
    "mean_gbm_ridge_all": Baseline(("gbm", "ridge"), "ridge", "all",
        "all of these: mean of boosting and ridge for level"),
    "gbm_conservation": Baseline(("gbm",), "ridge", "conservation",
        "how relatives, or a score, say a gene is conserved, alone"),
    "gbm_dna": Baseline(("gbm",), "ridge", "dna",
        "k-mers, codon use and conservation: DNA alone, no annotation"),
    "mean_gbm_ridge_everything": Baseline(("gbm", "ridge"), "ridge", "everything",
        "all of these and conservation: mean of boosting and ridge for level"),
}  # fmt: skip
"""Every baseline by name. Boosting is not fitted to profiles, which would take one model per
condition: a baseline named after it has ridge's profile on the same features."""

_FEATURES: dict[str, Callable[[Bundle], pd.DataFrame]] = {
    "kmer_codon": kmer_codon_features,
    "regulators": regulator_features,
    "kegg": lambda bundle: gene_set_features(bundle, "KEGG:"),
    "go": lambda bundle: gene_set_features(bundle, "GO:"),
    "gene_sets": gene_set_features,
    "conservation": conservation_features,
}
_JOINED = {
    "all": ("kmer_codon", "regulators", "gene_sets"),
    "dna": ("kmer_codon", "conservation"),
    "everything": ("kmer_codon", "regulators", "gene_sets", "conservation"),
}
"""Tables side by side. Those that are about conservation need relatives or a score."""


def available_baselines(bundle: Bundle) -> tuple[str, ...]:
    """Name the baselines that the bundle has features for, in the order of `BASELINES`.

    Without a network there is no `ridge_regulators`, without KEGG or GO sets no `ridge_kegg` or
    `ridge_go`, without relatives or a score nothing of conservation; "all" is whatever there is,
    so it is always available.
    """
    known = _feature_tables(bundle, {baseline.features for baseline in BASELINES.values()})
    return tuple(name for name, b in BASELINES.items() if not b.features or b.features in known)


def run_baselines(
    bundle: Bundle,
    *,
    folds: Sequence[int] | None = None,
    models: Sequence[str] | None = None,
    extra: Mapping[str, pd.DataFrame] | None = None,
    seed: int = 0,
    progress: Progress = tell,
) -> pd.DataFrame:
    """Fit baselines on each fold's training genes and predict its held-out genes.

    Parameters
    ----------
    folds
        Folds to hold out; None: all. (With one fold, `score` needs `train_profile`.)
    models
        Names from `BASELINES`; None: all that are available.
    extra
        Further features by a name that is no baseline's, one row for every measured gene in the
        bundle's order: the mean of boosting and ridge for level, ridge for profile.
    seed
        Seed of the boosting, recorded for every baseline.
    progress
        Called with one line per fold and fit.

    Returns
    -------
    The rows of `predictions.parquet`: `PREDICTION_COLUMNS`, log2(TPM+1) as float32, not clipped
    at 0. `gene_id`, `condition` and `model` are categorical: group them with `observed=True`.

    Raises
    ------
    InputError
        For a name or fold that does not exist (or none at all), a baseline without features in
        this bundle, and a fold with fewer than three training genes.
    """
    extra = extra or {}
    names = list(BASELINES if models is None else dict.fromkeys(models))
    for name in names:
        require(name in BASELINES, f"baseline {name!r}", f"some of {', '.join(BASELINES)}")
    require(names or extra, "no baselines", f"some of {', '.join(BASELINES)}")
    held_out = list(range(bundle.n_folds) if folds is None else sorted(set(folds)))
    for fold in held_out:
        bundle.test_genes(fold)  # raises for a fold that is not there
    require(held_out, "no folds", f"some of 0 to {bundle.n_folds - 1}")
    if bundle.leakage_warning:
        progress(f"baselines: {bundle.leakage_warning}")
    tables = _feature_tables(bundle, {BASELINES[name].features for name in names})
    lacking = [n for n in names if BASELINES[n].features and BASELINES[n].features not in tables]
    if lacking and models is not None:
        found = f"baseline {lacking[0]!r} on a bundle without {BASELINES[lacking[0]].features}"
        raise InputError(found, ", ".join(available_baselines(bundle)))
    if lacking:
        progress(f"baselines: no features in this bundle for {', '.join(lacking)}")
    methods = {name: BASELINES[name] for name in names if name not in lacking}
    if models is None:
        # Where the bundle knows no more than the sequence, "all" is that.
        first: dict[tuple[object, ...], str] = {}
        for name, one in list(methods.items()):
            columns = tuple(tables[one.features].columns) if one.features else ()
            same = first.setdefault((one.level, one.profile, columns), name)
            if same != name:
                progress(f"baselines: {name} is {same} in this bundle")
                del methods[name]
    methods |= {name: Baseline(("gbm", "ridge"), "ridge", name, name) for name in extra}
    predicted: dict[tuple[str, int], np.ndarray] = {}
    with threadpool_limits(THREADS):
        for fold in held_out:
            work = _Fold(bundle, fold, {**tables, **extra}, seed, progress)
            predicted |= {(name, fold): work.predict(one) for name, one in methods.items()}
    return _table(bundle, predicted, seed)


class _Fold:
    """One held-out fold; what several baselines share is fitted once, when first needed."""

    def __init__(
        self, bundle: Bundle, fold: int, tables: dict[str, pd.DataFrame], seed: int, say: Progress
    ) -> None:
        self.fold, self.seed, self.say, self.tables = fold, seed, say, tables
        self.similarity, genes = bundle.similarity.set_index("gene_id"), bundle.observed.index
        self.is_train = genes.isin(bundle.train_genes(fold))
        self.is_test = genes.isin(bundle.test_genes(fold))
        self.train, self.test = genes[self.is_train], genes[self.is_test]
        found = f"fold {fold} with {len(self.train)} training and {len(self.test)} held-out genes"
        require(len(self.train) >= 3 and not self.test.empty, found, "at least 3 and 1")
        self.block = bundle.block_of.loc[self.train].to_numpy()
        # Only training genes' expression is taken out of the bundle here.
        observed = fill_missing(bundle.observed.loc[self.train]).to_numpy()
        self.level = observed.mean(axis=1)
        centred = observed - self.level[:, None]
        self.profile = centred.mean(axis=0)
        self.residual = centred - self.profile
        self.fit = cache(self._fit)

    def predict(self, baseline: Baseline) -> Float[np.ndarray, "others conditions"]:
        """Expression of the held-out genes."""
        levels = [self.fit(how, baseline.features)[0] for how in baseline.level]
        residual = self.fit(baseline.profile, baseline.features)[1]
        return np.mean(levels, axis=0)[:, None] + self.profile + residual

    def _fit(self, how: str, features: str) -> tuple[np.ndarray, np.ndarray]:
        """Level of the held-out genes and their residual profile (boosting's is 0)."""
        flat = np.zeros((len(self.test), len(self.profile)))
        if how == "mean":
            return np.full(len(self.test), self.level.mean()), flat
        raw = self.tables[features].to_numpy(dtype=np.float64)
        if how == "gbm":
            return self._boosted(features, raw), flat
        values = standardise(raw, self.is_train)
        train, test = values[self.is_train], values[self.is_test]
        if how == "copy":
            nearest = self._nearest(train, test)
            return self.level[nearest], self.residual[nearest]
        self.say(f"baselines: fold {self.fold}, ridge on {features}")
        level, residual = fit_ridge(train, [self.level[:, None], self.residual], self.block)
        return level.predict(test)[:, 0], residual.predict(test)

    def _boosted(
        self, features: str, values: Float[np.ndarray, "genes features"]
    ) -> Float[np.ndarray, " others"]:
        # Imported here: it takes a second, and only boosting needs it. Its own thread pool
        # appears with the import, so the limit has to be set again.
        from sklearn.ensemble import HistGradientBoostingRegressor

        self.say(f"baselines: fold {self.fold}, boosting on {features}")
        model = HistGradientBoostingRegressor(
            **BOOSTING, early_stopping=False, random_state=self.seed
        )
        with threadpool_limits(THREADS):
            return model.fit(values[self.is_train], self.level).predict(values[self.is_test])

    def _nearest(
        self, train: Float[np.ndarray, "genes features"], test: Float[np.ndarray, "others features"]
    ) -> Int64[np.ndarray, " others"]:
        """For each held-out gene the row (among the training genes) of its nearest one.

        That is the bundle's most similar gene where it is a measured relative; else the nearest
        by Euclidean distance of the standardised features.
        """
        nearest = ((train**2).sum(axis=1) - 2 * test @ train.T).argmin(axis=1)
        known = self.similarity.loc[self.test]
        relative = self.train.get_indexer(known["nearest_gene_id"])
        is_relative = (known["similarity"].to_numpy() >= RELATED) & (relative >= 0)
        return np.where(is_relative, relative, nearest)


def _feature_tables(bundle: Bundle, names: set[str]) -> dict[str, pd.DataFrame]:
    """Tables by name, without those that have no column."""
    parts = names | {part for name in names for part in _JOINED.get(name, ())}
    tables = {name: make(bundle) for name, make in _FEATURES.items() if name in parts}
    for name, of in _JOINED.items():
        if name in names and ("conservation" not in of or tables["conservation"].shape[1]):
            tables[name] = pd.concat([tables[part] for part in of], axis=1)
    return {name: table for name, table in tables.items() if name in names and table.shape[1]}


def _table(
    bundle: Bundle,
    predicted: dict[tuple[str, int], Float[np.ndarray, "genes conditions"]],
    seed: int,
) -> pd.DataFrame:
    """One row per model, fold, gene and condition, in that order."""
    observed = bundle.observed.astype(np.float32)
    names = list(dict.fromkeys(name for name, _ in predicted))
    frames = []
    for (name, fold), values in sorted(predicted.items(), key=lambda one: names.index(one[0][0])):
        rows = np.flatnonzero(observed.index.isin(bundle.test_genes(fold)))
        n_genes, n_conditions = values.shape
        row, column = np.repeat(rows, n_conditions), np.tile(np.arange(n_conditions), n_genes)
        columns = {
            "gene_id": pd.Categorical.from_codes(row, observed.index),
            "condition": pd.Categorical.from_codes(column, observed.columns),
            "fold": fold,
            "model": pd.Categorical.from_codes(np.full(values.size, names.index(name)), names),
            "seed": seed,
            "observed": observed.to_numpy()[rows].ravel(),
            "predicted": values.ravel().astype(np.float32),
        }
        frames.append(pd.DataFrame({name: columns[name] for name in PREDICTION_COLUMNS}))
    return pd.concat(frames, ignore_index=True)


def predict_tracks(
    bundle: Bundle, means: Mapping[int, Float[np.ndarray, " tracks"]]
) -> Float[np.ndarray, "tracks bins"]:
    """Tracks by a ridge regression on smoothed k-mers, each bin by the fit without its fold.

    Parameters
    ----------
    means
        Of each track's coverage over the training bins, by held-out fold; only these are predicted.
    """
    assert bundle.tracks is not None
    genome, tracks, offsets = bundle.genome, bundle.tracks, bin_offsets(bundle.genome)
    block_of = bin_blocks(genome, bundle.blocks)
    fold_of = np.where(block_of < 0, -1, bundle.blocks["fold"].to_numpy()[block_of])

    def pieces() -> Iterator[tuple[np.ndarray, slice]]:
        for contig in genome.contigs:
            for start in range(0, contig.length, CHUNK_BP):
                end = min(start + CHUNK_BP, n_bins(contig) * BIN_BP)
                first = offsets[contig.name] + start // BIN_BP
                found = smoothed_kmers(genome, contig, start, end, BIN_BP)
                yield found, slice(first, first + len(found))

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for features, at in pieces():
            raw = tracks.values[:, at]
            kept = np.isfinite(raw).all(0) & (fold_of[at] >= 0)
            seen = (scale_targets(raw[:, kept], tracks.is_peaks, one).T for one in means.values())
            yield features[kept], np.stack(list(seen), 1).astype(np.float64), fold_of[at][kept]

    fits = ridge_on_bins(parts(), list(means))
    out = np.full(tracks.values.shape, np.nan, np.float32)
    for features, at in pieces():
        for fold, (coefficients, intercept) in zip(means, fits, strict=True):
            own = at.start + np.flatnonzero(fold_of[at] == fold)
            out[:, own] = (features[own - at.start] @ coefficients + intercept).T
    return out
