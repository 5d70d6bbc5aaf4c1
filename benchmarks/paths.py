"""What each path of a fine-tuned model predicts alone: graph attention, kernel, both mixed.

    python -m benchmarks.paths --model finetuned --data data/ecoli --out reports/paths.json

Every fold's model predicts its held-out genes three times: by the neural path alone (readout, graph
attention, heads), by the kernel path alone, and as it mixes them (the weights were chosen on
validation blocks). Metrics and paired differences are those of `genesplice finetune`.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import genesplice as gs
from genesplice.evaluate.metrics import fold_profiles, paired_difference, score
from genesplice.predict.expression import prediction_table
from genesplice.runtime import write_json

PATHS = {"neural path": 0.0, "kernel path": 1.0, "mixed": None}


@torch.no_grad()
def predict_paths(folder: Path, bundle: gs.Bundle) -> tuple[pd.DataFrame, dict[str, list[float]]]:
    """Predictions of the held-out genes by each path, and the mix of each fold."""
    tables, mixes = [], {}
    for one in sorted(folder.glob("fold*_seed0")):
        fold, model = int(re.sub(r"fold(\d+)_.*", r"\1", one.name)), gs.load_model(one)
        genes, chosen = bundle.test_genes(fold), model.mix.clone()
        mixes[one.name] = chosen.tolist()
        for name, mix in PATHS.items():
            model.mix.copy_(chosen if mix is None else torch.full_like(chosen, mix))
            values = gs.predict_expression(model, bundle, genes=genes)
            held_by = bundle.fold_of.loc[genes]
            tables.append(prediction_table(values, bundle.observed, held_by, model=name, seed=0))
    return pd.concat(tables, ignore_index=True), mixes


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "data", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asked = parser.parse_args()
    bundle = gs.load_bundle(asked.data)
    predictions, mixes = predict_paths(asked.model, bundle)
    profile = fold_profiles(bundle.observed, bundle.fold_of)
    about: dict[str, Any] = {"train_profile": profile, "seed": 0}
    metrics = score(predictions, bundle.block_of, by_fold=False, **about)
    for name in ("neural path", "kernel path"):
        metrics += paired_difference(predictions, "mixed", name, bundle.block_of, **about)
    print(gs.metrics_frame(metrics).to_string())
    command = f"python -m benchmarks.paths --model {asked.model} --data {asked.data}"
    records = [one._asdict() for one in metrics]
    write_json(asked.out, {"made_by": command, "kernel_weight": mixes, "metrics": records})


if __name__ == "__main__":
    main()
