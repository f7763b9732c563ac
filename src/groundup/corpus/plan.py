"""The plan of a corpus: its units of work and where each phase's pieces lie; the one thing that workers share.

    WORK/plan.json                     the section, the seed, the units (written before any work)
    WORK/segments.json                 what the first phase made of the units
    WORK/<phase>/00012/…               one finished task: a folder that is there whole or not at all
    WORK/beats/<phase>-00012           how far a running task is, for the progress bar only

A document's ordinal is unit << 32 | its row in the unit, so it is the same however the work is divided.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from groundup.corpus.units import Unit
from groundup.recipe import CorpusSection, SourceTable
from groundup.run import read_json, write_json
from groundup.run.atomic import sync, sync_tree

AGAINST = -1  # source number of units that come from a finished corpus


@dataclass(frozen=True)
class Segment:
    """A stretch of a unit's documents of about `shard_bytes` of text: the grain of all later phases."""

    index: int
    unit: int
    number: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know. `sources` holds each source's name and its table."""

    work: Path
    section: CorpusSection
    seed: int
    sources: tuple[tuple[str, SourceTable], ...]
    units: tuple[Unit, ...]

    def save(self) -> None:
        """Write WORK/plan.json."""
        content = {
            "section": self.section.model_dump(mode="json"),
            "seed": self.seed,
            "sources": [[name, table.model_dump(mode="json")] for name, table in self.sources],
            "units": [unit.as_json() for unit in self.units],
        }
        write_json(self.work / "plan.json", content)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """All segments in the order of their documents. Known after the first phase."""
        return tuple(Segment(**each) for each in read_json(self.work / "segments.json"))

    def save_segments(self, segments: list[Segment]) -> None:
        write_json(self.work / "segments.json", [asdict(segment) for segment in segments])

    @property
    def refines(self) -> bool:
        """Whether a step after exact deduplication changes texts, so that signatures have to wait for it."""
        return self.section.dedup.lines is not None or self.section.dedup.boilerplate is not None

    def place(self, phase: str, index: int) -> Path:
        """Folder of a finished task."""
        return self.work / phase / f"{index:05d}"

    def harvested(self, segment: Segment) -> Path:
        """Folder of a segment as the first phase left it."""
        return self.place("harvest", segment.unit) / f"{segment.number:05d}"

    def texts(self, segment: Segment) -> Path:
        """Folder of a segment with its final texts and signatures."""
        return self.place("refine", segment.index) if self.refines else self.harvested(segment)

    def tables(self, name: str, *, final: bool = False) -> list[Path]:
        """The key tables of one name, of all segments; of their final texts if so asked."""
        folders = [self.texts(segment) if final else self.harvested(segment) for segment in self.segments]
        return [folder / f"{name}.npy" for folder in folders]

    def gone(self, phase: str) -> np.ndarray:
        """The ordinals of all documents that a phase found to repeat another, uint64, of each range sorted."""
        decided = [np.load(path, allow_pickle=False)[:, 0] for path in self.decisions(phase, "exact")]
        return np.concatenate([np.empty(0, np.uint64), *decided])

    def decisions(self, phase: str, name: str) -> list[Path]:
        """One table of every finished task of a phase."""
        return sorted((self.work / phase).glob(f"[0-9]*/{name}.npy"))


@lru_cache(maxsize=2)
def load_plan(work: Path) -> Plan:
    """The plan in WORK/plan.json. A folder has one plan for good: other inputs work in another."""
    content = read_json(work / "plan.json")
    return Plan(
        work,
        CorpusSection.model_validate(content["section"]),
        content["seed"],
        tuple((name, SourceTable.model_validate(table)) for name, table in content["sources"]),
        tuple(Unit.from_json(unit) for unit in content["units"]),
    )


@contextmanager
def finished_folder(final: Path) -> Iterator[Path]:
    """A folder that takes the name `final` when all in it is written and on the disk.

    Two workers may do the same task at the same time (one was thought dead): the first to finish counts.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    own = final.parent / f".{final.name}.{uuid.uuid4().hex}"
    own.mkdir()
    try:
        yield own
        sync_tree(own)
        try:
            os.rename(own, final)
        except OSError:
            if not final.is_dir():
                raise
        sync(final.parent)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def read_record(folder: Path) -> Any:
    """A finished task's record.json."""
    return read_json(folder / "record.json")


class Beat:
    """Says now and then how much of a task is done. What it writes is shown and never used."""

    def __init__(self, work: Path, phase: str, index: int) -> None:
        self._path = work / "beats" / f"{phase}-{index:05d}"
        self._done, self._last = 0.0, time.monotonic()

    def __call__(self, amount: float) -> None:
        """So much more is done."""
        self._done += amount
        if time.monotonic() - self._last > 0.5:
            self._last = time.monotonic()
            self._path.parent.mkdir(exist_ok=True)
            self._path.write_text(str(self._done))


def read_beat(work: Path, phase: str, index: int) -> float:
    """What a running task last said; 0 where it said nothing."""
    try:
        return float((work / "beats" / f"{phase}-{index:05d}").read_text())
    except (FileNotFoundError, ValueError):
        return 0.0


def as_task(work: Path, phase: str, index: int) -> dict[str, Any]:
    """A task's description, as workers get it."""
    return {"work": str(work), "phase": phase, "index": index}
