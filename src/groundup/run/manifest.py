"""The manifest of a stage: what it was made from and the checksum of everything it made.

A manifest is written last, so a directory with a readable one is whole; ``verify_directory`` re-hashes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from groundup.run.atomic import read_json, sha256_file, write_json
from groundup.run.provenance import versions as current_versions

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` holds. ``files`` maps a POSIX path below the directory to bytes and sha256."""

    stage: str
    kind: str
    fingerprint: str
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    metrics: dict[str, Any]
    started: str
    finished: str
    versions: dict[str, str]


def now() -> str:
    """The present moment as ISO 8601 UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_manifest(
    directory: Path,
    *,
    stage: str,
    kind: str,
    fingerprint: str,
    inputs: Mapping[str, str],
    metrics: Mapping[str, Any],
    started: str,
    exclude: Iterable[str] = (),
) -> Manifest:
    """Hash every file below ``directory`` and write its manifest, atomically and last.

    Args:
        inputs: name of each input stage to its fingerprint.
        started: ISO 8601 UTC, from ``now()``.
        exclude: glob patterns of POSIX paths below ``directory`` that are not part of the result.
    """
    directory = Path(directory)
    manifest = Manifest(
        stage=stage,
        kind=kind,
        fingerprint=fingerprint,
        inputs=dict(inputs),
        files=_hash_files(directory, tuple(exclude)),
        metrics=dict(metrics),
        started=started,
        finished=now(),
        versions=current_versions(),
    )
    write_json(directory / MANIFEST, asdict(manifest))
    return manifest


def read_manifest(directory: Path) -> Manifest | None:
    """The directory's manifest, or None where there is none or it can't be read as one."""
    try:
        content = read_json(Path(directory) / MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    names = {field.name for field in fields(Manifest)}
    if not isinstance(content, dict) or not names <= content.keys():
        return None
    return Manifest(**{name: content[name] for name in names})


def verify_directory(directory: Path) -> list[str]:
    """Re-hash every file a manifest lists; returns one line a problem, none when all is as it was made."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    if manifest is None:
        return [f"{directory.name}: no readable {MANIFEST}"]
    problems = []
    for name, recorded in manifest.files.items():
        path = directory / name
        if not path.is_file():
            problems.append(f"{directory.name}/{name}: missing")
        elif path.stat().st_size != recorded["bytes"]:
            size = path.stat().st_size
            problems.append(f"{directory.name}/{name}: {size} bytes, the manifest says {recorded['bytes']}")
        elif sha256_file(path) != recorded["sha256"]:
            problems.append(f"{directory.name}/{name}: content differs from its checksum")
    return problems


def _hash_files(directory: Path, exclude: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every regular file below ``directory``, but the manifest itself and ``exclude``."""
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if not path.is_file() or name == MANIFEST or any(fnmatch(name, pattern) for pattern in exclude):
            continue
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return files
