"""Measure whether DNA context, networks or pre-training help predict expression on your data.

>>> import genesplice as gs
>>> bundle = gs.load_bundle("data/ecoli")
>>> model = gs.load_model("reports/interactive/finetuned/fold0_seed0")
>>> values = gs.predict_expression(model, bundle)  # genes x conditions, log2(TPM+1)
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genesplice.api import (
        configure,
        describe_bundle,
        expected_profiles,
        find_output,
        gene_groups,
        level_and_spread,
        list_inputs,
        load_bundle,
        nearest_genes,
        neighbour_bars,
        open_run,
        prepare,
        residuals,
        similarity_to,
        well_known_genes,
        write_summary,
    )
    from genesplice.api_tables import (
        attribution_shares,
        best_simple_model,
        best_trials,
        class_results,
        context_tables,
        decide_again,
        describe_rule,
        edge_attributions,
        find_rates,
        level_errors,
        metric_table,
        metrics_frame,
        pivot_metrics,
        scan_explorer,
        schedule_curves,
        strongest_changes,
        substitutions_around,
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
    from genesplice.data.bundle import Bundle
    from genesplice.errors import InputError, WorkError
    from genesplice.evaluate.metrics import compare
    from genesplice.evaluate.reliability import (
        ablation_table,
        coverage_metrics,
        judge_difference,
        strata_table,
    )
    from genesplice.explain.attention import attention_of
    from genesplice.explain.faithfulness import explain_genes
    from genesplice.explain.pathways import pathway_influence
    from genesplice.model.genesplice import GeneSplice
    from genesplice.predict.expression import (
        embed_genes,
        gene_means,
        predict_expression,
        regulator_edges,
    )
    from genesplice.predict.gene_output import Explainer, resolve_genes
    from genesplice.predict.models import load_model, open_models
    from genesplice.predict.pretrained import encoder_sentence, principal_components
    from genesplice.results import read_metrics, to_metrics, write_metrics
    from genesplice.runtime import project_path
    from genesplice.show import explorers, figures
    from genesplice.show.figures_explain import attribution_explorer
    from genesplice.show.report import Headline
    from genesplice.training.comparisons import compare_contrast, compare_schedules, trial_config
    from genesplice.training.finetuning import finetune
    from genesplice.training.pretraining import pretrain
    from genesplice.variants.annotate import score_variants
    from genesplice.variants.benchmarks import class_benchmarks
    from genesplice.variants.scan import scan_promoter

__version__ = "0.1.0"

# OpenMP threads that spin while they wait take the cores from whatever else runs: on two shared
# cores a training step took up to 17 times longer. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Loaded when first asked for: `genesplice --help` need not wait for torch. As above, by module.
_HOME = {
    "api": "configure describe_bundle expected_profiles find_output gene_groups level_and_spread "
    "list_inputs load_bundle nearest_genes neighbour_bars open_run prepare residuals "
    "similarity_to well_known_genes write_summary",
    "baselines.methods": "run_baselines",
    "config": "Config load_preset override",
    "context.perturbation": "kept_share",
    "context.verdict": (
        "condition_table context_test control_table controls_sentence hypothesis_table write_report"
    ),
    "data.bundle": "Bundle",
    "errors": "InputError WorkError",
    "evaluate.metrics": "compare",
    "evaluate.reliability": "ablation_table coverage_metrics judge_difference strata_table",
    "explain.attention": "attention_of",
    "explain.faithfulness": "explain_genes",
    "explain.pathways": "pathway_influence",
    "model.genesplice": "GeneSplice",
    "predict.expression": "embed_genes gene_means predict_expression regulator_edges",
    "predict.gene_output": "Explainer resolve_genes",
    "predict.models": "load_model open_models",
    "predict.pretrained": "encoder_sentence principal_components",
    "results": "read_metrics to_metrics write_metrics",
    "runtime": "project_path",
    "show": "explorers figures",
    "show.figures_explain": "attribution_explorer",
    "show.report": "Headline",
    "api_tables": "attribution_shares best_simple_model best_trials class_results context_tables "
    "decide_again describe_rule edge_attributions find_rates level_errors metric_table "
    "metrics_frame pivot_metrics scan_explorer schedule_curves strongest_changes "
    "substitutions_around",
    "training.comparisons": "compare_contrast compare_schedules trial_config",
    "training.finetuning": "finetune",
    "training.pretraining": "pretrain",
    "variants.annotate": "score_variants",
    "variants.benchmarks": "class_benchmarks",
    "variants.scan": "scan_promoter",
}
_PUBLIC = {
    name: f"genesplice.{module}" for module, names in _HOME.items() for name in names.split()
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genesplice' has no attribute '{name}'")
    if name in ("explorers", "figures"):
        return importlib.import_module(f"genesplice.show.{name}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
