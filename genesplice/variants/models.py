"""Which models score variants, told apart by what lies in their folders."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genesplice.data.bundle import Bundle
from genesplice.errors import InputError
from genesplice.model.genesplice import GeneSplice, PretrainingModel
from genesplice.predict.expression import load_model
from genesplice.predict.pretrained import load_pretrained


class Models(NamedTuple):
    """One masked-base model, or none; and any number of fine-tuned ones, seeds or folds."""

    masked: PretrainingModel | None
    masked_path: Path | None
    levels: tuple[GeneSplice, ...]
    level_paths: tuple[Path, ...]

    @property
    def record(self) -> dict[str, object]:
        """For the manifest."""
        return {
            "masked_base_model": None if self.masked_path is None else str(self.masked_path),
            "expression_models": [str(path) for path in self.level_paths],
        }


def open_models(folders: Sequence[Path], *, follow: bool = True) -> Models:
    """Load each folder: `config.json` marks a fine-tuned model, `run.json` a pre-trained one.

    With `follow`, and no pre-trained folder among them, the one that the fine-tuned model began
    from (`init` in the manifest of its run) is taken, if it is still there.

    Raises
    ------
    InputError
        If a folder is neither, there are two pre-trained ones, or none at all.
    """
    tuned = [folder for folder in folders if (folder / "config.json").is_file()]
    masked = [folder for folder in folders if folder not in tuned]
    for folder in masked:
        if not (folder / "run.json").is_file():
            inside = sorted(folder.glob("fold*_seed*/config.json"))
            hint = f"such as {inside[0].parent}" if inside else "a folder of pretrain or finetune"
            raise InputError("no config.json or run.json", hint, path=folder)
    if len(masked) > 1:
        raise InputError(f"two pre-trained models, {masked[0]} and {masked[1]}", "one")
    if not folders:
        raise InputError("no --model", "one or more")
    if not masked and follow:
        masked = [init for init in map(_began_from, tuned) if init is not None][:1]
    return Models(
        load_pretrained(masked[0]) if masked else None,
        masked[0] if masked else None,
        tuple(load_model(folder) for folder in tuned),
        tuple(tuned),
    )


def _began_from(folder: Path) -> Path | None:
    manifest = folder.parent / "manifest.json"
    if not manifest.is_file():
        return None
    init = json.loads(manifest.read_text()).get("init")
    found = None if init is None else Path(init)
    return found if found is not None and (found / "run.json").is_file() else None


def trained_on(bundle: Bundle, folders: Sequence[Path]) -> list[str]:
    """Measured genes that at least one of these fine-tuned models was trained on.

    A folder's name says which fold was held out (`fold0_seed1`); of any other, all genes count.
    """
    found: set[str] = set()
    for folder in folders:
        named = re.fullmatch(r"fold(\d+)_seed\d+", folder.resolve().name)
        is_known = named is not None and int(named.group(1)) < bundle.n_folds
        measured = bundle.expression.var_names
        found |= set(bundle.train_genes(int(named.group(1))) if named and is_known else measured)
    return [gene for gene in bundle.expression.var_names if gene in found]
