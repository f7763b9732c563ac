"""Near-duplicates from texts to decisions: recall, precision, chains, templates, order, finished corpora."""

import gzip
import json
import random
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.dedup import band_keys, choose, clusters, exact_jaccard, fingerprints, keep_ranks, near_pairs, sign
from groundup.corpus.dedup.near import FINISHED
from groundup.recipe.dedup import NearSection

SECTION = NearSection()


class Corpus:
    """Texts with their signatures, and what deduplication makes of them."""

    def __init__(self, texts, section=SECTION, finished=0):
        self.texts, self.section, self.finished = texts, section, finished
        signatures = [sign(pa.array(texts[i : i + 500], pa.large_string()), section) for i in range(0, len(texts), 500)]
        self.signatures = np.concatenate(signatures)

    def decide(self, parts=1, seed=None):
        """[text → text kept for it]; the keys in ranges of which each is decided alone."""
        n, bands = len(self.texts), self.section.bands
        lengths = np.array([len(text) for text in self.texts])
        ranks = keep_ranks(self.section, lengths)
        ranks[: self.finished] = FINISHED
        keys = band_keys(self.signatures, self.section).ravel()
        rows = np.stack((keys, np.repeat(ranks, bands), np.repeat(np.arange(n, dtype=np.uint64), bands)), axis=1)
        rng = np.random.default_rng(seed)
        if seed is not None:
            rows = rows[rng.permutation(len(rows))]
        prints = fingerprints(self.signatures)

        def lookup(ordinals):
            assert (np.diff(ordinals.astype(np.int64)) > 0).all()
            return prints[ordinals.astype(np.int64)]

        pairs = [near_pairs(rows[keys_in(rows, part, parts)], lookup, self.section) for part in range(parts)]
        pairs = np.concatenate(pairs)
        gone = choose(pairs[rng.permutation(len(pairs))] if seed is not None else pairs, lookup, self.section)
        return dict(gone.astype(np.int64).tolist())


def keys_in(rows, part, parts):
    return rows[:, 0] // np.uint64(-(-(2**64) // parts) if parts > 1 else 2**64 - 1) == part


def precision(corpus, gone, similarity):
    """Share of removed texts whose kept partner is at least so similar."""
    exact = [exact_jaccard(corpus.texts[one], corpus.texts[other], corpus.section.ngram) for one, other in gone.items()]
    return np.mean(np.array(exact) >= similarity)


def passages(real_data, count, rng):
    with gzip.open(real_data / "wikipedia" / "train-1.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(400), strict=False)]
    cut = []
    for text in texts:
        start = 0
        while len(text) - start > 1500:
            size = rng.randrange(1500, 9000)
            cut.append(text[start : start + size])
            start += size
    return cut[:count]


def edited(text, share, rng, vocabulary):
    return " ".join(rng.choice(vocabulary) if rng.random() < share else word for word in text.split(" "))


@pytest.mark.parametrize("count", [100, 1000, 2500])
def test_articles_with_planted_pairs(real_data, count):
    folder = real_data / "neardup"
    with gzip.open(folder / f"articles_{count}.train.gz", "rt") as file:
        named = dict(line.rstrip("\n").split(" ", 1) for line in file)
    with gzip.open(folder / f"articles_{count}.truth.gz", "rt") as file:
        truth = [tuple(line.split()) for line in file]
    names = list(named)
    corpus = Corpus(list(named.values()))
    gone = corpus.decide()
    assert {frozenset((names[one], names[other])) for one, other in gone.items()} == set(map(frozenset, truth))
    assert precision(corpus, gone, 0.8) == 1


def test_planted_duplicates_of_known_similarity(real_data):
    rng = random.Random(3)
    originals = passages(real_data, 900, rng)
    vocabulary = sorted({word for text in originals[:100] for word in text.split()})
    notice = " All rights reserved. Read more on this page, write to us or subscribe to our letters at any time." * 2
    copies = []
    for place, original in enumerate(originals[:700]):
        share = (0.005, 0.01, 0.02, 0.04, 0.08, None, None)[place % 7]
        if share is None:
            copies.append(original[: int(0.9 * len(original))] if place % 7 == 5 else original + notice)
        else:
            copies.append(edited(original, share, rng, vocabulary))
    corpus = Corpus(originals + copies)
    gone = corpus.decide(parts=3)
    exact = np.array([exact_jaccard(*pair, 5) for pair in zip(originals, copies, strict=False)])
    same = np.array([gone.get(place, place) == gone.get(900 + place, 900 + place) for place in range(700)])
    assert (exact >= 0.8).sum() > 350
    assert same[exact >= 0.8].mean() >= 0.99
    assert same[exact < 0.5].mean() <= 0.01
    assert precision(corpus, gone, SECTION.threshold - 0.1) >= 0.99
    # As often as the bands meet and the estimate, normal about the similarity, reaches the threshold.
    from math import erf

    error = np.sqrt(exact * (1 - exact) / SECTION.signature) + 1e-9
    passes = np.array([(1 + erf(value / 2**0.5)) / 2 for value in (exact - SECTION.threshold) / error])
    expected = (1 - (1 - exact**SECTION.rows) ** SECTION.bands) * passes
    assert abs(same.sum() - expected.sum()) < 4 * np.sqrt((expected * (1 - expected)).sum()) + 3


def test_which_stays_is_as_the_recipe_says():
    base = " ".join(f"word{number}" for number in range(200))
    texts = [base, base + " and a bit", base + " and a bit more!"]
    assert Corpus(texts).decide() == {0: 2, 1: 2}
    assert Corpus(texts, NearSection(keep="first")).decide() == {1: 0, 2: 0}
    assert Corpus(texts, finished=1).decide() == {1: 0, 2: 0}


def test_finished_documents_win_and_never_go():
    words = [f"word{number}" for number in range(300)]
    near = [" ".join(words[:size]) for size in (280, 285, 290, 300)]  # all near to each other
    far = [" ".join(words[start:]) for start in (120, 130)]  # near to each other, not to the above
    assert exact_jaccard(near[3], far[0], 5) < 0.65
    corpus = Corpus([*near[:3], far[0], near[3], far[1]], finished=4)
    assert corpus.decide() == {4: 0, 5: 3}


def test_a_chain_does_not_collapse():
    words = [f"word{number}" for number in range(1400)]
    texts = [" ".join(words[start : start + 400]) for start in range(0, 1000, 40)]  # neighbours have J = 0.81
    assert exact_jaccard(texts[0], texts[1], 5) == pytest.approx(0.81, abs=0.01)
    assert exact_jaccard(texts[0], texts[2], 5) == pytest.approx(0.66, abs=0.01)
    corpus = Corpus(texts, NearSection(keep="first", threshold=0.75))
    gone = corpus.decide()
    assert gone == {place: place - 1 for place in range(1, 25, 2)}


def test_pages_of_a_template_stay_and_their_copies_go():
    rng = random.Random(4)

    def words(count):
        return [f"w{rng.getrandbits(32):x}" for _ in range(count)]

    head, foot = words(75), words(75)
    pages = [" ".join([*head, *words(60), *foot]) for _ in range(1000)]
    copies = []
    for page in pages[:60]:
        copy = page.split(" ")
        copy[rng.randrange(len(copy))] = "changed"
        copies.append(" ".join(copy) + " and longer than before")
    assert exact_jaccard(pages[0], pages[1], 5) == 142 / 270
    assert Corpus([*pages, *copies]).decide() == {place: 1000 + place for place in range(60)}


def test_order_and_ranges_play_no_part(real_data):
    rng = random.Random(5)
    texts = passages(real_data, 120, rng)
    vocabulary = texts[0].split()
    corpus = Corpus(
        texts + [edited(rng.choice(texts), rng.choice((0.01, 0.02, 0.04)), rng, vocabulary) for _ in range(300)]
    )
    gone = corpus.decide()
    assert len(gone) > 150
    for seed, parts in enumerate((1, 2, 7)):
        assert corpus.decide(parts, seed) == gone


def test_once_more_removes_nothing(real_data):
    rng = random.Random(6)
    texts = passages(real_data, 100, rng)
    vocabulary = texts[0].split()
    for _ in range(400):  # copies of copies
        texts.append(edited(rng.choice(texts), rng.choice((0.01, 0.03, 0.05)), rng, vocabulary))
    gone = Corpus(texts).decide()
    left = [text for place, text in enumerate(texts) if place not in gone]
    assert len(gone) > 200
    assert len(Corpus(left).decide()) == 0


def slow_choice(documents, pairs):
    """From the best document on: it goes if it is near to one that stays."""
    gone = {}
    for document in sorted(documents):
        better = [one for one, other in pairs if other == document and one not in gone]
        if better:
            gone[document] = min(better)
    return gone


@settings(max_examples=80)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25), st.randoms(use_true_random=False))
def test_choice_is_the_first_maximal_independent_set(found, random_order):
    found = {(min(pair), max(pair)) for pair in found if pair[0] != pair[1]}
    order = list(range(10))
    random_order.shuffle(order)  # document → place in the ranking
    ordinals = [7 * number + 1 for number in range(10)]
    rows = [(ordinals[a], order[a] + 1, ordinals[b], order[b] + 1) for a, b in found]
    rows = [row if row[1] < row[3] else (row[2], row[3], row[0], row[1]) for row in rows]
    random_order.shuffle(rows)
    pairs = np.array(rows, np.uint64).reshape(-1, 4)

    def nothing_alike(wanted):
        return (np.arange(len(wanted))[:, None] + np.zeros(256, np.int64)).astype(np.uint8)

    gone = choose(np.concatenate((pairs, pairs)), nothing_alike, SECTION)
    expected = slow_choice(range(10), {tuple(sorted((order[a], order[b]))) for a, b in found})
    by_place = {order[number]: ordinals[number] for number in range(10)}
    assert dict(gone.tolist()) == {by_place[one]: by_place[other] for one, other in expected.items()}
    assert gone[:, 0].tolist() == sorted(gone[:, 0].tolist())


def test_nothing_in_nothing_out():
    def never(wanted):
        raise AssertionError

    assert near_pairs(np.empty((0, 3), np.uint64), never, SECTION).shape == (0, 4)
    assert choose(np.empty((0, 4), np.uint64), never, SECTION).shape == (0, 2)


def test_those_left_by_one_that_goes_are_compared():
    # 0 – 1, 1 – 2 and 1 – 3 were found near; 1 goes for 0, and 2 and 3 are near to each other.
    prints = np.zeros((4, 256), np.uint8)
    prints[1], prints[2], prints[3] = 1, 2, 2
    pairs = np.array([[0, 1, 1, 1], [1, 1, 2, 1], [1, 1, 3, 1]], np.uint64)
    gone = choose(pairs, lambda wanted: prints[wanted.astype(np.int64)], SECTION)
    assert gone.tolist() == [[1, 0], [3, 2]]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=14), st.sets(st.integers(0, 13)))
def test_leaders_find_every_group_of_equal_documents(kinds, finished):
    prints = np.repeat(np.array(kinds, np.uint8)[:, None], 256, axis=1)
    ranks = [0 if place in finished else 1 for place in range(len(kinds))]
    rows = np.array([[99, rank, place] for place, rank in enumerate(ranks)], np.uint64)
    pairs = near_pairs(rows, lambda wanted: prints[wanted.astype(np.int64)], SECTION)
    found = {(int(one), int(other)) for one, _, other, _ in pairs}
    assert all(kinds[a] == kinds[b] and (ranks[a], a) < (ranks[b], b) and ranks[b] for a, b in found)
    for one, other in combinations(range(len(kinds)), 2):
        if kinds[one] == kinds[other] and (ranks[one] or ranks[other]):
            group = {place for place in range(len(kinds)) if kinds[place] == kinds[one]}
            assert any((leader, each) in found for leader in group for each in (one, other) if ranks[each])


def test_those_near_to_a_leader_dont_lead():
    kinds = np.repeat([1, 2, 3], [100, 2, 2])
    prints = np.repeat(kinds.astype(np.uint8)[:, None], 256, axis=1)
    rows = np.stack((np.full(104, 7), np.ones(104), np.arange(104)), axis=1).astype(np.uint64)
    pairs = near_pairs(rows, lambda wanted: prints[wanted.astype(np.int64)], SECTION)
    expected = [(0, other) for other in range(1, 100)] + [(100, 101), (102, 103)]
    assert [(one, other) for one, _, other, _ in pairs.tolist()] == expected


def test_large_buckets_take_few_comparisons(monkeypatch):
    compared = []
    agreement = clusters._agreement
    monkeypatch.setattr(clusters, "_agreement", lambda p, a, b: compared.append(len(a)) or agreement(p, a, b))
    prints = np.random.default_rng(0).integers(0, 256, (20_000, 256)).astype(np.uint8)
    rows = np.stack((np.full(20_000, 5), np.ones(20_000), np.arange(20_000)), axis=1).astype(np.uint64)
    assert len(near_pairs(rows, lambda wanted: prints[wanted.astype(np.int64)], SECTION)) == 0
    assert 0 < sum(compared) <= clusters.ROUNDS * 20_000


def test_parts_are_cut_between_buckets(monkeypatch):
    monkeypatch.setattr(clusters, "ROWS_AT_ONCE", 5)
    keys = np.array([1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5], np.uint64)
    parts = [part[:, 0].tolist() for part in clusters._parts(keys[:, None])]
    assert parts == [[1, 1, 2, 2, 2], [3, 3], [4] * 5, [4] * 5, [4, 4, 5]]
    assert sum(parts, []) == keys.tolist()
