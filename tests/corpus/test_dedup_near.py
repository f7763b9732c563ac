"""Signatures, bands and ranks of near-duplicates, and the similarity that they estimate."""

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pytest

from groundup.corpus.dedup import band_keys, exact_jaccard, fingerprints, keep_ranks, sign
from groundup.corpus.dedup.clusters import needed
from groundup.corpus.dedup.near import in_buckets
from groundup.corpus.kernels import minhash, with_spaces
from groundup.recipe.dedup import NearSection

SECTION = NearSection()
EMPTY = 2**32 - 1


def large(texts):
    return pa.array(texts, pa.large_string())


def articles(real_data, count, size=3000):
    with gzip.open(real_data / "wikipedia" / "train-0.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(200), strict=False)]
    pieces = [text[start : start + size] for text in texts for start in range(0, len(text) - size, size)]
    return pieces[:count]


def edited(text, share, rng):
    """A text with a share of its words replaced by words that no other text has."""
    return " ".join(f"w{rng.getrandbits(40):x}" if rng.random() < share else word for word in text.split(" "))


def test_a_signature_depends_on_the_words_alone():
    one, other, different = minhash(
        large(["Some words, of a text!\nAnd  more.", "some WORDS of a text and more", "x"]), 8, 5
    )
    assert one.tolist() == other.tolist()
    assert different.tolist() != one.tolist()
    assert one.dtype == np.uint32


def test_short_and_empty_texts():
    signatures = minhash(large(["", " \n", "...", "one two", "one three", "one two", "two one"]), 16, 5)
    assert (signatures[:3] == EMPTY).all()
    assert signatures[3].tolist() == signatures[5].tolist()
    for row in (4, 6):  # fewer words than a shingle: equal or unequal as a whole
        assert (signatures[row] == signatures[3]).mean() == 0
    assert minhash(large([]), 16, 5).shape == (0, 16)


def test_neighbours_in_a_batch_play_no_part():
    texts = ["one text of some words", "", "另一個中文的文本在這裡", "a " * 5000, "naïve café, s'il vous plaît"]
    whole = minhash(large(texts), 32, 5)
    alone = np.concatenate([minhash(large([text]), 32, 5) for text in texts])
    sliced = minhash(large(["x", *texts]).slice(1), 32, 5)
    assert (whole == alone).all()
    assert (whole == sliced).all()


def test_scripts_without_spaces_are_compared_by_characters():
    assert with_spaces(large(["你好 a", "สวัสดี", "né ж 한국"])).to_pylist() == ["你 好  a", "ส ว ั ส ด ี ", "né ж 한국"]
    base = "".join(chr(0x4E00 + 37 * number % 5000) for number in range(200))
    changed = base[:100] + "馬" + base[101:]
    jaccard = exact_jaccard(base, changed, 5)
    assert jaccard == pytest.approx(191 / 201)
    first, second = minhash(large([base, changed]), 512, 5)
    assert (first == second).mean() == pytest.approx(jaccard, abs=0.04)


def test_exact_jaccard_in_closed_form():
    words = [f"w{number}" for number in range(24)]
    assert exact_jaccard(" ".join(words), " ".join(words[:-4]).upper(), 5) == 16 / 20
    assert exact_jaccard("a b c", "a b c", 5) == 1
    assert exact_jaccard("a b c", "a b", 5) == 0
    assert exact_jaccard("", "", 5) == 0


def test_signatures_and_fingerprints_estimate_jaccard(real_data):
    rng = random.Random(1)
    texts = articles(real_data, 200)
    changed = [edited(text, rng.choice((0.01, 0.02, 0.04, 0.08, 0.2)), rng) for text in texts]
    exact = np.array([exact_jaccard(*pair, 5) for pair in zip(texts, changed, strict=True)])
    one, other = sign(large(texts), SECTION), sign(large(changed), SECTION)
    equal = (fingerprints(one) == fingerprints(other)).mean(axis=1)
    estimates = (equal - 1 / 256) / (1 - 1 / 256)
    for estimate in ((one == other).mean(axis=1), estimates):
        errors = (estimate - exact) / np.sqrt(exact * (1 - exact) / SECTION.signature)
        assert abs(errors.mean()) < 4 / np.sqrt(len(texts))
        assert 0.8 < errors.std() < 1.2


def test_bands_meet_as_often_as_the_curve_says(real_data):
    rng = random.Random(2)
    section = NearSection(hashes=1)
    texts = articles(real_data, 700)
    changed = [edited(text, rng.choice((0.03, 0.05, 0.08)), rng) for text in texts]
    similarity = np.array([exact_jaccard(*pair, 5) for pair in zip(texts, changed, strict=True)])
    one, other = (band_keys(sign(large(some), section), section) for some in (texts, changed))
    meet = (one == other).any(axis=1)
    curve = 1 - (1 - similarity**section.rows) ** section.bands
    assert 0.3 < curve.mean() < 0.9
    assert abs(meet.sum() - curve.sum()) < 4 * np.sqrt((curve * (1 - curve)).sum())


def test_keys_are_equal_for_equal_bands_only():
    section = NearSection(bands=4, rows=3)
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 2, (400, section.signature)).astype(np.uint32)
    keys = band_keys(signatures, section)
    assert keys.shape == (400, 4)
    for band in range(4):
        rows = [tuple(row) for row in signatures[:, 3 * band : 3 * band + 3].tolist()]
        assert len(set(zip(rows, keys[:, band].tolist(), strict=True))) == len(set(rows)) == len(set(keys[:, band]))
    assert len(np.unique(keys)) == 4 * 8  # the same rows in another band have another key


def test_keys_spread_evenly():
    keys = band_keys(np.arange(2**14, dtype=np.uint32)[:, None].repeat(108, 1), SECTION)
    counts = np.bincount((keys >> np.uint64(56)).ravel().astype(np.int64), minlength=256)
    assert abs(counts / counts.mean() - 1).max() < 0.1


def test_buckets_hold_shared_bands_only_and_no_empty_texts():
    signatures = sign(
        large(["a text of a few words", "", "a text of a few words", "other words in a text", ""]), SECTION
    )
    keys = band_keys(signatures, SECTION)
    bands = SECTION.bands
    rows = np.stack((keys.ravel(), np.ones(5 * bands, np.uint64), np.repeat(np.arange(5, dtype=np.uint64), bands)), 1)
    buckets = in_buckets(rows[::-1], SECTION)
    assert len(buckets) == 2 * bands
    assert buckets[:, 2].tolist() == [0, 2] * bands


def test_ranks():
    lengths = np.array([10, 30, 20, 20])

    def order(keep, quality=None):
        return np.argsort(keep_ranks(NearSection(keep=keep), lengths, quality), kind="stable").tolist()

    assert order("first") == [0, 1, 2, 3]
    assert order("longest") == [1, 2, 3, 0]
    assert order("best") == [1, 2, 3, 0]
    assert order("best", np.array([0.5, -2.0, 0.7, -0.0])) == [2, 0, 3, 1]
    assert order("best", np.array([np.nan, np.nan, 0.1, np.inf])) == [3, 2, 1, 0]
    ranks = keep_ranks(NearSection(keep="best"), lengths, np.array([np.nan, np.inf, -np.inf, 3.4e38]))
    finished = keep_ranks(SECTION, lengths, finished=True)
    assert finished.max() < min(ranks.min(), keep_ranks(NearSection(keep="first"), lengths).min())


def test_needed_agreement():
    assert needed(256, 1) == 256
    assert needed(255, 0) == 1
    assert needed(256, 0.7) == 180  # 256 · (0.7 + 0.3 / 256) = 179.5
    assert needed(100, 0.5 - 0.5 / 255) == 50  # exactly half, whatever rounding does


def test_more_bands_than_hashes_lengthen_the_signature():
    section = NearSection(bands=40, rows=10)
    assert section.signature == 400
    assert sign(large(["some text"]), section).shape == (1, 400)
