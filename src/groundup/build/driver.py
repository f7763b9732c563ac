"""The stages in order: skip what is done, make the rest, each whole or not at all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.build.exporting import require_exportable
from groundup.build.fingerprints import FileHashes, inputs_of, stage_fingerprints
from groundup.build.importing import source_files, with_digest
from groundup.build.record import RunRecord
from groundup.build.signals import Stop, stop_on_signals
from groundup.build.stages import ADAPTERS, Context
from groundup.hardware import Hardware
from groundup.recipe import TRAINING_KINDS, ImportSection, Recipe, Stage, dump_toml, nearest
from groundup.run import (
    GroundupError,
    Interrupted,
    UserError,
    log,
    now,
    read_manifest,
    remove_leftovers,
    run_lock,
    staged_directory,
    write_manifest,
    write_text,
)

# Below a training stage, what serves resuming and is no part of the result.
_NOT_RESULTS = ("checkpoints/*", "*/checkpoints/*", "trackers/*", "*/trackers/*", ".*", "*/.*")


@dataclass(frozen=True)
class BuildReport:
    """What a build did. ``built`` and ``skipped`` are names of stages; ``seconds`` is the wall time."""

    run: Path
    recipe: Recipe
    built: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: float


def build(
    recipe: Recipe,
    run: Path,
    *,
    only: Sequence[str] = (),
    until: str | None = None,
    fresh: bool = False,
    amends: bool = False,
) -> BuildReport:
    """Make the stages of ``recipe`` in the directory ``run``; what is done already is skipped.

    Args:
        only: just these stages; what they read must be done.
        until: the stages up to and with this one.
        fresh: remove the chosen stages first, done or not.
        amends: ``recipe`` is the run's own with a section more or changed. It becomes the run's when its stages are
            made, so that one that can't be made leaves the run as it was.

    Raises:
        UserError: an unknown stage, a missing input, an export that can't be, a tracker that is not installed, a run in
            which another process builds.
        Interrupted: SIGINT or SIGTERM; calling again carries on.
    """
    begun = time.monotonic()
    chosen = choose_stages(recipe, only, until)
    require_exportable(recipe, run, chosen)
    _require_trackers(recipe, chosen)
    with run_lock(run), stop_on_signals() as stop:
        remove_leftovers(run)
        record = RunRecord(run)
        record.begin(recipe.run.name)
        hardware = record.settle_hardware(recipe.hardware)
        hashes = FileHashes(run / ".hashes.json")
        recipe = with_digest(recipe, hashes, run)
        fingerprints = stage_fingerprints(recipe, hardware, hashes)
        hashes.save()
        if not amends:
            write_text(run / "recipe.toml", dump_toml(recipe))
        if fresh:
            for stage in chosen:
                if isinstance(stage.section, ImportSection):
                    source_files(stage.section)  # what can't be made again isn't removed
                shutil.rmtree(run / stage.name, ignore_errors=True)
                shutil.rmtree(run / f".{stage.name}.work", ignore_errors=True)
        maker = _Maker(recipe, run, hardware, fingerprints, record, stop)
        built, skipped = [], []
        for position, stage in enumerate(chosen, 1):
            label = f"[{position}/{len(chosen)}] {stage.name}"
            if is_done(run, stage.name, fingerprints[stage.name]):
                log(f"{label}: done before")
                shutil.rmtree(run / f".{stage.name}.work", ignore_errors=True)  # of a build killed at its very end
                skipped.append(stage.name)
                continue
            _require_inputs(recipe, run, stage, fingerprints)
            maker.make(stage, label)
            built.append(stage.name)
        if amends:
            write_text(run / "recipe.toml", dump_toml(recipe))
    return BuildReport(run, recipe, tuple(built), tuple(skipped), time.monotonic() - begun)


def choose_stages(recipe: Recipe, only: Sequence[str], until: str | None) -> list[Stage]:
    """The stages that --only and --until leave, in order. Raises UserError for a name the recipe lacks."""
    stages = recipe.ordered_stages()
    names = [stage.name for stage in stages]
    if not stages:
        raise UserError("this recipe has no stage", mend="add a section, such as [corpus]")
    for name in [*only, *([until] if until else [])]:
        if name not in names:
            raise UserError(
                f"no stage {name!r} in recipe {recipe.run.name!r}",
                expected="one of " + ", ".join(names),
                mend=nearest(name, names),
            )
    if until is not None:
        stages = stages[: names.index(until) + 1]
    return [stage for stage in stages if not only or stage.name in only]


def _require_trackers(recipe: Recipe, chosen: Sequence[Stage]) -> None:
    """Raise UserError for a tracker whose package is missing now, not after the stages before training."""
    if recipe.run.trackers and any(stage.kind in TRAINING_KINDS for stage in chosen):
        from groundup.training import require_trackers

        require_trackers(recipe.run.trackers)


def is_done(run: Path, name: str, fingerprint: str) -> bool:
    """Whether the stage's directory is whole and was made from what it would be made from now."""
    manifest = read_manifest(run / name)
    return manifest is not None and manifest.fingerprint == fingerprint


def _require_inputs(recipe: Recipe, run: Path, stage: Stage, fingerprints: Mapping[str, str]) -> None:
    for name in recipe.inputs(stage):
        if not is_done(run, name, fingerprints[name]):
            state = "was made from another recipe" if read_manifest(run / name) else "is not built yet"
            raise UserError(
                f"stage {stage.name!r} reads stage {name!r}, which {state}",
                where=str(run / name),
                mend=f"build without --only, or with --only {name} first",
            )


class _Maker:
    """Makes one stage after another, with what they share."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        hardware: Hardware,
        fingerprints: Mapping[str, str],
        record: RunRecord,
        stop: Stop,
    ) -> None:
        self._recipe, self._run, self._hardware = recipe, run, hardware
        self._fingerprints, self._record, self._stop = fingerprints, record, stop

    def make(self, stage: Stage, label: str) -> None:
        """Run the stage's adapter in a staged directory, or in place where it trains; manifest last."""
        fingerprint = self._fingerprints[stage.name]
        final = self._run / stage.name
        trains = stage.kind in TRAINING_KINDS
        if trains:
            set_aside(final, self._record.stage(stage.name).get("fingerprint"), fingerprint)
        log(f"{label}: begins")
        self._record.stage_begins(stage.name, fingerprint)
        begun, started, done = time.monotonic(), now(), False
        try:
            with ExitStack() as stack:
                if trains:
                    final.mkdir(exist_ok=True)
                    stack.enter_context(self._stop.deferred())
                    out = final
                else:
                    out = stack.enter_context(staged_directory(final))
                context = self._context(stage, out)
                metrics = ADAPTERS[stage.kind](context)
                write_manifest(
                    out,
                    stage=stage.name,
                    kind=stage.kind,
                    fingerprint=fingerprint,
                    inputs=inputs_of(self._recipe, stage, self._fingerprints),
                    metrics=metrics,
                    started=started,
                    exclude=_NOT_RESULTS if trains else (),
                )
            done = True
            shutil.rmtree(context.work, ignore_errors=True)
        finally:
            self._record.stage_ends(stage.name, time.monotonic() - begun, done=done)
        log(f"{label}: done in {duration(time.monotonic() - begun)}" + brief(metrics))
        if self._stop():
            raise Interrupted(f"stopped by {self._stop.requested}")

    def _context(self, stage: Stage, out: Path) -> Context:
        """What the stage's adapter is given."""
        return Context(
            self._recipe,
            self._run,
            stage,
            out,
            self._hardware,
            self._fingerprints[stage.name],
            self._fingerprints,
            self._stop,
            self._record.settle_peak,
        )


def set_aside(directory: Path, recorded: str | None, fingerprint: str) -> Path | None:
    """Rename a training directory that was made for another fingerprint, so that it is never resumed.

    Returns its new path, ``NAME.stale-N``, or None where the directory is absent or fits.
    """
    if not directory.exists():
        return None
    manifest = read_manifest(directory)
    found = manifest.fingerprint if manifest is not None else recorded
    if found == fingerprint:
        return None
    number = 1
    while (aside := directory.with_name(f"{directory.name}.stale-{number}")).exists():
        number += 1
    try:
        directory.rename(aside)
    except OSError as error:
        raise GroundupError(f"can't set {directory} aside: {error}") from error
    log(f"{directory.name}: made for another recipe, set aside as {aside.name}")
    return aside


def duration(seconds: float) -> str:
    """Seconds in a reader's words: 3.2 s, 2 min 05 s, 1 h 02 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def brief(metrics: Mapping[str, Any], most: int = 4) -> str:
    """The first few plain numbers among a stage's metrics, for its closing line."""
    shown = []
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        shown.append(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}")
    return "".join(f", {item}" for item in shown[:most])
