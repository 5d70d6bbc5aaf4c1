"""What a trained model says of genes: embeddings, expression, outputs to explain."""

from pathlib import Path

from genesplice.errors import require

PUBLISHED = Path(__file__).parents[1] / "weights"
"""Encoders that come with the package, in folders as `pretrain` writes them, with a model card."""


def find_pretrained(name: str | Path, verbs: str = "pretrain") -> Path:
    """The folder of that name, else the one of published weights called so.

    `verbs` says in a message who writes such a folder; published weights are no expression model.

    Raises
    ------
    InputError
        If there is neither.
    """
    folder = Path(name)
    if not folder.exists() and (PUBLISHED / name).is_dir():
        return PUBLISHED / name
    expected = f"a folder that {verbs} wrote"
    if "pretrain" in verbs:
        published = sorted(one.name for one in PUBLISHED.iterdir() if one.is_dir())
        expected += f", or published weights: {', '.join(published)}"
    require(folder.is_dir(), f"no folder {folder}", expected)
    return folder
