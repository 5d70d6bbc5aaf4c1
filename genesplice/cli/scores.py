"""The table with which `baselines` and `finetune` end: every model's scores, and differences."""

import sys
from collections.abc import Sequence

from genesplice.results import Metric

SHOWN = ("level_spearman", "level_r2", "profile_r")


def show_scores(records: Sequence[Metric], n_genes: int) -> None:
    """Print scores of all folds together on stderr, the best level first, then differences.

    A model with several seeds is there with their mean, and without an interval. A line without
    colour is written where stderr is no terminal, or with `NO_COLOR`.
    """
    # Imported here: `genesplice --help` need not wait for it.
    from rich.console import Console
    from rich.table import Table

    cells: dict[str, dict[str, list[Metric]]] = {}
    for record in records:
        metric = record.metric.removesuffix("_difference")
        if metric in SHOWN and record.fold is None and record.split == "test":
            cells.setdefault(record.model, {}).setdefault(metric, []).append(record)
    table = Table("model", *SHOWN, title=f"{n_genes} held-out genes, 95 % intervals over blocks")

    def value(model: str) -> float:
        found = cells[model].get(SHOWN[0], [])
        return sum(one.value for one in found) / len(found) if found else float("-inf")

    names = sorted(cells, key=lambda name: (" - " in name, -value(name)))
    for name, following in zip(names, [*names[1:], ""], strict=True):
        shown = (_cell(cells[name].get(metric, []), " - " in name) for metric in SHOWN)
        table.add_row(name, *shown, end_section=" - " in following and " - " not in name)
    width = None if sys.stderr.isatty() else 120
    Console(file=sys.stderr, width=width, highlight=False).print(table)


def _cell(found: Sequence[Metric], is_difference: bool) -> str:
    if not found:
        return "–"
    mean, sign = sum(one.value for one in found) / len(found), "+" if is_difference else ""
    if len(found) > 1:
        return f"{mean:{sign}.3f} (mean of {len(found)} seeds)"
    low, high = found[0].ci_low, found[0].ci_high
    return f"{mean:{sign}.3f}" + ("" if low is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]")
