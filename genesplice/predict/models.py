"""Models from their folders: all that `finetune` wrote, one of its folds, or what `pretrain` wrote.

Of several models a measured gene is predicted by those that held it out, in the mean; every other
gene by the mean of all. Each folder keeps which genome its model was trained on.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from genesplice.config import ModelConfig
from genesplice.data.bundle import Bundle
from genesplice.data.knowledge import adopt_knowledge, trained_on
from genesplice.data.tracks import BIN_BP, Tracks, bin_offsets, n_bins
from genesplice.errors import InputError, require
from genesplice.model.adapters import read_weights
from genesplice.model.genesplice import (
    GeneSplice,
    PretrainingModel,
    make_encoder,
    reverse_complement,
)
from genesplice.model.heads import TrackModel
from genesplice.model.sequence import Columns, Tokens, reverse_columns
from genesplice.predict import find_pretrained
from genesplice.predict.pretrained import load_pretrained, reading
from genesplice.runtime import atomic_file

VECTORS = "vectors"
ABOUT_TRACKS, TRACK_VALUES = "tracks.json", ("measured.npy", "predicted.npy")
FOLD = re.compile(r"fold(\d+)_seed(\d+)")
Needs = Literal["expression", "masked bases"] | None
WRITERS: dict[Needs, str] = {
    "expression": "finetune", "masked bases": "pretrain", None: "finetune or pretrain",
}  # fmt: skip
"""Which verbs write the folder that is needed."""


def cache_folder(model: Path) -> Path:
    """Embedding cache of the model in folder `model`, shared with the models next to it."""
    return model.resolve().parent / VECTORS


def load_fold(directory: Path | str) -> GeneSplice:
    """Load what `GeneSplice.save_pretrained` wrote, ready to predict.

    Raises
    ------
    InputError
        If the folder holds no model, or one that this version cannot read.
    """
    directory = Path(directory)
    with reading(directory, "finetune", "config.json", "model.safetensors"):
        model = GeneSplice.from_pretrained(directory).eval()
    model.cache_folder = cache_folder(directory)
    return model


class TrackModels(NamedTuple):
    """What `finetune --tracks` wrote, of one run: its folds and seeds; `tracks` has no bins."""

    models: tuple[TrackModel, ...]
    paths: tuple[Path, ...]
    tracks: Tracks

    @torch.no_grad()
    def predict(
        self, tokens: Tokens, columns: Columns
    ) -> Float[np.ndarray, "models batch bins tracks"]:
        """The mean of both strands, in order of the + strand; peaks as shares."""
        other, found = self.tracks.other_strand, []
        turned, empty = reverse_complement(tokens), torch.zeros(len(tokens), 0, 0)
        for model in self.models:
            strands = []
            for one in ((tokens, columns), (turned, reverse_columns(columns))):
                raw = model(*one, empty)
                shown = torch.where(model.head.is_peaks, raw.sigmoid(), raw)
                strands.append(shown.double().numpy())
            found.append((strands[0] + strands[1][:, ::-1, other]) / 2)
        return np.stack(found)


class Models(NamedTuple):
    """One masked-base model, or none; any number of fine-tuned ones, seeds or folds; of tracks."""

    masked: PretrainingModel | None
    masked_path: Path | None
    levels: tuple[GeneSplice, ...]
    level_paths: tuple[Path, ...]
    tracks: TrackModels | None = None

    @property
    def record(self) -> dict[str, object]:
        """For the manifest."""
        return {
            "masked_base_model": None if self.masked_path is None else str(self.masked_path),
            "expression_models": [str(path) for path in self.level_paths],
            "track_models": [str(path) for path in self.tracks.paths] if self.tracks else [],
        }

    def held_out_by(self, bundle: Bundle) -> dict[str, tuple[int, ...]]:
        """Which models held a measured gene out, by gene_id; genes without any are left out.

        Of data without expression every gene may have been measured where the models were trained.
        No gene has any where the bundle's folds are not those that the models were trained with.
        """
        own = bundle.data_sha256.get("splits.parquet")
        members = defaultdict[int, list[int]](list)
        for i, path in enumerate(self.level_paths):
            name, inputs = FOLD.fullmatch(path.resolve().name), path / "inputs.json"
            trained = json.loads(inputs.read_text()) if inputs.is_file() else {}
            if name is not None and own is not None and trained.get("splits.parquet") == own:
                members[int(name[1])].append(i)
        genes = bundle.expression.var_names if bundle.is_measured else bundle.fold_of.index
        fold = bundle.fold_of.reindex(genes)
        return {str(gene): tuple(members[f]) for gene, f in fold.items() if f in members}

    def of_gene(self, bundle: Bundle, gene_id: str) -> "Models":
        """Only the models that predict this gene."""
        chosen = self.held_out_by(bundle).get(gene_id, range(len(self.levels)))
        return self._replace(
            levels=tuple(self.levels[i] for i in chosen),
            level_paths=tuple(self.level_paths[i] for i in chosen),
        )

    def describe(self, bundle: Bundle) -> str:
        """Say which models predict which genes."""
        names = ", ".join(path.name for path in self.level_paths[:3])
        names += ", …" if len(self.level_paths) > 3 else ""
        n_own, n_genes = len(self.held_out_by(bundle)), len(bundle.genes)
        if len(self.levels) == 1:
            return f"one model, {names}: it held {n_own} of {n_genes} genes out"
        others = f"{n_genes - n_own} genes by the mean of all {len(self.levels)}"
        return (
            f"{len(self.levels)} models ({names}): {n_own} genes by those that held them "
            f"out, {others}"
        )

    def adopt(self, bundle: Bundle, *, is_other_allowed: bool = False) -> tuple[Bundle, list[str]]:
        """The bundle with the knowledge that the models were trained with, and what to say of it.

        A model of another genome brings none of its network and gene sets along.

        Raises
        ------
        InputError
            For a model of another genome, unless that is allowed; for models that were trained
            with different networks or gene sets.
        """
        masked = () if self.masked_path is None else (self.masked_path,)
        own, said, is_other = bundle.genome.description, list[str](), False
        for path in (*masked, *self.level_paths, *(self.tracks.paths if self.tracks else ())):
            other = trained_on(path, bundle.genome)
            if other and not is_other_allowed:
                expected = f"one of {own} as in {bundle.path}, or --other-genome"
                raise InputError(f"a model of another genome, {other}", expected, path=path)
            if other:
                said.append(f"{path} is a model of {other}; the data are {own}")
            elif other is None:
                said.append(f"{path} does not say which genome it was trained on")
            is_other |= bool(other) and path in self.level_paths
        if not is_other:
            bundle = adopt_knowledge(bundle, *self.level_paths)
        else:
            said.append(_carried_over(self.levels[0], bundle))
        if self.levels:
            said.append(self.describe(bundle))
        return bundle, said


def _carried_over(model: GeneSplice, bundle: Bundle) -> str:
    """What of a model has a meaning for the genes of another genome."""
    known = model.graph.known
    found = [
        f"{len(set(known[kind]) & set(own))} of {len(known[kind])} {word}"
        for kind, word, own in (
            ("gene", "regulators", bundle.genes["gene_id"]),
            ("effector", "effectors", bundle.network["source"]),
            ("pathway", "gene sets", bundle.gene_sets),
        )
    ]
    return (
        "only what is read from sequence carries over: by name the data have "
        f"{', '.join(found)} of the model; its {len(model.conditions)} conditions are those that "
        "it was trained on"
    )


def open_models(
    folders: Path | str | Sequence[Path] | Models, *, follow: bool = True, needs: Needs = None
) -> Models:
    """Load each folder: one that `finetune` wrote, with all its folds, one fold's, or `pretrain`'s.

    Published weights go by their name. A folder of `finetune --tracks` may be one of them.
    What is loaded already is given back. With `follow`, and no pre-trained folder among them, the
    one that the fine-tuned models began from (`init` in the manifest of their run) is taken, if it
    is still there.

    Raises
    ------
    InputError
        If a folder is none of these, there are two pre-trained ones or two of tracks, none at all,
        or none of the kind that is needed.
    """
    if isinstance(folders, Models):
        return folders
    listed = [Path(folders)] if isinstance(folders, Path | str) else list(folders)
    require(listed, "no --model", "one or more")
    tuned, masked, tracks = [], [], []
    for folder in (find_pretrained(one, WRITERS[needs]) for one in listed):
        folds = [path.parent for path in folder.glob("fold*_seed*/config.json")]
        folds = [path for path in folds if FOLD.fullmatch(path.name)]
        if (folder / "config.json").is_file():
            tuned.append(folder)
        elif folds:
            tuned += sorted(folds, key=lambda path: [int(n) for n in FOLD.findall(path.name)[0]])
        elif any(folder.glob(ABOUT_TRACKS)) or any(folder.glob(f"fold*_seed*/{ABOUT_TRACKS}")):
            tracks.append(folder)
        elif (folder / "run.json").is_file():
            masked.append(folder)
        else:
            expected = "a folder that finetune or pretrain wrote"
            raise InputError("no config.json or run.json", expected, path=folder)
    for kind, found in (("pre-trained models", masked), ("models of tracks", tracks)):
        if len(found) > 1:
            raise InputError(f"two {kind}, {found[0]} and {found[1]}", "one")
    if not masked and follow:
        masked = [init for folder in tuned if (init := _init_of(folder)) is not None][:1]
    wanted = "--model DIR of a folder that finetune wrote"
    require(needs != "expression" or tuned, "no expression model", wanted)
    wanted = "--model DIR of a folder that pretrain wrote"
    require(needs != "masked bases" or masked, "no masked-base model", wanted)
    return Models(
        load_pretrained(masked[0]) if masked else None,
        masked[0] if masked else None,
        tuple(load_fold(folder) for folder in tuned),
        tuple(tuned),
        load_tracks(tracks[0]) if tracks else None,
    )


def load_model(folder: Path | str) -> GeneSplice | Models:
    """Load one fold's model; of a folder with all folds, all of them (see `open_models`)."""
    folder = Path(folder)
    is_run = not (folder / "config.json").is_file() and any(folder.glob("fold*_seed*/config.json"))
    return open_models(folder) if is_run else load_fold(folder)


# --- tracks ---


def load_tracks(folder: Path) -> TrackModels:
    """Load what `finetune --tracks` wrote, all its folds and seeds or one of them.

    Raises
    ------
    InputError
        If it holds no finished model, or one that this version cannot read.
    """
    all_paths = sorted(path.parent for path in folder.glob(f"fold*_seed*/{ABOUT_TRACKS}"))
    paths, models, tables = all_paths or [folder], list[TrackModel](), list[pd.DataFrame]()
    for path in paths:
        with reading(path, "finetune --tracks", "model.safetensors", ABOUT_TRACKS, "run.json"):
            about = json.loads((path / ABOUT_TRACKS).read_text())["tracks"]
            sizes = ModelConfig(**json.loads((path / "run.json").read_text())["model"])
            tables.append(pd.DataFrame(about)[["name", "kind", "strand"]])
            weights = read_weights(path / "model.safetensors")
            has_encoder = any(name.startswith("encoder.") for name in weights)
            encoder = make_encoder(sizes) if has_encoder else None
            models.append(TrackModel(encoder, weights["head.is_peaks"]))
            models[-1].load_state_dict(weights)
    same = all(table.equals(tables[0]) for table in tables)
    require(same, "models of different tracks", "models of one run", folder)
    tracks = Tracks(np.zeros((len(tables[0]), 0), np.float32), tables[0])
    return TrackModels(tuple(model.eval() for model in models), tuple(paths), tracks)


def track_loci(
    bundle: Bundle, folder: Path | str, genes: Sequence[str], *, reach_bp: int = 8192
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measured and predicted tracks around genes, and the genes that lie there.

    `folder` is one that `finetune --tracks` wrote. Both tables have `locus`, the gene in the
    middle, and count bases along the + strand from its TSS. Bins: track, strand, start, measured
    and predicted (coverage times its training mean; peaks 0 or 1 and their share), `predicted` NaN
    where no model held the bin out. Genes: gene_id, name, start, end, strand.

    Raises
    ------
    InputError
        For a folder without tracks, one of other data, and an unknown gene.
    """
    folder = Path(folder)
    require(bundle.tracks is not None, "a bundle without tracks", "tracks", bundle.path)
    assert bundle.tracks is not None
    try:
        both = [np.load(folder / name, mmap_mode="r") for name in TRACK_VALUES]
    except OSError:
        raise InputError("no measured.npy", "a folder of finetune --tracks", path=folder) from None
    shape = bundle.tracks.values.shape
    require(both[0].shape == shape, f"{both[0].shape} tracks x bins", f"{shape}", folder)
    table, offsets = bundle.genes.set_index("gene_id", drop=False), bin_offsets(bundle.genome)
    bins, around = list[pd.DataFrame](), list[pd.DataFrame]()
    for locus in genes:
        require(locus in table.index, f"gene {locus!r}", f"one of the genes of {bundle.name}")
        tss, contig = int(table["tss"][locus]), bundle.genome.contig(table["contig"][locus])
        near, length = table[table["contig"] == contig.name].copy(), contig.length
        spare = int(contig.is_circular)  # the last bin before the origin is shorter
        at = np.arange((tss - reach_bp) // BIN_BP - spare, -(-(tss + reach_bp) // BIN_BP) + spare)
        turn, row = np.divmod(at, n_bins(contig))
        if contig.is_circular:
            low = (near["start"] - tss + length / 2) % length - length / 2
        else:
            low, row = near["start"] - tss, row[turn == 0]
            turn = turn[turn == 0]
        near["end"] += (low - near["start"]).astype(int)
        near["start"] = low.astype(int)
        around.append(near[(near["end"] > -reach_bp) & (near["start"] < reach_bp)])
        around[-1].insert(0, "locus", locus)
        start, rows = row * BIN_BP + turn * length - tss, offsets[contig.name] + row
        for i, one in enumerate(bundle.tracks.table.itertuples()):
            about = {"locus": locus, "track": one.name, "strand": one.strand, "start": start}
            about |= {"measured": both[0][i, rows], "predicted": both[1][i, rows]}
            bins.append(pd.DataFrame(about))
    columns = ["locus", "gene_id", "name", "start", "end", "strand"]
    return pd.concat(bins, ignore_index=True), pd.concat(around, ignore_index=True)[columns]


def _init_of(folder: Path) -> Path | None:
    """The pre-trained folder that a fine-tuned model began from, where it is still there."""
    manifest = folder.parent / "manifest.json"
    init = json.loads(manifest.read_text()).get("init") if manifest.is_file() else None
    return Path(init) if init is not None and (Path(init) / "run.json").is_file() else None


def claim_parts(parts: Path, what: str, models: Iterable[Any]) -> None:
    """Note in `parts` what is worked out there and by which weights, or see that it is the same.

    Raises
    ------
    InputError
        If other work was begun there, or with another model.
    """
    parts.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, value in (item for one in models for item in sorted(one.state_dict().items())):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    note, mine = parts / "scan.txt", f"{what}model {digest.hexdigest()[:16]}"
    if note.exists() and note.read_text() != mine:
        raise InputError(f"a scan with {note.read_text()}", mine, path=parts)
    with atomic_file(note) as partial:
        partial.write_text(mine)
