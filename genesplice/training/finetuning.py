"""Fine-tuning: sequence, network and pathways to expression of held-out genes.

A memory keeps what the encoder said of every gene. An encoder that has yet to learn may do so from
sequence alone (see `genesplice.training.sequence_stage`). Then the readout, the graph and the heads
learn from it while the encoder stands still: cheap steps over the whole genome. Then all learn
together: every step encodes some windows afresh, and gradients reach the encoder through these.
At last the kernel path is solved from the same memory, and mixed with what was learned.

Source: Kumar et al., Fine-tuning can distort pretrained features, 2022 (heads first); Fey et al.,
GNNAutoScale, 2021 (historical embeddings).
"""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch_geometric.data import HeteroData

from genesplice.baselines.ridge import KernelFit, KernelSettings, choose_kernel, fit_kernel
from genesplice.config import Config
from genesplice.data.bundle import Bundle, keep_knowledge, own_files
from genesplice.data.windows import WindowBatch
from genesplice.errors import InputError
from genesplice.evaluate.ablations import COST
from genesplice.evaluate.reliability import add_intervals
from genesplice.model.adapters import add_adapters, merge_adapters, save_delta, transformer_blocks
from genesplice.model.encoder import HierarchicalEncoder
from genesplice.model.genesplice import GeneSplice, mix_paths
from genesplice.model.heads import Prediction
from genesplice.model.kernel import TARGETS
from genesplice.predict.expression import (
    bundle_graph,
    cache_embeddings,
    cache_folder,
    embedding_digest,
    encode_genes,
    pathway_graph,
    predict_expression,
    prediction_table,
)
from genesplice.predict.pretrained import check_views_held_out
from genesplice.results import PREDICTION_COLUMNS, Metric
from genesplice.runtime import file_sha256, one_thread, side_by_side, write_json
from genesplice.training.finetune_ablations import (
    ablation_encoder,
    ablation_label,
    add_ensemble,
    make_ablation,
    make_ablation_config,
)
from genesplice.training.finetune_module import FinetuneModule, GeneTargets, Looks, predict_part
from genesplice.training.loops import (
    GenomePasses,
    History,
    ProgressLines,
    StepDataset,
    begin_run,
    check_run,
    fit,
    make_trainer,
)
from genesplice.training.pretraining import load_encoder_weights
from genesplice.training.sequence_stage import learn_from_sequence


def settle(config: Config) -> Config:
    """The settings with what the mode decides: a probe is linear, without graph and kernel."""
    if config.finetune.mode != "probe":
        return config
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, is_linear=True, graph_layers=0),
        finetune=dataclasses.replace(config.finetune, kernel=False),
    )


def choose_learners(model: GeneSplice, config: Config) -> None:
    """Freeze what the mode leaves alone, and add adapters where it has some.

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


SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class KernelFits(NamedTuple):
    """What was chosen for level and residual, and what is said of each training gene by a fit
    without its block.
    """

    settings: tuple[KernelSettings, KernelSettings]
    left_out: Prediction


@torch.no_grad()
def fit_kernel_path(
    model: GeneSplice,
    graph: HeteroData,
    gene_features: Float[Tensor, "all_genes features"],
    rows: Int64[Tensor, " genes"],
    observed: Float[Tensor, "genes conditions"],
    blocks: Shaped[np.ndarray, " genes"],
    *,
    settings: tuple[KernelSettings, KernelSettings] | None = None,
    start: tuple[KernelSettings, KernelSettings] | None = None,
) -> KernelFits:
    """Choose and solve `model.kernel` on the training genes `rows`, whose scales it keeps.

    Parameters
    ----------
    gene_features
        What was read of every gene.
    settings
        Take these; nothing is chosen.
    start
        Where to begin choosing.
    """
    path, head = model.kernel, model.expression_head
    # The sums then come out the same however many threads there are.
    with one_thread():
        standardised, known = model.kernel_inputs(gene_features, graph, rows)
        path.set_support(standardised, known.to(torch.int8))
        parts, _, _ = path.inner_products(standardised, known)
        level = observed.mean(1)
        residual = observed - level[:, None] - head.condition_mean
        mean = level.mean()
        targets = {"level": (level - mean)[:, None], "residual": residual}

    def fit(name: str) -> tuple[KernelSettings, KernelFit]:
        index, target = TARGETS.index(name), targets[name]
        if settings is not None:
            chosen = settings[index]
        else:
            first, rounds = (None, 2) if start is None else (start[index], 1)
            chosen = choose_kernel(parts, target, blocks, start=first, rounds=rounds)
        return chosen, fit_kernel(parts, target, blocks, chosen)

    fits = side_by_side(fit, TARGETS, gene_features.device)
    for name, (chosen, found) in zip(TARGETS, fits, strict=True):
        weights = found.weights[:, 0] if name == "level" else found.weights
        path.set_solution(
            name, weights, chosen.scale, chosen.mixture, chosen.inverse_length, float(mean)
        )
    (for_level, level_fit), (for_residual, residual_fit) = fits
    return KernelFits(
        (for_level, for_residual),
        Prediction(level_fit.left_out.float()[:, 0] + mean, residual_fit.left_out.float()),
    )


def choose_mix(
    neural: Prediction,
    kernel: Prediction,
    observed: Float[Tensor, "genes conditions"],
    condition_mean: Float[Tensor, " conditions"],
) -> tuple[float, float]:
    """Shares of the kernel path in level and residual with the smallest squared error.

    The genes are training genes that neither prediction was fitted to: validation blocks. Without
    any, each path counts half.
    """
    if not len(observed):
        return 0.5, 0.5
    level = observed.mean(1)
    wanted = level, observed - level[:, None] - condition_mean
    shares = []
    for one, other, truth in zip(neural, kernel, wanted, strict=True):
        errors = [float((one + s * (other - one) - truth).square().mean()) for s in SHARES]
        shares.append(SHARES[int(np.argmin(errors))])
    return shares[0], shares[1]


NO_WINDOWS = WindowBatch(
    torch.zeros(0, 1024, dtype=torch.uint8),
    torch.zeros(0, 2, 1024, dtype=torch.uint8),
    gene=torch.zeros(0, dtype=torch.int64),
    window=torch.zeros(0, dtype=torch.int64),
    start=torch.zeros(0, dtype=torch.int64),
    end=torch.zeros(0, dtype=torch.int64),
    strand=torch.zeros(0, dtype=torch.int8),
)


class FoldResult(NamedTuple):
    """One fold and seed: the model, its history and what it predicts for the held-out genes.

    `validation` is what it predicts for the training genes that nothing was fitted to, `vectors`
    what its encoder says of every gene.
    """

    model: GeneSplice
    history: pd.DataFrame
    predictions: pd.DataFrame
    validation: pd.DataFrame
    kernel: tuple[KernelSettings, KernelSettings] | None
    vectors: Float[Tensor, "genes features"]


class FinetuneResult(NamedTuple):
    """All folds and seeds: predictions of every held-out gene, the histories, and the costs.

    A cost is a record `cpu_seconds` of one run of the model or an ablation, from where it was begun or
    went on for the last time.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    costs: list[Metric]


def make_model(
    bundle: Bundle, config: Config, n_support: int = 0, measured_genes: Sequence[str] = ()
) -> GeneSplice:
    """A fresh model for the bundle's conditions, regulators and pathways.

    `n_support` is the number of training genes that a kernel path is to remember, and of
    `measured_genes` the graph is to tell the expression.
    """
    sources = bundle.network["source"]
    is_gene = sources.isin(bundle.genes["gene_id"])
    return GeneSplice(
        config.model,
        conditions=list(bundle.observed.columns),
        regulators=sorted(set(sources[is_gene])),
        effectors=sorted(set(sources[~is_gene])),
        pathways=pathway_graph(bundle, config.model)["pathway"].ids,
        n_support=n_support,
        measured_genes=measured_genes,
    )


def split_training(bundle: Bundle, config: Config, fold: int) -> tuple[pd.Index, pd.Index]:
    """Training genes without, and those of, the validation blocks (drawn from training blocks)."""
    genes = bundle.train_genes(fold)
    block = bundle.splits.set_index("gene_id")["block"].loc[genes]
    blocks = np.sort(block.unique())
    count = round(config.finetune.validation_blocks * len(blocks))
    chosen = np.random.default_rng([fold, 11]).permutation(blocks)[:count]
    is_validation = block.isin(chosen).to_numpy()
    return genes[~is_validation], genes[is_validation]


def _targets(bundle: Bundle, genes: pd.Index) -> GeneTargets:
    row = pd.Series(np.arange(len(bundle.genes)), index=bundle.genes["gene_id"])
    values = bundle.observed.loc[genes].to_numpy(dtype=np.float32)
    return GeneTargets(torch.from_numpy(row.loc[genes].to_numpy()), torch.from_numpy(values))


def finetune_fold(
    bundle: Bundle,
    config: Config,
    *,
    fold: int,
    seed: int,
    out: Path,
    init: Path | None = None,
    resume: bool = False,
    memory: Float[Tensor, "genes features"] | None = None,
    kernel: tuple[KernelSettings, KernelSettings] | None = None,
    label: str = "genesplice",
    keep_model: bool = True,
) -> FoldResult:
    """Train on all folds but `fold` and predict its genes.

    Nothing of the held-out genes' expression is read: scales, condition profiles, weights and
    the choice of the best epoch, of the kernel and of the mix come from training genes. `out`
    becomes a model folder that `GeneSplice.from_pretrained` reads.

    Parameters
    ----------
    memory
        What the encoder says of every gene at the beginning, where that is at hand.
    kernel
        What was chosen for this fold and encoder before; None = choose.
    label
        What the predictions are called.
    keep_model
        Write the weights, too.
    """
    config, began = settle(config), time.process_time()
    settings = config.finetune
    train = bundle.train_genes(fold)
    training, validation = split_training(bundle, config, fold)
    torch.manual_seed(seed)
    model = make_model(
        bundle,
        config,
        n_support=len(train) if settings.kernel else 0,
        measured_genes=list(training) if config.model.neighbour_expression else (),
    )
    if isinstance(model.encoder, HierarchicalEncoder):
        # Kept activations of whole windows cost more in memory traffic than computing them again.
        model.encoder.checkpointing = True
    if init is not None:
        load_encoder_weights(model, init)
    choose_learners(model, config)
    checkpoint = begin_run(out, config, resume, _inputs(bundle, init))
    targets = _targets(bundle, training)
    model.expression_head.fit(targets.observed)
    if config.model.neighbour_expression:
        model.graph.measured.copy_(model.expression_head.describe(targets.observed))
    sizes: dict[str, Any] = {"core_bp": settings.core_bp, "flank_bp": settings.flank_bp}
    if memory is None:
        memory = encode_genes(model, bundle, **sizes)
    history, validated = History(), _targets(bundle, validation)
    passes = GenomePasses(bundle, settings, fold=fold, seed=seed)
    before = History().to_frame()
    if settings.sequence_epochs:
        before = learn_from_sequence(
            model, passes, config, targets, validated, memory, out / "sequence",
            name=f"sequence fold {fold} seed {seed}",
        )  # fmt: skip
        memory = encode_genes(model, bundle, **sizes)
    model.readout.fit(memory[targets.rows])

    def make(step: int) -> WindowBatch:
        alone = settings.head_steps
        return NO_WINDOWS if step < alone else passes(step - alone)

    graph = bundle_graph(model, bundle)
    module = FinetuneModule(
        model,
        config,
        graph,
        targets,
        validated,
        memory.clone(),
        history,
        seed=seed,
        steps_per_epoch=passes.steps,
    )
    steps = StepDataset(settings.head_steps + settings.epochs * passes.steps, make)
    bases = float(settings.batch_windows * (settings.core_bp + 2 * settings.flank_bp))
    trainer = make_trainer(
        steps=len(steps),
        checkpoints=out / "checkpoints",
        checkpoint_minutes=settings.checkpoint_minutes,
        callbacks=[history, ProgressLines(f"finetune fold {fold} seed {seed}", bases), Looks()],
    )
    if len(steps):
        fit(trainer, module, steps, checkpoint)
    if module.best is not None:
        model.load_state_dict(module.best[1])
    model.eval()
    adapters = merge_adapters(model)
    vectors = encode_genes(model, bundle, **sizes) if settings.epochs else module.memory
    with torch.no_grad():
        left_out = predict_part(model, vectors, graph, validated.rows, settings)
    if settings.kernel:
        kernel, left_out = _add_kernel_path(
            model, bundle, graph, vectors, fold, validated, left_out if len(steps) else None, kernel
        )
    values = predict_expression(model, bundle, vectors=vectors, genes_at_once=settings.graph_genes)
    about: dict[str, Any] = {"model": label, "seed": seed}
    unseen = pd.DataFrame(
        model.expression_head.expression(left_out).cpu().numpy(), validation, values.columns
    )
    held_by = pd.Series(fold, index=validation)
    calibration = prediction_table(unseen, bundle.observed, held_by, **about)
    told = values.loc[bundle.test_genes(fold)]
    predictions = add_intervals(
        prediction_table(told, bundle.observed, bundle.fold_of, **about), calibration
    )
    after = history.to_frame()
    after["step"] += settings.sequence_epochs * passes.steps
    parts = [part for part in (before, after) if len(part)]
    rows = pd.concat(parts, ignore_index=True).assign(fold=fold, seed=seed)
    if keep_model:
        model.save_pretrained(out)
        if settings.delta and init is not None:
            save_delta(model, adapters, init, out)
        keep_knowledge(bundle, out)
    write_json(out / "cost.json", {COST: round(time.process_time() - began, 2)})
    rows.to_parquet(out / "history.parquet", index=False)
    calibration.to_parquet(out / "validation.parquet", index=False)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    shutil.rmtree(out / "sequence", ignore_errors=True)
    return FoldResult(model, rows, predictions, calibration, kernel, vectors)


def _add_kernel_path(
    model: GeneSplice,
    bundle: Bundle,
    graph: HeteroData,
    vectors: Float[Tensor, "genes features"],
    fold: int,
    validation: GeneTargets,
    neural: Prediction | None,
    known: tuple[KernelSettings, KernelSettings] | None,
) -> tuple[tuple[KernelSettings, KernelSettings], Prediction]:
    """Solve the kernel path on all training genes; mix it by the validation genes.

    Also gives the mix of `neural` with a kernel path that was solved without each gene's block, for
    the validation genes. A neural path that took no step says nothing: `neural` is None.
    """
    train = bundle.train_genes(fold)
    targets = _targets(bundle, train)
    block = bundle.splits.set_index("gene_id")["block"].loc[train].to_numpy()
    fits = fit_kernel_path(
        model, graph, vectors, targets.rows, targets.observed, block, settings=known
    )
    is_validation = torch.isin(targets.rows, validation.rows)
    kernel = Prediction(*(part[is_validation] for part in fits.left_out))
    if neural is None:
        model.mix.fill_(1.0)
        return fits.settings, kernel
    observed = targets.observed[is_validation]
    mix = choose_mix(neural, kernel, observed, model.expression_head.condition_mean)
    model.mix.copy_(torch.tensor(mix))
    return fits.settings, mix_paths(neural, kernel, model.mix)


def finetune(
    bundle: Bundle,
    config: Config,
    out: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
) -> FinetuneResult:
    """Every fold and seed of `config.finetune`, each in its own folder under `out`.

    Ablations are under `out/ablations`, and keep no weights; vectors of all genes are kept in `out/vectors`
    for whoever opens the models. A fold that was finished in an earlier run is read back, not run
    again (`resume`).

    Raises
    ------
    InputError
        If a folder under `out` is taken, a fold does not exist, an ablation's encoder is missing, or a
        delta has nothing to differ from.
    """
    settings = config.finetune
    if settings.delta and init is None:
        raise InputError("finetune.delta without a pre-trained encoder", "--init")
    runs = [Run("genesplice", out, bundle, init, seed, config) for seed in settings.seeds]
    for name in settings.ablations:
        for seed in settings.ablation_seeds:
            where, ablation = out / "ablations" / name, make_ablation(bundle, name, seed)
            start, ablation_config = (
                ablation_encoder(name, init),
                make_ablation_config(config, name),
            )
            runs.append(Run(ablation_label(name), where, ablation, start, seed, ablation_config))
    folds = tuple(range(bundle.n_folds)) if settings.folds is None else settings.folds
    check_views_held_out(init, folds)
    # Runs that start from the same encoder start from the same vectors: one pass over the genome.
    memories: dict[Path | int, Tensor] = {}
    tables, calibrations, histories = [], [], []
    costs: list[Metric] = []
    for fold in folds:
        kernel: tuple[KernelSettings, KernelSettings] | None = None
        for run in runs:
            where = run.out / f"fold{fold}_seed{run.seed}"
            done, is_ablation = where / "predictions.parquet", run.label != "genesplice"
            unseen = where / "validation.parquet"
            if resume and done.exists() and unseen.exists():
                check_run(where, settle(run.config), _inputs(run.bundle, run.init))
            else:
                begin = run.seed if run.init is None else run.init
                moves = settings.epochs or settings.sequence_epochs
                if begin not in memories:
                    memories[begin] = _first_memory(bundle, run.config, run.init, run.seed)
                began = time.monotonic()
                result = finetune_fold(
                    run.bundle, run.config, fold=fold, seed=run.seed, out=where, init=run.init,
                    resume=resume, memory=memories[begin],
                    kernel=None if is_ablation or moves or init is None else kernel,
                    label=run.label, keep_model=not is_ablation,
                )  # fmt: skip
                if not is_ablation:
                    kernel = result.kernel
                    sizes = settings.core_bp, settings.flank_bp
                    digest = embedding_digest(result.model, bundle, *sizes)
                    cache_embeddings(cache_folder(where), digest, result.vectors)
                took = time.monotonic() - began
                print(f"{run.label}: fold {fold} seed {run.seed} in {took:.0f} s", file=sys.stderr)
            tables.append(pd.read_parquet(done)[list(PREDICTION_COLUMNS)])
            calibrations.append(pd.read_parquet(unseen))
            spent = json.loads((where / "cost.json").read_text())[COST]
            costs.append(Metric(COST, spent, None, None, 1, run.label, "train", fold, run.seed))
            if not is_ablation:
                histories.append(pd.read_parquet(where / "history.parquet"))
    held_out, calibration = (
        add_ensemble(pd.concat(parts, ignore_index=True)) for parts in (tables, calibrations)
    )
    predictions = add_intervals(held_out, calibration)
    return FinetuneResult(predictions, pd.concat(histories, ignore_index=True), costs)


class Run(NamedTuple):
    """What is trained on every fold: the model or an ablation, from which data and encoder."""

    label: str
    out: Path
    bundle: Bundle
    init: Path | None
    seed: int
    config: Config


def _inputs(bundle: Bundle, init: Path | None) -> dict[str, str]:
    """Digests of what a fold is trained from."""
    own = {f"own {name}": digest for name, digest in own_files(bundle).items()}
    encoder = "none"
    if init is not None and (init / "model.safetensors").exists():
        encoder = file_sha256(init / "model.safetensors")
    return {**bundle.data_sha256, **own, "encoder": encoder}


def _first_memory(
    bundle: Bundle, config: Config, init: Path | None, seed: int
) -> Float[Tensor, "genes features"]:
    torch.manual_seed(seed)
    model = make_model(bundle, config)
    if init is not None:
        load_encoder_weights(model, init)
    settings = config.finetune
    return encode_genes(model, bundle, core_bp=settings.core_bp, flank_bp=settings.flank_bp)
