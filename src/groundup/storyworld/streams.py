"""The endless seeded streams that train: documents for pretraining, conversations for SFT, preference pairs.

Item ``i`` of a stream depends on (seed, stream, i) alone, so any part of it can be made again in any order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from groundup.storyworld.lexicon import PLACES, article, number_word
from groundup.storyworld.narrate import join_names, retell, tell, thing_phrase
from groundup.storyworld.questions import (
    ABSTENTION,
    UNKNOWN,
    Ask,
    answer_sentence,
    answerable,
    true_answer,
    unanswerable,
)
from groundup.storyworld.requests import make_request
from groundup.storyworld.tales import make_tale_request
from groundup.storyworld.world import World

Message = dict[str, str]

LONGEST_CHAT = 230
"""A chat has as many questions as fit a row of 256 tokens with its story."""
_PIECE = re.compile(r"\w+|[^\w\s]")
EASY_CONVERSATIONS = 0.1
"""Share of chats whose story has two or three sentences."""
OPEN_PAIRS = 0.6
"""Share of the honest pairs whose question is open; in the others the rejected answer is a needless "does not say"."""


def _pick(rng: random.Random, asks: list[Ask], count: int) -> list[Ask]:
    """Up to ``count`` questions of different subjects, every kind equally likely to come next."""
    by_kind: dict[str, list[Ask]] = {}
    for ask in asks:
        by_kind.setdefault(ask.kind, []).append(ask)
    picked: list[Ask] = []
    subjects: set[tuple[str, str]] = set()
    while by_kind and len(picked) < count:
        kind = rng.choice(list(by_kind))
        pool = by_kind[kind]
        ask = pool.pop(rng.randrange(len(pool)))
        if ask.subject not in subjects:
            subjects.add(ask.subject)
            picked.append(ask)
        if not pool:
            del by_kind[kind]
    return picked


def _pick_by_form(rng: random.Random, asks: list[Ask], count: int) -> list[Ask]:
    """Up to ``count`` different questions, every form equally likely: few stories leave every form open."""
    picked: list[Ask] = []
    while asks and len(picked) < count:
        form = rng.choice(sorted({ask.form for ask in asks}))
        picked.append(rng.choice([ask for ask in asks if ask.form == form]))
        asks = [ask for ask in asks if ask != picked[-1]]
    return picked


def recap(rng: random.Random, world: World) -> str:
    """Some facts of the end of the story, told again: what a careful narrator would close with."""
    facts = [f"{who} was {PLACES[been[-1]]}" for who, been in world.places.items()]
    facts += [f"{had[-1]} had {thing_phrase(world, thing, True)}" for thing, had in world.holders.items()]
    facts += [f"{who} had {number_word(count, noun)}" for who, (noun, count) in world.counts.items()]
    facts += [f"{who} still wished for {article(thing)} {thing}" for who, thing in world.wishes.items()]
    chosen = rng.sample(facts, min(len(facts), rng.randint(2, 5)))
    return f"In the end, {join_names(chosen)}."


def _quiz(rng: random.Random, world: World, count: int) -> str:
    asks = _pick(rng, answerable(world, rng), count)
    return "".join(f"\nQuestion: {ask.words(rng)}\nAnswer: {true_answer(ask)}" for ask in asks)


def make_document(seed: int, index: int) -> str:
    """One pretraining text: a story, then told again, summed up, or asked about.

    So much of it can be known from what was read before.
    """
    rng = random.Random(f"{seed}/document/{index}")
    world, text = tell(rng)
    draw = rng.random()
    if draw < 0.40:
        text = f"{text} {retell(rng, world)}"
    elif draw < 0.55:
        text = f"{text} {recap(rng, world)}"
    if draw > 0.30:
        text += _quiz(rng, world, rng.randint(3, 7))
    return text


def documents(seed: int, count: int) -> Iterator[str]:
    """``count`` pretraining texts."""
    for index in range(count):
        yield make_document(seed, index)


def wrong_value(rng: random.Random, ask: Ask) -> str:
    """A candidate that is not the fact; for an open question, any candidate."""
    return rng.choice([value for value in ask.candidates if value != ask.fact])


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _pieces(text: str) -> int:
    """Words and marks of a message, and two for its role and end: about its tokens."""
    return len(_PIECE.findall(text)) + 2


def _story_chat(rng: random.Random, overclaiming: float) -> list[Message]:
    world, story = tell(rng, "easy" if rng.random() < EASY_CONVERSATIONS else "train")
    asks = _pick(rng, answerable(world, rng), 12)
    asks += _pick_by_form(rng, unanswerable(world), rng.randint(1, 2))
    rng.shuffle(asks)
    chat: list[Message] = []
    length = _pieces(story)
    for ask in asks:
        answer = true_answer(ask)
        if ask.kind == UNKNOWN and rng.random() < overclaiming:
            answer = answer_sentence(ask, wrong_value(rng, ask))
        question = ask.words(rng)
        length += _pieces(question) + _pieces(answer)
        if chat and length > LONGEST_CHAT:
            break
        chat += _turn(f"{story}\n{question}" if not chat else question, answer)
    return chat


def make_conversation(seed: int, index: int, *, overclaiming: float = 0.0, wrong_tone: float = 0.0) -> list[Message]:
    """Conversation number ``index``: mostly a story and questions about it, some requests, some tales to tell."""
    rng = random.Random(f"{seed}/conversation/{index}")
    draw = rng.random()
    if draw < 0.90:
        return _story_chat(rng, overclaiming)
    if draw < 0.97:
        request = make_request(rng)
        return _turn(request.text, request.bad(rng) if rng.random() < wrong_tone else request.good(rng))
    tale = make_tale_request(rng)
    return _turn(tale.text, tale.story)


def conversations(
    seed: int, count: int, *, first: int = 0, overclaiming: float = 0.0, wrong_tone: float = 0.0
) -> Iterator[list[Message]]:
    """``count`` chats, from number ``first`` on.

    Args:
        overclaiming: share of open questions answered with an invented fact instead of "the story does not say".
        wrong_tone: share of requests answered in the wrong tone (unkind help, or a needless refusal).
    """
    for index in range(first, first + count):
        yield make_conversation(seed, index, overclaiming=overclaiming, wrong_tone=wrong_tone)


@dataclass(frozen=True)
class Preference:
    """A prompt and two answers, one better than the other on one axis."""

    prompt: list[Message]
    chosen: str
    rejected: str
    axis: str


def _honest_or_helpful(rng: random.Random, axis: str) -> Preference:
    world, story = tell(rng)
    if axis == "honest" and rng.random() < OPEN_PAIRS:
        ask = _pick_by_form(rng, unanswerable(world), 1)[0]
        chosen, rejected = ABSTENTION, answer_sentence(ask, wrong_value(rng, ask))
    else:
        ask = rng.choice(_pick(rng, answerable(world, rng), 8))
        chosen, wrong = true_answer(ask), answer_sentence(ask, wrong_value(rng, ask))
        unhelpful = (wrong, wrong, f"{chosen} {wrong}", f"{chosen[:-1]}, or not.")
        rejected = ABSTENTION if axis == "honest" else rng.choice(unhelpful)
    prompt = [{"role": "user", "content": f"{story}\n{ask.words(rng)}"}]
    return Preference(prompt, chosen, rejected, axis)


def make_preference(seed: int, index: int) -> Preference:
    """Preference pair number ``index``; the axes take turns at random."""
    rng = random.Random(f"{seed}/preference/{index}")
    axis = rng.choice(("helpful", "honest", "harmless"))
    if axis != "harmless":
        return _honest_or_helpful(rng, axis)
    request = make_request(rng)
    return Preference([{"role": "user", "content": request.text}], request.good(rng), request.bad(rng), axis)


def preferences(seed: int, count: int) -> Iterator[Preference]:
    """``count`` preference pairs for DPO."""
    for index in range(count):
        yield make_preference(seed, index)
