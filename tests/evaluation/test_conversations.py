"""Bits per byte of what assistants say, against a plain calculation in float64."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.evaluation import Foreign, HeldOut, bits_per_byte_of, evaluate
from groundup.evaluation.answers import Subject, ask
from groundup.evaluation.conversations import answer_bits
from groundup.evaluation.custom import load_items, run_items
from groundup.model import Architecture, Transformer
from groundup.recipe import EvaluateSection
from groundup.storyworld import documents
from groundup.tokenizer import Tokenizer, encode_chat, extend, train_bpe

CHATS = [
    HeldOut([{"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "It is Größe."}]),
    HeldOut(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!", "train": False},
            {"role": "user", "content": "And now?"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "look", "arguments": {"at": "sea"}}]},
            {"role": "tool", "content": "blue"},
            {"role": "assistant", "content": "The sea is blue."},
        ]
    ),
    HeldOut([{"role": "user", "content": "Nothing is said."}]),
]
LINES = [
    [("User: Who is it?\nAssistant:", False), (" It is Größe.", True)],
    [
        ("System: Be kind.\nUser: Hi\nAssistant: Hello!\nUser: And now?\nAssistant:", False),
        (' {"name": "look", "arguments": {"at": "sea"}}', True),
        ("\nTool: blue\nAssistant:", False),
        (" The sea is blue.", True),
    ],
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(documents(1, 60), 400).to_str())


def make_model(tokenizer: Tokenizer, context: int = 256) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(
        Architecture(vocabulary_size=tokenizer.vocabulary_size, layers=1, hidden_size=16, heads=2, kv_heads=1,
                     head_dim=8, intermediate_size=16, context_length=context)
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.5)
    return model.eval()


def nats(model: Transformer, ids: list[int], scored: list[bool]) -> float:
    """-Σ ln p of the scored ids, each from all before it."""
    with torch.no_grad():
        logprobs = model.logits(model(torch.tensor([ids[:-1]])))[0].double().log_softmax(-1)
    return -sum(float(logprobs[place - 1, ids[place]]) for place in range(1, len(ids)) if scored[place])


def said_bytes(chat: int) -> int:
    return sum(len(text.encode()) - 1 for text, said in LINES[chat] if said)


def plain(tokenizer: Tokenizer, chat: int, begins: list[int]) -> tuple[list[int], list[bool]]:
    ids, scored = list(begins), [False] * len(begins)
    for text, said in LINES[chat]:
        part = tokenizer.encode(text)
        ids += part
        scored += [said] * len(part)
    return ids, scored


def test_a_chat_model_reads_the_chat_format(tokenizer: Tokenizer) -> None:
    model = make_model(tokenizer)
    found = answer_bits(Subject("sft", model, tokenizer, True), CHATS, seed=1)
    expected = 0.0
    for chat in CHATS[:2]:
        encoded = encode_chat(tokenizer, chat.messages)
        special = set(tokenizer.special_ids().values())
        scored = [said and number not in special for number, said in zip(*_lists(encoded), strict=True)]
        expected += nats(model, encoded.ids, scored)
    assert found is not None
    assert found.n == 2
    assert found.value == pytest.approx(expected / math.log(2) / (said_bytes(0) + said_bytes(1)), rel=1e-5)
    assert found.low <= found.value <= found.high


def _lists(chat: Any) -> tuple[list[int], list[bool]]:
    return chat.ids, chat.loss_mask


@pytest.mark.parametrize("begins", [[], [3]])
def test_a_base_model_reads_plain_lines_and_is_scored_on_the_same_bytes(
    tokenizer: Tokenizer, begins: list[int]
) -> None:
    model = make_model(tokenizer)
    found = answer_bits(Subject("base", model, tokenizer, False, tuple(begins)), CHATS, seed=1)
    total = sum(nats(model, *plain(tokenizer, chat, begins)) for chat in (0, 1))
    assert found is not None
    assert found.value == pytest.approx(total / math.log(2) / (said_bytes(0) + said_bytes(1)), rel=1e-5)


def test_a_conversation_is_read_up_to_the_context(tokenizer: Tokenizer) -> None:
    ids, scored = plain(tokenizer, 1, [])
    context = len(ids) - 4  # the last 3 tokens of the last answer are not reached
    model = make_model(tokenizer, context)
    found = answer_bits(Subject("base", model, tokenizer, False), [CHATS[1], CHATS[1]], seed=1)
    kept, reached = ids[: context + 1], scored[: context + 1]
    lost = len(tokenizer.decode_bytes(ids[context + 1 :]))
    assert found is not None
    assert found.value == pytest.approx(nats(model, kept, reached) / math.log(2) / (said_bytes(1) - lost), rel=1e-5)


def test_fewer_than_two_conversations_give_no_number(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    subject = Subject("sft", make_model(tokenizer), tokenizer, True)
    assert answer_bits(subject, [CHATS[0], CHATS[2]], seed=1) is None
    assert "needs two held-out conversations at least, and there are 1" in capsys.readouterr().err


def test_a_document_after_its_opening_id_is_scored_from_its_second_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(next(iter(documents(9, 1))))[:40]
    for context in (256, 16):  # in one row, and in several
        model = make_model(tokenizer, context)
        found = bits_per_byte_of(model, tokenizer, [ids, ids], seed=1, begins=[3])
        whole, total = [3, *ids], 0.0
        for begin in range(0, len(whole) - 1, context):
            piece = whole[begin : begin + context + 1]
            total += nats(model, piece, [begin + place >= 2 for place in range(len(piece))])
        assert found.value == pytest.approx(total / math.log(2) / len(tokenizer.decode_bytes(ids[1:])), rel=1e-5)


def test_a_foreign_model_reads_documents_in_its_own_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The run has a token more; the model from elsewhere never sees it, and scores as it did before."""
    text = next(iter(documents(9, 1)))
    content, _ = extend(tokenizer.json, [" " + text.split()[3]])
    grown, model = Tokenizer(content), make_model(tokenizer)
    assert grown.encode(text) != tokenizer.encode(text)
    results = evaluate(
        models={"import": (model, False)},
        tokenizer=grown,
        section=EvaluateSection(tasks=("bits_per_byte", "answers")),
        seed=1,
        validation=[text, text],
        out=tmp_path,
        conversations=CHATS[:2],
        foreign={"import": Foreign(tokenizer, begins=(3,))},
    )
    expected = bits_per_byte_of(model, tokenizer, [tokenizer.encode(text)] * 2, seed=1, begins=[3])
    assert results["import"]["bits_per_byte"]["validation"]["value"] == pytest.approx(expected.value, rel=1e-9)
    assert results["import"]["answers"]["held_out"]["n"] == 2


def test_a_foreign_model_ends_by_its_own_ids_and_chooses_after_its_opening(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = make_model(tokenizer)
    plain_subject = Subject("import", model, tokenizer, False, (3,))
    prompt = plain_subject.prompt([], "The cat")
    assert prompt == [3, *tokenizer.encode("The cat")]
    whole = ask(plain_subject, [prompt], max_tokens=8)[0]
    with torch.no_grad():
        first = int(model.logits(model(torch.tensor([prompt])))[0, -1].argmax())
    ended = ask(Subject("import", model, tokenizer, False, (3,), (first,)), [prompt], max_tokens=8)[0]
    assert (ended.text, ended.finished) == ("", True)
    assert whole.text != ""
    (tmp_path / "t.jsonl").write_text('{"query": "The cat", "choices": ["sat", "ran off"], "gold": 0}\n')
    _, records = run_items(plain_subject, load_items(tmp_path / "t.jsonl"))
    context = [3, *tokenizer.encode("The cat")]
    expected = []
    for choice in ("sat", "ran off"):
        ids = [3, *tokenizer.encode(f"The cat {choice}")]
        scored = [place >= len(context) for place in range(len(ids))]
        expected.append(-nats(model, ids, scored) / len(choice))
    assert records[0]["verdict"]["logprob_per_byte"] == pytest.approx(expected, rel=1e-5)
