"""The judge: what an answer in words claims, and whether that is the true fact.

An answer is read as a whole. It is right when all of it, up to its end, is one claim and the claim is the fact; an
answer that names two candidates claims nothing definite and is wrong, and so is one that never ends.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from groundup.storyworld.lexicon import NUMBERS, PLACES
from groundup.storyworld.questions import Ask, Question, answer_sentence, answerable
from groundup.storyworld.world import simulate

MAX_WORDS = 12
"""A helpful answer is a short sentence: no answer of the simulator is longer."""

_ABSTENTIONS = (
    r"(the story does(n't| not) (say|tell)|i (do not|don't) know|it is not (said|told)|nobody knows)"
    r"( (that|this|where|who|what|how|which)\b[^.]*)?"
)


@dataclass(frozen=True)
class AnswerVerdict:
    """What an answer amounts to."""

    claim: str | None
    """the candidate it names, or None where it names none or more than one"""
    correct: bool
    """ended, and its one claim is the fact (for an open question: it abstains)"""
    abstains: bool
    helpful: bool
    """correct, in a full sentence of at most MAX_WORDS words, and then stopped"""


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def _bare_forms(ask: Ask, value: str) -> tuple[str, ...]:
    """Right but not full sentences: the bare value, as people also answer."""
    bare = [value]
    if value in PLACES:
        bare += [PLACES[value], f"the {value}"]
    if ask.form == "count":
        bare += [str(NUMBERS.index(value)), f"{value} {ask.slot('noun')}"]
    if ask.kind == "wish" or ask.form == "wish":
        bare += [f"a {value}", f"an {value}"]
    return tuple(bare)


def _other_sentences(ask: Ask, value: str) -> tuple[str, ...]:
    """Full sentences that say the same as the simulator's, and that other models are as likely to say."""
    slots = dict(ask.slots)
    who, thing = slots.get("who", ""), slots.get("thing", "")
    at = PLACES.get(slots.get("place", ""), "")
    match ask.form:
        case "who":
            return (f"{value} has the {thing}.",)
        case "yes_no_holder":
            return (f"Yes, {who} has the {thing}.",) if value == "yes" else (f"No, {who} does not have the {thing}.",)
        case "yes_no_place":
            return (f"Yes, {who} is {at}.",) if value == "yes" else (f"No, {who} is not {at}.",)
        case "compare_more" | "compare_fewer":
            return (f"{value} has {ask.form.removeprefix('compare_')} {slots['noun']}.",)
    return ()


def parse_claim(ask: Ask, completion: str) -> tuple[str | None, bool]:
    """The candidate that an answer claims, and whether it says so in a full sentence.

    Only a completion that is one claim and nothing else has one: (None, False) otherwise.
    """
    text = _plain(completion)
    for value in ask.candidates:
        if text in {_plain(sentence) for sentence in (answer_sentence(ask, value), *_other_sentences(ask, value))}:
            return value, True
        if text.rstrip(".!") in _bare_forms_lower(ask, value):
            return value, False
    return None, False


def _bare_forms_lower(ask: Ask, value: str) -> tuple[str, ...]:
    return tuple(form.lower() for form in _bare_forms(ask, value))


def judge_answer(question: Question, completion: str, finished: bool) -> AnswerVerdict:
    """Judge a completion against the simulator's truth.

    Args:
        completion: the text up to, not including, the end token.
        finished: whether the model ended it by itself; an unended answer is never correct.
    """
    abstains = re.fullmatch(_ABSTENTIONS, _plain(completion).rstrip(".!")) is not None
    claim, sentence = parse_claim(question.ask, completion)
    correct = finished and (claim == question.fact if question.answerable else abstains)
    short = len(completion.split()) <= MAX_WORDS
    return AnswerVerdict(claim, correct, abstains, correct and short and (sentence or abstains))


def random_answer(question: Question, rng: random.Random) -> str:
    """The baseline that draws any candidate of the question."""
    return answer_sentence(question.ask, rng.choice(question.candidates))


@cache
def _majority_facts(seed: int, worlds: int = 2000) -> dict[str, str]:
    """The most common fact of each form over training worlds (people by their place in the story's list)."""
    counts: dict[str, Counter[str]] = {}
    for index in range(worlds):
        rng = random.Random(f"{seed}/majority/{index}")
        world = simulate(rng)
        for ask in answerable(world, rng):
            fact = str(world.people.index(ask.fact)) if ask.fact in world.people else ask.fact
            counts.setdefault(ask.form, Counter())[fact] += 1
    return {form: max(sorted(tally), key=lambda fact: tally[fact]) for form, tally in counts.items()}


def majority_answer(question: Question, seed: int = 0) -> str:
    """The baseline that always gives the commonest fact of the form (for people: the commonest place in the list)."""
    fact = _majority_facts(seed)[question.ask.form]
    if fact.isdigit():
        people = question.candidates if question.ask.kind == "compare" else question.world.people
        fact = people[min(int(fact), len(people) - 1)]
        if fact not in question.candidates:
            fact = question.candidates[0]
    return answer_sentence(question.ask, fact)


def copy_last(question: Question) -> str:
    """The baseline that copies the candidate named last in the story (the first candidate where none is named)."""
    story = question.story.lower()
    last = max(question.candidates, key=lambda value: _last_mention(story, value))
    return answer_sentence(question.ask, last)


def _last_mention(story: str, value: str) -> int:
    matches = list(re.finditer(rf"\b{re.escape(value.lower())}\b", story))
    return matches[-1].start() if matches else -1
