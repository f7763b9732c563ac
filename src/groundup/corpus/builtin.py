"""The texts that come with groundup: `builtin:storyworld`, `builtin:storyworld-chats`, `builtin:python-docs`."""

from __future__ import annotations

from collections.abc import Iterator

from groundup.corpus.documents import Raw, Refused

BUILTIN = "builtin:"
BUILTINS = tuple(BUILTIN + name for name in ("storyworld", "storyworld-chats", "python-docs"))
STORYWORLD_DOCUMENTS = 20_000  # where the recipe sets no number: the simulator itself never ends
FIRST_CHAT = 10**9  # far behind the conversations that fine-tuning counts from 0
CARELESS = 0.5  # share of the corpus's chats that over-claim or take the wrong tone, where they could


def read_builtin(name: str, documents: int | None, seed: int) -> Iterator[Raw | Refused]:
    """The documents of one of `BUILTINS` in their order.

    Args:
        documents: how many the simulator writes; python-docs has as many as it has.
        seed: of the simulator.
    """
    from groundup import storyworld  # here, since each worker that reads files would wait for it
    from groundup.corpus.python_docs import read_python_docs

    count = documents or STORYWORLD_DOCUMENTS
    if name == BUILTIN + "storyworld":
        for number, text in enumerate(storyworld.documents(seed, count), start=1):
            yield Raw(text, name, number, language="en", encoding="utf-8")
    elif name == BUILTIN + "storyworld-chats":
        chats = storyworld.conversations(seed, count, first=FIRST_CHAT, overclaiming=CARELESS, wrong_tone=CARELESS)
        for number, chat in enumerate(chats, start=1):
            text = "\n".join(message["content"] for message in chat)
            yield Raw(text, name, number, language="en", messages=chat, encoding="utf-8")
    else:
        yield from read_python_docs()
