"""Refusing documents of a batch and counting those that pass: what every step after reading does alike."""

from __future__ import annotations

import numpy as np

from groundup.corpus.columns import as_numpy, numbers
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.funnel import SourceFunnel
from groundup.corpus.sizes import measure


def refuse(batch: Batch, outcome: Outcome, step: str, rules: tuple[str, ...], funnel: SourceFunnel) -> Batch:
    """The documents that break no rule, with their edited texts; the others are counted by rule."""
    failed = np.flatnonzero(outcome.failed >= 0)
    columns = batch.columns
    for row in failed.tolist():
        value = float(outcome.value[row])
        funnel.reject(
            step,
            rules[outcome.failed[row]],
            file=columns["file"][row].as_py(),
            record=columns["record"][row].as_py(),
            value=None if np.isnan(value) else value,
            text=columns["text"][row].as_py,
            size=columns["bytes"][row].as_py(),
            words=columns["words"][row].as_py(),
        )
    if outcome.texts is not None and outcome.texts is not batch.texts:
        sizes, words = measure(outcome.texts)
        batch = batch.with_columns(text=outcome.texts, bytes=numbers(sizes), words=numbers(words))
    return batch.take(outcome.failed < 0) if len(failed) else batch


def without(batch: Batch, losers: np.ndarray, step: str, rule: str, funnel: SourceFunnel) -> Batch:
    """The batch less the documents whose `row` is among `losers`; both what goes and what stays are counted."""
    lost = np.isin(as_numpy(batch.columns["row"]).astype(np.int64), losers, assume_unique=True)
    outcome = Outcome(np.where(lost, 0, -1).astype(np.int16), np.full(len(batch), np.nan))
    batch = refuse(batch, outcome, step, (rule,), funnel)
    count(batch, step, funnel)
    return batch


def count(batch: Batch, step: str, funnel: SourceFunnel) -> None:
    """All documents of the batch have passed `step`."""
    size, words = (int(as_numpy(batch.columns[name]).sum()) for name in ("bytes", "words"))
    funnel.count(step, len(batch), size, words)
