"""The corpus stage: phases of tasks over units, segments and ranges of hashes, then the files and the funnel."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.corpus.documents import Part
from groundup.corpus.engine import Engine
from groundup.corpus.funnel import SourceFunnel, funnel_json
from groundup.corpus.keys import count_rows, ranges
from groundup.corpus.phases import perform
from groundup.corpus.plan import AGAINST, Plan, Segment, as_task, read_beat, read_record
from groundup.corpus.policy import prepare_policy, step_names
from groundup.corpus.sources import Source, external_identities, resolve_sources
from groundup.corpus.store import write_rejections
from groundup.corpus.units import Unit, content_bytes, make_units
from groundup.corpus.write import EQUAL_NOW, EXACT, NEAR, SPLITS, documents_in
from groundup.recipe import CorpusSection
from groundup.run import Bar, GroundupError, UserError, fingerprint, progress, write_json, write_text

GUESSED_BYTES, GUESSED_DOCUMENTS = 500, 20_000  # of a built-in text, for the progress bar
LEAST_WORK = 32 * 2**20  # bytes for which one more worker is worth its start of a second
LIGHT = {"refine": 2, "write": 8, "write_held_out": 8}  # how many times faster than filtering a phase is
UNFILTERED = 3  # and reading alone
ROW_WORK = 64  # bytes of text that are about as much work as one row of a table
MANY_DOCUMENTS, PASSAGE = 100, 8000  # where passage_characters is "auto"
FORMAT = 2  # of the work folder: another format's is begun anew


def build_corpus(
    section: CorpusSection,
    *,
    seed: int,
    out: Path,
    work: Path | None = None,
    workers: int = 1,
    cluster: str | None = None,
    tests: Iterable[tuple[str, str]] = (),
    identity: str = "",
) -> dict[str, Any]:
    """Make the corpus of `section.sources` in the directory `out`; returns the stage's metrics.

    Writes out/documents/{train,validation}-NNNNN.parquet, out/funnel.json and out/rejected/*.parquet. Equal inputs
    give equal bytes, whatever `workers` and `cluster` are and however often the work was interrupted.

    Args:
        work: folder of what is done so far; with the same inputs the work goes on from there. The caller removes it.
        workers: processes that share the work.
        cluster: address of a Ray cluster, or "local"; None for this machine alone (see `Engine`).
        tests: (task, text) of what `section.decontaminate` looks for.
        identity: fingerprint of all inputs; work begun under another is thrown away.

    Raises UserError for a missing source, and for a corpus of fewer than two documents.
    """
    from groundup.corpus.report import show
    from groundup.corpus.sankey import sankey_svg

    sources = resolve_sources(section)
    work = work or out.parent / f".{out.name}.work"
    plan = _begin(section, seed, sources, work, identity)
    prepare_policy(plan, tests)
    with Engine(workers, cluster) as engine:
        stage = _Phases(plan, engine)
        stage.run("harvest", range(len(plan.units)), [_size(unit) for unit in plan.units])
        _save_segments(plan)
        own = [each for each in plan.segments if plan.units[each.unit].source != AGAINST]
        sizes = [segment.bytes for segment in own]
        if own:
            _decide(stage, plan)
        indices = [segment.index for segment in own]
        phase = "write"
        limit = _passage_limit(section, own)
        stage.run(phase, indices, sizes, limit=limit)
        records = [read_record(plan.place(phase, index)) for index in indices]
        if not any(record["funnel"]["steps"].get("validation") for record in records) and records:
            # No document's digest is below the fraction, as in a small corpus: the lowest one is held out.
            phase, lowest = "write_held_out", min(record["lowest_position"] for record in records)
            stage.run(phase, indices, sizes, limit=limit, threshold=lowest)
            records = [read_record(plan.place(phase, index)) for index in indices]
    funnels = _sum_funnels(plan, sources, records)
    _collect(plan, phase, indices, out)
    steps = ["read", "extracted", "cleaned", *step_names(section), *_late_steps(section), "kept", *SPLITS]
    content = funnel_json(funnels, steps) | {"passage_characters": limit}
    if section.decontaminate is not None:
        content["contamination"] = _contamination(plan)
    show(content)
    _check(content)
    write_json(out / "funnel.json", content)
    write_text(out / "funnel.svg", sankey_svg(content))
    write_rejections(out / "rejected", _examples(funnels))
    return _metrics(content)


def _decide(stage: _Phases, plan: Plan) -> None:
    """The phases between reading and writing: what repeats what."""
    dedup = plan.section.dedup
    if dedup.exact:
        stage.run_ranges("settle", [plan.tables("exact")])
    if plan.refines:
        named = {"lines": dedup.lines, "sites": dedup.boilerplate}
        stage.run_ranges("settle_lines", [plan.tables(name) for name, table in named.items() if table is not None])
        stage.run("refine", range(len(plan.segments)), [segment.bytes for segment in plan.segments])
        if dedup.exact:
            stage.run_ranges("settle_again", [plan.tables("exact", final=True)])
    if dedup.near is not None:
        stage.run_ranges("pair", [plan.tables("bands", final=True)])
        stage.run("cluster", [0], [1])


def _late_steps(section: CorpusSection) -> list[str]:
    wanted = {
        EXACT: section.dedup.exact,
        "boilerplate": section.dedup.boilerplate,
        "lines": section.dedup.lines,
        EQUAL_NOW: section.dedup.exact and (section.dedup.lines or section.dedup.boilerplate),
        NEAR: section.dedup.near,
    }
    return [name for name, present in wanted.items() if present]


class _Phases:
    """Runs phases one after another; what is done already is left as it is."""

    def __init__(self, plan: Plan, engine: Engine) -> None:
        self._plan, self._engine = plan, engine
        self._unfiltered = not step_names(plan.section)

    def run(self, phase: str, indices: Sequence[int], sizes: Sequence[float], **extra: Any) -> None:
        """One phase: the tasks of the numbers `indices`, whose `sizes` (bytes) the bar counts."""
        plan = self._plan
        todo = {
            index: size for index, size in zip(indices, sizes, strict=True) if not plan.place(phase, index).is_dir()
        }
        tasks = [as_task(plan.work, phase, index) | extra for index in todo]
        if not tasks:
            return
        with progress(f"corpus: {phase.split('_')[0]}", sum(sizes), "B") as bar, _watch(plan, phase, sizes, todo, bar):
            light = UNFILTERED if phase == "harvest" and self._unfiltered else LIGHT.get(phase, 1)
            workers = max(1, int(sum(todo.values()) / light) // LEAST_WORK)
            for result in self._engine.run(perform, tasks, workers):
                todo.pop(result["index"])

    def run_ranges(self, phase: str, tables: list[list[Path]]) -> None:
        """A phase over ranges of hashes, as many as the largest of the `tables` needs."""
        if tables:
            rows = max(count_rows(paths) for paths in tables)
            count = ranges(rows)
            self.run(phase, range(count), [rows * ROW_WORK // count + 1] * count, count=count)


@contextmanager
def _watch(plan: Plan, phase: str, sizes: Sequence[float], todo: dict[int, float], bar: Bar) -> Iterator[None]:
    """Keep the bar at what finished and running tasks have done, twice a second."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            running = [(size, read_beat(plan.work, phase, index)) for index, size in list(todo.items())]
            bar.update(sum(sizes) - sum(max(0.0, size - done) for size, done in running))

    thread = threading.Thread(target=look, name="corpus progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _begin(section: CorpusSection, seed: int, sources: list[Source], work: Path, identity: str) -> Plan:
    """The plan, with the folder of the work that goes on, or an empty one."""
    units = [*_against_units(section), *make_units(sources, section.shard_bytes)]
    units = [replace(unit, index=number) for number, unit in enumerate(units)]
    inputs = {
        "format": FORMAT,
        "identity": identity,
        "section": section.model_dump(mode="json"),
        "seed": seed,
        "units": [unit.as_json() for unit in units],
        "remote": external_identities(section, sources),
    }
    now = fingerprint(inputs)
    # A folder of its own for each set of inputs: a worker that outlives its build can't reach into another's.
    folder = work / now[:16]
    for other in work.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    for unfinished in folder.glob("*/.*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    plan = Plan(folder, section, seed, tuple((source.name, source.table) for source in sources), tuple(units))
    if not (folder / "plan.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        plan.save()
    return plan


def _size(unit: Unit) -> int:
    """About how many bytes of text a unit has; of a built-in one, a guess."""
    if unit.builtin is not None:
        return GUESSED_BYTES * (unit.documents or GUESSED_DOCUMENTS)
    return max(1, sum(content_bytes(part) for part in unit.parts))


def _against_units(section: CorpusSection) -> list[Unit]:
    """Units that read finished corpora, which come before all others. Raises UserError where there is none."""
    units = []
    for number, run in enumerate(section.dedup.against):
        files = sorted(Path(run).expanduser().glob("corpus/documents/*.parquet"))
        if not files:
            raise UserError(
                f"no finished corpus in {run!r}",
                where=f"corpus.dedup.against[{number}]",
                expected="the directory of a run whose corpus stage is done",
                mend="build that run first, or correct the path",
            )
        units += [Unit(0, AGAINST, (Part(str(path), "parquet", path.stat().st_size),)) for path in files]
    return units


def _save_segments(plan: Plan) -> None:
    """List what the first phase made, in the order of the documents."""
    if (plan.work / "segments.json").exists():
        return
    segments: list[Segment] = []
    for unit in plan.units:
        for number, each in enumerate(read_record(plan.place("harvest", unit.index))["segments"]):
            segments.append(Segment(len(segments), unit.index, number, each["rows"], each["bytes"]))
    plan.save_segments(segments)


def _passage_limit(section: CorpusSection, segments: list[Segment]) -> int | None:
    """Documents of more characters are cut; None where none is."""
    match section.passage_characters:
        case "whole":
            return None
        case "auto":
            return None if sum(segment.rows for segment in segments) >= MANY_DOCUMENTS else PASSAGE
        case limit:
            return limit


def _sum_funnels(plan: Plan, sources: list[Source], records: list[Any]) -> list[SourceFunnel]:
    """One funnel a source, from those of its units and segments."""
    funnels = [SourceFunnel(source.name, source.table.weight, source.table.epochs) for source in sources]
    for source, funnel in zip(sources, funnels, strict=True):
        funnel.skipped_files.update(source.skipped)
    by_name = {funnel.name: funnel for funnel in funnels}
    found = [read_record(plan.place("harvest", unit.index)) for unit in plan.units if unit.source != AGAINST]
    if plan.refines:
        own = [each.index for each in plan.segments if plan.units[each.unit].source != AGAINST]
        found += [read_record(plan.place("refine", index)) for index in own]
    for record in [*found, *records]:
        part = SourceFunnel.load(record["funnel"])
        by_name[part.name].merge(part)
    return funnels


def _contamination(plan: Plan) -> dict[str, Any]:
    """What was found of each task, over all units."""
    from groundup.corpus.decontaminate import Contamination, Targets

    total = Contamination()
    for unit in plan.units:
        if unit.source != AGAINST:
            total.merge(Contamination.load(read_record(plan.place("harvest", unit.index))["contamination"]))
    return total.report(Targets.load(plan.place("targets", 0)))


def _collect(plan: Plan, phase: str, indices: Sequence[int], out: Path) -> None:
    """Put the files that the last phase wrote in their place, without copying where that can be had."""
    shutil.rmtree(out / "documents", ignore_errors=True)
    (out / "documents").mkdir(parents=True)
    for index in indices:
        for path in documents_in(plan.place(phase, index)):
            target = out / "documents" / path.name
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)


def _examples(funnels: list[SourceFunnel]) -> list[Any]:
    return [
        example
        for funnel in funnels
        for key in sorted(funnel.examples)
        for example in sorted(funnel.examples[key], key=lambda each: (each.file, each.record))
    ]


def _check(content: dict[str, Any]) -> None:
    """Every record read is kept or counted under the rule that refused it; there is something to train on."""
    for source in content["sources"]:
        refused = sum(rule["documents"] for step in source["rejections"].values() for rule in step.values())
        read, kept = (source["steps"][step]["documents"] for step in ("read", "kept"))
        if read != kept + refused:
            raise GroundupError(f"{source['name']}: {read} documents read, {kept} kept and {refused} refused")
    splits = content["total"]["steps"]
    if splits["train"]["documents"] == 0:
        held = splits["validation"]["documents"]
        raise UserError(
            f"the corpus holds {held} documents: none is left to train on",
            where="corpus.sources",
            expected="at least two documents",
            mend="add text; cut a long one with corpus.passage_characters = 8000; or look in the funnel for a filter "
            "that refuses everything",
        )


def _metrics(content: dict[str, Any]) -> dict[str, Any]:
    steps = content["total"]["steps"]
    metrics: dict[str, Any] = {}
    for step in ("train", "validation", "read", "kept"):
        metrics[f"{step}_documents"], metrics[f"{step}_bytes"] = steps[step]["documents"], steps[step]["bytes"]
    rejections = content["total"]["rejections"]
    metrics["rejections"] = {
        f"{step}/{rule}": tally["documents"] for step, rules in rejections.items() for rule, tally in rules.items()
    }
    metrics["rejected"] = sum(metrics["rejections"].values())
    return metrics
