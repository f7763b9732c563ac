"""Checkpoints: written whole in the background, found again by checksum, the oldest removed metadata first."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.run import (
    log,
    now,
    read_json,
    read_manifest,
    staged_directory,
    verify_directory,
    write_json,
    write_manifest,
)

FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """All that a training process is, at the end of an update. Tensors are copies that nobody changes."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    trainer: dict[str, Any]
    """JSON-able: counters, guard, journal positions"""


def directory_of(root: Path, step: int) -> Path:
    """root/step-00000500"""
    return root / f"step-{step:08d}"


def write(root: Path, snapshot: Snapshot, *, stage: str, kind: str, fingerprint: str) -> Path:
    """Write one checkpoint directory: beside its place, its manifest last, then renamed."""
    final = directory_of(root, snapshot.step)
    with staged_directory(final) as directory:
        (directory / "optimizer").mkdir()
        save_file(snapshot.model, directory / "model.safetensors", {"format": "pt"})
        save_file(snapshot.optimizer, directory / "optimizer" / "state.safetensors", {"format": "pt"})
        write_json(directory / "trainer.json", {"format": FORMAT, "step": snapshot.step, **snapshot.trainer})
        write_manifest(directory, stage=stage, kind=kind, fingerprint=fingerprint, inputs={}, metrics={}, started=now())
    return final


def checkpoints(root: Path) -> list[Path]:
    """The checkpoint directories below ``root``, oldest first."""
    return sorted(path for path in root.glob("step-*") if path.is_dir())


def retain(root: Path, keep: int) -> None:
    """Remove all but the ``keep`` newest, each manifest first so that no half of one is ever taken for whole."""
    for old in checkpoints(root)[:-keep]:
        (old / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(old)


def newest_sound(root: Path, fingerprint: str) -> Snapshot | None:
    """The newest checkpoint of this very stage whose files all match their checksums; unsound ones are named."""
    for directory in reversed(checkpoints(root)):
        manifest = read_manifest(directory)
        if manifest is None or manifest.fingerprint != fingerprint:
            continue
        problems = verify_directory(directory)
        if problems:
            log(f"checkpoint {directory.name} is damaged ({problems[0]}); going back to the one before")
            continue
        trainer = read_json(directory / "trainer.json")
        return Snapshot(
            trainer["step"],
            load_file(directory / "model.safetensors"),
            load_file(directory / "optimizer" / "state.safetensors"),
            trainer,
        )
    return None


class Writer:
    """Writes checkpoints on one background thread, in order; an error surfaces at the next call."""

    def __init__(self, root: Path, *, stage: str, kind: str, fingerprint: str, keep: int) -> None:
        self.root, self.keep = root, keep
        self._identity = {"stage": stage, "kind": kind, "fingerprint": fingerprint}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write; first wait for the one before, so that at most one copy is held in memory."""
        self.wait()
        self._pending = self._thread.submit(self._write, snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        write(self.root, snapshot, **self._identity)
        retain(self.root, self.keep)

    def wait(self) -> None:
        """Return when nothing is being written. Raises what the writing raised (``OSError`` on a full disk)."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
