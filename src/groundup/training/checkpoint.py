"""Checkpoints: written whole in the background, found again by checksum, the oldest removed metadata first.

    step-00000500/{model.safetensors, optimizer/state.safetensors, trainer.json, manifest.json}

A directory is written beside its place; files and directories are synced, the manifest of checksums last, and then it
is renamed. So a power failure too leaves it whole or absent. What spoils it later is found by its checksums.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.run import (
    log,
    now,
    read_json,
    read_manifest,
    remove_leftovers,
    staged_directory,
    verify_directory,
    write_json,
    write_manifest,
)

FORMAT = 1
MODEL = "model.safetensors"
OPTIMIZER = "optimizer/state.safetensors"
TRAINER = "trainer.json"


@dataclass(frozen=True)
class Snapshot:
    """All that a training process is, at the end of an update. Tensors are copies, good until the next one is taken."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    trainer: dict[str, Any]
    """JSON-able: counters, guard, journal positions"""


class Buffers:
    """Memory for the tensors of a snapshot, allocated once and then copied into; page-locked for those of a GPU."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def copies(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies on the CPU, contiguous, done when this returns. They are overwritten by the next call."""
        found = {}
        for name, tensor in tensors.items():
            kept = self._kept.get(name)
            if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
                kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self._kept[name] = kept
            found[name] = kept.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        return found


def directory_of(root: Path, step: int) -> Path:
    """root/step-00000500"""
    return root / f"step-{step:08d}"


def write(root: Path, snapshot: Snapshot, *, stage: str, kind: str, fingerprint: str) -> Path:
    """Write one checkpoint directory: beside its place, its manifest last, then renamed.

    Raises:
        OSError, SafetensorError: there is no room, or the disk refuses.
    """
    final = directory_of(root, snapshot.step)
    with staged_directory(final) as directory:
        (directory / OPTIMIZER).parent.mkdir()
        save_file(snapshot.model, directory / MODEL, {"format": "pt"})
        save_file(snapshot.optimizer, directory / OPTIMIZER, {"format": "pt"})
        write_json(directory / TRAINER, {"format": FORMAT, "step": snapshot.step, **snapshot.trainer})
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
    """The newest checkpoint of this very stage whose files all match their checksums; None where there is none.

    Whatever is newer is named with what is wrong with it, and set aside as ``aside-step-…``: it must not count among
    the checkpoints that are kept, nor be found again. What killed writers left behind is removed.
    """
    remove_leftovers(root)
    found = checkpoints(root)
    for directory in reversed(found):
        problem = _problem(directory, fingerprint)
        if problem is None:
            try:
                return _read(directory)
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                problem = f"it can't be read: {error}"
        log(f"checkpoint {directory.name} is passed over ({problem}); going back to the one before")
        _set_aside(directory)
    if found:
        log(f"no sound checkpoint is left in {root}: training begins anew")
    return None


def _problem(directory: Path, fingerprint: str) -> str | None:
    """What speaks against going on from a checkpoint; None where all is well."""
    manifest = read_manifest(directory)
    if manifest is None:
        return "no readable manifest.json"
    if manifest.fingerprint != fingerprint:
        return "it was made for another recipe"
    try:
        missing = {MODEL, OPTIMIZER, TRAINER} - manifest.files.keys()
        problems = [f"the manifest lacks {name}" for name in sorted(missing)] or verify_directory(directory)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:  # no checksum guards the manifest
        return f"it can't be verified: {error!r}"
    return problems[0] if problems else None


def _read(directory: Path) -> Snapshot:
    trainer = read_json(directory / TRAINER)
    return Snapshot(trainer["step"], load_file(directory / MODEL), load_file(directory / OPTIMIZER), trainer)


def _set_aside(directory: Path) -> None:
    aside = directory.with_name(f"aside-{directory.name}")
    shutil.rmtree(aside, ignore_errors=True)
    directory.rename(aside)


class Writer:
    """Writes checkpoints on one background thread, in order; an error surfaces at the next call."""

    def __init__(self, root: Path, *, stage: str, kind: str, fingerprint: str, keep: int) -> None:
        self.root, self.keep = root, keep
        self._identity = {"stage": stage, "kind": kind, "fingerprint": fingerprint}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Take a snapshot and begin to write it; first wait for the one before, whose memory it takes over."""
        self.wait()
        self._pending = self._thread.submit(self._write, take())

    def _write(self, snapshot: Snapshot) -> None:
        write(self.root, snapshot, **self._identity)
        retain(self.root, self.keep)

    def check(self) -> None:
        """Raise what the writing raised, if it has ended; don't wait for it."""
        if self._pending is not None and self._pending.done():
            self.wait()

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
