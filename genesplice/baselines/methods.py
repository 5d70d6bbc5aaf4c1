"""What simple methods reach on the held-out genes: the numbers that a model has to beat.

A baseline is a method for the level and one for the profile; its prediction is
level[g] + m[c] + residual[g, c] (see `genesplice.evaluate.metrics`). Everything that is fitted or
chosen (coefficients, penalties, scales, m[c]) comes from the training genes of the fold.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from genesplice.baselines.features import gene_set_features, kmer_codon_features, regulator_features
from genesplice.baselines.ridge import RidgeFit, fit_ridge
from genesplice.data.bundle import Bundle
from genesplice.data.features import standardise
from genesplice.errors import InputError
from genesplice.results import PREDICTION_COLUMNS

RELATED = 0.04
"""Similarity of the leakage (shared 14-mers) from which a gene counts as a relative: about 80 %
identity. Below, single shared words decide, and the nearest gene is sought by composition."""
BOOSTING = {
    "max_iter": 300,
    "learning_rate": 0.05,
    "max_leaf_nodes": 15,
    "max_features": 0.2,
    "max_bins": 63,
}
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
    "nearest_copy": Baseline(
        ("copy",), "copy", "kmer_codon", "expression of the most similar training gene, as it is"
    ),
    "ridge_kmer_codon": Baseline(
        ("ridge",), "ridge", "kmer_codon", "ridge on 4-mers of 300 bp upstream and codon use"
    ),
    "gbm_kmer_codon": Baseline(
        ("gbm",), "ridge", "kmer_codon", "the same features: boosting for level, ridge for profile"
    ),
    "ridge_regulators": Baseline(
        ("ridge",), "ridge", "regulators", "ridge on each gene's regulators and their signs"
    ),
    "ridge_kegg": Baseline(("ridge",), "ridge", "kegg", "ridge on KEGG pathways"),
    "ridge_go": Baseline(("ridge",), "ridge", "go", "ridge on GO terms"),
    "ridge_all": Baseline(("ridge",), "ridge", "all", "ridge on all of these and all gene sets"),
    "gbm_all": Baseline(
        ("gbm",), "ridge", "all", "all of these: boosting for level, ridge for profile"
    ),
    "mean_gbm_ridge_all": Baseline(
        ("gbm", "ridge"), "ridge", "all", "all of these: mean of boosting and ridge for level"
    ),
}
"""Every baseline by name. Boosting is not fitted to profiles, which would take one model per
condition: a baseline named after it has ridge's profile on the same features."""

_FEATURES: dict[str, Callable[[Bundle], pd.DataFrame]] = {
    "kmer_codon": kmer_codon_features,
    "regulators": regulator_features,
    "kegg": lambda bundle: gene_set_features(bundle, "KEGG:"),
    "go": lambda bundle: gene_set_features(bundle, "GO:"),
}


def available_baselines(bundle: Bundle) -> tuple[str, ...]:
    """Name the baselines that the bundle has features for, in the order of `BASELINES`.

    Without a network there is no `ridge_regulators`, without KEGG or GO sets no `ridge_kegg` or
    `ridge_go`; "all" is whatever there is, so it is always available.
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
    progress: Progress | None = None,
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
    tell = progress or (lambda text: None)
    extra = extra or {}
    names = [] if extra and models is not None and not models else _checked_names(models)
    held_out = list(range(bundle.n_folds) if folds is None else dict.fromkeys(folds))
    tables = _feature_tables(bundle, {BASELINES[name].features for name in names})
    for fold in held_out:
        bundle.test_genes(fold)  # raises for a fold that is not there
    if not held_out:
        raise InputError("no folds", f"some of 0 to {bundle.n_folds - 1}")
    lacking = [n for n in names if BASELINES[n].features and BASELINES[n].features not in tables]
    if lacking and models is not None:
        raise InputError(
            f"baseline {lacking[0]!r} on a bundle without {BASELINES[lacking[0]].features}",
            ", ".join(available_baselines(bundle)),
        )
    if lacking:
        tell(f"baselines: no features in this bundle for {', '.join(lacking)}")
    methods = {name: BASELINES[name] for name in names if name not in lacking}
    for name, table in extra.items():
        methods[name], tables[name] = Baseline(("gbm", "ridge"), "ridge", name, name), table
    names = list(methods)
    parts = []
    with threadpool_limits(THREADS):
        for fold in held_out:
            work = _Fold(bundle, fold, tables, seed, tell)
            parts += [work.predict(name, method) for name, method in methods.items()]
    return _table(bundle, names, parts, seed)


class _Fold:
    """One held-out fold; what several baselines share is fitted once, when first needed."""

    def __init__(
        self, bundle: Bundle, fold: int, tables: dict[str, pd.DataFrame], seed: int, tell: Progress
    ) -> None:
        self.fold, self.seed, self.tell = fold, seed, tell
        self.tables, self.similarity = tables, bundle.similarity
        self.genes = bundle.observed.index
        self.is_train = self.genes.isin(bundle.train_genes(fold))
        self.is_test = self.genes.isin(bundle.test_genes(fold))
        if self.is_train.sum() < 3 or not self.is_test.any():
            raise InputError(
                f"fold {fold} with {self.is_train.sum()} training and {self.is_test.sum()} "
                "held-out genes",
                "at least 3 and 1",
            )
        block = bundle.splits.set_index("gene_id")["block"].loc[self.genes].to_numpy()
        self.block = block[self.is_train]
        # Only training genes' expression is taken out of the bundle here.
        self.observed = bundle.observed.to_numpy()[self.is_train]
        self.level = self.observed.mean(axis=1)
        centred = self.observed - self.level[:, None]
        self.profile = centred.mean(axis=0)
        self.residual = centred - self.profile
        self._scaled: dict[str, np.ndarray] = {}
        self._ridge: dict[str, list[RidgeFit]] = {}
        self._gbm: dict[str, np.ndarray] = {}

    def predict(self, name: str, baseline: Baseline) -> tuple[str, int, np.ndarray, np.ndarray]:
        """Name, fold, rows of the held-out genes, and their genes x conditions table."""
        level = np.mean([self._level(how, baseline.features) for how in baseline.level], axis=0)
        residual = self._residual(baseline.profile, baseline.features)
        predicted = level[:, None] + self.profile + residual
        return name, self.fold, np.flatnonzero(self.is_test), predicted

    def _level(self, how: str, features: str) -> Float[np.ndarray, " genes"]:
        if how == "ridge":
            return self._fit_ridge(features)[0].predict(self._test(features))[:, 0]
        if how == "gbm":
            return self._fit_gbm(features)
        if how == "copy":
            return self.level[self._nearest(features)]
        return np.full(self.is_test.sum(), self.level.mean())

    def _residual(self, how: str, features: str) -> Float[np.ndarray, "genes conditions"]:
        if how == "ridge":
            return self._fit_ridge(features)[1].predict(self._test(features))
        if how == "copy":
            return self.residual[self._nearest(features)]
        return np.zeros((self.is_test.sum(), len(self.profile)))

    def _values(self, features: str) -> Float[np.ndarray, "genes features"]:
        if features not in self._scaled:
            values = self.tables[features].to_numpy(dtype=np.float64)
            self._scaled[features] = standardise(values, self.is_train)
        return self._scaled[features]

    def _test(self, features: str) -> Float[np.ndarray, "genes features"]:
        return self._values(features)[self.is_test]

    def _fit_ridge(self, features: str) -> list[RidgeFit]:
        if features not in self._ridge:
            self.tell(f"baselines: fold {self.fold}, ridge on {features}")
            values = self._values(features)[self.is_train]
            self._ridge[features] = fit_ridge(
                values, [self.level[:, None], self.residual], self.block
            )
        return self._ridge[features]

    def _fit_gbm(self, features: str) -> Float[np.ndarray, " genes"]:
        if features not in self._gbm:
            # Imported here: it takes a second, and only boosting needs it. Its own thread pool
            # appears with the import, so the limit has to be set again.
            from sklearn.ensemble import HistGradientBoostingRegressor

            self.tell(f"baselines: fold {self.fold}, boosting on {features}")
            values = self.tables[features].to_numpy(dtype=np.float64)
            model = HistGradientBoostingRegressor(
                **BOOSTING, early_stopping=False, random_state=self.seed
            )
            with threadpool_limits(THREADS):
                model.fit(values[self.is_train], self.level)
                self._gbm[features] = model.predict(values[self.is_test])
        return self._gbm[features]

    def _nearest(self, features: str) -> np.ndarray:
        """For each held-out gene the row (among the training genes) of its nearest one.

        That is the bundle's most similar gene where it is a measured relative; else the nearest
        by Euclidean distance of the standardised features.
        """
        values = self._values(features)
        train, test = values[self.is_train], values[self.is_test]
        squared = (train**2).sum(axis=1) - 2 * test @ train.T
        nearest = squared.argmin(axis=1)
        known = self.similarity.set_index("gene_id").loc[self.genes[self.is_test]]
        relative = self.genes[self.is_train].get_indexer(known["nearest_gene_id"])
        is_relative = (known["similarity"].to_numpy() >= RELATED) & (relative >= 0)
        return np.where(is_relative, relative, nearest)


def _feature_tables(bundle: Bundle, wanted: set[str]) -> dict[str, pd.DataFrame]:
    """Tables by name, without those that have no column."""
    parts = {"kmer_codon", "regulators"} if "all" in wanted else set()
    tables = {name: make(bundle) for name, make in _FEATURES.items() if name in wanted | parts}
    if "all" in wanted:
        tables["all"] = pd.concat(
            [tables["kmer_codon"], tables["regulators"], gene_set_features(bundle)], axis=1
        )
    return {name: table for name, table in tables.items() if name in wanted and table.shape[1]}


def _checked_names(models: Sequence[str] | None) -> list[str]:
    if models is None:
        return list(BASELINES)
    unknown = [name for name in models if name not in BASELINES]
    if unknown or not models:
        found = f"baseline {unknown[0]!r}" if unknown else "no baselines"
        raise InputError(found, f"some of {', '.join(BASELINES)}")
    return list(dict.fromkeys(models))


def _table(
    bundle: Bundle,
    names: list[str],
    parts: list[tuple[str, int, np.ndarray, np.ndarray]],
    seed: int,
) -> pd.DataFrame:
    """One row per model, fold, gene and condition, in that order."""
    observed = bundle.observed
    n_conditions = observed.shape[1]
    parts = sorted(parts, key=lambda part: (names.index(part[0]), part[1]))
    sizes = [rows.size * n_conditions for _, _, rows, _ in parts]
    row = np.concatenate([np.repeat(rows, n_conditions) for _, _, rows, _ in parts])
    column = np.concatenate([np.tile(np.arange(n_conditions), p[2].size) for p in parts])
    model = np.repeat([names.index(part[0]) for part in parts], sizes)
    columns = {
        "gene_id": pd.Categorical.from_codes(row, observed.index),
        "condition": pd.Categorical.from_codes(column, observed.columns),
        "fold": np.repeat([part[1] for part in parts], sizes),
        "model": pd.Categorical.from_codes(model, names),
        "seed": np.full(len(row), seed),
        "observed": observed.to_numpy(dtype=np.float32)[row, column],
        "predicted": np.concatenate([part[3].ravel() for part in parts]).astype(np.float32),
    }
    return pd.DataFrame({name: columns[name] for name in PREDICTION_COLUMNS})
