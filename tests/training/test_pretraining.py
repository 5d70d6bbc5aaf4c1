"""What was never read, what is left behind, how it is scored, and that it can be interrupted."""

import json

import numpy as np
import pytest
import torch
from lightning import Trainer
from safetensors.torch import load_file
from tiny_genomes import with_columns
from tiny_runs import config, random_tokens, with_genome, with_other_blocks

from genesplice.errors import InputError
from genesplice.model.genesplice import PretrainingModel, reverse_complement
from genesplice.model.sequence import MASK_TOKEN
from genesplice.predict.models import load_model
from genesplice.predict.pretrained import base_log_probabilities
from genesplice.training import loops
from genesplice.training.batches import StepMaker
from genesplice.training.corpus import bundle_source
from genesplice.training.evaluation import masked_base_metrics
from genesplice.training.finetuning import finetune, make_model
from genesplice.training.pretraining import (
    PretrainingModule,
    begin_model,
    load_encoder_weights,
    pretrain,
)

pytestmark = pytest.mark.slow

# --- training ---


def test_held_out_sequence_changes_nothing(tiny_bundle, tmp_path):
    honest = pretrain(tiny_bundle, config(), tmp_path / "a")
    again = pretrain(with_other_blocks(tiny_bundle, [0]), config(), tmp_path / "b")
    for name, value in honest.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert honest.history.equals(again.history)
    assert honest.metrics != again.metrics


def test_training_sequence_changes_something(tiny_bundle, tmp_path):
    honest = pretrain(tiny_bundle, config(), tmp_path / "a").model.state_dict()
    again = pretrain(with_other_blocks(tiny_bundle, [1, 2, 3, 4]), config(), tmp_path / "b")
    changed = [k for k, v in again.model.state_dict().items() if not torch.equal(v, honest[k])]
    assert any(name.startswith("encoder.") for name in changed)


def test_a_run_leaves_its_weights_history_and_scores(tiny_bundle, tmp_path):
    result = pretrain(tiny_bundle, config(), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, written[name]), name
    counts = result.history.groupby("metric").size().to_dict()
    assert counts == {
        "bits_per_base": 5, "info_nce": 5, "retrieval_at_1": 5, "learning_rate": 5
    }  # fmt: skip
    assert {(m.split, m.fold, m.seed) for m in result.metrics} == {("test", 0, 0)}


def test_without_contrast_or_holdout(tiny_bundle, tmp_path):
    settings = config("pretrain.contrastive_weight=0", "pretrain.holdout_fold=none")
    result = pretrain(tiny_bundle, settings, tmp_path / "out")
    assert set(result.history["metric"]) == {"bits_per_base", "learning_rate"}
    assert {(m.split, m.fold) for m in result.metrics} == {("train", None)}


def test_it_learns_a_genome_that_repeats_itself(tiny_bundle, tmp_path):
    motif = np.tile(np.array([0, 1, 1, 3, 2, 0, 3], np.uint8), 40_000)
    repeated = with_genome(tiny_bundle, motif[: tiny_bundle.genome.length].copy())
    settings = config(
        "pretrain.steps=50", "pretrain.learning_rate=0.02", "pretrain.batch_windows=1",
        "pretrain.masked_fraction=0.17",
        "model.dropout=0", "pretrain.contrastive_weight=0",
    )  # fmt: skip
    bits, top = pretrain(repeated, settings, tmp_path / "out").metrics
    assert bits.value < 0.5
    assert top.value > 0.98


def test_it_learns_in_bf16_with_clipped_gradients(tiny_bundle, tmp_path, monkeypatch):
    """As on CUDA, where Lightning clips no gradients of an optimiser that may undo a scaling."""

    class Bf16(Trainer):
        def __init__(self, **options):
            super().__init__(**options | {"precision": "bf16-mixed", "accelerator": "cpu"})

    monkeypatch.setattr(loops, "Trainer", Bf16)
    history = pretrain(tiny_bundle, config("pretrain.steps=40"), tmp_path / "out").history
    bits = history[history["metric"] == "bits_per_base"].sort_values("step")["value"]
    assert bits.iloc[-10:].mean() < bits.iloc[:5].mean() - 0.1


def test_what_cannot_be_run_is_refused_and_leaves_nothing(tiny_bundle, tmp_path):
    with pytest.raises(InputError, match=r"holdout_fold 9, expected one of \[0, 1, 2, 3, 4\]"):
        pretrain(tiny_bundle, config("pretrain.holdout_fold=9"), tmp_path / "out")
    with pytest.raises(InputError, match="fsdp in one process, expected torchrun with two or"):
        pretrain(tiny_bundle, config("pretrain.distributed=fsdp"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- the column as target ---


@pytest.mark.parametrize("base_width", [0, 8])
def test_a_column_is_the_target_of_a_model_that_reads_none(tiny_bundle, base_width):
    bundle = with_columns(tiny_bundle)
    settings = config("pretrain.target=column", f"model.base_width={base_width}")
    module = PretrainingModule(begin_model(settings), settings).eval()
    batch = StepMaker(bundle_source(bundle, 0), settings)(0)
    total = count = 0.0
    strands = set()
    with torch.no_grad():
        for rows in batch.rows:
            hidden = rows.tokens.masked_fill(rows.is_target, MASK_TOKEN)
            encoded = module.model.encode(hidden, rows.columns)
            bare = module.model.base_logits(module.model.encode(hidden))
            logs = bare.double().log_softmax(-1) / np.log(2)
            for row, at in rows.is_target.nonzero().tolist():
                counts = [0.0] * 4
                for group in range(3):
                    for base in range(4):
                        counts[base] += float(rows.columns[row, at, group, base])
                counts[rows.tokens[row, at]] += 1
                for base in range(4):
                    total -= counts[base] / sum(counts) * float(logs[row, at, base])
                count += 1
                strands.add(max(range(4), key=counts.__getitem__) == int(rows.tokens[row, at]))
            found = float(module.bits(encoded, rows, batch)) * batch.target_weight
            assert found == pytest.approx(total, rel=1e-4)
            total = 0.0
    assert count == batch.target_weight > 100
    assert strands == {True, False}


def test_columns_that_are_a_target_are_there_and_not_read(tiny_bundle, tmp_path):
    with pytest.raises(InputError, match=r"target=column, expected data with relatives"):
        pretrain(tiny_bundle, config("pretrain.target=column"), tmp_path / "out")
    settings = config("pretrain.target=column", "model.relatives=true")
    with pytest.raises(InputError, match=r"reads the columns, expected model\.relatives=false"):
        pretrain(with_columns(tiny_bundle), settings, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_run_in_the_folder_is_refused(tiny_bundle, tmp_path):
    pretrain(tiny_bundle, config("pretrain.steps=1"), tmp_path / "out")
    with pytest.raises(InputError, match="exists and is not empty, expected a new folder"):
        pretrain(tiny_bundle, config("pretrain.steps=1"), tmp_path / "out")
    with pytest.raises(InputError, match="was begun with other settings"):
        pretrain(tiny_bundle, config("pretrain.steps=2"), tmp_path / "out", resume=True)
    other = with_other_blocks(tiny_bundle, [1])
    with pytest.raises(InputError, match=r"was begun with other inputs \(genome\)"):
        pretrain(other, config("pretrain.steps=1"), tmp_path / "out", resume=True)


def test_a_run_without_a_checkpoint_says_that_it_begins_again(tiny_bundle, tmp_path, capsys):
    settings, out = config("pretrain.steps=1"), tmp_path / "out"
    pretrain(tiny_bundle, settings, out, resume=True)
    assert "no checkpoint" not in capsys.readouterr().err
    (out / "model.safetensors").unlink()
    pretrain(tiny_bundle, settings, out, resume=True)
    assert "no checkpoint was written yet, it begins at step 0" in capsys.readouterr().err


def test_a_finished_run_is_read_back(tiny_bundle, tmp_path):
    first = pretrain(tiny_bundle, config("pretrain.steps=2"), tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()
    weights = tmp_path / "out" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = pretrain(tiny_bundle, config("pretrain.steps=2"), tmp_path / "out", resume=True)
    assert weights.stat().st_mtime_ns == before
    assert again.metrics == first.metrics
    assert again.history.equals(first.history)


# --- choosing the best weights ---


def test_it_stops_when_it_gets_no_better_and_keeps_the_best(tiny_bundle, tmp_path):
    settings = config(
        "pretrain.validation_blocks=0.2", "pretrain.validation_every=2", "pretrain.patience=2",
        "pretrain.steps=40", "pretrain.learning_rate=0.3", "pretrain.schedule=constant",
        "pretrain.contrastive_weight=0", "pretrain.ema_decay=0", "pretrain.checkpoint_minutes=9",
    )  # fmt: skip
    result = pretrain(tiny_bundle, settings, tmp_path / "out")
    rows = result.history.query("metric == 'bits_per_base'")
    passes = rows[rows["split"] == "val"]
    values = passes["value"].tolist()
    # Random bases cannot be told: with such a rate it only gets worse.
    assert len(values) == int(np.argmin(values)) + 1 + 2
    assert rows["step"].max() == passes["step"].max() == 2 * len(values) - 1 < 39
    source = bundle_source(tiny_bundle, 0, 0.2)
    again, _ = masked_base_metrics(
        {"": result.model}, source.genome, source.validation, window_bp=2048, n_windows=32,
        is_strand_averaged=False,
    )  # fmt: skip
    assert again.value == pytest.approx(min(values), abs=1e-9)


def test_validation_sequence_trains_nothing_and_the_held_out_fold_chooses_nothing(
    tiny_bundle, tmp_path
):
    settings = config("pretrain.validation_blocks=0.2", "pretrain.validation_every=2")
    honest = pretrain(tiny_bundle, settings, tmp_path / "a")
    again = pretrain(with_other_blocks(tiny_bundle, [0]), settings, tmp_path / "b")
    for name, value in honest.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert honest.history.equals(again.history)
    tokens = np.array(tiny_bundle.genome.tokens)
    for _, start, end in bundle_source(tiny_bundle, 0, 0.2).validation:
        where = np.arange(start, end) % len(tokens)
        tokens[where] = (tokens[where] + 1) % 4
    other = pretrain(with_genome(tiny_bundle, tokens), settings, tmp_path / "c").history
    trained = honest.history.query("split == 'train'").reset_index(drop=True)
    assert trained.equals(other.query("split == 'train'").reset_index(drop=True))
    assert not honest.history.equals(other)


# --- scores ---


def constant_model(*logits: float) -> PretrainingModel:
    """Whatever it reads, it says the same."""
    model = PretrainingModel(config().model, 8)
    with torch.no_grad():
        model.masked_bases.weight.zero_()
        model.masked_bases.bias.copy_(torch.tensor(logits))
    return model


def measure(model, bundle):
    held_out = bundle_source(bundle, 0).held_out
    sizes = {"window_bp": 1024, "n_windows": 8, "is_strand_averaged": False}
    bits, top = masked_base_metrics({"": model}, bundle.genome, held_out, **sizes)
    assert (bits.metric, top.metric) == ("bits_per_base", "masked_top_1")
    assert bits.n == top.n == pytest.approx(8 * 1024 / 32, rel=0.3)
    return bits, top


def test_a_model_that_says_nothing_has_two_bits(tiny_bundle):
    bits, top = measure(constant_model(0, 0, 0, 0), tiny_bundle)
    assert (bits.value, bits.ci_low, bits.ci_high) == pytest.approx((2, 2, 2), abs=1e-6)
    assert top.ci_low <= top.value <= top.ci_high
    assert top.value == pytest.approx(0.25, abs=0.1)


def test_a_model_that_always_says_a_is_right_where_there_is_an_a(tiny_bundle):
    everything = np.full(tiny_bundle.genome.length, 0, np.uint8)
    bits, top = measure(constant_model(9, 0, 0, 0), with_genome(tiny_bundle, everything))
    assert top.value == 1
    assert bits.value == pytest.approx(np.log2(1 + 3 * np.exp(-9)), abs=1e-6)
    bits, top = measure(constant_model(9, 0, 0, 0), with_genome(tiny_bundle, everything + 1))
    assert top.value == 0
    assert bits.value == pytest.approx(np.log2(np.exp(9) + 3), abs=1e-4)


def test_strands_are_averaged_by_the_definition():
    torch.manual_seed(0)
    model, tokens = PretrainingModel(config().model, 8).eval(), random_tokens(2, 1024)
    tokens[0, 100:130], tokens[1, :9] = 5, 4
    found = base_log_probabilities(model, tokens, is_strand_averaged=True)
    with torch.no_grad():
        ahead = model.base_logits(model.encode(tokens)).double().softmax(-1).numpy()
        behind = model.base_logits(model.encode(reverse_complement(tokens))).double()
    behind = behind.softmax(-1).numpy()
    for row, place in ((0, 0), (0, 115), (1, 4), (1, 1023)):
        # T on the other strand, read from its other end, is A here.
        both = [ahead[row, place, base] * behind[row, 1023 - place, 3 - base] for base in range(4)]
        mean = np.sqrt(both) / np.sqrt(both).sum()
        np.testing.assert_allclose(found[row, place].detach().exp(), mean, rtol=1e-4)
    again = base_log_probabilities(model, reverse_complement(tokens), is_strand_averaged=True)
    torch.testing.assert_close(again.flip(1, 2), found, atol=1e-5, rtol=1e-4)
    alone = base_log_probabilities(model, tokens, is_strand_averaged=False)
    np.testing.assert_allclose(alone.detach().exp(), ahead, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(alone, found, atol=1e-3)


def test_measuring_leaves_the_model_as_it_was(tiny_bundle):
    for training in (True, False):
        model = constant_model(0, 0, 0, 0).train(training)
        measure(model, tiny_bundle)
        assert model.training == training


# --- handing over ---


@pytest.fixture(scope="module")
def pretrained(tiny_bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "out"
    pretrain(tiny_bundle, config("pretrain.steps=1"), out)
    return out


def test_the_encoder_is_handed_over_and_nothing_else(pretrained, tiny_bundle):
    model = make_model(tiny_bundle, config())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_encoder_weights(model.encoder, pretrained)
    weights = load_file(pretrained / "model.safetensors")
    for name, value in model.state_dict().items():
        expected = weights[name] if name.startswith("encoder.") else before[name]
        assert torch.equal(value, expected), name
    changed = [
        name for name, value in before.items() if not torch.equal(value, weights.get(name, value))
    ]
    assert len(changed) > 10


@pytest.mark.parametrize(
    "setting",
    [
        "model.width=32",
        "model.base_width=0",
        "model.base_width=8",
        "model.bin_bp=8",
        "model.region_layers=2",
        "model.bin_layers=0",
        "model.annotation=true",
    ],
)
def test_an_encoder_of_another_size_is_refused(pretrained, tiny_bundle, setting):
    model = make_model(tiny_bundle, config(setting))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"model\.safetensors: found .* of shape .*, expected"):
        load_encoder_weights(model.encoder, pretrained)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_folder_without_a_model_is_refused(tiny_bundle, tmp_path):
    with pytest.raises(InputError, match=r"no model.safetensors, expected a folder that pretrain"):
        load_encoder_weights(make_model(tiny_bundle, config()).encoder, tmp_path)


def test_finetuning_takes_the_sizes_of_its_encoder(pretrained, tiny_bundle, tmp_path):
    other = config(
        "model.width=32", "model.region_layers=2", "model.graph_layers=0", "finetune.folds=0",
        "finetune.head_steps=1", "finetune.core_bp=16384", "finetune.flank_bp=1024",
    )  # fmt: skip
    result = finetune(tiny_bundle, other, tmp_path / "out", init=pretrained)
    run = json.loads((tmp_path / "out" / "fold0_seed0" / "run.json").read_text())["model"]
    assert (run["width"], run["region_layers"], run["graph_layers"]) == (16, 1, 0)
    ours = load_model(tmp_path / "out" / "fold0_seed0")
    weights = load_file(pretrained / "model.safetensors")
    for name, value in ours.encoder.state_dict().items():
        assert torch.equal(value, weights[f"encoder.{name}"]), name
    assert result.predictions["predicted"].notna().all()
