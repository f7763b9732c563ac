"""Files and directories that are either wholly there or not there at all, whenever the process dies.

A file is written under a temporary name beside its place, synced to the disk and renamed; rename is atomic
on POSIX file systems. A directory is staged the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is synced and takes ``path``'s place.

    On an error the temporary file is removed and ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}{PARTIAL}"
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` atomically, as UTF-8 with its newlines as they are."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` atomically, as indented JSON. NaN and infinity are refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises FileNotFoundError, or ValueError where it is no JSON."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, read as a stream."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """SHA-256 of ``value`` as canonical JSON (sorted keys, no spaces), so that equal values hash equally."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


@contextmanager
def staged_directory(final: Path) -> Iterator[Path]:
    """Give a fresh sibling directory ``.NAME.partial``; on success it replaces ``final``.

    Everything in it is synced before the rename. What a killed process left under that name is removed
    first. On an error the staged directory is removed and ``final`` is as it was.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    staged = final.parent / f".{final.name}{PARTIAL}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        yield staged
        sync_tree(staged)
        if final.exists():
            # A directory can't be renamed over a full one; a death between these two lines costs one rebuild.
            shutil.rmtree(final)
        os.replace(staged, final)
        sync(final.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove what killed writers left in ``directory`` (names ``.NAME.partial``); returns what it removed."""
    removed = []
    for leftover in sorted(Path(directory).glob(f".*{PARTIAL}")):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
        removed.append(leftover)
    return removed


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Flush everything below ``directory`` to the disk, files before the directories that name them."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
