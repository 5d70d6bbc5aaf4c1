"""Every setting, frozen and checked; presets; strict overrides from the command line."""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from genesplice.config.model import ModelConfig
from genesplice.config.training import FinetuneConfig, PretrainConfig, VerdictConfig
from genesplice.errors import InputError, did_you_mean, require


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run."""

    preset: str = "quick"
    model: ModelConfig = field(default_factory=ModelConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written into manifests."""
        return dataclasses.asdict(self)


OVERNIGHT: dict[str, Any] = {
    "smallest_effect": 0.01,
    "folds": None,
    "references": ("short_cnn", "enformer_like", "plain_attention", "kmer_tokens"),
}
"""Of a verdict that takes hours, whatever its size."""
PRESETS: dict[str, Config] = {
    "quick": Config(
        preset="quick",
        model=ModelConfig(width=64, heads=4, base_width=32, relatives=True),
        pretrain=PretrainConfig(steps=1000, batch_windows=1, ema_decay=0.99),
        finetune=FinetuneConfig(head_steps=120, epochs=0, folds=(0,)),
    ),
    "standard": Config(
        preset="standard",
        model=ModelConfig(width=128, heads=4, base_width=64, relatives=True),
        pretrain=PretrainConfig(
            steps=18_000, views_every=128, batch_windows=1, measure_windows=256, probe_sites=2000,
            measure_expression=True, ablations=("masked_only", "kmer_tokens"),
        ),
        finetune=FinetuneConfig(
            head_steps=100, epochs=0, seeds=(0, 1, 2, 3, 4), baselines=True,
            ablations=(
                "rewired", "random_sets", "exchanged_relatives", "sequence_only", "random_encoder",
            ),
        ),
        verdict=VerdictConfig(
            contexts_bp=(512, 2048, 8192, 32_768, 131_072, 8_388_608), epochs=48,
            seeds=(0, 1, 2), perturbation_genes=48, **OVERNIGHT,
        ),
    ),
    "full": Config(
        preset="full",
        model=ModelConfig(
            width=256, heads=8, bin_layers=2, summary_layers=4, region_layers=4, base_width=128,
            relatives=True,
        ),
        pretrain=PretrainConfig(
            steps=40000, window_bp=65536, batch_windows=16, measure_windows=64, probe_sites=3000
        ),
        finetune=FinetuneConfig(head_steps=500, epochs=20, seeds=(0, 1, 2, 3, 4)),
        verdict=VerdictConfig(
            contexts_bp=(512, 2048, 8192, 32_768, 131_072, 524_288, 8_388_608), epochs=100,
            width=128, heads=4, bin_bp=16, bin_layers=1, summary_layers=2, region_layers=2,
            decoder_layers=1, seeds=(0, 1, 2, 3, 4), perturbation_genes=200, **OVERNIGHT,
        ),
    ),
}  # fmt: skip


def load_preset(name: str) -> Config:
    """Return the preset called `name`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    require(name in PRESETS, f"preset '{name}'", f"one of {', '.join(PRESETS)}")
    return PRESETS[name]


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Return `config` with each `section.key=value` applied.

    Values are read by the type of the key: `none` for an optional one, `true`/`false` for a
    switch, commas for a list.

    Raises
    ------
    InputError
        On an unknown key (with the nearest known one), a malformed assignment, or a value of
        the wrong type or range.
    """
    changes: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        section, dot, key = path.strip().partition(".")
        require(equals and dot, f"--set {assignment}", "section.key=value, such as model.width=128")
        sections = {f.name for f in dataclasses.fields(Config)} - {"preset"}
        if section not in sections:
            raise InputError(
                f"--set {path}: unknown section '{section}'; {did_you_mean(section, sections)}"
            )
        hints = typing.get_type_hints(type(getattr(config, section)))
        if key not in hints:
            raise InputError(f"--set {path}: unknown key '{key}'; {did_you_mean(key, hints)}")
        changes.setdefault(section, {})[key] = read_value(text.strip(), hints[key], f"--set {path}")
    # Together: what belongs together is checked together, whatever the order.
    return replace(config, **changes)


def replace(config: Config, **changes: Mapping[str, Any]) -> Config:
    """The settings with some of some sections changed: `replace(config, model={"width": 128})`."""
    parts = {
        name: dataclasses.replace(getattr(config, name), **values)
        for name, values in changes.items()
    }
    return dataclasses.replace(config, **parts)


def read_value(text: str, wanted: Any, name: str) -> Any:
    """Read typed text as a value of a type; `name` stands before it in messages.

    `none` for an optional one, `true` or `false`, commas between the items of a list. Of a union
    the first that fits, text last. NaN and infinity are no numbers.

    Raises
    ------
    InputError
        If it is none.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if type(None) in arguments and text.lower() in {"none", "null", ""}:
        return None
    if origin in (typing.Union, types.UnionType):
        *others, last = sorted(set(arguments) - {type(None)}, key=lambda one: one is str)
        for one in others:
            with contextlib.suppress(InputError):
                return read_value(text, one, name)
        return read_value(text, last, name)
    if origin in (Sequence, list):
        items = text.removeprefix("[").removesuffix("]").split(",")
        values = (read_value(one.strip(), arguments[0], name) for one in items if one.strip())
        return list(values) if origin is list else tuple(values)
    if origin is Literal:
        known = {str(one): one for one in arguments}
        if text not in known:
            raise InputError(f"{name}={text}: {did_you_mean(text, known)}")
        return known[text]
    if wanted is bool:
        require(text.lower() in {"true", "false"}, f"{name}={text}", "true or false")
        return text.lower() == "true"
    try:
        value = wanted(text)
    except ValueError:
        value = math.nan
    is_number = not isinstance(value, float) or math.isfinite(value)
    require(is_number, f"{name}={text}", f"a value of type {wanted.__name__}")
    return value
