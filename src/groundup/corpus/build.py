"""The corpus stage: read, normalise, cut, deduplicate, split, write; one document at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.corpus.funnel import SourceFunnel, funnel_json
from groundup.corpus.readers import Raw
from groundup.corpus.sources import resolve_sources
from groundup.corpus.store import Document, DocumentWriter, write_rejections
from groundup.corpus.text import digest, normalise, passages, split_position
from groundup.recipe import CorpusSection
from groundup.run import Bar, UserError, progress, write_json


def build_corpus(section: CorpusSection, *, seed: int, out: Path) -> dict[str, Any]:
    """Make the corpus of `section.sources` in the directory `out`; returns the stage's metrics.

    Writes out/documents/{train,validation}-NNNNN.parquet, out/funnel.json and out/rejected/*.parquet. Equal
    inputs give equal bytes. In this order:

    1. *Read.* Bad bytes, broken lines and empty documents are counted with their file and line, never fatal.
    2. *Normalise*: NFC, newlines, control characters.
    3. *Cut* a text of more than `passage_characters` characters into passages at blank lines, so that one
       file as long as a library still has a validation part and long books don't fall on one side as a whole.
    4. *Deduplicate* exactly: the first of equal passages stays. The set of 16-byte digests takes about 100
       bytes of memory a document kept (10 million documents: 1 GB); the texts only stream through.
    5. *Split* by the digest: a document is in validation when its digest, as a number in [0, 1), is below
       `validation_fraction`. So a text stays on its side in every corpus it occurs in. Where no digest is
       below, the one document with the smallest digest is validation.

    Raises UserError for a missing source, and for a corpus of fewer than two documents.
    """
    sources = resolve_sources(section)
    funnels = [source.funnel() for source in sources]
    limit = section.passage_characters
    with progress("corpus", None, "doc") as bar, Splitter(out / "documents", section) as splitter:
        seen: set[bytes] = set()
        for source, funnel in zip(sources, funnels, strict=True):
            bar.note(source.name)
            for raw, text in _clean(source.read(seed, funnel), funnel, limit, bar):
                identity = digest(text)
                if identity in seen:
                    funnel.reject("duplicate", file=raw.file, line=raw.line, excerpt=text)
                    continue
                seen.add(identity)
                document = Document(identity.hex(), text, source.name, raw.url, raw.language, _messages(raw))
                splitter.add(document, split_position(identity), funnel)
    write_json(out / "funnel.json", funnel_json(funnels))
    write_rejections(out / "rejected", [example for funnel in funnels for example in funnel.examples])
    return _metrics(funnels)


def _messages(raw: Raw) -> str | None:
    """The messages of a chat as JSON, each normalised; None for a plain text."""
    if raw.messages is None:
        return None
    messages = [message | {"content": normalise(message["content"])} for message in raw.messages]
    return json.dumps(messages, ensure_ascii=False)


def _clean(raws: Iterator[Raw], funnel: SourceFunnel, limit: int, bar: Bar) -> Iterator[tuple[Raw, str]]:
    """Normalised passages of a source's raw documents, with the raw document each comes from."""
    for raw in raws:
        bar.advance()
        funnel.count("read", _size(raw.text))
        text = normalise(raw.text)
        if not text:
            funnel.reject("empty", file=raw.file, line=raw.line)
            continue
        for passage in passages(text, limit) if raw.messages is None else [text]:  # a chat is never cut
            funnel.count("normalised", _size(passage))
            yield raw, passage


class Splitter:
    """Sends each document to train or validation, and sees that neither ends up empty, in one pass.

    Until the first document of validation comes, the one with the smallest position so far is held back; if
    none ever comes, that one is it.
    """

    def __init__(self, directory: Path, section: CorpusSection) -> None:
        self.fraction = section.validation_fraction
        self.train = DocumentWriter(directory, "train", section.shard_bytes)
        self.validation = DocumentWriter(directory, "validation", section.shard_bytes)
        self._held: tuple[float, Document, SourceFunnel] | None = None

    def add(self, document: Document, position: float, funnel: SourceFunnel) -> None:
        """Place one document that stands at `position` in [0, 1)."""
        funnel.count("deduplicated", _size(document.text))
        if position < self.fraction:
            self._write(self.validation, "validation", document, funnel)
            self._release()
        elif self.validation.documents or self.fraction == 0:
            self._write(self.train, "train", document, funnel)
        elif self._held is None or position < self._held[0]:
            self._release()
            self._held = (position, document, funnel)
        else:
            self._write(self.train, "train", document, funnel)

    def _release(self) -> None:
        """The document held back is an ordinary one of train."""
        if self._held is not None:
            self._write(self.train, "train", *self._held[1:])
            self._held = None

    def _write(self, writer: DocumentWriter, split: str, document: Document, funnel: SourceFunnel) -> None:
        size = _size(document.text)
        funnel.count(split, size)
        writer.add(document, size)

    def __enter__(self) -> "Splitter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._held is not None:
            self._write(self.validation, "validation", *self._held[1:])
        self.train.close()
        self.validation.close()
        if kind is None and not self.train.documents:
            raise UserError(
                f"the corpus holds {self.validation.documents} documents: none is left to train on",
                where="corpus.sources",
                expected="at least two documents, or one text longer than corpus.passage_characters",
                mend="add text, or set corpus.passage_characters or corpus.validation_fraction lower",
            )


def _metrics(funnels: list[SourceFunnel]) -> dict[str, Any]:
    total = funnel_json(funnels)["total"]
    metrics: dict[str, Any] = {}
    for step, tally in total["steps"].items():
        metrics[f"{step}_documents"], metrics[f"{step}_bytes"] = tally["documents"], tally["bytes"]
    metrics["rejected"] = sum(total["rejections"].values())
    metrics["rejections"] = total["rejections"]
    return metrics


def _size(text: str) -> int:
    """UTF-8 bytes. Raw JSON text may hold lone surrogates, three bytes each."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
