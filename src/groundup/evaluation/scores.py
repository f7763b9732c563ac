"""From single verdicts to rates with intervals, and to differences between two models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from groundup.evaluation.items import BALANCED, HARMLESSNESS, HELPFULNESS, HONESTY, QA, Item
from groundup.run import Interval, paired_bootstrap, wilson

Scores = Mapping[str, Mapping[str, bool]]
"""item id -> task -> whether the answer was good"""
METRICS = {
    QA: "exact_match",
    HELPFULNESS: "helpful_rate",
    HONESTY: "balanced_accuracy",
    HARMLESSNESS: "balanced_accuracy",
}
ALL_SPLITS = "all"
"""In comparisons: the items of all splits together."""


def leaf(interval: Interval, metric: str) -> dict[str, Any]:
    """A score as results.json holds it."""
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "metric": metric,
    }


def mean_of_two(first: Interval, second: Interval) -> Interval:
    """(a + b) / 2 of two independently measured values, from their own intervals.

    The distances of the limits from the values add like standard errors, each side by itself: the method of
    variance estimates recovery (Zou and Donner 2008, doi 10.1002/sim.3095). With Wilson's limits it keeps
    what they have near 0 and 1.
    """
    value = (first.value + second.value) / 2
    below = math.hypot(first.value - first.low, second.value - second.low) / 2
    above = math.hypot(first.high - first.value, second.high - second.value) / 2
    return Interval(value, value - below, value + above, first.n + second.n)


def score(task: str, items: Sequence[Item], scores: Scores) -> Interval:
    """The score of one task over items that have it: a rate, or for a balanced task the mean of two."""

    def rate(group: str | None) -> Interval:
        good = [scores[item.id][task] for item in items if group in (None, item.group)]
        return wilson(sum(good), len(good))

    if task in BALANCED:
        return mean_of_two(*(rate(group) for group in BALANCED[task]))
    return rate(None)


def task_results(tasks: Iterable[str], items: Sequence[Item], scores: Scores) -> dict[str, dict[str, dict[str, Any]]]:
    """{task: {split: leaf}} of one model; question answering also by kind, as ``storyworld_qa_<kind>``."""
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for task in tasks:
        for split, chosen in _by_split(task, items, scores):
            results.setdefault(task, {})[split] = leaf(score(task, chosen, scores), METRICS[task])
        if task == QA:
            for kind in dict.fromkeys(item.kind for item in items if QA in scores.get(item.id, {})):
                for split, chosen in _by_split(QA, [item for item in items if item.kind == kind], scores):
                    results.setdefault(f"{QA}_{kind}", {})[split] = leaf(score(QA, chosen, scores), METRICS[QA])
    return results


def _by_split(task: str, items: Sequence[Item], scores: Scores) -> Iterator[tuple[str, list[Item]]]:
    """Each split and its items that the task scores."""
    scored = [item for item in items if task in scores.get(item.id, {})]
    for split in dict.fromkeys(item.split for item in scored):
        yield split, [item for item in scored if item.split == split]


def compare(
    tasks: Iterable[str], items: Sequence[Item], before: Scores, after: Scores, *, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """{task: {split: difference}}: ``after`` minus ``before`` on the same items, with a paired bootstrap
    interval.

    Items of one story are drawn together. A balanced task's difference is the mean of those of its two
    groups. The split "all" holds every item.
    """
    differences: dict[str, dict[str, dict[str, Any]]] = {}
    for task in tasks:
        splits = list(_by_split(task, items, before))
        everything = [item for _, chosen in splits for item in chosen]
        for split, chosen in [*splits, (ALL_SPLITS, everything)]:
            if chosen:
                interval = _difference(task, chosen, before, after, seed)
                metric = f"difference_of_{METRICS[task]}"
                differences.setdefault(task, {})[split] = leaf(interval, metric)
    return differences


def _difference(task: str, items: Sequence[Item], before: Scores, after: Scores, seed: int) -> Interval:
    """The difference of one task over items that have it."""

    def of(chosen: Sequence[Item]) -> Interval:
        return paired_bootstrap(
            [before[item.id][task] for item in chosen],
            [after[item.id][task] for item in chosen],
            seed=seed,
            clusters=[item.story_id for item in chosen],
        )

    groups = [[item for item in items if item.group == group] for group in BALANCED.get(task, ())]
    if groups and all(groups):
        return mean_of_two(of(groups[0]), of(groups[1]))
    return of(items)
