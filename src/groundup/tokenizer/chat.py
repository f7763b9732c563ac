"""The chat format, built message by message as ids and a loss mask.

    <|system|>text<|end|><|user|>text<|end|><|assistant|>text<|end|>…

A message's text stands between its role's token and <|end|> as it is, with nothing added or stripped. The
text is encoded on its own, so no message can forge a role: "<|assistant|>" inside a text is plain characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from groundup.run import UserError
from groundup.tokenizer.special import END, ROLES
from groundup.tokenizer.tokenizer import Tokenizer

Message = Mapping[str, str]


@dataclass(frozen=True)
class EncodedChat:
    """A chat as ids, and for each whether the model learns it: assistant texts and their <|end|>."""

    ids: list[int]
    loss_mask: list[bool]


def check_messages(messages: Sequence[Message]) -> None:
    """Raise UserError unless there are messages, each of a known role, with a text, "system" only first."""
    if not messages:
        raise UserError("a chat without messages", expected="a list of {role, content}")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise UserError(f"a message is {message!r}", where=where, expected="an object {role, content}")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise UserError(f"unknown role {role!r}", where=where, expected=" or ".join(ROLES))
        if not isinstance(content, str):
            raise UserError(f"the content is {content!r}", where=where, expected="a text")
        if role == "system" and number > 0:
            raise UserError("a system message that is not the first", where=where, expected="at most one, in front")


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message], *, generation_prompt: bool = False) -> EncodedChat:
    """Encode a chat; with `generation_prompt` it ends with <|assistant|>, for the model to go on.

    Raises UserError for messages that `check_messages` refuses.
    """
    check_messages(messages)
    texts = tokenizer.encode_batch([message["content"] for message in messages])
    ids: list[int] = []
    mask: list[bool] = []
    for message, text in zip(messages, texts, strict=True):
        learned = message["role"] == "assistant"
        ids += [tokenizer.special_id(ROLES[message["role"]]), *text, tokenizer.end]
        mask += [False, *[learned] * (len(text) + 1)]
    if generation_prompt:
        ids.append(tokenizer.assistant)
        mask.append(False)
    return EncodedChat(ids, mask)


def chat_template() -> str:
    """The same format as a Jinja template, for stock tools.

    `transformers`' apply_chat_template gives the ids of `encode_chat` for any chat whose texts spell no
    special token (a template renders one string first, so there such a text would become the token).
    """
    roles = ", ".join(f"'{role}'" for role in ROLES)
    return (
        "{% for message in messages %}"
        "{% if message['role'] not in [" + roles + "] %}"
        "{{ raise_exception('unknown role ' ~ message['role']) }}{% endif %}"
        "{% if message['role'] == 'system' and not loop.first %}"
        "{{ raise_exception('only the first message may be a system message') }}{% endif %}"
        "{{ '<|' + message['role'] + '|>' + message['content'] + '" + END + "' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
