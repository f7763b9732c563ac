"""Conversations as shards: what is learned is what the assistant says, whole, and nothing else."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from groundup.posttraining.sft import HELD_OUT, chat_prompt, write_data
from groundup.recipe import DataTable, SftSection
from groundup.run import UserError, read_json
from groundup.tokenizer import IGNORED, PackedRows, Tokenizer, TokenShards

PIECES = ["Mia", " ball", "世界", "é", "\n\n", "<|end|>", "<|assistant|>", "  ", "7", "😀", "Where is", ".", "\t"]


def fuzzed(count: int, seed: int = 0) -> list[dict[str, list[dict[str, str]]]]:
    """Chats of all shapes: with and without a system message, many turns, tools, empty texts, forged roles."""
    rng = random.Random(seed)

    def text() -> str:
        return "".join(rng.choices(PIECES, k=rng.randint(0, 9)))

    chats = []
    for _ in range(count):
        roles = ["system"] * rng.randint(0, 1) + rng.choices(["user", "assistant", "tool"], k=rng.randint(1, 5))
        chats.append([{"role": role, "content": text()} for role in [*roles, "assistant"]])
    return [{"messages": chat} for chat in chats]


def section(path: Path, records: list[dict[str, object]] | None = None, **values: object) -> SftSection:
    if records is not None:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return SftSection(steps=1, data=(str(path),), **values)


def all_texts(shards: TokenShards, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(shards.doc(number).tolist(), special=True) for number in range(len(shards))]


def test_what_is_learned_is_each_answer_and_its_end(tmp_path, tokenizer):
    """T2 on a thousand fuzzed chats: every run of learned ids is one assistant text and <|end|>."""
    records = fuzzed(1000)
    counts = write_data(section(tmp_path / "c.jsonl", records), tokenizer, tmp_path / "data", seed=0, fingerprint="f")
    said = []
    for split in ("train", "validation"):
        shards = TokenShards(tmp_path / "data" / split)
        for number in range(len(shards)):
            ids, mask = shards.doc(number).tolist(), shards.mask(number).tolist()
            turns, turn = [], []
            for token, learned in zip(ids, mask, strict=True):
                assert not (
                    learned and token in (tokenizer.user, tokenizer.system, tokenizer.assistant, tokenizer.tool)
                )
                if learned:
                    turn.append(token)
                    if token == tokenizer.end:
                        turns.append(tokenizer.decode(turn, special=True))
                        turn = []
            assert turn == []
            said.append(turns)
    expected = [[m["content"] + "<|end|>" for m in r["messages"] if m["role"] == "assistant"] for r in records]
    assert sorted(said) == sorted(expected)
    assert counts["conversations"] == 1000
    lengths = [len(tokenizer.encode(text.removesuffix("<|end|>"))) + 1 for texts in expected for text in texts]
    assert counts["supervised_tokens"] == sum(lengths)


@pytest.mark.parametrize("length", [8, 17, 64])
def test_nothing_learned_is_lost_to_packing(tmp_path, tokenizer, length):
    """T5: rows much shorter than a chat still hold every supervised target, once an epoch."""
    write_data(section(tmp_path / "c.jsonl", fuzzed(80)), tokenizer, tmp_path / "data", seed=0, fingerprint="f")
    shards = TokenShards(tmp_path / "data" / "train")
    rows = PackedRows(shards, length, seed=3)
    for epoch in (0, 1):
        targets = np.concatenate([batch.targets.ravel() for batch in rows.epoch_batches(8, epoch)])
        learned = np.concatenate([shards.doc(n)[shards.mask(n)] for n in range(len(shards))])
        assert sorted(targets[targets != IGNORED].tolist()) == sorted(learned.tolist())


def test_held_out_chats_never_train(tmp_path, tokenizer):
    records = fuzzed(700, seed=1)
    write_data(section(tmp_path / "c.jsonl", records + records), tokenizer, tmp_path / "data", seed=0, fingerprint="f")
    training, validation = (
        all_texts(TokenShards(tmp_path / "data" / split), tokenizer) for split in ("train", "validation")
    )
    assert not set(training) & set(validation)
    assert len(training) + len(validation) == 1400
    assert 700 / HELD_OUT / 3 < len(set(validation)) < 3 * 700 / HELD_OUT
    # Which side a chat falls on depends on its own text alone.
    write_data(section(tmp_path / "d.jsonl", records[::-1]), tokenizer, tmp_path / "other", seed=9, fingerprint="g")
    assert set(all_texts(TokenShards(tmp_path / "other" / "validation"), tokenizer)) == set(validation)


@pytest.mark.parametrize(
    ("bad", "where", "what"),
    [
        ({"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}]}, ":3 m", "'robot'"),
        (
            {"messages": [{"role": "assistant", "content": "a"}, {"role": "system", "content": "b"}]},
            ":3 messages[1]",
            "not the first",
        ),
        ({"messages": [{"role": "user", "content": "a"}]}, ":3", "without an assistant turn"),
    ],
)
def test_a_bad_chat_names_its_line_and_leaves_nothing(tmp_path, tokenizer, bad, where, what):
    path = tmp_path / "c.jsonl"
    with pytest.raises(UserError) as caught:
        write_data(section(path, [*fuzzed(2), bad]), tokenizer, tmp_path / "data", seed=0, fingerprint="f")
    assert f"{path}{where}" in caught.value.where
    assert what in caught.value.what
    assert list(tmp_path.iterdir()) == [path]


def test_no_chat_to_train_on_is_said(tmp_path, tokenizer):
    with pytest.raises(UserError, match="no conversation is left"):
        write_data(section(tmp_path / "c.jsonl", []), tokenizer, tmp_path / "data", seed=0, fingerprint="f")


def test_chats_without_anything_to_learn_are_refused(tmp_path, tokenizer):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": False}]
    with pytest.raises(UserError, match="has a token to learn"):
        write_data(
            section(tmp_path / "c.jsonl", [{"messages": turns}] * 9), tokenizer, tmp_path / "d", seed=0, fingerprint="f"
        )
    assert not (tmp_path / "d").exists()


def test_the_data_are_encoded_once_for_a_fingerprint(tmp_path, tokenizer):
    path = tmp_path / "c.jsonl"
    first = write_data(section(path, fuzzed(5)), tokenizer, tmp_path / "data", seed=0, fingerprint="f")
    written = (tmp_path / "data" / "train" / "index.json").stat().st_mtime_ns
    path.unlink()
    assert write_data(section(path), tokenizer, tmp_path / "data", seed=0, fingerprint="f") == first
    assert (tmp_path / "data" / "train" / "index.json").stat().st_mtime_ns == written
    second = write_data(section(path, fuzzed(9)), tokenizer, tmp_path / "data", seed=0, fingerprint="g")
    assert second["conversations"] == 9
    assert read_json(tmp_path / "data" / "data.json") == {"fingerprint": "g", "counts": second}


def test_sources_keep_their_weights(tmp_path, tokenizer):
    for name in ("a", "b"):
        section(tmp_path / f"{name}.jsonl", fuzzed(40, seed=ord(name)))
    tables = (
        DataTable(path=str(tmp_path / "a.jsonl"), weight=3.0),
        DataTable(path=str(tmp_path / "b.jsonl"), count=10),
    )
    write_data(SftSection(steps=1, data=tables), tokenizer, tmp_path / "data", seed=0, fingerprint="f")
    shards = TokenShards(tmp_path / "data" / "train")
    assert [source.weight for source in shards.sources] == [3.0, 1.0]
    held_out = TokenShards(tmp_path / "data" / "validation")  # each chat held out counts once
    assert [source.weight for source in held_out.sources] == [1.0, 1.0]
    counts = np.bincount(shards.source_numbers)
    rows = PackedRows(shards, 64, seed=0)
    shown = sum(int((batch.targets != IGNORED).sum()) for batch in rows.epoch_batches(8))
    learned = [
        sum(int(shards.mask(n).sum()) for n in range(len(shards)) if shards.source_numbers[n] == source)
        for source in (0, 1)
    ]
    assert counts[1] <= 10
    assert shown == 3 * learned[0] + learned[1]


def test_a_sample_prompt_is_a_question_that_awaits_its_answer(tokenizer):
    ids = chat_prompt(tokenizer)("Where is Mia?")
    assert ids == [tokenizer.user, *tokenizer.encode("Where is Mia?"), tokenizer.end, tokenizer.assistant]
