"""Equal documents and shared lines: decided by ranges of hashes, then taken out segment by segment."""

from __future__ import annotations

import numpy as np

from groundup.corpus.accounts import count, refuse, without
from groundup.corpus.columns import as_numpy, flags
from groundup.corpus.dedup import (
    boilerplate_lines,
    count_pages,
    first_of_each,
    remove_boilerplate,
    remove_lines,
    surplus_lines,
    total_pages,
)
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.funnel import SourceFunnel
from groundup.corpus.harvest import judge_again
from groundup.corpus.keys import read_range, read_rows_of
from groundup.corpus.plan import AGAINST, Beat, Plan, Segment, finished_folder
from groundup.corpus.policy import Policy
from groundup.corpus.segments import SegmentFolder, ordinals, read_texts
from groundup.corpus.sizes import measure
from groundup.corpus.write import EXACT, EXACT_RULE, dropped
from groundup.run import write_json

NOTHING_LEFT = "nothing_left"


def settle(plan: Plan, number: int, ranges: int, phase: str = "settle") -> None:
    """Make WORK/<phase>/<range>: exact.npy, the ordinals of documents that repeat another, sorted.

    The phase "settle" looks at the texts as harvested, "settle_again" at those that have lost lines.
    """
    with finished_folder(plan.place(phase, number)) as folder:
        rows = read_range(plan.tables("exact", final=phase == "settle_again"), number, ranges)
        stays = first_of_each(rows[:, :2], rows[:, 2])
        np.save(folder / "exact.npy", np.sort(rows[~stays, 2])[:, None], allow_pickle=False)


def settle_lines(plan: Plan, number: int, ranges: int) -> None:
    """Make WORK/settle_lines/<range>: lines.npy and sites.npy, (ordinal, key) of the lines that go, sorted.

    Documents that go as a whole don't count: neither do their lines, nor are they pages of their site.
    """
    dedup = plan.section.dedup
    gone = plan.gone("settle")
    with finished_folder(plan.place("settle_lines", number)) as folder:
        if dedup.lines is not None:
            rows = read_range(plan.tables("lines"), number, ranges)
            rows = rows[~np.isin(rows[:, 1], gone)]
            np.save(folder / "lines.npy", surplus_lines(rows, dedup.lines), allow_pickle=False)
        if dedup.boilerplate is not None:
            rows = read_range(plan.tables("sites"), number, ranges)
            rows = rows[~np.isin(rows[:, 2], gone)]
            found = boilerplate_lines(rows, _pages(plan, gone), dedup.boilerplate)
            np.save(folder / "sites.npy", found, allow_pickle=False)


def _pages(plan: Plan, gone: np.ndarray) -> np.ndarray:
    """How many pages each site has, uint64 [s, 2], added up segment by segment."""
    counts = [np.empty((0, 2), np.uint64)]
    for path in plan.tables("pages"):
        rows = np.load(path, allow_pickle=False)
        counts.append(count_pages(rows[~np.isin(rows[:, 1], gone), 0]))
    return total_pages(np.concatenate(counts))


def refine(plan: Plan, index: int, beat: Beat) -> None:
    """Make WORK/refine/<segment>: its texts less repeated documents and lines, with signatures, and record.json."""
    segment = plan.segments[index]
    against = plan.units[segment.unit].source == AGAINST
    name = "against" if against else plan.sources[plan.units[segment.unit].source][0]
    funnel = SourceFunnel(name)
    repetitions = dropped(plan, segment, "settle", "exact") if plan.section.dedup.exact else np.empty(0, np.int64)
    with finished_folder(plan.place("refine", index)) as folder:
        writer = SegmentFolder(folder, plan, segment.unit, first=False, final=True)
        for batch in read_texts(plan.harvested(segment)):
            if not against:
                if plan.section.dedup.exact:
                    batch = without(batch, repetitions, EXACT, EXACT_RULE, funnel)
                batch = _without_lines(batch, plan, segment, funnel)
            if len(batch):
                writer.add(batch, as_numpy(batch.columns["row"]))
            beat(int(as_numpy(batch.columns["bytes"]).sum()))
        writer.close()
        write_json(folder / "record.json", {"funnel": funnel.dump()})


def _without_lines(batch: Batch, plan: Plan, segment: Segment, funnel: SourceFunnel) -> Batch:
    """The documents less boilerplate, then less lines that others have; what is left empty is refused.

    A chat keeps all its lines: it is learned whole. What has lost lines is judged by the filters once more, so that
    no document stays that they would refuse.
    """
    dedup = plan.section.dedup
    for step, name in (("boilerplate", "sites"), ("lines", "lines")):
        if getattr(dedup, step) is None or not len(batch):
            continue
        numbers = ordinals(segment.unit, as_numpy(batch.columns["row"]))
        removals = read_rows_of(plan.decisions("settle_lines", name), int(numbers[0]), int(numbers[-1]) + 1)
        whole = as_numpy(batch.columns["messages"].is_valid())
        removals = removals[~np.isin(removals[:, 0], numbers[whole])]
        if name == "sites":
            texts, lost = remove_boilerplate(batch.texts, batch.columns["url"], numbers, removals)
        else:
            assert dedup.lines is not None
            texts, lost = remove_lines(batch.texts, numbers, removals, dedup.lines)
        funnel.edits[f"{step}/lines removed"] += int(lost.sum())
        funnel.edits[f"{step}/documents shortened"] += int((lost > 0).sum())
        left = measure(texts)[1]
        failed = np.where((left == 0) & (lost > 0), 0, -1).astype(np.int16)
        outcome = Outcome(failed, np.full(len(batch), np.nan), texts)
        batch = refuse(batch.with_columns(changed=flags(lost > 0)), outcome, step, (NOTHING_LEFT,), funnel)
        batch = judge_again(batch, step, Policy.of(plan), funnel)
        count(batch, step, funnel)
    return batch
