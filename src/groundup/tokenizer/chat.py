"""The chat format: conversations as ids with a loss mask, and what a model wrote, read back.

| message | written as | learned |
|---|---|---|
| system | <|system|> text <|end|> | no |
| system, with tools on offer | <|system|> text, an empty line, "You may call these tools:", a line of JSON a tool <|end|> | no |
| user | <|user|> text <|end|> | no |
| assistant | <|assistant|> text <|end|> | the text and <|end|> |
| assistant calling tools | <|assistant|> text <|tool|> JSON <|tool|> JSON … <|end|> | all after <|assistant|> |
| a tool's result | <|tool|> text <|end|> | no |

    <|system|>Be brief.

    You may call these tools:
    {"name": "weather", "description": "Tells the weather", "parameters": {"type": "object"}}<|end|>
    <|user|>Is it cold in Oslo?<|end|>
    <|assistant|>Let me see.<|tool|>{"name": "weather", "arguments": {"city": "Oslo"}}<|end|>
    <|tool|>{"celsius": -7}<|end|>
    <|assistant|>Yes: 7 degrees below zero.<|end|>

(Nothing stands between messages; the line breaks after <|end|> are for the reader.) A text stands as it is,
with nothing added or stripped. <|tool|> has two uses that its place tells apart: within an assistant's message it
opens a call, after <|end|> it opens a result.

Every text and every piece of JSON is encoded on its own and joined as ids, so no content, name, argument or
definition can forge a token: "<|assistant|>" inside a text is plain characters.
"""  # noqa: E501 - a table's row is one line

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.run import UserError
from groundup.tokenizer.special import NAMED, ROLES, TOOL_FIELDS, TOOLS_HEADING
from groundup.tokenizer.tokenizer import Tokenizer

__all__ = ["EncodedChat", "Message", "Reply", "Tool", "check_messages", "encode_chat", "parse_reply"]

Message = Mapping[str, Any]
"""A message: `role` and `content`, for an assistant also `tool_calls`, and `train` or `weight`.

A call is {"name", "arguments"}, alone or as OpenAI's {"id", "type": "function", "function": {"name",
"arguments"}}. Its arguments are an object or a text holding the JSON of one; absent or empty means {}. With calls
the content may be absent or None. A tool's result is a message of role "tool", its content a text, or any other
JSON value, which is written as JSON. Results stand in the order of the calls that they answer: ids are not
written, but where a call and its result have an `id` and a `tool_call_id`, they must agree. A result's `name`
and all other keys are ignored.

Assistant messages are learned. `"train": false`, or OpenAI's `"weight": 0`, leaves one out of the loss.
"""

Tool = Mapping[str, Any]
"""A tool on offer: {"name", "description", "parameters", "return"}, alone or in OpenAI's {"type": "function",
"function": …}. Parameters are a JSON schema. They are written in this order, whatever theirs; fields that are absent
or empty, and others such as `strict`, are not written."""


@dataclass(frozen=True)
class EncodedChat:
    """A chat as ids, and for each whether the model learns it; both lists have the same length."""

    ids: list[int]
    loss_mask: list[bool]


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        content: the text before the first call, exactly.
        tool_calls: each call as {"name": str, "arguments": dict}, or, where it can't be read as one,
            {"raw": str, "error": str} with the text as written and what is wrong with it.
        complete: the model ended the message by itself, with <|end|>.
    """

    content: str
    tool_calls: list[dict[str, Any]]
    complete: bool


@dataclass(frozen=True)
class _Turn:
    """A message laid out: its text and the JSON of each call, and whether they are learned."""

    role: str
    parts: list[str]
    learned: bool


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] | None = None,
    generation_prompt: bool = False,
) -> EncodedChat:
    """Encode a chat; with `generation_prompt` it ends with <|assistant|>, for the model to go on.

    `tools` on offer are told in the system message; a chat that has none gets one. Raises UserError for messages
    and tools that `check_messages` refuses.
    """
    turns = _lay_out(messages, tools)
    texts = iter(tokenizer.encode_batch([part for turn in turns for part in turn.parts]))
    ids: list[int] = []
    mask: list[bool] = []
    for turn in turns:
        said = list(next(texts))
        for _ in turn.parts[1:]:
            said += [tokenizer.tool, *next(texts)]
        ids += [tokenizer.special_id(ROLES[turn.role]), *said, tokenizer.end]
        mask += [False, *[turn.learned] * (len(said) + 1)]
    if generation_prompt:
        ids.append(tokenizer.assistant)
        mask.append(False)
    return EncodedChat(ids, mask)


def parse_reply(tokenizer: Tokenizer, ids: Iterable[int]) -> Reply:
    """Read what a model produced after <|assistant|>: up to <|end|>, or to where it was cut.

    Any other token that has no place in an assistant's message (<|user|>, <|endoftext|>, …) cuts it too. Whatever
    the model wrote there is an answer: a broken call is told in the reply. Raises ValueError for an id that the
    vocabulary lacks.
    """
    misplaced = {tokenizer.special_id(token) for token in NAMED} - {tokenizer.tool}
    parts: list[list[int]] = [[]]
    complete = False
    for number in ids:
        if number in misplaced:
            complete = number == tokenizer.end
            break
        if number == tokenizer.tool:
            parts.append([])
        else:
            parts[-1].append(number)
    content, *calls = (tokenizer.decode(part) for part in parts)
    return Reply(content, [_read_call(call) for call in calls], complete)


def check_messages(messages: Sequence[Message], tools: Sequence[Tool] | None = None) -> None:
    """Raise UserError unless `encode_chat` takes these: see `Message` and `Tool`, a system message only first."""
    _lay_out(messages, tools)


def _lay_out(messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[_Turn]:
    if not messages:
        raise UserError("a chat without messages", expected="a list of {role, content}")
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise UserError(f"the messages are {_short(messages)}", expected="a list of {role, content}")
    offer = _offer(tools) if tools else None
    turns: list[_Turn] = []
    pending: list[Any] = []  # the ids of the calls whose results may follow
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = _role(message, number, where)
        calls = _calls(message, where)
        text = _text(message, role, bool(calls), where)
        if role == "tool":
            _check_answers(message, pending, where)
        else:
            pending = [call.get("id") for call in calls]
        if role == "system" and offer is not None:
            text = f"{text}\n\n{offer}" if text else offer
        written = [_write_call(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls)]
        turns.append(_Turn(role, [text, *written], _learned(message, role, where)))
    if offer is not None and turns[0].role != "system":
        turns.insert(0, _Turn("system", [offer], learned=False))
    return turns


def _role(message: Any, number: int, where: str) -> str:
    if not isinstance(message, Mapping):
        raise UserError(f"a message is {_short(message)}", where=where, expected="an object {role, content}")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise UserError(f"unknown role {_short(role)}", where=where, expected=" or ".join(ROLES))
    if role == "system" and number > 0:
        raise UserError("a system message that is not the first", where=where, expected="at most one, in front")
    return role


def _text(message: Message, role: str, has_calls: bool, where: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and has_calls:
        return ""
    if content is not None and role == "tool":
        return _canonical(content, where)
    expected = "a text, or a JSON value other than null" if role == "tool" else "a text"
    raise UserError(f"the content is {_short(content)}", where=where, expected=expected)


def _calls(message: Message, where: str) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in calls):
        raise UserError(f"tool_calls is {_short(calls)}", where=where, expected="a list of {name, arguments}")
    if calls and message["role"] != "assistant":
        raise UserError(
            f"tool calls in a message of role {message['role']!r}", where=where, expected="only an assistant's calls"
        )
    return list(calls)


def _learned(message: Message, role: str, where: str) -> bool:
    train, weight = message.get("train"), message.get("weight")
    if not isinstance(train, bool | None):
        raise UserError(f"train is {_short(train)}", where=where, expected="true or false")
    if weight not in (None, 0, 1):
        raise UserError(f"weight is {_short(weight)}", where=where, expected="0 or 1")
    return role == "assistant" and train is not False and weight != 0


def _check_answers(message: Message, pending: list[Any], where: str) -> None:
    """Take the first pending call; refuse a result that answers another one."""
    asked = pending.pop(0) if pending else None
    answered = message.get("tool_call_id")
    if asked and answered and asked != answered:
        raise UserError(
            f"the result of call {_short(answered)} stands where that of {_short(asked)} belongs",
            where=where,
            expected="the results of tools in the order of their calls",
        )


def _write_call(call: Mapping[str, Any], where: str) -> str:
    """A call as it stands after <|tool|>: its name and arguments, in this order."""
    function = _function(call, where)
    arguments = function.get("arguments") or {}  # some servers write "" for none
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"the arguments are no JSON: {error}", where=where, expected="an object, or a text holding one"
            ) from error
    if not isinstance(arguments, Mapping):
        raise UserError(f"the arguments are {_short(arguments)}", where=where, expected="an object")
    return _canonical({"name": function["name"], "arguments": arguments}, where)


def _offer(tools: Sequence[Tool]) -> str:
    """The lines that tell the model of its tools."""
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise UserError(f"the tools are {_short(tools)}", expected="a list of definitions")
    lines = [TOOLS_HEADING]
    for number, tool in enumerate(tools):
        where = f"tools[{number}]"
        function = _function(tool, where)
        told = {"name": function["name"], **{key: function[key] for key in TOOL_FIELDS if function.get(key)}}
        lines.append(_canonical(told, where))
    return "\n".join(lines)


def _function(given: Any, where: str) -> Mapping[str, Any]:
    """What names the function in a call or a definition, out of OpenAI's wrapping if there is one."""
    expected = "{name, …}, or {type: function, function: {name, …}}"
    if not isinstance(given, Mapping):
        raise UserError(f"{_short(given)} is no object", where=where, expected=expected)
    function = given.get("function") or given
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise UserError(f"no name of a function in {_short(given)}", where=where, expected=expected)
    return function


def _canonical(value: Any, where: str) -> str:
    """JSON as `transformers`' tojson writes it: Python's separators, the keys' given order, no escapes for Unicode."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"not a JSON value: {error}", where=where, expected="what JSON can hold") from error


def _read_call(text: str) -> dict[str, Any]:
    """A call that a model wrote, or its text and what is wrong with it."""
    try:
        call = json.loads(text)
        # Such values don't survive a JSON answer: infinities, and halves of surrogate pairs.
        json.dumps(call, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        return {"raw": text, "error": f"no JSON: {error}"}
    if not isinstance(call, dict):
        return {"raw": text, "error": "no object {name, arguments}"}
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not name:
        return {"raw": text, "error": f"the name is {_short(name)}, not a text"}
    if not isinstance(arguments, dict):
        return {"raw": text, "error": f"the arguments are {_short(arguments)}, not an object"}
    return {"name": name, "arguments": arguments}


def _short(value: Any) -> str:
    return repr(value)[:100]
