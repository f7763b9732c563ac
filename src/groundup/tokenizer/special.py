"""The special tokens and the chat's fixed words: one table, on which all else that knows the format rests.

| token | opens the message of | use |
|---|---|---|
| <|endoftext|> | | closes a pretraining document |
| <|pad|> | | fills a row; never predicted |
| <|system|> | system | instructions, and the tools on offer |
| <|user|> | user | what a person says |
| <|assistant|> | assistant | what the model says |
| <|end|> | | closes a message; the model writes it to hand over |
| <|tool|> | tool | a tool's result; inside an assistant's message it opens a call of a tool |
| <|reserved_0|> … | | spare, for what comes later |

A vocabulary of our own has them in this order from id 0. An adopted one has some anywhere and the others at its
end, so nothing may assume an id. The chat format built from them is in `chat`.
"""

from typing import NamedTuple


class Special(NamedTuple):
    """A special token and the role whose messages it opens, if any."""

    token: str
    role: str | None = None


ENDOFTEXT = "<|endoftext|>"
PAD = "<|pad|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"
TOOL = "<|tool|>"

SPECIALS = (
    Special(ENDOFTEXT),
    Special(PAD),
    Special(SYSTEM, "system"),
    Special(USER, "user"),
    Special(ASSISTANT, "assistant"),
    Special(END),
    Special(TOOL, "tool"),
)
NAMED = tuple(special.token for special in SPECIALS)
ROLES = {special.role: special.token for special in SPECIALS if special.role is not None}

TOOLS_HEADING = "You may call these tools:"  # in the system message, above one line of JSON a tool
TOOL_FIELDS = ("description", "parameters", "return")  # what is told of a tool after its name, where given


def special_tokens(reserved: int) -> list[str]:
    """All special tokens in the order of their ids, from 0: the named ones, then `reserved` spare ones."""
    return [*NAMED, *(f"<|reserved_{number}|>" for number in range(reserved))]
