"""A vocabulary of whole words, characters or bytes, as translation from sentence pairs uses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from groundup.run import UserError, read_json, write_json

Unit = Literal["words", "characters", "bytes"]
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNKNOWN = range(4)
"""Ids that no text gives, but for UNKNOWN: padding, begin and end of a sentence, a unit that isn't in the list."""
BYTES = 256


class WordVocabulary:
    """Text to ids and back.

    Words are what white space parts, so marks want spaces around them, and any white space comes back as one space.
    Characters and bytes come back as they were.

    Args:
        unit: what has an id.
        known: the words or characters, the first with id 4; for bytes nothing.
    """

    def __init__(self, unit: Unit, known: Sequence[str] = ()) -> None:
        self.unit, self.known = unit, tuple(known)
        self._ids = {text: number for number, text in enumerate(self.known, len(SPECIALS))}
        if len(self._ids) != len(self.known):
            raise ValueError("a vocabulary with the same entry twice")

    @classmethod
    def learn(cls, unit: Unit, texts: Iterable[str], most: int) -> Self:
        """The vocabulary of some texts: what is most frequent in them, at equal counts in the order of code points.

        Args:
            most: how many ids there are at most, the four special ones included.
        """
        if unit == "bytes":
            return cls(unit)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.split() if unit == "words" else text)
        ranked = sorted(counts, key=lambda entry: (-counts[entry], entry))
        return cls(unit, ranked[: most - len(SPECIALS)])

    def __len__(self) -> int:
        return len(SPECIALS) + (BYTES if self.unit == "bytes" else len(self.known))

    def encode(self, text: str) -> list[int]:
        """The ids of a text, none for begin and end."""
        if self.unit == "bytes":
            return [len(SPECIALS) + byte for byte in text.encode("utf-8", "surrogatepass")]
        units = text.split() if self.unit == "words" else text
        return [self._ids.get(unit, UNKNOWN) for unit in units]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the end mark; other special ids show as ``<unk>`` and the like."""
        shown: list[int] = []
        for number in ids:
            if number == EOS:
                break
            shown.append(number)
        first = len(SPECIALS)
        if self.unit == "bytes":
            return bytes(number - first for number in shown if number >= first).decode("utf-8", "replace")
        texts = [self.known[number - first] if number >= first else SPECIALS[number] for number in shown]
        return (" " if self.unit == "words" else "").join(texts)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record; :meth:`from_dict` reads it back."""
        return {"unit": self.unit, "specials": list(SPECIALS), "known": list(self.known)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Read the record of :meth:`to_dict`. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for another."""
        if record["unit"] not in ("words", "characters", "bytes") or tuple(record["specials"]) != SPECIALS:
            raise ValueError(f"unit {record['unit']!r}, special entries {record['specials']!r}")
        return cls(record["unit"], [str(entry) for entry in record["known"]])


def save_vocabularies(source: WordVocabulary, target: WordVocabulary, path: Path) -> None:
    """Write both vocabularies as one JSON file."""
    write_json(path, {"source": source.to_dict(), "target": target.to_dict()})


def load_vocabularies(path: Path) -> tuple[WordVocabulary, WordVocabulary]:
    """Read what :func:`save_vocabularies` wrote. Raises UserError for a missing or another file."""
    try:
        record = read_json(path)
        return WordVocabulary.from_dict(record["source"]), WordVocabulary.from_dict(record["target"])
    except FileNotFoundError as error:
        raise UserError(f"no {path.name}", where=str(path), expected="the folder of a translation model") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path.name} holds no vocabularies ({type(error).__name__}: {error})",
            where=str(path),
            expected='"source" and "target", as training writes them',
        ) from error
