"""metrics.jsonl and samples.jsonl: lines are appended, and a resumed run first cuts what came after its checkpoint."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import orjson


class Journal:
    """A file of JSON lines with a position that a checkpoint can record and return to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def write(self, record: dict[str, Any]) -> None:
        """Append one object; a reader sees whole lines at once."""
        self._file.write(orjson.dumps(record) + b"\n")
        self._file.flush()

    def position(self) -> int:
        """Bytes written so far, all of them on the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def after(self, position: int) -> list[dict[str, Any]]:
        """The records behind ``position`` that can be read: a power cut may leave anything there."""
        found = []
        with self.path.open("rb") as file:
            file.seek(position)
            for line in file:
                with contextlib.suppress(ValueError):
                    found.append(orjson.loads(line))
        return [record for record in found if isinstance(record, dict)]

    def rewind(self, position: int) -> None:
        """Forget every line after ``position``. A file that has lost some before it keeps what it has."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.truncate(min(position, size))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All records of a journal; a last line cut short by a kill is left out. [] where there is no file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [orjson.loads(line) for line in lines[:-1] if line]
