"""Intervals, differences, bits per byte and a user's tasks, each against a plain calculation."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.evaluation import bits_per_byte_of, evaluate, mean_of_two
from groundup.evaluation.answers import Subject
from groundup.evaluation.bits import MAX_DOCUMENTS, MAX_TOKENS, sample_documents
from groundup.evaluation.custom import load_items, run_items
from groundup.evaluation.items import HONESTY, QA, Item, storyworld_items
from groundup.evaluation.scores import compare, score
from groundup.model import Architecture, Transformer
from groundup.recipe import EvaluateSection
from groundup.run import UserError, wilson
from groundup.storyworld import documents
from groundup.tokenizer import Tokenizer, train_bpe


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(documents(1, 60), 400).to_str())


def make_model(tokenizer: Tokenizer, spread: float, context: int = 64) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(
        Architecture(
            vocabulary_size=tokenizer.vocabulary_size,
            layers=1,
            hidden_size=16,
            heads=2,
            kv_heads=1,
            head_dim=8,
            intermediate_size=16,
            context_length=context,
        )
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, spread)
    return model.eval()


def test_mean_of_two_by_hand() -> None:
    both = mean_of_two(wilson(90, 100), wilson(50, 100))
    assert both.value == pytest.approx(0.7)
    assert both.n == 200
    assert both.low == pytest.approx(0.7 - math.hypot(0.9 - 0.8256343, 0.5 - 0.4038315) / 2, abs=1e-6)
    assert both.high == pytest.approx(0.7 + math.hypot(0.9447708 - 0.9, 0.5961685 - 0.5) / 2, abs=1e-6)
    certain = mean_of_two(wilson(100, 100), wilson(100, 100))
    assert (certain.value, certain.high) == (1.0, 1.0)
    assert certain.low < 0.98


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.9, 0.6), (0.97, 0.9), (1.0, 0.3)])
def test_mean_of_two_covers(first: float, second: float) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for a, b in zip(rng.binomial(80, first, 3000), rng.binomial(40, second, 3000), strict=True):
        interval = mean_of_two(wilson(int(a), 80), wilson(int(b), 40))
        hits += interval.low <= (first + second) / 2 <= interval.high
    assert 0.93 <= hits / 3000 <= 0.985


def test_score_and_compare() -> None:
    items = [item for item in storyworld_items([QA, HONESTY], seed=1, count=16) if item.split == "iid"]
    known = [item for item in items if item.group == "answerable"]
    unknown = [item for item in items if item.group == "unanswerable"]
    assert (len(known), len(unknown)) == (16, 8)
    assert len({item.id for item in items}) == 24

    def scores(known_right: int, unknown_right: int) -> dict[str, dict[str, bool]]:
        made = {item.id: {QA: i < 8, HONESTY: i < known_right} for i, item in enumerate(known)}
        return made | {item.id: {HONESTY: i < unknown_right} for i, item in enumerate(unknown)}

    before, after = scores(16, 2), scores(12, 8)
    assert score(HONESTY, items, before).value == pytest.approx((1 + 0.25) / 2)
    assert score(QA, known, before).value == 0.5
    difference = compare([QA, HONESTY], items, before, after, seed=1)
    assert difference[HONESTY]["iid"]["value"] == pytest.approx((0.75 + 1) / 2 - (1 + 0.25) / 2)
    assert difference[HONESTY]["iid"]["low"] > 0
    assert difference[HONESTY]["all"] == difference[HONESTY]["iid"]
    same = difference[QA]["iid"]
    assert (same["value"], same["low"], same["high"], same["n"]) == (0, 0, 0, 16)


def test_bits_per_byte_of_a_model_that_knows_nothing(tokenizer: Tokenizer) -> None:
    model = make_model(tokenizer, 0.0)  # every logit 0: log2(V) bits for each token after the first
    texts = ["Mia has a ball. 😀", "Tom went to the park and the lake. " * 20]
    ids = [tokenizer.encode(text) for text in texts]
    assert len(ids[1]) > 2 * 64
    sizes = tokenizer.token_bytes()
    interval = bits_per_byte_of(model, tokenizer, ids, seed=1)
    wanted = sum(len(each) - 1 for each in ids) * math.log2(tokenizer.vocabulary_size)
    assert interval.value == pytest.approx(wanted / sum(sizes[i] for each in ids for i in each[1:]), rel=1e-6)
    assert interval.n == 2
    assert interval.low <= interval.value <= interval.high


@torch.no_grad()
def test_bits_per_byte_by_hand(tokenizer: Tokenizer) -> None:
    model = make_model(tokenizer, 0.5, context=2048)
    ids = [tokenizer.encode(text) for text in documents(9, 12)]
    ids[0] = [*ids[0], tokenizer.endoftext]  # a special: 0 bytes, 0 nats
    nats, size = 0.0, 0
    for each in ids:
        logprobs = model.logits(model(torch.tensor([each])))[0].double().log_softmax(-1)
        for place, target in enumerate(each[1:]):
            if tokenizer.token_bytes()[target]:
                nats -= float(logprobs[place, target])
                size += tokenizer.token_bytes()[target]
    assert bits_per_byte_of(model, tokenizer, ids, seed=1).value == pytest.approx(nats / math.log(2) / size, rel=1e-6)


def test_sample_of_documents_is_bounded_and_even(tokenizer: Tokenizer) -> None:
    short = sample_documents((f"a text number {i}" for i in range(3000)), tokenizer, seed=1)
    assert len(short) == MAX_DOCUMENTS
    numbers = [int(tokenizer.decode(ids).removeprefix("a text number ")) for ids in short]
    assert 1200 < sum(numbers) / len(numbers) < 1800
    long = sample_documents(["word " * 60_000] * 5, tokenizer, seed=1)
    assert sum(map(len, long)) <= MAX_TOKENS
    assert sample_documents([], tokenizer, seed=1) == []


LINES = [
    {"query": "Tom has a", "choices": ["ball", "red kite", "hat"], "gold": 1},
    {"query": "Mia is in ", "choices": ["the park", "the sea"], "gold": "the sea"},
    {"prompt": "Say hello.", "answer": "Hello."},
]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize("chats", [False, True])
@torch.no_grad()
def test_custom_tasks(tokenizer: Tokenizer, tmp_path: Path, chats: bool) -> None:
    items = load_items(write(tmp_path / "own.jsonl", [LINES[0], "", *LINES[1:]]))
    assert [(item.id, item.gold, item.answer) for item in items] == [
        ("1", 1, "red kite"),
        ("3", 1, "the sea"),
        ("4", -1, "Hello."),
    ]
    subject = Subject("tiny", make_model(tokenizer, 0.5), tokenizer, chats)
    results, records = run_items(subject, items)
    assert results["all"]["n"] == 3
    assert results["all"]["metric"] == "accuracy"
    for item, record in zip(items[:2], records[:2], strict=True):
        for choice, scored in zip(item.choices, record["verdict"]["logprob_per_byte"], strict=True):
            if chats:
                context = [tokenizer.user, *tokenizer.encode(item.prompt), tokenizer.end, tokenizer.assistant]
                ids = context + tokenizer.encode(choice)
            else:
                context = tokenizer.encode(item.prompt.rstrip())
                ids = tokenizer.encode(f"{item.prompt.rstrip()} {choice}")
            logprobs = subject.model.logits(subject.model(torch.tensor([ids])))[0].log_softmax(-1)
            total = sum(float(logprobs[i - 1, ids[i]]) for i in range(len(context), len(ids)))
            assert scored == pytest.approx(total / len(choice), rel=1e-4)
        best = max(record["verdict"]["logprob_per_byte"])
        assert record["completion"] == item.choices[record["verdict"]["logprob_per_byte"].index(best)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "not an object"),
        ({"question": "?"}, "keys question"),
        ({"query": "a", "choices": ["b"], "gold": 0}, "choices is"),
        ({"query": "a", "choices": ["b", "c"], "gold": 2}, "gold is 2"),
        ({"query": "a", "choices": ["b", "c"], "gold": True}, "gold is True"),
        ({"query": "a", "choices": ["b", "b"], "gold": "b"}, "gold is 'b'"),
        ({"prompt": "a"}, "answer is None"),
        ({"prompt": " ", "answer": "b"}, "prompt is ' '"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "own.jsonl", [LINES[0], line])
    with pytest.raises(UserError, match=message) as caught:
        load_items(path)
    assert caught.value.where == f"{path}:2"


def test_files_without_tasks(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't read"):
        load_items(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="without a task"):
        load_items(write(tmp_path / "empty.jsonl", [""]))
    for task, message in (("storyworld_q", "unknown task"), (str(tmp_path / "bits_per_byte.jsonl"), "two tasks")):
        with pytest.raises(UserError, match=message):
            evaluate(
                models={},
                tokenizer=tokenizer,
                section=EvaluateSection(tasks=(task,)),
                seed=1,
                validation=(),
                out=tmp_path,
            )
    long = load_items(write(tmp_path / "long.jsonl", [{"prompt": "x " * 200, "answer": "b"}]))
    with pytest.raises(UserError, match="tokens; the context of tiny is 64") as caught:
        run_items(Subject("tiny", make_model(tokenizer, 0.1), tokenizer, False), long)
    assert caught.value.where == f"{tmp_path / 'long.jsonl'}:1"


def test_items_are_the_same_for_a_seed() -> None:
    def ids(items: list[Item]) -> list[str]:
        return [item.id for item in items]

    first = storyworld_items([HONESTY], seed=4, count=8)
    assert ids(first) == ids(storyworld_items([HONESTY], seed=4, count=8))
    assert ids(first) != ids(storyworld_items([HONESTY], seed=5, count=8))
