"""Presets are valid, overrides are strict, and a wrong value is told from a right one."""

import collections.abc
import dataclasses
import json
import types
import typing

import pytest

from genesplice.config import (
    PRESETS,
    Config,
    FinetuneConfig,
    ModelConfig,
    PretrainConfig,
    VerdictConfig,
    load_preset,
    override,
)
from genesplice.config.model import BIN_SIZES_BP
from genesplice.errors import InputError, did_you_mean

SECTIONS = {
    "model": ModelConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "verdict": VerdictConfig,
}
KEYS = [
    (section, key, wanted)
    for section, kind in SECTIONS.items()
    for key, wanted in typing.get_type_hints(kind).items()
]


def change(*assignments: str) -> Config:
    return override(Config(), assignments)


def is_number(wanted) -> bool:
    """True for int and float, None and lists of them allowed."""
    if isinstance(wanted, types.UnionType):
        return any(is_number(part) for part in typing.get_args(wanted))
    if typing.get_origin(wanted) is collections.abc.Sequence:
        return is_number(typing.get_args(wanted)[0])
    return wanted in (int, float)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_carry_their_name_and_can_be_built_again(name):
    preset = load_preset(name)
    assert preset.preset == name
    for section in SECTIONS:
        part = getattr(preset, section)
        assert dataclasses.replace(part) == part


def test_presets_grow():
    quick, standard, full = (load_preset(name) for name in ("quick", "standard", "full"))
    assert quick.model.width < standard.model.width < full.model.width
    assert quick.pretrain.steps < standard.pretrain.steps < full.pretrain.steps
    assert quick.finetune.epochs <= standard.finetune.epochs < full.finetune.epochs
    assert len(quick.finetune.ablations) < len(standard.finetune.ablations)
    assert len(quick.finetune.seeds) < len(standard.finetune.seeds) <= len(full.finetune.seeds)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(InputError, match="preset 'quik', expected one of quick, standard, full"):
        load_preset("quik")


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("model.width=64", 64),
        ("model.dropout=0", 0.0),
        ("model.dropout=2e-1", 0.2),
        ("model.annotation=false", False),
        ("model.annotation=TRUE", True),
        ("model.context_bp=none", None),
        ("model.context_bp=Null", None),
        ("model.context_bp=", None),
        ("model.context_bp=4096", 4096),
        ("model.gene_set_collections=KEGG", ("KEGG",)),
        ("model.gene_set_collections=KEGG, GO,COG", ("KEGG", "GO", "COG")),
        ("model.gene_set_collections=", ()),
        ("pretrain.schedule=cosine", "cosine"),
        ("pretrain.holdout_fold=none", None),
        ("pretrain.holdout_fold=3", 3),
        ("pretrain.views=gene,strand", ("gene", "strand")),
        ("pretrain.view_weights=0.5", (0.5,)),
        ("pretrain.masks=single, bin", ("single", "bin")),
        ("pretrain.masks=span,span,bin", ("span", "span", "bin")),
        ("finetune.folds=none", None),
        ("finetune.folds=4,0", (4, 0)),
        ("finetune.seeds=7", (7,)),
        (" finetune.seeds = 7 , 8 ", (7, 8)),
    ],
)
def test_a_value_is_read_by_the_type_of_its_key(assignment, value):
    section, key = assignment.partition("=")[0].strip().split(".")
    found = getattr(getattr(change(assignment), section), key)
    assert found == value
    assert type(found) is type(value)


def test_an_override_changes_its_key_only():
    before, after = Config().to_dict(), change("model.width=64").to_dict()
    assert after["model"].pop("width") == 64
    del before["model"]["width"]
    assert before == after


def test_the_last_override_counts_and_the_preset_is_left_alone():
    quick = load_preset("quick")
    assert override(quick, ["model.width=16", "model.width=32"]).model.width == 32
    assert load_preset("quick").model.width == quick.model.width == 64


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("modle.width=3", "unknown section 'modle'; did you mean 'model'?"),
        ("preset.width=3", "unknown section 'preset'"),
        ("zzz.width=3", "unknown section 'zzz'; there are: finetune, model, pretrain"),
        ("model.widht=3", "unknown key 'widht'; did you mean 'width'?"),
        ("finetune.seed=3", "unknown key 'seed'; did you mean 'seeds'?"),
        ("pretrain.zzz=3", "unknown key 'zzz'; there are: ablations, accumulate, batch_windows,"),
        ("model.width", "found --set model.width, expected section.key=value"),
        ("width=3", "found --set width=3, expected section.key=value"),
        ("model.width=wide", "model.width=wide, expected a value of type int"),
        ("model.width=64.5", "model.width=64.5, expected a value of type int"),
        ("model.width=none", "model.width=none, expected a value of type int"),
        ("model.dropout=some", "model.dropout=some, expected a value of type float"),
        ("model.annotation=1", "model.annotation=1, expected true or false"),
        ("finetune.folds=0;1", "finetune.folds=0;1, expected a value of type int"),
        ("pretrain.schedule=cosin", "pretrain.schedule=cosin: did you mean 'cosine'?"),
        ("pretrain.views=strand,operons", "pretrain.views=operons: did you mean 'operon'?"),
        ("pretrain.schedule=zzz", "there are: constant, cosine, exp_range, one_cycle, plateau"),
        ("finetune.schedule=plateau", "finetune.schedule=plateau: there are: constant, cosine"),
        ("pretrain.schedule=plateau", "expected validation blocks, such as 0.1"),
        ("pretrain.lowest_rate=0", "pretrain.lowest_rate 0.0, expected above 0"),
    ],
)
def test_a_misspelt_override_is_refused_with_a_hint(assignment, message):
    with pytest.raises(InputError) as caught:
        change(assignment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "found", "expected"),
    [
        ("model.bin_bp=12", "model.bin_bp 12", str(BIN_SIZES_BP)),
        ("model.width=20", "model.width 20 with model.heads 4", "even multiple of heads"),
        ("model.context_bp=60", "model.context_bp 60", "(64 bp)"),
        ("model.dropout=1", "model.dropout 1", "0 <= value < 1"),
        ("model.region_layers=0", "model.region_layers 0", "at least 1"),
        ("pretrain.window_bp=1000", "pretrain.window_bp 1000", "a multiple of 1024"),
        ("pretrain.shift_bp=2048", "pretrain.shift_bp 2048", "pretrain.window_bp 4096"),
        ("pretrain.window_bp=1024", "pretrain.shift_bp 256", "windows of 2048 bp"),
        ("pretrain.masked_fraction=0", "pretrain.masked_fraction 0.0", "0 < value < 1"),
        ("pretrain.temperature=0", "pretrain.temperature 0.0", "above 0"),
        ("pretrain.ema_decay=1", "pretrain.ema_decay 1.0", "0 <= value < 1"),
        ("pretrain.validation_blocks=0.5", "pretrain.validation_blocks 0.5", "< 0.5"),
        ("pretrain.views=", "pretrain.views ()", "at least one view"),
        ("pretrain.views=gene,gene", "pretrain.views ('gene', 'gene')", "each once"),
        ("pretrain.view_weights=1,2", "pretrain.view_weights (1.0, 2.0)", "one number"),
        ("pretrain.view_weights=-1", "pretrain.view_weights (-1.0,)", "one number from 0"),
        ("pretrain.masks=", "pretrain.masks ()", "at least one"),
        ("finetune.core_bp=5000", "finetune.core_bp 5000", "a multiple of 1024"),
        ("finetune.core_bp=0", "finetune.core_bp 0", "at least 1"),
        ("finetune.validation_blocks=0.5", "finetune.validation_blocks 0.5", "< 0.5"),
        ("finetune.seeds=", "finetune.seeds ()", "at least one of seeds"),
        ("finetune.seeds=0,0", "finetune.seeds (0, 0)", "each once"),
        ("finetune.folds=1,0,1", "finetune.folds (1, 0, 1)", "each once"),
        ("finetune.ablations=rewired,rewired", "finetune.ablations ('rewired', 'rew", "each once"),
        ("pretrain.ablations=masked_only,masked_only", "pretrain.ablations (", "each once"),
        ("verdict.control_seeds=2,2", "verdict.control_seeds (2, 2)", "each once"),
        ("verdict.references=short_cnn,short_cnn", "verdict.references (", "each once"),
        ("model.gene_set_collections=GO,GO", "model.gene_set_collections (", "each once"),
    ],
)
def test_a_value_out_of_range_is_refused_with_both_numbers(assignment, found, expected):
    with pytest.raises(InputError) as caught:
        change(assignment)
    assert str(caught.value).startswith(f"found {found}")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section, key, wanted in KEYS if is_number(wanted)]
)
def test_no_number_may_be_negative_or_nan(section, key):
    for text in ("-1", "-1024", "nan"):
        with pytest.raises(InputError, match=rf"{section}\.{key}[ =]"):
            change(f"{section}.{key}={text}")


def test_a_run_without_any_step_is_refused():
    with pytest.raises(InputError, match=r"finetune\.head_steps 0 with finetune\.epochs 0"):
        change("finetune.epochs=0", "finetune.head_steps=0")
    assert change("finetune.epochs=0").finetune.head_steps > 0


@pytest.mark.parametrize(
    "path",
    [
        "model.width",
        "model.heads",
        "model.bin_window",
        "pretrain.steps",
        "pretrain.contrastive_width",
        "finetune.batch_windows",
    ],
)
def test_what_must_be_there_may_not_be_zero(path):
    with pytest.raises(InputError, match=rf"{path} 0"):
        change(f"{path}=0")


def test_the_smallest_context_is_accepted():
    assert change("model.context_bp=64").model.context_bp == 64


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name):
    written = json.loads(json.dumps(load_preset(name).to_dict()))
    for section, kind in SECTIONS.items():
        assert kind(**written[section]) == getattr(load_preset(name), section)
    changed = override(load_preset(name), ["model.gene_set_collections=GO,KEGG"])
    again = ModelConfig(**json.loads(json.dumps(changed.to_dict()))["model"])
    assert again == changed.model
    assert hash(again) == hash(changed.model)


def test_views_that_count():
    def views(*assignments):
        return dict(change(*assignments).pretrain.active_views)

    assert views() == {"strand": 1.0}
    assert views("pretrain.views=strand,gene", "pretrain.view_weights=0,0.5") == {"gene": 0.5}
    assert views("pretrain.contrastive_weight=0") == {}


def test_settings_are_frozen():
    for part in (Config(), *(kind() for kind in SECTIONS.values())):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, dataclasses.fields(part)[0].name, 1)


def test_a_hint_is_the_nearest_name_or_all_of_them():
    assert did_you_mean("wdith", ["width", "heads"]) == "did you mean 'width'?"
    assert did_you_mean("qqq", ["width", "heads"]) == "there are: heads, width"
    assert did_you_mean("WDITH", ["Width", "heads"], "") == "did you mean 'Width'?"
    assert did_you_mean("qqq", ["width", "heads"], "none") == "none"


def test_settings_that_belong_together_may_come_in_any_order():
    words = ["pretrain.schedule=plateau", "pretrain.validation_blocks=0.1"]
    assert change(*words) == change(*words[::-1])
