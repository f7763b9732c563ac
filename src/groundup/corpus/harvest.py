"""The first phase: one unit of files becomes clean, filtered documents and what is known of them for later phases.

read → extract → clean → filter by filter → personal data → contamination → texts and keys in segments

A document passes alone, so units can be harvested anywhere in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.accounts import count, refuse
from groundup.corpus.clean import clean
from groundup.corpus.columns import as_numpy, numbers, strings
from groundup.corpus.documents import Batch, Raw, ReaderOptions, Refused
from groundup.corpus.extract import extract
from groundup.corpus.funnel import SourceFunnel, safe
from groundup.corpus.plan import AGAINST, Beat, Plan, finished_folder
from groundup.corpus.policy import CONTAMINATION, Policy
from groundup.corpus.segments import SegmentWriter
from groundup.corpus.sizes import as_texts, measure
from groundup.corpus.units import read_unit
from groundup.run import UserError, write_json

BATCH_DOCUMENTS = 512
BATCH_CHARACTERS = 2**20  # the filters take some 40 times as much memory


def harvest(plan: Plan, index: int, beat: Beat) -> None:
    """Make WORK/harvest/<unit>: one folder a segment and record.json with the unit's funnel."""
    unit = plan.units[index]
    against = unit.source == AGAINST
    name, table = ("against", None) if against else plan.sources[unit.source]
    funnel = SourceFunnel(name)
    options = ReaderOptions(
        text_field=table.text_field if table else "text",
        url_field=table.url_field if table else "url",
        unpacked_limit=plan.section.unpacked_limit,
    )
    begun = unit.parts[0].path if unit.parts and unit.parts[0].start else None
    with finished_folder(plan.place("harvest", index)) as folder:
        with SegmentWriter(folder, plan, unit.index) as writer:
            found = read_unit(unit, table, options, plan.seed)
            if against:
                for batch in batches(_whole(found)):
                    writer.add(batch)
            else:
                policy = Policy.of(plan)
                policy.take_contamination()  # of a unit that was interrupted
                for batch in batches(_prepared(found, plan, funnel, beat, begun)):
                    batch = judge(batch, policy, funnel)
                    if len(batch):
                        writer.add(batch)
        content: dict[str, Any] = {"funnel": funnel.dump(), "segments": writer.segments}
        if not against:
            content["contamination"] = policy.take_contamination()
        write_json(folder / "record.json", content)


def _whole(found: Iterator[Raw | Refused]) -> Iterator[Raw]:
    """The documents of a finished corpus. Raises UserError where one can't be read: it would be kept again unseen."""
    for raw in found:
        if isinstance(raw, Refused):
            raise UserError(
                f"a document of a finished corpus can't be read ({raw.reason})",
                where=f"{raw.file}, record {raw.record}",
                mend="build that run's corpus again, or leave it out of corpus.dedup.against",
            )
        yield raw


def _prepared(
    found: Iterator[Raw | Refused], plan: Plan, funnel: SourceFunnel, beat: Beat, begun: str | None
) -> Iterator[Raw]:
    """The documents whose text could be read, extracted and cleaned; the rest is counted.

    `begun` is the file of which an earlier unit has read the beginning.
    """
    file = begun
    for raw in found:
        if raw.file != file:
            file = raw.file
            funnel.files += 1
        if isinstance(raw, Refused):
            funnel.count("read", 1, 0)
            funnel.reject("read", raw.reason, file=raw.file, record=raw.record, text=raw.excerpt)
            continue
        size = len(raw.html) if raw.html is not None else _size(raw.text)
        funnel.count("read", 1, size)
        beat(size)
        with_text = extract(raw, plan.section.extractor)
        if isinstance(with_text, Refused):
            funnel.reject(
                "extracted",
                with_text.reason,
                file=raw.file,
                record=raw.record,
                text=with_text.excerpt,
                size=size,
            )
            continue
        funnel.count("extracted", 1, size if raw.html is None else _size(with_text.text))
        funnel.encodings[with_text.encoding or "unknown"] += 1
        cleaned = _clean(with_text, funnel)
        if not cleaned.text:
            funnel.reject("cleaned", "empty", file=raw.file, record=raw.record, size=size)
            continue
        yield cleaned


def _clean(raw: Raw, funnel: SourceFunnel) -> Raw:
    """The document with its text (and every message of a chat) cleaned; edits are counted."""
    if raw.messages is not None:
        messages = [message | {"content": clean(message["content"]).text} for message in raw.messages]
        return Raw(
            "\n".join(message["content"] for message in messages),
            raw.file,
            raw.record,
            raw.url,
            raw.language,
            raw.licence,
            messages,
        )
    cleaned = clean(raw.text)
    for edit in cleaned.edits:
        funnel.edits[f"cleaned/{edit}"] += 1
    return raw if cleaned.text is raw.text else raw.with_text(cleaned.text)


def batches(raws: Iterator[Raw]) -> Iterator[Batch]:
    """Documents in Arrow batches of bounded size."""
    pending: list[Raw] = []
    characters = 0
    for raw in raws:
        pending.append(raw)
        characters += len(raw.text)
        if len(pending) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield _batch(pending)
            pending, characters = [], 0
    if pending:
        yield _batch(pending)


def _batch(raws: list[Raw]) -> Batch:
    chats = [None if raw.messages is None else json.dumps(raw.messages, ensure_ascii=False) for raw in raws]
    texts = as_texts([raw.text for raw in raws])
    sizes, words = measure(texts)
    return Batch(
        {
            "text": texts,
            "bytes": numbers(sizes),
            "words": numbers(words),
            "file": strings([safe(raw.file) for raw in raws]),
            "record": numbers([raw.record for raw in raws], np.int64),
            "url": strings([raw.url for raw in raws]),
            "language": strings([raw.language for raw in raws]),
            "language_confidence": pa.nulls(len(raws), pa.float32()),
            "quality": pa.nulls(len(raws), pa.float32()),
            "licence": strings([raw.licence for raw in raws]),
            "messages": strings(chats),
        }
    )


def judge(batch: Batch, policy: Policy, funnel: SourceFunnel) -> Batch:
    """What the filters leave of a batch, personal data replaced and contamination seen to; every step is counted."""
    count(batch, "cleaned", funnel)
    for step in policy.steps:
        if not len(batch):
            break
        batch, outcome = step(batch)
        for edit, times in step.edits.items():
            funnel.edits[f"{step.name}/{edit}"] += times
        step.edits.clear()
        if outcome is not None:
            if step.name == CONTAMINATION and outcome.texts is not None:
                batch = batch.with_columns(changed=pc.not_equal(batch.texts, outcome.texts))
            batch = refuse(batch, outcome, step.name, step.rules, funnel)
            batch = judge_again(batch, step.name, policy, funnel)
        count(batch, step.name, funnel)
    return batch


def judge_again(batch: Batch, step: str, policy: Policy, funnel: SourceFunnel) -> Batch:
    """The batch less those of its `changed` documents that now break a rule of a filter; counted under `step`."""
    if "changed" not in batch.columns:
        return batch
    changed = as_numpy(batch.columns["changed"])
    batch = Batch({name: column for name, column in batch.columns.items() if name != "changed"})
    if not changed.any() or not policy.filters:
        return batch
    again = batch.with_columns(place=numbers(np.arange(len(batch)))).take(changed)
    for each in policy.filters:
        if not len(again):
            break
        again, outcome = each(again)
        if outcome is not None:
            again = refuse(again, outcome, step, tuple(f"{each.name}/{rule}" for rule in each.rules), funnel)
    passed = as_numpy(again.columns["place"])
    texts = batch.texts.to_pylist()
    for number, text in zip(passed.tolist(), again.texts.to_pylist(), strict=True):
        texts[number] = text
    edited = as_texts(texts)
    sizes, words = measure(edited)
    stays = ~changed
    stays[passed] = True
    return batch.with_columns(text=edited, bytes=numbers(sizes), words=numbers(words)).take(stays)


def _size(text: str) -> int:
    """UTF-8 bytes. Raw JSON text may hold lone surrogates, three bytes each."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
