"""Fine-tuning: sequence, network and pathways to expression of held-out genes.

Features of every gene are encoded once. An encoder that has yet to learn may do so from sequence
alone. Then the readout, the graph and the heads learn from the features while the encoder stands
still: cheap steps over the whole genome. Then all learn together: every step encodes some windows
afresh, and gradients reach the encoder through these. At last the kernel path is solved from the
same features, and mixed with what was learned.

Source: Kumar et al., Fine-tuning can distort pretrained features, 2022 (heads first); Fey et al.,
GNNAutoScale, 2021 (historical embeddings).
"""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genesplice.baselines.ridge import KernelChoice, choose_mix, fit_kernel_path
from genesplice.config import Config, replace
from genesplice.data.bundle import Bundle
from genesplice.data.knowledge import keep_knowledge, own_files
from genesplice.errors import require
from genesplice.evaluate.reliability import COST, add_intervals
from genesplice.model.adapters import add_adapters, merge_adapters, save_delta, transformer_blocks
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.genesplice import Features, GeneSplice, mix_paths
from genesplice.model.heads import Prediction
from genesplice.predict import expression, models
from genesplice.predict.pretrained import check_views_held_out
from genesplice.results import PREDICTION_COLUMNS, Metric
from genesplice.runtime import atomic_files, file_sha256, tell, write_json, write_table
from genesplice.training import folds
from genesplice.training.ablations import ablate_finetuning
from genesplice.training.corpus import finetune_need, for_genome, require_memory
from genesplice.training.loops import begin_run, check_run, last_checkpoint
from genesplice.training.pretraining import load_encoder_weights

ENSEMBLE, SECTIONS = "genesplice_ensemble", ("model", "finetune")


def make_model(
    bundle: Bundle, config: Config, n_support: int = 0, measured_genes: Sequence[str] = ()
) -> GeneSplice:
    """A fresh model for the bundle's conditions, regulators and pathways.

    `n_support` is the number of training genes that a kernel path keeps, and of `measured_genes`
    the graph holds the expression.
    """
    sources = bundle.network["source"]
    is_gene = sources.isin(bundle.genes["gene_id"])
    return GeneSplice(
        config.model,
        conditions=list(bundle.observed.columns),
        regulators=sorted(set(sources[is_gene])),
        effectors=sorted(set(sources[~is_gene])),
        pathways=expression.pathway_graph(bundle, config.model)["pathway"].ids,
        n_support=n_support,
        measured_genes=measured_genes,
    )


def freeze_parameters(model: Any, config: Config) -> None:
    """Freeze what the mode leaves alone in `model.encoder`, and add adapters where it has some.

    Raises
    ------
    InputError
        If the mode needs transformer blocks and the encoder has too few.
    """
    settings = config.finetune
    if settings.mode == "full":
        return
    model.encoder.requires_grad_(False)
    if settings.mode == "last_n":
        for block in transformer_blocks(model.encoder)[-settings.last_n :]:
            block.requires_grad_(True)
    elif settings.mode in ("lora", "ia3"):
        add_adapters(model.encoder, settings.mode, settings.adapter_rank)


def _begin_model(
    bundle: Bundle, config: Config, data: folds.FoldData, seed: int, init: Path | None
) -> GeneSplice:
    """The model of a fold before its first step; scales are those of the training genes."""
    torch.manual_seed(seed)
    is_measured = config.model.neighbour_expression
    n_support = len(data.both.rows) if config.finetune.kernel else 0
    known = list(data.training_ids) if is_measured else ()
    model = make_model(bundle, config, n_support, known)
    if isinstance(model.encoder, HierarchicalEncoder):
        # Kept activations of whole windows cost more in memory traffic than computing them again.
        model.encoder.checkpointing = True
    if init is not None:
        load_encoder_weights(model.encoder, init)
    freeze_parameters(model, config)
    model.expression_head.fit(data.training.observed)
    if is_measured:
        model.graph.measured.copy_(model.expression_head.describe(data.training.observed))
    return model


class FoldResult(NamedTuple):
    """The model of a fold and seed, its history, and its predictions for the held-out genes.

    `validation` is its prediction for the training genes that nothing was fitted to, `vectors` the
    features of every gene by its encoder.
    """

    model: GeneSplice
    history: pd.DataFrame
    predictions: pd.DataFrame
    validation: pd.DataFrame
    kernel: KernelChoice | None
    vectors: Features


def finetune_fold(
    bundle: Bundle,
    config: Config,
    *,
    fold: int,
    seed: int,
    out: Path,
    init: Path | None = None,
    resume: bool = False,
    gene_features: Features | None = None,
    kernel: KernelChoice | None = None,
    label: str = "genesplice",
    keep_model: bool = True,
) -> FoldResult:
    """Train on all folds but `fold` and predict its genes.

    Nothing of the held-out genes' expression is read: scales, condition profiles, weights and
    the choice of the best epoch, of the kernel and of the mix come from training genes. `out`
    becomes a model folder that `GeneSplice.from_pretrained` reads.

    Parameters
    ----------
    gene_features
        Features of every gene by the encoder as it is at the beginning, where they are at hand.
    kernel
        What was chosen for this fold and encoder before; None = choose.
    label
        What the predictions are called.
    keep_model
        Write the weights, too.
    """
    config, began = for_genome(_for_mode(config), bundle.genome, init), time.process_time()
    settings = config.finetune
    data = folds.FoldData.read(bundle, settings.validation_blocks, fold)
    model = _begin_model(bundle, config, data, seed, init)
    checkpoint = begin_run(out, config, resume, fold_inputs(bundle, init), SECTIONS)
    if gene_features is None:
        gene_features = _encode(model, bundle, config)
    passes = folds.GenomePasses(bundle, settings, fold=fold, seed=seed)
    histories = []
    if settings.sequence_epochs:
        histories.append(_learn_from_sequence(model, config, data, gene_features, passes, out))
        gene_features = _encode(model, bundle, config)
    model.readout.fit(gene_features[data.training.rows])
    graph = expression.bundle_graph(model, bundle)
    steps = settings.head_steps + settings.epochs * passes.steps
    stage = folds.GraphStage(graph, model, config, data, gene_features, passes)
    if steps:
        name = f"finetune fold {fold} seed {seed}"
        stage.run(steps, stage.batch, model, out / "checkpoints", checkpoint, name)
        after = stage.history.to_frame()
        after["step"] += settings.sequence_epochs * passes.steps
        histories.append(after)
    model.eval()
    adapters = merge_adapters(model)
    vectors = _encode(model, bundle, config) if settings.epochs else stage.gene_features
    head, (unseen, truth) = model.expression_head, data.validation
    with torch.no_grad():
        guess = folds.predict_part(model, vectors, graph, unseen, settings)
    if settings.kernel:
        both = data.both
        tell(f"finetune fold {fold} seed {seed}: kernel path of {len(both.rows)} genes")
        kernel, left_out = fit_kernel_path(model, graph, vectors, both, data.block, kernel)
        # Solved without each gene's block, for the validation genes.
        solved = Prediction(*(part[torch.isin(both.rows, unseen)] for part in left_out))
        # Without a step there is nothing to mix with.
        mix = choose_mix(guess, solved, head.split(truth)) if steps else (1.0, 1.0)
        model.mix.copy_(torch.tensor(mix))
        guess = mix_paths(guess, solved, model.mix) if steps else solved
    tested, about = bundle.test_genes(fold), {"genes_at_once": settings.graph_genes}
    values = expression.predict_expression(model, bundle, vectors=vectors, genes=tested, **about)
    expressed = head.expression(guess).cpu().numpy()
    guesses = pd.DataFrame(expressed, data.validation_ids, values.columns)
    held_by = pd.concat([bundle.fold_of.loc[tested], pd.Series(fold, data.validation_ids)])
    calibration, predictions = (
        expression.prediction_table(part, bundle.observed, held_by, model=label, seed=seed)
        for part in (guesses, values)
    )
    predictions = add_intervals(predictions, calibration)
    history = pd.concat(histories, ignore_index=True).assign(fold=fold, seed=seed)
    if keep_model:
        with atomic_files(out) as scratch:
            model.save_pretrained(scratch)
        if settings.delta and init is not None:
            save_delta(model, adapters, init, out)
        keep_knowledge(bundle, out)
    write_json(out / "cost.json", {COST: round(time.process_time() - began, 2)})
    tables = {"history": history, "validation": calibration, "predictions": predictions}
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)
    shutil.rmtree(out / "sequence", ignore_errors=True)
    return FoldResult(model, history, predictions, calibration, kernel, vectors)


def _for_mode(config: Config) -> Config:
    """The settings with what the mode decides: a probe is linear, without graph and kernel."""
    if config.finetune.mode != "probe":
        return config
    linear = {"is_linear": True, "graph_layers": 0}
    return replace(config, model=linear, finetune={"kernel": False})


def fold_inputs(bundle: Bundle, init: Path | None) -> dict[str, str]:
    """Digests of what a fold is trained from."""
    own = {f"own {name}": digest for name, digest in own_files(bundle).items()}
    encoder = "none"
    if init is not None and (init / "model.safetensors").exists():
        encoder = file_sha256(init / "model.safetensors")
    return {**bundle.data_sha256, **own, "encoder": encoder}


def _encode(model: GeneSplice, bundle: Bundle, config: Config) -> Features:
    sizes = config.finetune
    tell(f"finetune: reading {bundle.genome.length / 1e6:.1f} Mb for the features of genes")
    return expression.encode_genes(model, bundle, core_bp=sizes.core_bp, flank_bp=sizes.flank_bp)


def _learn_from_sequence(
    model: GeneSplice,
    config: Config,
    data: folds.FoldData,
    gene_features: Features,
    passes: folds.GenomePasses,
    out: Path,
) -> pd.DataFrame:
    """Train the encoder for `finetune.sequence_epochs` passes; the history of its training.

    `sequence` in `out` keeps checkpoints and, at the end, the encoder, so that a run that was
    stopped goes on from there.
    """
    folder = out / "sequence"
    encoder, history = folder / "encoder.safetensors", folder / "history.parquet"
    if history.exists():
        model.encoder.load_state_dict(load_file(encoder))
        return pd.read_parquet(history)
    stage = folds.SequenceStage(model, config, data, gene_features, passes)
    steps, kept = config.finetune.sequence_epochs * passes.steps, folder / "checkpoints"
    name = f"sequence fold {passes.fold} seed {passes.seed}"
    stage.run(steps, passes, model.encoder, kept, last_checkpoint(kept), name)
    rows = stage.history.to_frame()
    with atomic_files(folder) as scratch:  # the history last
        rows.to_parquet(scratch / history.name, index=False)
        parts = model.encoder.state_dict().items()
        save_file({k: v.contiguous() for k, v in parts}, scratch / encoder.name)
    return rows


# --- all folds and seeds ---


class FinetuneResult(NamedTuple):
    """All folds and seeds: predictions of every held-out gene, the histories, and the costs.

    A cost is a record `cpu_seconds` of one run of the model or an ablation, from where it was begun
    or went on for the last time.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    costs: list[Metric]


class Run(NamedTuple):
    """What is trained on every fold: the model or an ablation, from which data and encoder."""

    label: str
    out: Path
    seed: int
    bundle: Bundle
    config: Config
    init: Path | None


def finetune(
    bundle: Bundle, config: Config, out: Path, *, init: Path | None = None, resume: bool = False
) -> FinetuneResult:
    """Every fold and seed of `config.finetune`, each in its own folder under `out`.

    Ablations are under `out/ablations`, and keep no weights; features of all genes are kept in
    `out/vectors` for whoever opens the models. With `resume` a finished fold is read back.

    Raises
    ------
    InputError
        If a folder under `out` is taken, a fold or the expression does not exist, genes or memory
        are too few, an ablation's encoder is missing, or a delta has nothing to differ from.
    """
    bundle.require_expression(config.finetune.fewest_genes)
    if bundle.leakage_warning:
        tell(f"finetune: {bundle.leakage_warning}")
    settings, config = config.finetune, for_genome(config, bundle.genome, init)
    require_memory(finetune_need(config, bundle))
    has_base = init is not None or not settings.delta
    require(has_base, "finetune.delta without a pre-trained encoder", "--init")
    runs = [Run("genesplice", out, seed, bundle, config, init) for seed in settings.seeds]
    for name in settings.ablations:
        if name in ("exchanged_relatives", "far_relatives") and bundle.genome.columns is None:
            tell(f"finetune: no relatives: {name} is left out")
            continue
        for seed in settings.ablation_seeds:
            data, changed, start = ablate_finetuning(bundle, config, init, name, seed)
            changed, where = for_genome(changed, data.genome, start), out / "ablations" / name
            runs.append(Run(f"genesplice_{name}", where, seed, data, changed, start))
    held_out = tuple(range(bundle.n_folds)) if settings.folds is None else settings.folds
    check_views_held_out(init, held_out, bundle.genome)
    encoded: dict[tuple, Tensor] = {}
    tables, calibrations, histories = [], [], []
    costs: list[Metric] = []
    for fold in held_out:
        kernel: KernelChoice | None = None
        for run in runs:
            where = run.out / f"fold{fold}_seed{run.seed}"
            done, unseen = where / "predictions.parquet", where / "validation.parquet"
            if resume and done.exists() and unseen.exists():
                inputs = fold_inputs(run.bundle, run.init)
                check_run(where, _for_mode(run.config), inputs, SECTIONS)
            else:
                kernel = _run_fold(run, fold, where, resume, encoded, kernel)
            tables.append(pd.read_parquet(done)[list(PREDICTION_COLUMNS)])
            calibrations.append(pd.read_parquet(unseen))
            spent = json.loads((where / "cost.json").read_text())[COST]
            costs.append(Metric(COST, spent, None, None, 1, run.label, "train", fold, run.seed))
            if run.label == "genesplice":
                histories.append(pd.read_parquet(where / "history.parquet"))
    predictions, calibration = (
        add_ensemble(pd.concat(parts, ignore_index=True)) for parts in (tables, calibrations)
    )
    predictions = add_intervals(predictions, calibration)
    return FinetuneResult(predictions, pd.concat(histories, ignore_index=True), costs)


def _run_fold(
    run: Run,
    fold: int,
    out: Path,
    resume: bool,
    encoded: dict[tuple, Tensor],
    kernel: KernelChoice | None,
) -> KernelChoice | None:
    """Train one fold of a run; the kernel for the next seed of the model.

    Runs with the same encoder and genome start from the same features, kept in `encoded`.
    """
    settings, is_ablation = run.config.finetune, run.label != "genesplice"
    began, start = time.monotonic(), (run.init or run.seed, id(run.bundle.genome))
    if start not in encoded:
        torch.manual_seed(run.seed)
        model = make_model(run.bundle, run.config)
        if run.init is not None:
            load_encoder_weights(model.encoder, run.init)
        encoded[start] = _encode(model, run.bundle, run.config)
    moves = settings.epochs or settings.sequence_epochs
    result = finetune_fold(
        run.bundle, run.config, fold=fold, seed=run.seed, out=out, init=run.init, resume=resume,
        gene_features=encoded[start], label=run.label, keep_model=not is_ablation,
        kernel=None if is_ablation or moves or run.init is None else kernel,
    )  # fmt: skip
    if not is_ablation:
        kernel = result.kernel
        sizes = settings.core_bp, settings.flank_bp
        digest = expression.embedding_digest(result.model, run.bundle, *sizes)
        expression.cache_embeddings(models.cache_folder(out), digest, result.vectors)
    tell(f"{run.label}: fold {fold} seed {run.seed} in {time.monotonic() - began:.0f} s")
    return kernel


def add_ensemble(predictions: pd.DataFrame, model: str = "genesplice") -> pd.DataFrame:
    """Add the mean over the seeds of `model`, as a model of its own, where there are several."""
    mine = predictions[predictions["model"] == model]
    if mine["seed"].nunique() < 2:
        return predictions
    keys = ["gene_id", "condition", "fold"]
    mean = mine.groupby(keys, sort=False, observed=True)[["observed", "predicted"]].mean()
    mean = mean.astype("float32").reset_index().assign(model=ENSEMBLE, seed=0)
    return pd.concat([predictions, mean[predictions.columns]], ignore_index=True)
