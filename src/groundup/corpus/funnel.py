"""The funnel: what came in, what each step left, what was refused and why, source by source.

Every record that a reader meets is counted: records = documents kept + all that the rules refused. Funnels of
units are summed, and the sum does not depend on how the work was divided or in which order it was done.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 2
EXAMPLES = 20  # refused items kept as examples, for each source and rule
EXCERPT = 1500  # characters kept of each


@dataclass
class Tally:
    """Documents, UTF-8 bytes and words (between white space)."""

    documents: int = 0
    bytes: int = 0
    words: int = 0

    def add(self, documents: int, size: int, words: int) -> None:
        self.documents += documents
        self.bytes += size
        self.words += words


@dataclass(frozen=True)
class Rejection:
    """One refused item: where it stood (`record` from 1; 0 means the whole file), at which step, by which rule.

    `value` is what the rule measured, where it measures.
    """

    source: str
    file: str
    record: int
    step: str
    rule: str
    value: float | None
    excerpt: str

    def order(self) -> tuple[bytes, str]:
        """A fixed pseudo-random place, so that the examples kept are a fair sample and always the same."""
        return _order(self.file, self.record), self.excerpt


@dataclass
class SourceFunnel:
    """The counts of one source. `steps` and `rejections` come in the order in which they first occurred.

    Args:
        edits: what was changed and not refused, as "personal_data/email": 3, "repaired": 7, "lines/boilerplate": 12.
    """

    name: str
    weight: float = 1.0
    epochs: float | None = None
    files: int = 0
    steps: dict[str, Tally] = field(default_factory=dict)
    rejections: dict[tuple[str, str], Tally] = field(default_factory=dict)
    examples: dict[tuple[str, str], list[Rejection]] = field(default_factory=dict)
    edits: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    skipped_files: Counter[str] = field(default_factory=Counter)

    def count(self, step: str, documents: int, size: int, words: int = 0) -> None:
        """Documents of `size` bytes and so many words in all have passed `step`."""
        self.steps.setdefault(step, Tally()).add(documents, size, words)

    def reject(
        self,
        step: str,
        rule: str,
        *,
        file: str = "",
        record: int = 0,
        value: float | None = None,
        text: str | Callable[[], str] = "",
        size: int = 0,
        words: int = 0,
    ) -> None:
        """Count one refusal. `text` (or what gives it) is looked at only where it becomes an example."""
        self.rejections.setdefault((step, rule), Tally()).add(1, size, words)
        kept = self.examples.setdefault((step, rule), [])
        if len(kept) >= EXAMPLES and _order(safe(file), record) > kept[-1].order()[0]:
            return
        excerpt = text if isinstance(text, str) else text()
        self._keep(kept, [Rejection(self.name, safe(file), record, step, rule, value, safe(excerpt[:EXCERPT]))])

    def merge(self, other: SourceFunnel) -> None:
        """Add the counts of another part of the same source."""
        self.files += other.files
        for step, tally in other.steps.items():
            self.steps.setdefault(step, Tally()).add(tally.documents, tally.bytes, tally.words)
        for key, tally in other.rejections.items():
            self.rejections.setdefault(key, Tally()).add(tally.documents, tally.bytes, tally.words)
        for key, examples in other.examples.items():
            self._keep(self.examples.setdefault(key, []), examples)
        self.edits.update(other.edits)
        self.encodings.update(other.encodings)

    @staticmethod
    def _keep(kept: list[Rejection], more: list[Rejection]) -> None:
        """The first `EXAMPLES` of both in their pseudo-random order."""
        kept += more
        kept.sort(key=Rejection.order)
        del kept[EXAMPLES:]

    def as_json(self, steps: Iterable[str]) -> dict[str, Any]:
        """This source's part of funnel.json."""
        return {
            "name": self.name,
            "weight": self.weight,
            "epochs": self.epochs,
            "files": self.files,
            "steps": {step: vars(self.steps.get(step, Tally())) for step in steps},
            "rejections": _rejections([self]),
            "edits": dict(sorted(self.edits.items())),
            "encodings": dict(sorted(self.encodings.items())),
            "skipped_files": dict(sorted(self.skipped_files.items())),
        }

    def dump(self) -> dict[str, Any]:
        """All of it as plain values, for a unit's record; `load` reads it back."""
        return {
            "name": self.name,
            "files": self.files,
            "steps": {step: vars(tally) for step, tally in self.steps.items()},
            "rejections": [[step, rule, vars(tally)] for (step, rule), tally in self.rejections.items()],
            "examples": [asdict(example) for examples in self.examples.values() for example in examples],
            "edits": self.edits,
            "encodings": self.encodings,
        }

    @classmethod
    def load(cls, content: dict[str, Any]) -> SourceFunnel:
        """The funnel that `dump` wrote."""
        funnel = cls(content["name"], files=content["files"])
        funnel.steps = {step: Tally(**tally) for step, tally in content["steps"].items()}
        funnel.rejections = {(step, rule): Tally(**tally) for step, rule, tally in content["rejections"]}
        for example in content["examples"]:
            found = Rejection(**example)
            funnel.examples.setdefault((found.step, found.rule), []).append(found)
        funnel.edits.update(content["edits"])
        funnel.encodings.update(content["encodings"])
        return funnel


def funnel_json(sources: list[SourceFunnel], steps: list[str]) -> dict[str, Any]:
    """The whole of funnel.json: the steps in their order, every source, and the total over them.

    A step's tally is what had passed it; a rule's what it refused. `records` − Σ rejections = `kept`.
    """
    return {
        "version": VERSION,
        "steps": steps,
        "sources": [source.as_json(steps) for source in sources],
        "total": {
            "steps": {step: _sum(source.steps.get(step) for source in sources) for step in steps},
            "rejections": _rejections(sources),
            "edits": dict(sorted(sum((source.edits for source in sources), Counter()).items())),
        },
    }


def _rejections(sources: list[SourceFunnel]) -> dict[str, Any]:
    """{step: {rule: tally and where the examples stood}}, rules in alphabetical order."""
    found: dict[str, Any] = {}
    for step, rule in sorted({key for source in sources for key in source.rejections}):
        examples = [each for source in sources for each in source.examples.get((step, rule), [])]
        examples.sort(key=lambda each: (each.source, each.file, each.record))
        places = [{"file": each.file, "record": each.record} for each in examples[:EXAMPLES]]
        total = _sum(source.rejections.get((step, rule)) for source in sources)
        found.setdefault(step, {})[rule] = total | {"examples": places}
    return found


def _sum(tallies: Iterable[Tally | None]) -> dict[str, int]:
    total = Tally()
    for tally in tallies:
        if tally is not None:
            total.add(tally.documents, tally.bytes, tally.words)
    return vars(total)


def _order(file: str, record: int) -> bytes:
    return hashlib.blake2b(f"{file}\0{record}".encode(), digest_size=8).digest()


def safe(text: str) -> str:
    """The text as UTF-8 can hold it: file names and broken JSON may contain lone surrogates."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")
