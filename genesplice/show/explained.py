"""The page that `genesplice explain` writes: attributions and the evidence for and against."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from genesplice.results import Attribution
from genesplice.show.explorer import Recompute
from genesplice.show.explorers import CurveExplorer
from genesplice.show.explorers_genome import AttributionExplorer
from genesplice.show.figures import completeness_bars
from genesplice.show.report import Part

SHOWN_BP = (512, 128)
"""Bases before and after the TSS that are drawn; the tables have the whole window."""


def shown_slice(found: Attribution, shown_bp: tuple[int, int] = SHOWN_BP) -> slice:
    """The part of an attribution's window that is drawn."""
    return slice(-found.offset_bp - shown_bp[0], -found.offset_bp + shown_bp[1])


def attribution_explorer(
    found: Sequence[Attribution],
    *,
    checks: pd.DataFrame | None = None,
    sites: pd.DataFrame | None = None,
    shown_bp: tuple[int, int] = SHOWN_BP,
    is_exact: bool = False,
    recompute: Recompute | None = None,
) -> AttributionExplorer:
    """Attributions around the start, each with its verdict; what is not faithful is stamped.

    Parameters
    ----------
    checks
        From `faithfulness_table`, indexed by gene_id; a gene without a row is stamped "not
        checked".
    sites
        From `motif_sites`.
    is_exact
        They are what attributions are checked against: no stamp.
    """
    parts = [(one, shown_slice(one, shown_bp)) for one in found]
    genes = [one.gene_id for one in found]
    verdicts = pd.Series("exact" if is_exact else "not checked", index=genes)
    if checks is not None:
        verdicts.update(checks["verdict"])
    predicted = {
        one.gene_id: "" if np.isnan(one.output) else f"predicted {one.target} {one.output:.2f}, "
        for one in found
    }
    values = np.stack([one.values[part] for one, part in parts])
    return AttributionExplorer(
        pd.DataFrame(values, index=genes, columns=range(-shown_bp[0], shown_bp[1])),
        ["".join("ACGTN"[min(token, 4)] for token in one.tokens[part]) for one, part in parts],
        names=pd.Series({one.gene_id: one.name for one in found}),
        motifs=sites,
        notes=pd.Series(predicted) + verdicts.str.split(":").str[0],
        stamps=verdicts[~verdicts.isin(["faithful", "exact"])],
        recompute=recompute,
    )


def attribution_parts(
    found: Sequence[Attribution],
    *,
    checks: pd.DataFrame | None = None,
    curves: Mapping[str, pd.DataFrame] | None = None,
    sites: pd.DataFrame | None = None,
    shown_bp: tuple[int, int] = SHOWN_BP,
    is_exact: bool = False,
    promises_sum: bool = True,
) -> list[Part]:
    """Explorer, checks and curves of some attributions, with a sentence before each.

    Without `promises_sum` it is not shown how far they are from adding up.
    """
    names = pd.Series({one.gene_id: one.name for one in found})
    parts: list[Part] = [
        "## Along the promoter\n\nEach bar is what one base adds to the prediction, in its unit. "
        "Choose a gene, then slide the window. A stamp across the bars means that a check below "
        "was not passed: then the picture says nothing about the model.",
        attribution_explorer(
            found, checks=checks, sites=sites, shown_bp=shown_bp, is_exact=is_exact
        ),
    ]
    delta = pd.Series({one.gene_id: one.delta for one in found})
    if promises_sum and np.isfinite(delta).all():
        relative = pd.Series({one.gene_id: min(one.relative_delta, 99.0) for one in found})
        parts += [
            "## Do they add up?\n\nThe sum of all bases should be the prediction less that for an "
            "empty sequence; beyond 5 % it has not converged.",
            completeness_bars(delta, relative, names=names),
        ]
    if curves:
        notes = checks["verdict"].str.split(":").str[0] if checks is not None else None
        parts += [
            "## Does the prediction follow?\n\nBases are taken away, or put back, in the order of "
            "their attribution. If the attribution is true of the model, the solid line leaves the "
            "dashed one, which is random order.",
            CurveExplorer(curves, names=names, notes=notes),
        ]
    if checks is not None:
        last = [column for column in checks.columns if column != "verdict"] + ["verdict"]
        shown = checks[last].reset_index().rename(columns=lambda name: str(name).replace("_", " "))
        parts += [
            "## Every check\n\n`missing`: share of the prediction that is not accounted for. "
            "Gains: area between the curves and random order, above 0. `ism spearman`: rank "
            "agreement with exact mutagenesis around the start, at least 0.5. `random spearman`: "
            "the same method on a model with other weights, at most 0.3.",
            shown,
        ]
    return parts


def lead_of(checks: pd.DataFrame | None, n_genes: int) -> str:
    """One sentence on how much of it can be believed."""
    if checks is None or not len(checks):
        return f"{n_genes} genes, none of them checked: no picture here carries its own evidence."
    n_faithful = int((checks["verdict"] == "faithful").sum())
    return (
        f"{n_faithful} of {len(checks)} attributions pass every check; those that do not are "
        "stamped, and should not be read."
        if n_faithful < len(checks)
        else f"All {len(checks)} attributions pass every check that was made."
    )
