"""The funnel: what came in, what each step left, what was refused and why, source by source."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

STEPS = ("read", "normalised", "deduplicated", "train", "validation")
EXAMPLES = 20  # refused items kept as examples, for each source and reason
EXCERPT = 300  # characters kept of each


@dataclass
class Tally:
    """Documents and UTF-8 bytes."""

    documents: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.documents += 1
        self.bytes += size


@dataclass(frozen=True)
class Rejection:
    """One refused item: where it stood (`line` from 1; 0 means the whole file), why, how it began."""

    source: str
    file: str
    line: int
    reason: str
    excerpt: str


@dataclass
class SourceFunnel:
    """The counts of one source."""

    name: str
    weight: float = 1.0
    epochs: float | None = None
    files: int = 0
    steps: dict[str, Tally] = field(default_factory=lambda: {step: Tally() for step in STEPS})
    rejections: Counter[str] = field(default_factory=Counter)
    examples: list[Rejection] = field(default_factory=list)
    encodings: Counter[str] = field(default_factory=Counter)
    skipped_files: Counter[str] = field(default_factory=Counter)

    def count(self, step: str, size: int) -> None:
        """One document of `size` bytes has passed `step`."""
        self.steps[step].add(size)

    def reject(self, reason: str, *, file: str = "", line: int = 0, excerpt: str = "") -> None:
        """Count a refusal and keep the first `EXAMPLES` of each reason."""
        self.rejections[reason] += 1
        if self.rejections[reason] <= EXAMPLES:
            self.examples.append(Rejection(self.name, _safe(file), line, reason, _safe(excerpt[:EXCERPT])))

    def as_json(self) -> dict[str, Any]:
        places: dict[str, list[dict[str, Any]]] = {}
        for example in self.examples:
            places.setdefault(example.reason, []).append({"file": example.file, "line": example.line})
        return {
            "name": self.name,
            "weight": self.weight,
            "epochs": self.epochs,
            "files": self.files,
            "steps": {step: vars(self.steps[step]) for step in STEPS},
            "rejections": {
                reason: {"count": count, "first": places[reason]} for reason, count in sorted(self.rejections.items())
            },
            "encodings": dict(sorted(self.encodings.items())),
            "skipped_files": dict(sorted(self.skipped_files.items())),
        }


def funnel_json(sources: list[SourceFunnel]) -> dict[str, Any]:
    """The whole of funnel.json: every source, and the total over them."""
    rejections: Counter[str] = Counter()
    for source in sources:
        rejections.update(source.rejections)
    total = {
        step: {
            "documents": sum(source.steps[step].documents for source in sources),
            "bytes": sum(source.steps[step].bytes for source in sources),
        }
        for step in STEPS
    }
    return {
        "version": 1,
        "sources": [source.as_json() for source in sources],
        "total": {"steps": total, "rejections": dict(sorted(rejections.items()))},
    }


def _safe(text: str) -> str:
    """The text as UTF-8 can hold it: file names and broken JSON may contain lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
