"""Measure whether DNA context, networks or pre-training help predict expression on your data.

>>> import genesplice as gs
>>> bundle = gs.load_bundle("data/ecoli")
>>> model = gs.load_model("reports/interactive/finetuned/fold0_seed0")
>>> values = gs.predict_expression(model, bundle)  # genes x conditions, log2(TPM+1)
"""

import ast
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genesplice.api import (
        attribution_shares,
        best_simple_model,
        best_trials,
        configure,
        context_tables,
        decide_again,
        describe_bundle,
        describe_methods,
        describe_rule,
        edge_attributions,
        expected_profiles,
        find_output,
        find_rates,
        gene_groups,
        level_and_spread,
        level_errors,
        list_inputs,
        load_bundle,
        metric_table,
        nearest_genes,
        neighbour_bars,
        open_run,
        pivot_metrics,
        prepare,
        residuals,
        scan_explorer,
        schedule_curves,
        similarity_to,
        strongest_changes,
        substitutions_around,
        well_known_genes,
        write_summary,
    )
    from genesplice.baselines.methods import run_baselines
    from genesplice.config import Config, load_preset, override
    from genesplice.context.perturbation import kept_share
    from genesplice.context.verdict import (
        condition_table,
        context_test,
        control_table,
        controls_sentence,
        hypothesis_table,
        write_report,
    )
    from genesplice.data import export_bundle, open_bundle, verify_bundle
    from genesplice.data.assay import read_assay
    from genesplice.data.bundle import Bundle
    from genesplice.data.simulate import make_own_files
    from genesplice.errors import InputError, WorkError
    from genesplice.evaluate.metrics import compare
    from genesplice.evaluate.reliability import ablation_table, coverage_metrics, strata_table
    from genesplice.explain.attention import attention_of
    from genesplice.explain.faithfulness import explain_genes
    from genesplice.explain.mutagenesis import path_of_change
    from genesplice.explain.pathways import pathway_influence
    from genesplice.model.genesplice import GeneSplice
    from genesplice.predict.expression import (
        embed_genes,
        gene_means,
        predict_expression,
        regulator_edges,
    )
    from genesplice.predict.gene_output import Explainer, resolve_genes
    from genesplice.predict.models import load_model, open_models, track_loci
    from genesplice.predict.pretrained import encoder_sentence, principal_components
    from genesplice.results import (
        judge_difference,
        label,
        metrics_frame,
        read_metrics,
        to_metrics,
        write_metrics,
    )
    from genesplice.runtime import project_path
    from genesplice.show import explorers, figures
    from genesplice.show.figures import influence_sentence
    from genesplice.show.figures_explain import attribution_explorer
    from genesplice.show.report import Headline
    from genesplice.training.comparisons import compare_contrast, compare_schedules, trial_config
    from genesplice.training.corpus import published_encoder, published_metrics
    from genesplice.training.finetuning import finetune
    from genesplice.training.pretraining import pretrain
    from genesplice.training.tasks import run_task
    from genesplice.training.tracks import finetune_tracks
    from genesplice.variants.annotate import score_variants
    from genesplice.variants.classes import class_benchmarks
    from genesplice.variants.scan import scan_promoter

__version__ = "0.1.0"

# OpenMP threads that spin while they wait take the cores from whatever else runs: on two shared
# cores a training step took up to 17 times longer. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _homes() -> dict[str, str]:
    """The module of every name above: loaded when first asked for, `--help` need not wait."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    lines = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(line.module) for line in lines for alias in line.names}


_PUBLIC = _homes()
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genesplice' has no attribute '{name}'")
    if name in ("explorers", "figures"):
        return importlib.import_module(f"genesplice.show.{name}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
