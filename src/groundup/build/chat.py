"""A conversation with a model of a run: load it, answer, and show a sample at the end of a build."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.build.models import held_out_conversations, open_model
from groundup.build.verify import find_stage, open_run
from groundup.recipe import DECODER_KINDS, EngineSection, Recipe, Stage
from groundup.run import UserError, read_manifest

if TYPE_CHECKING:
    from groundup.model import Transformer
    from groundup.tokenizer import Tokenizer

Message = dict[str, str]


@dataclass(frozen=True)
class Speaker:
    """A loaded model. ``chats`` is false for a base model, which only continues text."""

    stage: str
    chats: bool
    model: Transformer
    tokenizer: Tokenizer
    context_length: int
    begins: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """Pieces of the answer as they are generated; for a base model, of the last message's continuation.

        The oldest messages are dropped while the conversation leaves too little room for an answer.
        """
        from groundup.inference import SamplingParams, stream

        params = SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop_ids=(self.tokenizer.end, self.tokenizer.endoftext, *self.ends),
        )
        return stream(self.model, self.tokenizer, self._prompt(list(messages), max_tokens), params)

    def answer(self, messages: Sequence[Message], **options: Any) -> str:
        """The whole answer; options as for ``stream``."""
        return "".join(self.stream(messages, **options)).strip("\n ")

    def has_room_for(self, messages: Sequence[Message], answer: int) -> bool:
        """Whether a chat model reads these messages whole before an answer of so many tokens."""
        from groundup.tokenizer import encode_chat

        return len(encode_chat(self.tokenizer, messages, generation_prompt=True).ids) <= self._room(answer)

    def _room(self, answer: int) -> int:
        """Tokens that may stand before an answer of so many."""
        return self.context_length - min(answer, self.context_length // 2)

    def _prompt(self, messages: list[Message], answer: int) -> list[int]:
        from groundup.tokenizer import encode_chat

        room = self._room(answer)
        if not self.chats:
            ids = self.tokenizer.encode(messages[-1]["content"])
            return [*self.begins, *ids[-(room - len(self.begins)) :]]
        while True:
            ids = list(encode_chat(self.tokenizer, messages, generation_prompt=True).ids)
            if len(ids) <= room:
                return ids
            if len(messages) == 1:
                raise UserError(
                    f"the message has {len(ids)} tokens; the model reads at most {room} before it answers",
                    mend="shorten it",
                )
            # A question goes with its answer, so that what is left begins with the user.
            messages = messages[2:] if len(messages) > 2 else messages[1:]


def built_model(run: Path, stage: str | None = None) -> Stage:
    """The named stage, or the last one whose decoder is built.

    Raises UserError where there is none.
    """
    recipe = open_run(run)
    if stage is not None and find_stage(recipe, stage).kind not in DECODER_KINDS:
        names = ", ".join(recipe.trained_stages())
        raise UserError(
            f"stage {stage!r} trains no model", expected=f"one of {names}" if names else "a stage that trains a decoder"
        )
    wanted = [stage] if stage is not None else list(reversed(recipe.trained_stages()))
    for name in wanted:
        if read_manifest(run / name) is not None:
            return find_stage(recipe, name)
    raise UserError(
        f"stage {stage!r} is not built yet" if stage else "no model is trained yet",
        where=str(run),
        mend="run groundup build first; the same command carries on",
    )


def open_speaker(run: Path, stage: str | None = None) -> Speaker:
    """Load a model of a run: the named stage's, or the last one that is built. Raises UserError where none is."""
    found = built_model(run, stage)
    opened = open_model(run, found)
    return Speaker(
        stage=found.name,
        chats=opened.chats,
        model=opened.model,
        tokenizer=opened.tokenizer,
        context_length=opened.model.arch.context_length,
        begins=opened.begins,
        ends=opened.ends,
    )


def sample_conversation(run: Path, *, seed: int) -> list[Message]:
    """A short conversation with the finished model: a question about a story, and one it doesn't answer.

    For a base model: a text and its continuation. For a tuned import: what somebody asks first in a conversation that
    it never learned from.
    """
    speaker = open_speaker(run)
    recipe = open_run(run)
    if not speaker.chats:
        section = find_stage(recipe, speaker.stage).section
        prompts = section.sample_prompts if isinstance(section, EngineSection) else ()
        shown = [{"role": "user", "content": prompts[0] if prompts else "\n"}]
        text = speaker.answer(shown, max_tokens=96, temperature=0.8, seed=seed)
        return [*shown, {"role": "assistant", "content": text}]
    if recipe.import_ is not None:
        asked = next(turns for turns in _first_turns(recipe) if speaker.has_room_for(turns, 96))
        return [*asked, {"role": "assistant", "content": speaker.answer(asked, max_tokens=96)}]
    from groundup.storyworld import questions, unknown_questions

    talk: list[Message] = []
    for question in (questions(seed, "iid", 1)[0], unknown_questions(seed, "iid", 1)[0]):
        messages = [dict(message) for message in question.messages]
        talk += [*messages, {"role": "assistant", "content": speaker.answer(messages, max_tokens=96)}]
    return talk


def _first_turns(recipe: Recipe) -> Iterator[list[Message]]:
    """The turns before the first answer of each held-out conversation without tools; in the end a greeting."""
    for conversation in held_out_conversations(recipe):
        roles = [message["role"] for message in conversation.messages]
        if "assistant" in roles and "user" in roles[: roles.index("assistant")] and not conversation.tools:
            before = conversation.messages[: roles.index("assistant")]
            yield [{"role": str(message["role"]), "content": str(message["content"])} for message in before]
    yield [{"role": "user", "content": "Hi"}]
