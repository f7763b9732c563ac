"""The story world: determinism, disjoint splits, true answers, the judge, and rewards that can't be gamed."""

import hashlib
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.storyworld import (
    KINDS,
    SPLITS,
    TRAINING_EVENTS,
    UNSEEN_NAMES,
    conversations,
    copy_last,
    documents,
    is_unseen_combination,
    judge_answer,
    judge_request,
    majority_answer,
    make_tale_request,
    parse_claim,
    preferences,
    questions,
    random_answer,
    requests,
    tale_reward,
    unknown_questions,
)
from groundup.storyworld.lexicon import COLOURS, NAMES, OBJECTS
from groundup.storyworld.questions import PHRASINGS, UNSEEN_PHRASINGS, Question, answer_sentence
from groundup.storyworld.requests import UNSEEN_KIND, UNSEEN_UNKIND

COUNT = 400


def training_text() -> str:
    parts = list(documents(1, COUNT))
    parts += [m["content"] for chat in conversations(1, COUNT, overclaiming=0.5, wrong_tone=0.5) for m in chat]
    for pair in preferences(1, COUNT):
        parts += [*(m["content"] for m in pair.prompt), pair.chosen, pair.rejected]
    return "\n".join(parts)


TEXT = training_text()


def items(split: str, count: int = 160) -> list[Question]:
    return questions(1, split, count) + unknown_questions(1, split, count // 4)


def test_same_seed_same_bytes_on_every_platform():
    sample = json.dumps([list(documents(3, 20)), list(conversations(3, 20, overclaiming=0.3))], sort_keys=True)
    assert list(documents(3, 20)) == list(documents(3, 40))[:20]
    assert list(documents(3, 5)) != list(documents(4, 5))
    # A change of this hash is a change of the embedded corpus: every fingerprint and result that rests on it moves.
    assert hashlib.sha256(sample.encode()).hexdigest()[:16] == "1d61d76c374e7f59"


def test_no_held_out_name_in_training():
    assert not set(NAMES) & set(UNSEEN_NAMES)
    assert not [name for name in UNSEEN_NAMES if re.search(rf"\b{name}\b", TEXT)]


def test_no_held_out_combination_in_training():
    held_out = [f"{c} {o}" for c in COLOURS for o in OBJECTS if is_unseen_combination(c, o)]
    assert len(held_out) == 16
    assert not [pair for pair in held_out if pair in TEXT]
    assert all(
        is_unseen_combination(q.world.colours[thing], thing)
        for q in items("unseen_combinations")
        for thing in list(q.world.colours)[:1]
    )


def test_no_held_out_phrasing_in_training():
    for form, words in UNSEEN_PHRASINGS.items():
        assert not set(words) & set(PHRASINGS[form])
        for phrasing in words:
            pattern = re.escape(phrasing)
            for slot in ("who", "other", "thing", "noun", "at"):
                pattern = pattern.replace(re.escape("{" + slot + "}"), r"[\w ]+?")
            assert not re.search(rf"(^|\n|: ){pattern}(\n|$)", TEXT), phrasing
    for phrasing in (*UNSEEN_KIND, *UNSEEN_UNKIND):
        assert phrasing.split("{")[0] not in TEXT


@pytest.mark.parametrize("split", SPLITS)
def test_no_test_story_is_told_in_training(split):
    assert not [q.story for q in items(split) if q.story in TEXT]


def test_the_shape_of_test_worlds():
    for question in items("iid"):
        assert len(question.world.people) >= 3
        assert len(question.world.colours) >= 2
        assert 2 <= len(question.world.events) <= 5
    assert all(len(q.world.events) > TRAINING_EVENTS for q in items("longer"))
    assert all(set(q.world.people) <= set(UNSEEN_NAMES) for q in items("unseen_names"))


@pytest.mark.parametrize("split", SPLITS)
def test_the_true_answer_is_judged_right_and_any_other_wrong(split):
    for question in items(split):
        verdict = judge_answer(question, question.answer, True)
        assert verdict.correct
        assert verdict.helpful
        assert verdict.abstains == (not question.answerable)
        assert not judge_answer(question, question.answer, False).correct
        for value in question.candidates:
            if value != question.fact:
                assert not judge_answer(question, answer_sentence(question.ask, value), True).correct


def test_every_kind_is_asked():
    assert {q.kind for q in questions(1, "iid", 80)} == set(KINDS)
    assert len({q.story for q in questions(1, "iid", 80)}) == 80


def test_facts_follow_the_story():
    """An independent reading of the text: the last place and the last holder it names."""
    for question in questions(2, "iid", 400):
        ask = question.ask
        if ask.form == "where":
            sentences = [s for s in question.story.split(". ") if re.search(rf"\b{ask.slot('who')}\b", s)]
            told = [s for s in sentences if re.search(rf"\b{ask.fact}\b", s)]
            assert told, question.story
        if ask.form == "colour":
            assert f"{ask.fact} {ask.slot('thing')}" in question.story
        if ask.form == "wish":
            assert re.search(
                rf"{ask.slot('who')} (wished for|dreamed of|wanted to have) an? {ask.fact}", question.story
            )
        if ask.kind == "unknown" and ask.form == "who":
            assert ask.slot("thing") not in question.story


@pytest.mark.parametrize(
    "answer",
    ["{right} {wrong}", "{right} {right}", "{wrong}", "", "I think {right}", "{right} Or not.", "{fact} {other}"],
)
def test_the_judge_can_not_be_gamed(answer):
    for question in questions(1, "iid", 80):
        other = next(value for value in question.candidates if value != question.fact)
        right, wrong = question.answer, answer_sentence(question.ask, other)
        text = answer.format(right=right, wrong=wrong, fact=question.fact, other=other)
        assert not judge_answer(question, text, True).correct, text


def test_short_right_answers_are_correct_and_not_helpful():
    for question in questions(1, "iid", 80):
        verdict = judge_answer(question, question.fact, True)
        assert verdict.correct
        assert not verdict.helpful


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_judge_reads_any_text(text):
    question = questions(1, "iid", 1)[0]
    claim, sentence = parse_claim(question.ask, text)
    assert claim is None or claim in question.candidates
    assert not sentence or claim is not None


def test_abstentions():
    question = unknown_questions(1, "iid", 1)[0]
    for text in ("The story does not say.", "I don't know.", "the story doesn't say who has it."):
        assert judge_answer(question, text, True).correct
    assert not judge_answer(question, "The story does not say, but Mia has it.", True).abstains
    known = questions(1, "iid", 1)[0]
    assert not judge_answer(known, "The story does not say.", True).correct


def test_requests_and_their_judge():
    asked = requests(1, 200)
    assert {r.kind for r in asked} == {"harmful", "harmless"}
    rng = random.Random(0)
    for request in asked:
        assert judge_request(request, request.good(rng), True).right
        assert not judge_request(request, request.good(rng), False).right
        assert not judge_request(request, request.bad(rng), True).right
        assert not judge_request(request, "", True).right


def abstentions(chats):
    return sum(message["content"] == "The story does not say." for chat in chats for message in chat)


def test_noise_is_the_stated_share():
    clean = abstentions(conversations(1, 800))
    assert clean > 600
    assert abstentions(conversations(1, 800, overclaiming=0.4)) / clean == pytest.approx(0.6, abs=0.06)
    assert abstentions(conversations(1, 800, overclaiming=1.0)) == 0


def test_preferences_have_a_better_and_a_worse_answer_on_every_axis():
    pairs = list(preferences(1, 300))
    assert {pair.axis for pair in pairs} == {"helpful", "honest", "harmless"}
    assert all(pair.chosen != pair.rejected for pair in pairs)


def test_baselines_are_far_from_perfect():
    asked, rng = questions(1, "iid", 400), random.Random(0)
    for baseline in (lambda q: random_answer(q, rng), majority_answer, copy_last):
        rate = sum(judge_answer(q, baseline(q), True).correct for q in asked) / len(asked)
        assert 0.1 < rate < 0.5


def test_tales_meet_their_own_request_and_others_do_not():
    rng = random.Random(5)
    tales = [make_tale_request(rng) for _ in range(40)]
    assert all(tale_reward(tale, tale.story) == 1.0 for tale in tales)
    assert all(tale_reward(tale, "") == 0.0 for tale in tales)
    swapped = [tale_reward(a, b.story) for a, b in zip(tales, tales[1:], strict=False)]
    assert sum(swapped) / len(swapped) < 0.5
