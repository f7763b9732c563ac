"""The special tokens: fixed names at fixed ids, the same in every vocabulary this package makes."""

ENDOFTEXT = "<|endoftext|>"  # closes a pretraining document
PAD = "<|pad|>"  # fills a row; never predicted
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"  # closes a message
TOOL = "<|tool|>"

NAMED = (ENDOFTEXT, PAD, SYSTEM, USER, ASSISTANT, END, TOOL)
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL}


def special_tokens(reserved: int) -> list[str]:
    """All special tokens in the order of their ids, from 0: the named ones, then `reserved` spare ones."""
    return [*NAMED, *(f"<|reserved_{number}|>" for number in range(reserved))]
