"""One explorer of each kind on made-up data, with names that try to be markup."""

import numpy as np
import pandas as pd

from genesplice.results import Conservation
from genesplice.show.explorers import (
    AttributionExplorer,
    ContextExplorer,
    Explorer,
    NetworkExplorer,
    ProfileExplorer,
    Recompute,
    ScanExplorer,
    ScatterExplorer,
    TrackExplorer,
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


def scan(genes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Log ratios that depend on the gene only, and a hexamer each."""
    rows = []
    for gene in genes:
        rng = np.random.default_rng(int(gene[1:]))
        for position in range(-60, 20):
            ratios = np.where(np.arange(4) == position % 4, 0.0, rng.normal(-1, 1, 4))
            rows.append((gene, position, "ACGT"[position % 4], *ratios))
    columns = ["gene_id", "position_bp", "ref", "to_A", "to_C", "to_G", "to_T"]
    hexamers = [(gene, -35, -29, HOSTILE) for gene in genes]
    return (
        pd.DataFrame(rows, columns=columns),
        pd.DataFrame(hexamers, columns=["gene_id", "start", "end", "name"]),
    )


def conservation(length: int, seed: int = 0) -> Conservation:
    """Of 3 near, no middle and 5 far relatives."""
    sizes = {"near": 3, "middle": 0, "far": 5}
    aligned = np.random.default_rng(seed).integers(0, np.array([*sizes.values()]) + 1, (length, 3))
    same = np.random.default_rng(seed + 9).integers(0, aligned + 1)
    return Conservation(sizes, aligned.astype(np.uint8), same.astype(np.uint8), np.zeros(length))


def scan_explorer(gene: str) -> ScanExplorer:
    return ScanExplorer(*scan([gene]), names=NAMES)


def context() -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = pd.DataFrame({"metric": ["level_r2", "profile_r"] * 3})
    scores["context_bp"] = np.repeat([512, 4096, 32_768], 2)
    scores["value"] = np.arange(6) / 10
    scores = scores.assign(ci_low=scores["value"] - 0.05, ci_high=scores["value"] + 0.04)
    slopes = pd.DataFrame({"source": ["ecoli", "distal element", HOSTILE, "ecoli"]})
    slopes["metric"] = ["level_r2", "level_r2", "level_r2", "profile_r"]
    slopes = slopes.assign(
        slope=[0.0, 0.05, -0.01, 0.002], answer=["no", "yes", "no", "cannot tell"]
    )
    return scores, slopes.assign(ci_low=slopes["slope"] - 0.01, ci_high=slopes["slope"] + 0.02)


def tracks() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two loci, a track with strands and one without; the second half of the first is held out."""
    rng, parts = np.random.default_rng(3), []
    for locus, first in (("b0000", -1000), ("b0001", -1090)):
        start = first + 128 * np.arange(16)
        for track, strand in (("chip", "."), (HOSTILE, "+"), (HOSTILE, "-")):
            measured, predicted = rng.gamma(1, 1, (2, 16)).astype(np.float32)
            predicted[: 8 if locus == "b0000" else 16] = np.nan
            measured[9 if strand == "-" else 2] = np.nan
            about = {"locus": locus, "track": track, "strand": strand, "start": start}
            parts.append(pd.DataFrame(about | {"measured": measured, "predicted": predicted}))
    genes = [("b0000", "b0000", "genA", 0, 700, "+"), ("b0000", "b0001", HOSTILE, 650, 3000, "-"),
             ("b0001", "b0001", HOSTILE, -400, 0, "-")]  # fmt: skip
    columns = ["locus", "gene_id", "name", "start", "end", "strand"]
    return pd.concat(parts, ignore_index=True), pd.DataFrame(genes, columns=columns)


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
            conservation=[conservation(100, seed) for seed in range(4)],
            by_column=rng.normal(size=(4, 100)),
        ),
        "network": NetworkExplorer(*network()),
        "scan": ScanExplorer(
            *scan(["b0000", "b0003"]),
            names=NAMES,
            recompute=Recompute(scan_explorer, {"gene": NAMES}),
        ),
        "context": ContextExplorer(*context(), 0.01),
        "tracks": TrackExplorer(*tracks(), names=NAMES),
    }
