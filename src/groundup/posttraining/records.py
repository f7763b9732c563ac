"""What users bring: conversations and preferences as JSON lines, in the layouts people have."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from groundup.recipe import DataTable
from groundup.run import UserError
from groundup.storyworld import Preference, conversations, preferences

Message = dict[str, Any]
BUILTIN = "builtin:storyworld"
DEFAULT_COUNT = 20_000
_SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "system": "system", "tool": "tool", "observation": "tool", "function_call": "assistant",
}  # fmt: skip
_KEPT = ("tool_calls", "tool_call_id", "train", "weight")
"""What of a message passes through beside role and text; `groundup.tokenizer.encode_chat` says what they mean."""
_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True)
class Conversation:
    """A chat, where it came from, and the definitions of the tools on offer in it."""

    messages: list[Message]
    source: int
    where: str
    tools: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """A preference pair and where it came from."""

    preference: Preference
    where: str


def tables(data: Sequence[str | DataTable]) -> list[DataTable]:
    """Every source as a table; a plain string is a table with nothing but a path."""
    return [DataTable(path=item) if isinstance(item, str) else item for item in data]


def read_conversations(data: Sequence[str | DataTable], seed: int) -> Iterator[Conversation]:
    """All conversations of all sources, in order.

    Raises:
        UserError: a file is missing, or a record can't be read; it names file, line and key.
    """
    for number, table in enumerate(tables(data)):
        if table.path == BUILTIN:
            made = conversations(
                seed,
                table.count or DEFAULT_COUNT,
                overclaiming=table.overclaiming,
                wrong_tone=table.wrong_tone,
            )
            for index, messages in enumerate(made):
                yield Conversation(messages, number, f"{BUILTIN} {index}")
            continue
        for where, record in _lines(table):
            yield Conversation(conversation_of(record, where), number, where, tools_of(record, where))


def read_preferences(data: Sequence[str | DataTable], seed: int) -> Iterator[Pair]:
    """All preference pairs of all sources, in order. Raises as :func:`read_conversations` does."""
    for table in tables(data):
        if table.path == BUILTIN:
            for index, preference in enumerate(preferences(seed, table.count or DEFAULT_COUNT)):
                yield Pair(preference, f"{BUILTIN} {index}")
            continue
        for where, record in _lines(table):
            yield Pair(preference_of(record, where), where)


def _lines(table: DataTable) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(table.path)
    if not path.is_file():
        raise UserError(
            f"no such data file: {path}",
            expected=f"a JSONL file (plain or .gz), or {BUILTIN}",
            mend="check the path; relative paths start at the working directory",
        )
    taken = 0
    for number, line in enumerate(_raw_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UserError(f"not JSON: {error}", where=where, expected="one JSON object a line") from error
        if not isinstance(record, dict):
            raise UserError(f"a {type(record).__name__}, not an object", where=where, expected="one JSON object a line")
        yield where, record
        taken += 1
        if table.count is not None and taken >= table.count:
            return


def _raw_lines(path: Path) -> Iterator[bytes]:
    if path.suffix != ".gz":
        with path.open("rb") as plain:
            yield from plain
        return
    try:
        with gzip.open(path, "rb") as packed:
            yield from packed
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"a damaged gzip file: {error}", where=str(path)) from error


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise UserError(f"{key!r} is {value!r}"[:200], where=where, expected=f"a text under {key!r}")
    return value


def _json(text: str, where: str, expected: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"not JSON: {error}", where=where, expected=expected) from error


def _messages(value: Any, where: str, role_key: str = "role", text_key: str = "content") -> list[Message]:
    if not isinstance(value, list) or not value:
        raise UserError("no messages", where=where, expected=f"a list of {{{role_key}, {text_key}}}")
    messages = []
    for number, item in enumerate(value):
        place = f"{where} message {number}"
        if not isinstance(item, dict):
            raise UserError(f"a message is {item!r}"[:200], where=place, expected="an object")
        speaker = role = _text(item, role_key, place)
        if role_key == "from":
            if role not in _SHAREGPT_ROLES:
                raise UserError(f"unknown speaker {role!r}", where=place, expected=" or ".join(_SHAREGPT_ROLES))
            role = _SHAREGPT_ROLES[role]
        kept = {key: item[key] for key in _KEPT if item.get(key) is not None}
        if role_key == "from" and speaker == "function_call":
            kept["tool_calls"] = _written_calls(_text(item, text_key, place), place)
            content: Any = ""
        elif role == "tool" and item.get(text_key) is not None:
            content = item[text_key]
        elif kept.get("tool_calls") and item.get(text_key) is None:
            content = ""
        else:
            content = _text(item, text_key, place)
        messages.append({"role": role, "content": content, **kept})
    return messages


def _written_calls(text: str, where: str) -> list[Any]:
    """The calls that a ShareGPT turn of "function_call" holds as JSON: one object or a list."""
    calls = _json(text, where, "the JSON of a call {name, arguments}, or of a list of calls")
    return calls if isinstance(calls, list) and calls else [calls]


def tools_of(record: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The definitions under ``tools``: a list, or a text with its JSON as LLaMA-Factory's layout has it.

    Raises:
        UserError: it is neither.
    """
    tools = record.get("tools") or []
    expected = "a list of definitions, or a text with its JSON"
    if isinstance(tools, str):
        tools = _json(tools, f"{where} tools", expected) or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError(f"tools is {tools!r}"[:200], where=where, expected=expected)
    return tools


def conversation_of(record: dict[str, Any], where: str) -> list[Message]:
    """The messages of a record: ``messages``, ShareGPT ``conversations``, or Alpaca's instruction and output.

    Every message has a role and a content. Calls of tools and their results pass through, in OpenAI's form or as
    ShareGPT's turns of "function_call" and "observation"; so do ``train`` and ``weight``.

    Raises:
        UserError: none of these, a field of the wrong type, or nothing that an assistant says.
    """
    if "messages" in record:
        messages = _messages(record["messages"], where)
    elif "conversations" in record:
        messages = _messages(record["conversations"], where, "from", "value")
    elif "instruction" in record:
        question = _text(record, "instruction", where)
        if record.get("input"):
            question = f"{question}\n\n{_text(record, 'input', where)}"
        answer = _text(record, "output", where)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if record.get("system"):
            messages.insert(0, {"role": "system", "content": _text(record, "system", where)})
    else:
        raise UserError(
            f"no conversation in a record with keys {sorted(record)}",
            where=where,
            expected="`messages`, `conversations`, or `instruction` and `output`",
        )
    if not any(message["role"] == "assistant" for message in messages):
        raise UserError("a conversation without an assistant turn has nothing to learn from", where=where)
    return messages


def preference_of(record: dict[str, Any], where: str) -> Preference:
    """The pair of a record: ``prompt``, ``chosen``, ``rejected`` (texts or messages), or hh-rlhf transcripts.

    Raises:
        UserError: a missing field, chosen and rejected that do not share their prompt, or tools on offer or called in
            an answer: answers are compared as texts.
    """
    if "chosen" not in record or "rejected" not in record:
        raise UserError(
            f"no preference in a record with keys {sorted(record)}",
            where=where,
            expected="`chosen` and `rejected`, with or without `prompt`",
        )
    if tools_of(record, where):
        raise UserError("tools on offer in a preference", where=where, expected="tools in conversations for sft only")
    prompt, chosen = _side(record, "chosen", where)
    other_prompt, rejected = _side(record, "rejected", where)
    if prompt != other_prompt:
        raise UserError("chosen and rejected do not share their prompt", where=where)
    return Preference(prompt, chosen, rejected, str(record.get("axis", "")))


def _side(record: dict[str, Any], key: str, where: str) -> tuple[list[Message], str]:
    """(prompt messages, answer) of one side of a pair."""
    value, prompt = record[key], record.get("prompt")
    if isinstance(value, list):
        messages = _messages(value, f"{where} {key}")
    elif isinstance(value, str) and prompt is None:
        messages = _transcript(value, f"{where} {key}")
    else:
        messages = [{"role": "assistant", "content": _text(record, key, where)}]
    if messages[-1]["role"] != "assistant":
        raise UserError("does not end with an assistant turn", where=f"{where} {key}")
    if messages[-1].get("tool_calls"):
        raise UserError("an answer that calls tools", where=f"{where} {key}", expected="answers that are texts")
    before = messages[:-1]
    if prompt is not None:
        text = isinstance(prompt, str)
        given = [{"role": "user", "content": prompt}] if text else _messages(prompt, f"{where} prompt")
        if before and _said(before[-len(given) :]) != _said(given):
            raise UserError("the messages before the answer do not end with `prompt`", where=f"{where} {key}")
        before = before or given
    if not before:
        raise UserError("no prompt", where=where, expected="`prompt`, or messages before the answer")
    answer: str = messages[-1]["content"]
    return before, answer


def _said(messages: Sequence[Message]) -> list[str]:
    return [str(message["content"]).strip() for message in messages]


def _transcript(text: str, where: str) -> list[Message]:
    """An hh-rlhf transcript: turns that begin with a blank line and "Human: " or "Assistant: "."""
    parts = _HH_TURN.split(text)
    if len(parts) < 3 or parts[0].strip():
        raise UserError("not a transcript", where=where, expected="turns beginning with `\\n\\nHuman: `")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": words.strip()}
        for speaker, words in zip(parts[1::2], parts[2::2], strict=True)
    ]
