"""One explorer of each kind on made-up data, with names that try to be markup."""

import numpy as np
import pandas as pd

from genesplice.show.explorers import (
    AttributionExplorer,
    Explorer,
    NetworkExplorer,
    ProfileExplorer,
    ScatterExplorer,
)

HOSTILE = "<img src=x onerror=alert(1)></script><b>$x$"
N_GENES = 12
GENES = pd.Index([f"b{i:04d}" for i in range(N_GENES)])
NAMES = pd.Series([f"gen{chr(65 + i)}" for i in range(N_GENES)], index=GENES)
NAMES.iloc[1] = HOSTILE
NAMES.iloc[2] = None
SEQUENCES = ["".join("ACGT"[(i * j + j) % 4] for j in range(100)) for i in range(4)]


def profiles() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    conditions = [f"condition {i}" for i in range(20)]
    observed = pd.DataFrame(rng.normal(8, 2, (N_GENES, 20)), index=GENES, columns=conditions)
    observed.iloc[0, 3] = np.nan
    predicted = observed * 0.5 + rng.normal(4, 0.5, observed.shape)
    predicted.iloc[4] = 5.0
    return observed, predicted


def network() -> tuple[pd.DataFrame, pd.DataFrame]:
    nodes = pd.DataFrame({"name": NAMES})
    edges = pd.DataFrame(
        [
            ("b0000", "b0003", 1, 0.5),
            ("b0000", "b0004", -1, -0.125),
            ("b0000", "b0005", 0, np.nan),
            ("b0001", "b0000", 1, 0.25),
            ("b0001", "b0001", -1, 0.1),
            ("b0002", "b0006", 1, 0.0),
        ],
        columns=["source", "target", "sign", "weight"],
    )
    return nodes, edges


def make_explorers() -> dict[str, Explorer]:
    rng = np.random.default_rng(1)
    observed, predicted = profiles()
    points = pd.DataFrame(rng.normal(size=(N_GENES, 2)), index=GENES, columns=["one", "two"])
    columns = pd.DataFrame(
        {"level": observed.mean(axis=1), "fold": [f"fold {i % 8}" for i in range(N_GENES)]}
    )
    positions = np.arange(-80, 20)
    attributions = pd.DataFrame(rng.normal(size=(4, 100)), index=GENES[:4], columns=positions)
    motifs = pd.DataFrame(
        [("b0000", -35, -29, "-35"), ("b0000", -33, -20, HOSTILE), ("b0002", -12, -6, "-10")],
        columns=["gene_id", "start", "end", "name"],
    )
    return {
        "profile": ProfileExplorer(observed, {"model": predicted}, names=NAMES),
        "scatter": ScatterExplorer(points, columns, names=NAMES),
        "attribution": AttributionExplorer(
            attributions,
            SEQUENCES,
            names=NAMES,
            motifs=motifs,
            notes=pd.Series({"b0000": "delta 0.01"}),
        ),
        "network": NetworkExplorer(*network()),
    }
