"""The quality classifier: scores against a plain loop, learning, calibration, files, and real texts."""

import gzip
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from groundup.corpus.classifier import (
    FILE,
    READ_WORDS,
    Classifier,
    ClassifierFilter,
    area_under_curve,
    measure,
    train_classifier,
    train_on,
)
from groundup.corpus.documents import Batch
from groundup.corpus.store import Document
from groundup.corpus.words import find_words
from groundup.recipe.classifier import ClassifierSection
from groundup.run import UserError

SECTION = ClassifierSection(positive=("good",), negative=("bad",), buckets=2**14)
GOOD = ["river", "stone", "ancient", "treaty", "harbour", "council"]
BAD = ["click", "buy", "cheap", "offer", "login", "deal"]
COMMON = ["the", "of", "and", "a", "in", "to", "was", "with", "for", "that"]


@dataclass(frozen=True)
class Hashed:
    hashes: np.ndarray
    offsets: np.ndarray


def texts_of(own: list[str], count: int, seed: int, share: float = 0.3) -> list[str]:
    dice = random.Random(seed)
    return [
        " ".join(dice.choice(own if dice.random() < share else COMMON) for _ in range(dice.randrange(5, 60)))
        for _ in range(count)
    ]


def scores(classifier: Classifier, values: list[str]) -> np.ndarray:
    return classifier.scores(find_words(pa.array(values, pa.large_string())))


def kappa(labels: np.ndarray, chosen: np.ndarray) -> float:
    """Cohen's kappa of two columns of 0 and 1."""
    chance = labels.mean() * chosen.mean() + (1 - labels.mean()) * (1 - chosen.mean())
    return float(((labels == chosen).mean() - chance) / (1 - chance))


def plain_scores(classifier: Classifier, documents: list[list[int]]) -> list[float]:
    """The formula of the module word by word, with Python's integers."""
    found = []
    bits = len(classifier.weights).bit_length() - 1
    for words in documents:
        upper = [word >> 32 for word in words[:READ_WORDS]]
        total, count = 0.0, 0
        for length in range(1, classifier.ngrams + 1):
            for start in range(len(upper) - length + 1):
                run = upper[start]
                for word in upper[start + 1 : start + length]:
                    run = (run * 0xD1342543DE82EF95 + word) % 2**64
                total += float(classifier.weights[(run * 0x9E3779B97F4A7C15 % 2**64) >> (64 - bits)])
                count += 1
        margin = classifier.bias + total / math.sqrt(max(count, 1))
        found.append(1 / (1 + math.exp(-(classifier.slope * margin + classifier.intercept))))
    return found


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=9), max_size=5), st.integers(1, 3), st.integers(10, 12))
@settings(max_examples=50)
def test_scores_agree_with_a_plain_loop_and_depend_on_the_text_alone(
    documents: list[list[int]], ngrams: int, bits: int
) -> None:
    weights = np.random.default_rng(0).normal(size=2**bits).astype(np.float32)
    classifier = Classifier(weights, ngrams, 0.25, 1.5, -0.5, {})
    hashes = np.array([word for words in documents for word in words], np.uint64)
    offsets = np.cumsum([0, *map(len, documents)])
    together = classifier.scores(Hashed(hashes, offsets))
    np.testing.assert_allclose(together, plain_scores(classifier, documents), rtol=1e-12)
    for number in range(len(documents)):
        alone = Hashed(hashes[offsets[number] : offsets[number + 1]], np.array([0, len(documents[number])]))
        assert classifier.scores(alone)[0] == together[number]  # to the last bit


def test_only_the_first_words_of_a_long_text_are_read() -> None:
    classifier = Classifier(np.random.default_rng(0).normal(size=1024).astype(np.float32), 2, 0.0, 1.0, 0.0, {})
    words = np.random.default_rng(1).integers(0, 2**63, 3 * READ_WORDS).astype(np.uint64)
    long = classifier.scores(Hashed(np.concatenate((words, words[:5])), np.array([0, len(words), len(words) + 5])))
    head = classifier.scores(Hashed(words[:READ_WORDS], np.array([0, READ_WORDS])))
    assert long[0] == head[0]
    assert long[1] == classifier.scores(Hashed(words[:5], np.array([0, 5])))[0]


def test_it_learns_what_tells_the_classes_apart() -> None:
    classifier = train_on(texts_of(GOOD, 400, 1), texts_of(BAD, 300, 2), SECTION, seed=0)
    unseen = texts_of(GOOD, 100, 3) + texts_of(BAD, 100, 4)
    found = measure(np.repeat([1, 0], 100), scores(classifier, unseen))
    assert found["auc"] > 0.99
    assert found["accuracy"] > 0.95
    assert classifier.report["positive_examples"] == 400
    assert classifier.report["negative_examples"] == 300
    assert classifier.report["auc"] > 0.99


def test_probabilities_are_frequencies_where_the_classes_overlap() -> None:
    """Texts of a few words, of which a tenth tell: the probabilities are those of the truth, not all near 0 and 1."""
    classifier = train_on(texts_of(GOOD, 1000, 1, 0.02), texts_of(BAD, 600, 2, 0.02), SECTION, seed=0)
    unseen = texts_of(GOOD, 500, 3, 0.02) + texts_of(BAD, 500, 4, 0.02)
    found = measure(np.repeat([1, 0], 500), scores(classifier, unseen))
    assert found["calibration_error"] < 0.1
    assert 0.65 < found["auc"] < 0.9


def test_classes_without_a_difference_are_not_told_apart() -> None:
    classifier = train_on(texts_of(COMMON, 500, 1), texts_of(COMMON, 500, 2), SECTION, seed=0)
    found = scores(classifier, texts_of(COMMON, 300, 3))
    assert area_under_curve(np.repeat([1, 0], 150), found) == pytest.approx(0.5, abs=0.1)
    assert np.abs(found - 0.5).mean() < 0.15


def test_training_is_the_same_every_time_and_the_file_too(tmp_path: Path) -> None:
    good, bad = texts_of(GOOD, 60, 1), texts_of(BAD, 50, 2)
    first, second = (train_on(iter(good), iter(bad), SECTION, seed=3) for _ in range(2))
    other = train_on(good, bad, SECTION, seed=4)
    for name, classifier in (("first", first), ("second", second)):
        (tmp_path / name).mkdir()
        classifier.save(tmp_path / name)
    assert (tmp_path / "first" / FILE).read_bytes() == (tmp_path / "second" / FILE).read_bytes()
    assert not np.array_equal(first.weights, other.weights)
    loaded = Classifier.load(tmp_path / "first")
    assert loaded.report == first.report
    assert np.array_equal(scores(loaded, good), scores(first, good))
    assert loaded.weights.dtype == np.float32


def test_a_missing_or_broken_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classifier"):
        Classifier.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="classifier"):
        Classifier.load(tmp_path)


def test_no_more_examples_than_asked_for_and_no_fewer_than_ten() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "river stone treaty"

    section = SECTION.model_copy(update={"max_documents": 30})
    assert train_on(endless(), texts_of(BAD, 20, 1), section, seed=0).report["positive_examples"] == 30
    with pytest.raises(UserError, match="9 negative"):
        train_on(texts_of(GOOD, 20, 1), texts_of(BAD, 9, 1), SECTION, seed=0)
    with pytest.raises(UserError, match="0 positive"):
        train_on([], texts_of(BAD, 20, 1), SECTION, seed=0)


def test_examples_come_from_files_globs_and_finished_runs(tmp_path: Path) -> None:
    good, bad = texts_of(GOOD, 40, 1), texts_of(BAD, 40, 2)
    for number, text in enumerate(bad[:20]):
        (tmp_path / f"bad-{number:02}.txt").write_text(text)
    with gzip.open(tmp_path / "more.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps({"text": text}) for text in bad[20:]) + "\nnot json\n" + '{"text": "  "}')
    documents = tmp_path / "run" / "corpus" / "documents"
    documents.mkdir(parents=True)
    (tmp_path / "run" / "corpus" / "manifest.json").write_text("{}")
    rows = [Document(id=f"{number:032x}", text=text, source="x") for number, text in enumerate(good)]
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows]), documents / "train-00000.parquet")
    section = SECTION.model_copy(
        update={
            "positive": (str(tmp_path / "run"),),
            "negative": (str(tmp_path / "bad-*.txt"), str(tmp_path / "more.jsonl.gz")),
        }
    )
    found = train_classifier(section, seed=0)
    assert found.report["positive_examples"] == found.report["negative_examples"] == 40
    assert np.array_equal(found.weights, train_on(good, bad, SECTION, seed=0).weights)
    with pytest.raises(UserError, match="absent"):
        train_classifier(section.model_copy(update={"negative": (str(tmp_path / "absent.jsonl"),)}), seed=0)


def test_the_filter_refuses_below_the_threshold_and_adds_the_column() -> None:
    classifier = train_on(texts_of(GOOD, 200, 1), texts_of(BAD, 200, 2), SECTION, seed=0)
    check = ClassifierFilter(SECTION.model_copy(update={"threshold": 0.8}), classifier)
    batch = Batch({"text": pa.array([" ".join(GOOD * 5), " ".join(BAD * 5), ""], pa.large_string())})
    scored = check.with_quality(batch)
    quality = scored.columns["quality"].to_numpy()
    assert quality[0] > 0.8 > quality[1]
    outcome = check(batch)
    assert (check.name, check.rules) == ("classifier", ("classifier",))
    assert outcome.failed.dtype == np.int16
    assert outcome.failed.tolist()[:2] == [-1, 0]
    assert math.isnan(outcome.value[0])
    assert outcome.value[1] == quality[1]
    assert outcome.failed.tolist() == check(scored).failed.tolist()
    assert check(scored.with_columns(quality=pa.array([0.1, 0.9, 0.8]))).failed.tolist() == [0, -1, -1]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=20))
@settings(max_examples=100)
def test_area_under_the_curve_is_the_share_of_ordered_pairs(pairs: list[tuple[bool, int]]) -> None:
    labels = np.array([int(label) for label, _ in pairs])
    values = np.array([float(value) for _, value in pairs])
    labels[:2] = 0, 1  # both occur
    ordered = [(a > b) + 0.5 * (a == b) for a in values[labels == 1] for b in values[labels == 0]]
    assert area_under_curve(labels, values) == pytest.approx(np.mean(ordered))


def test_measures_of_known_probabilities() -> None:
    found = measure(np.array([1, 0, 1, 0]), np.array([0.9, 0.2, 0.4, 0.4]))
    assert found["accuracy"] == 0.75
    assert found["auc"] == 0.875
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.4, 0.6])))
    assert found["calibration_error"] == pytest.approx((0.1 + 0.2 + 0.2) / 4)


def test_buckets_are_a_power_of_two() -> None:
    with pytest.raises(ValidationError, match="power of two, as 65536"):
        ClassifierSection(positive=("a",), negative=("b",), buckets=100_000)


def read_lines(path: Path, count: int) -> list[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def test_featured_articles_are_told_from_random_ones(real_data: Path) -> None:
    """Random ones of 150 words or more, which are the harder; and with both cut to 150, so that length is mute."""
    good = [str(each["text"]) for each in read_lines(real_data / "wikipedia" / "train-0.jsonl.gz", 400)]
    other = [str(each["text"]) for each in read_lines(real_data / "wikipedia_random" / "docs.jsonl.gz", 1600)]
    other = [text for text in other if len(text.split()) >= 150][:400]
    classifier = train_on(good[:300], other[:300], SECTION.model_copy(update={"buckets": 2**18}), seed=0)
    labels = np.repeat([1, 0], [len(good[300:]), len(other[300:])])
    unseen = good[300:] + other[300:]
    assert area_under_curve(labels, scores(classifier, unseen)) > 0.9
    assert area_under_curve(labels, scores(classifier, [" ".join(text.split()[:150]) for text in unseen])) > 0.8


def test_agreement_with_people(real_data: Path) -> None:
    """Five-fold cross-validation on pages on which people agreed; text length alone reaches an AUC of 0.857."""
    records = read_lines(real_data / "quality" / "agreement_data.jsonl.gz", 1000)
    values, labels = [str(each["text"]) for each in records], np.array([each["label"] for each in records])
    folds = np.random.default_rng(0).permutation(len(values)) % 5
    section, found = SECTION.model_copy(update={"buckets": 2**18}), np.zeros(len(values))
    for fold in range(5):
        learnt = [(text, label) for text, label, each in zip(values, labels, folds, strict=True) if each != fold]
        good, bad = ([text for text, label in learnt if label == wanted] for wanted in (1, 0))
        classifier = train_on(good, bad, section, seed=0)
        found[folds == fold] = scores(classifier, [values[i] for i in np.flatnonzero(folds == fold)])
    assert area_under_curve(labels, found) > 0.9
    assert kappa(labels, (found >= 0.5).astype(int)) > 0.6
