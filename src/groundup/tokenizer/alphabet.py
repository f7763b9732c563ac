"""The byte alphabet of tokenizer.json: a printable character for every byte, since JSON holds no bytes."""

from functools import cache


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
