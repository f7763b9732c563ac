"""Text to ids and back."""

import hashlib
import json as json_format
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import tokenizers
from numpy.typing import NDArray

from groundup.run import UserError, write_text
from groundup.tokenizer.alphabet import SPACE, bytes_of_level, bytes_of_piece, piece_of_byte
from groundup.tokenizer.engine import fast_engine
from groundup.tokenizer.special import ASSISTANT, END, ENDOFTEXT, NAMED, PAD, SYSTEM, TOOL, USER

Ids = NDArray[np.uint32]


class Tokenizer:
    """A BPE tokenizer with this package's special tokens: byte-level, or SentencePiece's that falls back to bytes.

    Every text can be encoded and comes back exactly; no text, whatever it spells, becomes a special token.
    Special ids are attributes: `endoftext`, `pad`, `system`, `user`, `assistant`, `end`, `tool`.
    """

    def __init__(self, json: str) -> None:
        """From the content of a tokenizer.json. Raises UserError where it is none, or lacks a special."""
        self._tokenizer = read_tokenizer(json)
        missing = [token for token in NAMED if self._tokenizer.token_to_id(token) is None]
        if missing:
            raise UserError(
                f"the tokenizer lacks the special tokens {', '.join(missing)}",
                expected=f"all of {', '.join(NAMED)}",
            )
        self.json = json
        self.fingerprint = hashlib.sha256(json.encode("utf-8")).hexdigest()
        self.endoftext, self.pad, self.system, self.user, self.assistant, self.end, self.tool = (
            self.special_id(token) for token in (ENDOFTEXT, PAD, SYSTEM, USER, ASSISTANT, END, TOOL)
        )
        self.sentencepiece = falls_back_to_bytes(self._tokenizer)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number: token.content for number, token in added.items() if token.special}
        self._added = {number: token.content for number, token in added.items() if not token.special}
        self._bytes = self._bytes_of_ids()
        self.vocabulary_size: int = len(self._bytes)
        self._fast = fast_engine(json, self._tokenizer)

    @property
    def engine(self) -> str:
        """The library that encodes: "gigatoken", or "tokenizers" for split patterns that the former doesn't know."""
        return "tokenizers" if self._fast is None else "gigatoken"

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `directory`/tokenizer.json. Raises UserError where it is missing or broken."""
        path = Path(directory) / "tokenizer.json"
        try:
            return cls(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError("no tokenizer.json", where=str(path), mend="build the tokenizer stage first") from error

    def encode(self, text: str) -> list[int]:
        """The ids of a text. A lone surrogate, which no UTF-8 text can hold, counts as U+FFFD."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_array(self, text: str) -> Ids:
        """The ids of a text as an array, [tokens]."""
        if self._fast is None:
            return np.array(self._encode_exactly([text])[0], np.uint32)
        try:
            return self._fast.encode(text)
        except TypeError:
            return self._fast.encode(mended(text))

    def encode_arrays(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of many texts as arrays, in their order, on this thread alone."""
        if self._fast is None:
            return [np.array(ids, np.uint32) for ids in self._encode_exactly(texts)]
        return [self.encode_array(text) for text in texts]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, in their order, on all cores of the machine."""
        if self._fast is None:
            return self._encode_exactly(texts)
        try:
            return self._fast.encode_batch(list(texts))
        except TypeError:
            return self._fast.encode_batch([mended(text) for text in texts])

    def differs(self, text: str) -> bool:
        """Whether the fast engine and `tokenizers` give different ids: a fault of the engine, which must not be."""
        text = mended(text)
        return self.encode(text) != self._encode_exactly([text])[0]

    def _encode_exactly(self, texts: Sequence[str]) -> list[list[int]]:
        sound = [mended(text) for text in texts]
        if self.sentencepiece and any(SPACE in text for text in sound):
            return [self._encode_around_marks(text) for text in sound]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(sound, add_special_tokens=False)]

    def _encode_around_marks(self, text: str) -> list[int]:
        """The ids of a text in which SentencePiece's mark of a space stands for itself, and so becomes its bytes."""
        mark = [self.special_id(piece_of_byte(byte)) for byte in SPACE.encode()]
        parts = self._tokenizer.encode_batch_fast(text.split(SPACE), add_special_tokens=False)
        return [*parts[0].ids, *(number for part in parts[1:] for number in (*mark, *part.ids))]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD. `special` spells special tokens out."""
        return self.decode_bytes(ids, special=special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, special: bool = False) -> bytes:
        """The exact bytes of ids, specials left out unless `special`. ValueError for an unknown id."""
        return b"".join(self.token(number, special=special) for number in ids)

    def token(self, number: int, *, special: bool = False) -> bytes:
        """The bytes one id stands for, possibly a part of a character."""
        if not 0 <= number < len(self._bytes):
            raise ValueError(f"id {number} is outside the vocabulary of {len(self._bytes)}")
        if special and number in self._special:
            return self._special[number].encode()
        return self._bytes[number]

    def token_bytes(self) -> list[int]:
        """For every id the number of UTF-8 bytes it stands for, 0 for specials: for bits per byte."""
        return [len(content) for content in self._bytes]

    def tokens(self) -> frozenset[bytes]:
        """The bytes of all tokens but special ones."""
        return frozenset(content for content in self._bytes if content)

    def merges(self) -> list[tuple[bytes, bytes]]:
        """What is merged, in the order it was learned."""
        pairs = json_format.loads(self.json)["model"]["merges"]
        split = (pair.split(" ") if isinstance(pair, str) else pair for pair in pairs)
        return [(self.bytes_of(left), self.bytes_of(right)) for left, right in split]

    def bytes_of(self, spelled: str) -> bytes:
        """The bytes of a token, or of a part of one, as tokenizer.json spells it."""
        return bytes_of_piece(spelled) if self.sentencepiece else bytes_of_level(spelled)

    def special_ids(self) -> dict[str, int]:
        """Every special token, reserved ones too, and its id."""
        return {name: number for number, name in sorted(self._special.items())}

    def special_id(self, token: str) -> int:
        """The id of a special token by its name, as "<|end|>". Raises KeyError for an unknown one."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise KeyError(token)
        return number

    def save(self, directory: Path) -> None:
        """Write `directory`/tokenizer.json, byte for byte what this tokenizer was read from."""
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / "tokenizer.json", self.json)

    def _bytes_of_ids(self) -> list[bytes]:
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        contents = [b""] * (max(vocabulary.values()) + 1)
        for token, number in vocabulary.items():
            if number in self._added:
                contents[number] = token.encode()
            elif number not in self._special:
                contents[number] = self.bytes_of(token)
        return contents


def read_tokenizer(json: str, where: str | None = None) -> tokenizers.Tokenizer:
    """The library's tokenizer, to which special tokens spelled in a text are text. Raises UserError."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json)
    except Exception as error:  # noqa: BLE001 - the library raises bare Exceptions for any fault
        raise UserError(f"not a tokenizer.json: {error}", where=where) from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def falls_back_to_bytes(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether the tokens are characters, and bytes only where there is none: SentencePiece's way."""
    return getattr(tokenizer.model, "byte_fallback", False) is True


def mended(text: str) -> str:
    """The text with surrogate pairs joined, and lone ones, which no UTF-8 text can hold, replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
