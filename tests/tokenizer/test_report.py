"""The report on a tokenizer: every figure against a count by hand, on a run made by hand and on edges."""

import gzip
import json
import runpy
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.model import Architecture
from groundup.recipe import load_recipe
from groundup.run import GroundupError, UserError
from groundup.tokenizer import ShardWriter, Tokenizer, TokenShards, train_bpe
from groundup.tokenizer.advice import advise
from groundup.tokenizer.report import count_ids, fertility, report, visible, vocabulary_use

MADE = runpy.run_path(str(Path(__file__).with_name("made_run.py")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MADE["make_run"](tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another vocabulary, of bytes and nearly no merges."""
    folder = tmp_path_factory.mktemp("other")
    Tokenizer(train_bpe(["the the the"], 274).to_str()).save(folder)
    return folder


def all_ids(run: Path) -> list[int]:
    shards = TokenShards(run / "tokenizer" / "shards" / "train")
    return [int(number) for place in range(len(shards)) for number in shards.doc(place)]


def test_fertility_is_what_counting_by_hand_gives(made: Path, other: Path) -> None:
    tokenizer, second = Tokenizer.load(made / "tokenizer"), Tokenizer.load(other)
    figures = report(made, other)
    assert figures["compare"] == {"path": str(other), "vocabulary_size": second.vocabulary_size}
    for split, count in (("train", 60), ("validation", 6)):
        rows = MADE["documents"](split, count)
        found = figures["fertility"][split]
        assert found["documents"] == len(rows)
        assert found["share"] == 1
        parts = [("all", "all", rows)]
        parts += [("sources", name, [row for row in rows if row["mixture"] == name]) for name in ("books", "chats")]
        parts += [
            ("languages", name, [row for row in rows if (row["language"] or "unknown") == name])
            for name in ("en", "de", "zh", "unknown")
        ]
        for kind, name, chosen in parts:
            rates = found["all"] if kind == "all" else found[kind][name]
            texts = [row["text"] for row in chosen]
            tokens, size = sum(len(tokenizer.encode(text)) for text in texts), sum(len(t.encode()) for t in texts)
            others = sum(len(second.encode(text)) for text in texts)
            words = sum(len(text.split()) for text in texts)
            assert rates == {
                "documents": len(texts),
                "bytes": size,
                "characters": sum(map(len, texts)),
                "words": words,
                "tokens": tokens,
                "tokens_per_byte": tokens / size,
                "tokens_per_character": tokens / sum(map(len, texts)),
                "tokens_per_word": None if name == "zh" else tokens / words,
                "bytes_per_token": size / tokens,
                "other_tokens": others,
                "other_tokens_per_byte": others / size,
                "ratio": tokens / others,
            }
        assert list(found["languages"])[0] == max(
            found["languages"], key=lambda name: found["languages"][name]["bytes"]
        )
    json.dumps(figures)


def test_counts_come_from_every_token_of_every_shard(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = all_ids(made)
    shards = TokenShards(made / "tokenizer" / "shards" / "train")
    assert len(shards.index["shards"]) > 3
    expected = np.bincount(ids, minlength=480)
    for block in (1, 7, 100, 2**20):
        monkeypatch.setattr("groundup.tokenizer.report.BLOCK", block)
        assert count_ids(shards, 480).tolist() == expected.tolist()
    with pytest.raises(GroundupError, match="holds id"):
        count_ids(shards, max(ids))


def test_counts_of_the_build_are_taken_where_they_fit(made: Path) -> None:
    path = made / "tokenizer" / "shards" / "train" / "counts.bin"
    counts = np.bincount(all_ids(made), minlength=Tokenizer.load(made / "tokenizer").vocabulary_size)
    swapped = counts.copy()
    swapped[[300, 301]] = counts[[300, 301]] + [1, -1]
    expected = report(made)["vocabulary"]
    try:
        path.write_bytes(counts.astype("<u8").tobytes())
        assert report(made)["vocabulary"] == expected
        path.write_bytes(swapped.astype("<u8").tobytes())
        assert report(made)["vocabulary"] != expected
        path.write_bytes((counts + 1).astype("<u8").tobytes())  # of other shards: not to be believed
        assert report(made)["vocabulary"] == expected
    finally:
        path.unlink(missing_ok=True)


def test_use_of_the_vocabulary(made: Path) -> None:
    tokenizer = Tokenizer.load(made / "tokenizer")
    times = Counter(all_ids(made))
    use = report(made)["vocabulary"]
    assert use["size"] == tokenizer.vocabulary_size
    assert use["tokens"] == sum(times.values())
    assert use["used"] == len(times)
    never = set(range(tokenizer.vocabulary_size)) - set(times)
    special = set(tokenizer.special_ids().values())
    learned = sorted(number for number in never - special if len(tokenizer.token(number)) > 1)
    assert use["never_used"]["count"] == len(never)
    assert use["never_used"]["special"] == len(never & special) == 16 - 4  # endoftext, user, assistant, end occur
    assert [token["id"] for token in use["never_used"]["tokens"]] == learned[:50]
    assert use["never_used"]["bytes"] == len(never - special) - len(learned)
    rare = {number for number, count in times.items() if count < 100} - special
    assert use["under_trained"]["below"] == 100
    assert use["under_trained"]["count"] == len(rare)
    assert {token["id"] for token in use["under_trained"]["tokens"]} <= rare
    assert [token["count"] for token in use["most_frequent"]] == [count for _, count in times.most_common(20)]
    assert len(use["longest"][0]["bytes"]) // 2 == max(tokenizer.token_bytes())
    assert use["partial"]["count"] >= 128
    assert sum(row["tokens"] for row in use["lengths"]) == tokenizer.vocabulary_size - len(special)
    assert sum(row["share"] for row in use["lengths"]) == pytest.approx(1)
    ranked = [count for _, count in times.most_common()]
    assert use["rank_frequency"][0] == [1, ranked[0]]
    assert use["rank_frequency"][-1] == [len(ranked), ranked[-1]]
    assert all(ranked[rank - 1] == count for rank, count in use["rank_frequency"])
    assert len(use["rank_frequency"]) <= 60


def test_partial_and_unreachable_tokens() -> None:
    text = "世世世世 12 12 12 12"
    by_any_digits = json.loads(train_bpe([text], 300, split_pattern="gpt2").to_str())
    one_by_one = json.loads(train_bpe([text], 300).to_str())
    by_any_digits["pre_tokenizer"] = one_by_one["pre_tokenizer"]  # now "12" is never one word
    tokenizer = Tokenizer(json.dumps(by_any_digits))
    counts = np.bincount(tokenizer.encode(text), minlength=tokenizer.vocabulary_size)
    use = vocabulary_use(tokenizer, counts)
    named = {token["text"] for token in use["unreachable"]["tokens"]}
    assert named
    for token in use["unreachable"]["tokens"]:
        content = bytes.fromhex(token["bytes"])
        assert tokenizer.encode(content.decode()) != [token["id"]]
        assert b"1" in content or b"2" in content
    partial = {token["bytes"] for token in use["partial"]["tokens"]}
    broken = [number for number in range(16, tokenizer.vocabulary_size) if "\ufffd" in tokenizer.decode([number])]
    assert use["partial"]["count"] == len(broken) > 128
    assert use["partial"]["share"] == counts[broken].sum() / counts.sum()
    assert "80" in partial


def test_no_token_at_all() -> None:
    tokenizer = Tokenizer(train_bpe(["abab abab"], 274).to_str())
    use = vocabulary_use(tokenizer, np.zeros(tokenizer.vocabulary_size, np.int64))
    assert use["used"] == use["tokens"] == use["partial"]["share"] == 0
    assert use["most_frequent"] == use["rank_frequency"] == []
    assert use["never_used"]["count"] == tokenizer.vocabulary_size


def test_advice_follows_the_recipe(made: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(made / "tokenizer")
    counts = np.bincount(all_ids(made), minlength=tokenizer.vocabulary_size)
    section = load_recipe(made / "recipe.toml").model
    assert section is not None
    arch = Architecture.from_section(section, tokenizer.vocabulary_size)
    # The recipe asks for 600 tokens and the texts gave fewer, so nothing larger is spoken of.
    assert report(made)["advice"] == advise(tokenizer, counts, arch, 48, exhausted=True)
    run = MADE["make_run"](tmp_path / "run", asked=512, count=10)
    recipe = (run / "recipe.toml").read_text()
    few = report(run)
    assert few["advice"]["exhausted"] is (few["vocabulary"]["size"] < 512)
    (run / "recipe.toml").write_text(recipe.replace("vocabulary_size = 512", 'adopt = "elsewhere"'))
    found = report(run)["advice"]
    assert not found["exhausted"]
    small = Tokenizer.load(run / "tokenizer")
    counts = np.bincount(all_ids(run), minlength=small.vocabulary_size)
    assert found == advise(small, counts, Architecture.from_section(section, small.vocabulary_size), 48)
    (run / "recipe.toml").write_text(recipe.partition("[model]")[0])
    assert report(run)["advice"] is None


def test_a_sample_is_bounded_deterministic_and_has_a_share_of_every_source(tmp_path: Path) -> None:
    rows = MADE["documents"]("train", 3000)
    MADE["write_documents"](tmp_path / "documents", "train", rows, group=10)
    tokenizer = Tokenizer(train_bpe([MADE["ENGLISH"]], 280).to_str())
    size = sum(len(row["text"].encode()) for row in rows)
    whole = fertility(tmp_path, "train", tokenizer)
    assert (whole["documents"], whole["bytes"], whole["share"]) == (4500, size, 1)
    found = fertility(tmp_path, "train", tokenizer, limit=size // 10)
    assert 0.5 * size / 10 < found["bytes"] < 1.5 * size / 10
    assert found["share"] == found["documents"] / 4500
    for source in ("books", "chats"):
        assert found["sources"][source]["bytes"] == pytest.approx(whole["sources"][source]["bytes"] / 10, rel=0.5)
    assert found["all"]["tokens_per_byte"] == pytest.approx(whole["all"]["tokens_per_byte"], rel=0.05)
    assert found == fertility(tmp_path, "train", tokenizer, limit=size // 10)
    nothing = fertility(tmp_path, "validation", tokenizer)
    assert (nothing["documents"], nothing["share"], nothing["languages"]) == (0, 0.0, {})


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    tokenizer = Tokenizer(train_bpe([MADE["ENGLISH"]], 280).to_str())
    rows = [row | {"text": row["text"] * 40} for row in MADE["documents"]("train", 40)]

    def peak(times: int) -> int:
        many = [row | {"id": f"{n}{row['id']}"} for n in range(times) for row in rows]
        MADE["write_documents"](tmp_path / str(times) / "documents", "train", many, group=20)
        tracemalloc.start()
        found = fertility(tmp_path / str(times), "train", tokenizer)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found["documents"] == 60 * times
        return most

    peak(1)
    assert peak(12) < 1.2 * peak(3)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("recipe.toml", "is not a run"),
        ("tokenizer/tokenizer.json", "has no tokenizer yet"),
        ("corpus/documents/train-00000.parquet", "has no corpus"),
        ("tokenizer/shards/train/index.json", "no token shards"),
    ],
)
def test_what_is_missing_is_named(missing: str, message: str, tmp_path: Path) -> None:
    run = MADE["make_run"](tmp_path / "run", count=10)
    (run / missing).unlink()
    with pytest.raises(UserError, match=message):
        report(run)


def test_shards_of_another_vocabulary_are_noticed(tmp_path: Path) -> None:
    run = MADE["make_run"](tmp_path / "run", count=10)
    with ShardWriter(run / "tokenizer" / "shards" / "train", "uint16", pad_id=1) as writer:
        writer.add([5, 60_000])
    with pytest.raises(GroundupError, match="holds id 60000"):
        report(run)


def test_what_is_shown_of_bytes() -> None:
    assert visible(b" a\n\r\tb ") == "·a⏎␍⇥b·"
    assert visible(b" a\n\r\t", spaces=False) == " a\n␍\t"
    assert visible("世".encode()[:2]) == "<E4><B8>"
    assert visible(b" \xe4\xb8") == "·<E4><B8>"
    assert visible("x\x1b[31m\u202e\u200d\xa0\u3000".encode()) == "x⟨U+001B⟩[31m⟨U+202E⟩⟨U+200D⟩⟨U+00A0⟩⟨U+3000⟩"
    assert visible("\u0301e\u0301".encode()) == "◌\u0301e\u0301"
    assert visible(b"") == ""


@settings(max_examples=200)
@given(st.binary(max_size=40))
def test_nothing_shown_commands_a_terminal(content: bytes) -> None:
    shown = visible(content)
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"} for character in shown)
    assert " " not in shown
    assert bool(shown) == bool(content)


def test_gpt2_on_real_text(real_data: Path, tmp_path: Path) -> None:
    text = gzip.decompress((real_data / "wikitext2" / "test.txt.gz").read_bytes()).decode()[:100_000]
    rows = [{"id": "0" * 32, "text": text, "mixture": "wiki", "language": "en", "messages": None}]
    MADE["write_documents"](tmp_path / "documents", "validation", rows)
    from groundup.tokenizer.adopt import adopt

    gpt2 = Tokenizer(adopt(real_data / "gpt2_bpe").json)
    found = fertility(tmp_path, "validation", gpt2, gpt2)
    assert found["all"]["ratio"] == 1
    assert found["all"]["tokens"] == len(gpt2.encode(text))
    assert 4 < found["all"]["bytes_per_token"] < 5
