"""From files to a bundle: genome, genes, expression, network, gene sets, folds, leakage.

And from a bundle to one file that can be shared, checked and opened.
"""

import hashlib
import json
import shutil
import stat
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path

from genesplice.data.archives import SUMS
from genesplice.data.bundle import (
    FILES,
    RELATIVES_FILES,
    SCORE_FILES,
    TRACKS_FILES,
    Bundle,
    load_bundle,
    read_manifest,
)
from genesplice.data.genome import Genome, decode, encode, reverse_complement
from genesplice.data.prepare import prepare_files, prepare_recipe
from genesplice.data.tables import some
from genesplice.errors import InputError, require
from genesplice.runtime import atomic_directory, atomic_file, file_sha256

__all__ = [
    "Bundle",
    "Genome",
    "decode",
    "encode",
    "export_bundle",
    "load_bundle",
    "open_bundle",
    "prepare_files",
    "prepare_recipe",
    "reverse_complement",
    "verify_bundle",
]

MANIFEST = "manifest.json"
KNOWN = {MANIFEST, *FILES, *RELATIVES_FILES, *SCORE_FILES, *TRACKS_FILES}
"""Files that a bundle may have."""
LISTS_BYTES = 1 << 24
"""Of the manifest and the list of sums, at most."""


def export_bundle(folder: Path | str, file: Path | str, *, overwrite: bool = False) -> Path:
    """Write a bundle as one ZIP file, with the sha256 of each file in it, whole or not at all.

    The same bundle gives the same bytes.

    Raises
    ------
    InputError
        If the folder is no bundle or damaged, or `file` exists (without `overwrite`).
    """
    file = Path(file)
    require(overwrite or not file.exists(), f"{file} exists", "a new file (or --overwrite)")
    verify_bundle(folder)
    names = {MANIFEST: file_sha256(Path(folder, MANIFEST)), **_digests(Path(folder))}
    sums = "".join(f"{digest}  {name}\n" for name, digest in names.items())
    with atomic_file(file) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in (SUMS, *names):
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as target:
                if name == SUMS:
                    target.write(sums.encode())
                    continue
                with Path(folder, name).open("rb") as source:
                    shutil.copyfileobj(source, target, 1 << 20)
    return file


def verify_bundle(path: Path | str) -> int:
    """Compare every file of a bundle, a folder or one file, with its sha256; how many there are.

    Raises
    ------
    InputError
        Naming the first file that differs; if it is no bundle.
    """
    path = Path(path)
    if path.is_file():
        return _unpack(path, None)
    digests = _digests(path)
    for name, digest in digests.items():
        is_same = (path / name).is_file() and file_sha256(path / name) == digest
        require(is_same, f"another {name}, or none", f"sha256 {digest}", path)
    return len(digests) + 1


def _digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a bundle, by its manifest."""
    listed = read_manifest(folder).get("files")
    is_whole = isinstance(listed, dict) and set(FILES) <= set(listed) <= KNOWN
    require(is_whole, f"a {MANIFEST} without the bundle's files", "all of them", folder)
    return dict(listed or {})


def open_bundle(file: Path | str, out: Path | str, *, overwrite: bool = False) -> Bundle:
    """Unpack what `export_bundle` wrote, checked, into a folder, whole or not at all.

    Raises
    ------
    InputError
        As `verify_bundle`, and if `out` exists and is not empty (without `overwrite`).
    """
    require(Path(file).is_file(), f"no file {file}", "what genesplice bundle export wrote")
    with atomic_directory(Path(out), overwrite=overwrite) as folder:
        _unpack(Path(file), folder)
    return load_bundle(out)


def _unpack(file: Path, folder: Path | None) -> int:
    """Check every member of a shared file, and write it into `folder`; how many there are.

    Members are those that a bundle has, so nothing is written elsewhere, and regular files.
    """
    name, expected = SUMS, "what genesplice bundle export wrote"
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names, size = [one.filename for one in members], sum(one.file_size for one in members)
            strange = [one for one in names if one not in {SUMS, *KNOWN} or names.count(one) > 1]
            require(not strange, f"the member {some(strange, 1)}", expected, file)
            links = [m.filename for m in members if stat.S_ISLNK(m.external_attr >> 16)]
            require(not links, f"{some(links, 1)}, which is a link", expected, file)
            plain = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
            other = [m.filename for m in members if m.compress_type not in plain]
            require(not other, f"{some(other, 1)}, packed in another way", expected, file)
            free = shutil.disk_usage((folder or file.absolute()).parent).free
            require(folder is None or size < free, f"{size} bytes", f"{free}, which are free", file)
            long = [
                m.filename
                for m in members
                if m.filename in (SUMS, MANIFEST) and m.file_size > LISTS_BYTES
            ]
            require(not long, f"{some(long, 1)} of more than {LISTS_BYTES} bytes", expected, file)
            lines = archive.read(SUMS).decode().splitlines()
            sums = {line[66:]: line[:64] for line in lines}
            name = MANIFEST
            listed = json.loads(archive.read(MANIFEST))["files"]
            is_same = sums == {MANIFEST: sums.get(MANIFEST), **listed}
            is_same &= {SUMS, *sums} == set(names) and set(FILES) <= set(sums)
            require(is_same, f"another {SUMS}", f"the files of {MANIFEST}", file)
            for name, digest in sums.items():
                found = hashlib.sha256()
                with archive.open(name) as source, ExitStack() as stack:
                    target = stack.enter_context((folder / name).open("xb")) if folder else None
                    while chunk := source.read(1 << 20):
                        found.update(chunk)
                        if target:
                            target.write(chunk)
                require(found.hexdigest() == digest, f"another {name}", f"sha256 {digest}", file)
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"a damaged {name} in it, or no ZIP file", expected, path=file) from error
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"no {name} that can be read", expected, path=file) from error
    return len(sums)
