"""Every setting, frozen and checked; presets; strict overrides from the command line."""

import dataclasses
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from genesplice.config.model import ModelConfig, did_you_mean
from genesplice.config.training import FinetuneConfig, PretrainConfig, VerdictConfig
from genesplice.errors import InputError, require


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
        model=ModelConfig(width=64, heads=4, base_width=32),
        pretrain=PretrainConfig(steps=1000, batch_windows=1, ema_decay=0.99),
        finetune=FinetuneConfig(head_steps=120, epochs=0, folds=(0,)),
    ),
    "standard": Config(
        preset="standard",
        model=ModelConfig(width=128, heads=4, base_width=64),
        pretrain=PretrainConfig(
            steps=18_000, views_every=128, batch_windows=1, measure_windows=256, probe_sites=2000,
            measure_expression=True, ablations=("masked_only", "kmer_tokens"),
        ),
        finetune=FinetuneConfig(
            head_steps=100, epochs=0, seeds=(0, 1, 2, 3, 4), baselines=True,
            ablations=("rewired", "random_sets", "sequence_only", "random_encoder"),
        ),
        verdict=VerdictConfig(
            contexts_bp=(512, 2048, 8192, 32_768, 131_072, 8_388_608), epochs=48,
            seeds=(0, 1, 2), perturbation_genes=48, **OVERNIGHT,
        ),
    ),
    "full": Config(
        preset="full",
        model=ModelConfig(
            width=256, heads=8, bin_layers=2, summary_layers=4, region_layers=4, base_width=128
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
        types = typing.get_type_hints(type(getattr(config, section)))
        if key not in types:
            raise InputError(f"--set {path}: unknown key '{key}'; {did_you_mean(key, types)}")
        changes.setdefault(section, {})[key] = _parse(text.strip(), types[key], path)
    # Together: what belongs together is checked together, whatever the order.
    parts = {
        name: dataclasses.replace(getattr(config, name), **values)
        for name, values in changes.items()
    }
    return dataclasses.replace(config, **parts)


def _parse(text: str, wanted: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if type(None) in arguments:
        if text.lower() in {"none", "null", ""}:
            return None
        return _parse(text, next(a for a in arguments if a is not type(None)), path)
    if origin is Sequence:
        return tuple(
            _parse(item.strip(), arguments[0], path) for item in text.split(",") if item.strip()
        )
    if origin is Literal:
        if text not in arguments:
            raise InputError(f"--set {path}={text}: {did_you_mean(text, arguments)}")
        return text
    if wanted is bool:
        require(text.lower() in {"true", "false"}, f"--set {path}={text}", "true or false")
        return text.lower() == "true"
    try:
        return wanted(text)
    except ValueError as error:
        raise InputError(f"--set {path}={text}", f"a value of type {wanted.__name__}") from error
