"""How tokens are spelled in a tokenizer.json, since JSON holds no bytes.

Byte-level BPE has a printable character for every byte. SentencePiece's tokens are text, a space in it spelled "▁", or
single bytes as <0x0A>.
"""

import re
from functools import cache

SPACE = "\u2581"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's byte alphabet read backwards: the printable stand-in of each byte → the byte.

    Printable Latin-1 bytes stand for themselves; the other 68 are numbered from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    return table | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}


@cache
def character_of_byte() -> dict[int, str]:
    """The same alphabet forwards: each byte → its printable stand-in."""
    return {byte: character for character, byte in byte_of_character().items()}


def bytes_of_level(token: str) -> bytes:
    """The bytes of a token of byte-level BPE. Raises KeyError for a character that stands for no byte."""
    table = byte_of_character()
    return bytes(table[character] for character in token)


def bytes_of_piece(token: str) -> bytes:
    """The bytes of a token of SentencePiece's."""
    single = BYTE.fullmatch(token)
    return bytes([int(single[1], 16)]) if single else token.replace(SPACE, " ").encode()


def piece_of_byte(byte: int) -> str:
    """The token of SentencePiece's that stands for a byte alone."""
    return f"<0x{byte:02X}>"
