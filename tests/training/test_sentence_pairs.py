"""Sentence pairs: reading users' files, holding out, rows, and the scores of translations."""

import gzip
import json
import math

import numpy as np
import pytest

from groundup.model import IGNORE
from groundup.recipe import RecipeError, Seq2SeqSection, parse_recipe
from groundup.run import UserError
from groundup.storyworld import bag_of_words, translation_tests, translation_validation, translations
from groundup.tokenizer.words import BOS
from groundup.training.sentence_pairs import VALIDATED, PairRows, SentencePairs, TextPair, read_pairs
from groundup.training.translation_test import baseline_results, bleu, dictionary, score_translations, token_accuracy


def section(**changes) -> Seq2SeqSection:
    return Seq2SeqSection(**{"steps": 1, "validation_fraction": 0.0, **changes})


def lines(count: int) -> list[dict[str, str]]:
    return [{"source": f"word {number}", "target": f"wort {number}"} for number in range(count)]


def write(path, records) -> str:
    text = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def test_pairs_of_all_layouts_are_read(tmp_path):
    plain, packed = write(tmp_path / "a.jsonl", lines(3)), write(tmp_path / "b.jsonl.gz", lines(2))
    tabs = tmp_path / "c.tsv"
    tabs.write_text("\ufeffthe dog\tder Hund\n\nthe cat\tdie Katze\r\n", encoding="utf-8")
    data = read_pairs(section(data=(plain, packed, str(tabs)), held_out_fraction=1e-12), 1)
    assert [pair.target for pair in data.training] == [
        "wort 0", "wort 1", "wort 2", "wort 0", "wort 1", "der Hund", "die Katze",
    ]  # fmt: skip
    assert data.tests == {}
    few = read_pairs(section(data=({"path": plain, "count": 2},), held_out_fraction=1e-12), 1)
    assert len(few.training) == 2


def test_held_out_pairs_share_no_source_with_training(tmp_path):
    records = [*lines(2000), *({**record, "source": record["source"].replace(" ", "  ")} for record in lines(2000))]
    data = read_pairs(section(data=(write(tmp_path / "a.jsonl", records),), held_out_fraction=0.1, tests=10_000), 1)
    held_out = data.tests["held_out"]
    assert len(data.training) + len(held_out) == 4000
    assert len(held_out) == pytest.approx(400, abs=80)
    assert not {" ".join(pair.source.split()) for pair in held_out} & {
        " ".join(pair.source.split()) for pair in data.training
    }


def test_validation_shares_no_source_with_training_or_tests(tmp_path):
    train = write(tmp_path / "a.jsonl", [*lines(4000), *lines(4000)])
    fractions = {"held_out_fraction": 0.1, "validation_fraction": 0.04}
    data = read_pairs(section(data=(train,), **fractions), 1)
    held_out = data.tests["held_out"]
    assert len(data.training) == pytest.approx(8000 * 0.86, abs=200)
    assert len(data.validation) == pytest.approx(160, abs=60)  # each once
    parts = [{pair.source for pair in pairs} for pairs in (data.training, data.validation, held_out)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4000
    none = read_pairs(section(data=(train,), held_out_fraction=0.1), 1)
    assert none.validation == []
    assert none.tests == data.tests
    many = read_pairs(section(data=(train,), held_out_fraction=0.1, validation_fraction=0.5), 1)
    assert len(many.validation) == VALIDATED
    # A test file of one's own stays whole: what of it would be validated with is taken from there.
    news = write(tmp_path / "news.jsonl", [vars(pair) for pair in data.validation[:30]])
    beside = read_pairs(section(data=(train,), test_data=(news,), **fractions), 1)
    assert beside.tests["news"] == data.validation[:30]
    assert beside.validation == data.validation[30:]


def test_fractions_that_leave_nothing_are_refused():
    with pytest.raises(RecipeError, match="leave nothing to learn from"):
        parse_recipe("[seq2seq]\nsteps = 1\nheld_out_fraction = 0.5\nvalidation_fraction = 0.5\n")


def test_of_many_tests_some_from_all_over_the_file_are_taken(tmp_path):
    records = [*lines(500), *lines(500)]
    settings = {"data": (write(tmp_path / "a.jsonl", records),), "held_out_fraction": 0.5}
    every = read_pairs(section(**settings, tests=10_000), 1).tests["held_out"]
    some = read_pairs(section(**settings, tests=60), 1).tests["held_out"]
    assert len(set(every)) == len(every) > 200
    assert len(some) == 60
    assert set(some) < set(every)
    numbers = [int(pair.source.split()[1]) for pair in some]
    assert min(numbers) < 100
    assert max(numbers) > 400


def test_tests_of_ones_own_leave_out_what_was_trained_on(tmp_path):
    train = write(tmp_path / "a.jsonl", lines(50))
    test = write(tmp_path / "news.jsonl", [*lines(3), {"source": "new", "target": "neu"}])
    data = read_pairs(section(data=(train,), test_data=(test,), held_out_fraction=1e-12), 1)
    assert data.tests == {"news": [TextPair("new", "neu")]}
    assert data.tests_left_out == 3
    with pytest.raises(UserError, match="no pair that is not in the training data"):
        read_pairs(section(data=(train,), test_data=(train,), held_out_fraction=1e-12), 1)
    held_out = write(tmp_path / "held_out.jsonl", [{"source": "new", "target": "neu"}])
    with pytest.raises(UserError, match="two test splits"):
        read_pairs(section(data=(train,), test_data=(held_out,), held_out_fraction=0.5), 1)


def test_the_built_in_data_bring_their_tests():
    data = read_pairs(section(data=({"path": "builtin:translation", "count": 20},), tests=8), 1)
    assert len(data.training) == 20
    assert {split: len(pairs) for split, pairs in data.tests.items()} == {
        "iid": 8, "unseen_combinations": 8, "longer": 8,
    }  # fmt: skip
    assert data.validation == texts(translation_validation(1, VALIDATED))
    sources = [{bag_of_words(pair.source) for pair in pairs} for pairs in (data.validation, *data.tests.values())]
    assert sum(map(len, sources)) == len(set.union(*sources))


def texts(pairs) -> list[TextPair]:
    return [TextPair(pair.source, pair.target) for pair in pairs]


def test_built_in_sentences_held_out_are_not_learnt_from_files_either(tmp_path):
    """Exported pairs of every kind beside the built-in data: those of the tests, of validation, and a rearrangement of
    a test sentence are left out and counted; those of training are learnt twice, and tested nowhere."""
    builtin = {"path": "builtin:translation", "count": 300}
    tested, validated = texts(translation_tests(1, "iid", 8)), texts(translation_validation(1, 5))
    other = TextPair(" ".join(reversed(tested[0].source.split())), "anything")
    trained = texts(translations(1, 100))
    mine = [TextPair(each["source"], each["target"]) for each in lines(200)]
    exported = write(tmp_path / "a.jsonl", [vars(pair) for pair in (*tested, *validated, other, *trained, *mine)])
    for data in ((exported, builtin), (builtin, exported)):
        found = read_pairs(section(data=data, tests=8, held_out_fraction=0.2, validation_fraction=0.1), 1)
        assert found.pairs_left_out == 14
        learnt = {bag_of_words(pair.source) for pair in found.training}
        assert not learnt & {bag_of_words(pair.source) for pair in (*tested, *validated)}
        measured = [pair.source for pairs in (found.validation, *found.tests.values()) for pair in pairs]
        assert len(measured) == len(set(measured))
        assert not set(measured) & {pair.source for pair in found.training}
        assert set(found.tests["held_out"]) < set(mine)
        assert len(set(mine) & set(found.training)) == pytest.approx(140, abs=35)
        assert 0 < found.tests_left_out < 100
        assert found.tests["iid"] == tested


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"source": "a"}', "'target' is None"),
        ("a.jsonl", '{"source": " ", "target": "b"}', "'source' is ' '"),
        ("a.jsonl", "[1]", "a list"),
        ("a.jsonl", "{", "not JSON"),
        ("a.tsv", "a\tb\tc", "3 columns"),
        ("a.tsv", "a\t ", "2 columns"),
        ("a.csv", "a,b", "no file of pairs"),
    ],
)
def test_a_bad_line_is_named(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_text(f"\n{content}\n")
    with pytest.raises(UserError) as error:
        read_pairs(section(data=(str(path),)), 1)
    assert message in str(error.value)
    assert f"{path}" in str(error.value)
    if name != "a.csv":
        assert f"{path}:2" in str(error.value)


def test_a_file_that_is_no_text_or_not_there(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"caf\xe9\tx\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_pairs(section(data=(str(tmp_path / "a.tsv"),)), 1)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}" * 999)[:-9])
    with pytest.raises(UserError, match="damaged gzip"):
        read_pairs(section(data=(str(tmp_path / "a.jsonl.gz"),)), 1)
    with pytest.raises(UserError, match="no file"):
        read_pairs(section(data=("none.jsonl",)), 1)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no sentence pair is left"):
        read_pairs(section(data=(str(tmp_path / "empty.jsonl"),)), 1)


def ids(*numbers: int) -> np.ndarray:
    return np.array([*numbers, 2], np.int64)


PAIRS = [(ids(5, 6, 7), ids(8)), (ids(4), ids(9, 10, 11)), (ids(), ids(5))]


def test_rows_begin_with_the_begin_mark_and_score_the_end_mark():
    rows = PairRows.of(PAIRS)
    assert rows.sources.tolist() == [[5, 6, 7, 2], [4, 2, 0, 0], [2, 0, 0, 0]]
    assert rows.inputs.tolist() == [[BOS, 8, 0, 0], [BOS, 9, 10, 11], [BOS, 5, 0, 0]]
    assert rows.targets.tolist() == [[8, 2, IGNORE, IGNORE], [9, 10, 11, 2], [5, 2, IGNORE, IGNORE]]
    assert (len(rows), rows.length, rows.source_tokens, rows.target_tokens, rows.tokens) == (3, 4, 7, 8, 15)
    last = rows.slice(2, 3)
    assert (last.sources.tolist(), last.inputs.tolist(), last.targets.tolist()) == ([[2]], [[BOS, 5]], [[5, 2]])


def test_an_epoch_shows_every_pair_once_and_the_next_in_another_order():
    pairs = [(ids(number), ids(number)) for number in range(4, 34)]
    source = SentencePairs(pairs, 10, seed=3)
    epochs = [[number for step in range(3 * e, 3 * e + 3) for number in source.chosen(step)] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(30))
    assert epochs[0] != epochs[1]
    assert np.array_equal(SentencePairs(pairs, 10, seed=3).update(7).sources, source.update(7).sources)
    assert not np.array_equal(SentencePairs(pairs, 10, seed=4).update(7).sources, source.update(7).sources)
    assert source.mean_tokens() == 40


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def test_bleu_of_known_sentences():
    """By hand: 5 words said, 6 wanted; shared 5/5, 3/4, 2/3, 1/2; brevity exp(1 - 6/5)."""
    said, wanted = words("the cat sat on mat"), words("the cat sat on the mat")
    expected = math.exp(1 - 6 / 5) * (1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(said, wanted, 1).value == pytest.approx(expected)
    assert bleu(wanted, wanted, 1).value == 1.0
    assert bleu(words("a b c"), words("d e f"), 1).value == 0.0
    assert bleu(words("a b"), words("a b"), 1).value == 1.0  # too short for four words in a row
    assert bleu([[]], words("a"), 1).value == 0.0
    clipped = bleu(words("the the the the"), words("the cat is here"), 1)
    assert clipped.value == 0.0


def test_bleu_is_that_of_the_whole_corpus_and_its_interval_holds_it():
    wanted = words("a b c d e", "f g h i j k", "l m n o")
    said = words("a b c d x", "f g h i j k", "l m n x")
    shared, whole = [5 - 1 + 6 + 3, 3 + 5 + 2, 2 + 4 + 1, 1 + 3 + 0], [15, 12, 9, 6]
    expected = math.prod(one / other for one, other in zip(shared, whole, strict=True)) ** 0.25
    interval = bleu(said, wanted, 1)
    assert interval.value == pytest.approx(expected)
    assert interval.low <= interval.value <= interval.high
    assert interval.n == 3


def test_words_in_their_places():
    assert token_accuracy(words("a b c", "d"), words("a x c d", "d"), 1).value == pytest.approx(3 / 5)


def test_exact_match_counts_words_and_not_white_space():
    tests = {"iid": [TextPair("x", "a  b"), TextPair("y", "c")]}
    results = score_translations("model", {"iid": ["a b", "d"]}, tests, "words", 1)
    leaf = results["model"]["translation"]["iid"]
    assert (leaf["value"], leaf["n"], leaf["metric"]) == (0.5, 2, "exact_match")
    assert leaf["low"] < 0.5 < leaf["high"]


def test_the_bound_of_bags_is_the_best_that_any_function_of_the_words_gets():
    tests = {
        "iid": [
            TextPair("a sees b", "1"), TextPair("b sees a", "2"),  # one of two
            TextPair("c sees d", "3"), TextPair("d sees c", "3"),  # both
            TextPair("alone", "4"),
        ]
    }  # fmt: skip
    results = baseline_results([TextPair("a", "1")], tests, "words", 1)
    assert results["baseline_bag_of_words"]["translation"]["iid"]["value"] == pytest.approx(4 / 5)


def test_the_dictionary_pairs_words_that_come_together():
    pairs = [TextPair("the dog", "der hund"), TextPair("the cat", "die katze"), TextPair("a dog", "ein hund")]
    known = dictionary([*pairs, TextPair("the man", "der mann")], "words")
    assert (known["dog"], known["cat"] in ("die", "katze"), known["the"]) == ("hund", True, "der")
    results = baseline_results(pairs, {"iid": [TextPair("a dog", "ein hund")]}, "words", 1)
    assert results["baseline_word_for_word"]["translation_bleu"]["iid"]["n"] == 1
