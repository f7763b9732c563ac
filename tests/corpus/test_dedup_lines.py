"""Shared lines and boilerplate: which lines are equal, which of them go, and what is left of a text."""

import gzip
import json
import unicodedata
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.dedup import (
    boilerplate_lines,
    line_keys,
    remove_boilerplate,
    remove_lines,
    site_keys,
    site_of,
    site_pages,
    stretches,
    surplus_lines,
    total_pages,
)
from groundup.corpus.dedup.lines import find_lines
from groundup.recipe.dedup import BoilerplateSection, LinesSection

LONG = "A line with more than thirty letters in all of it"
BASE = 0x9E3779B97F4A7C15


def large(texts):
    return pa.array(texts, pa.large_string())


def plain(line: str) -> str:
    """What a line is compared by, the slow way."""
    kinds = [(character, unicodedata.category(character)) for character in line]
    return "".join("0" if kind == "Nd" else char.lower()[0] for char, kind in kinds if kind[0] in "LMNS")


def polynomial(line: str) -> int:
    total = sum(ord(char) * pow(BASE, place, 2**64) for place, char in enumerate(plain(line)))
    value = (total + len(plain(line)) * 0xD6E8FEB86659FD93) % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ (value >> 33)) * factor % 2**64
    return value ^ (value >> 33)


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Blocks of 16 characters, so that lines and words cross many."""
    stretches._powers.cache_clear()
    monkeypatch.setattr(stretches, "BLOCK", 16)
    yield
    stretches._powers.cache_clear()


TEXTS = st.lists(st.text(st.sampled_from("aZé5٣ .,-—\n\t你ß𠀀🙂$"), max_size=60), min_size=1, max_size=5)


@settings(max_examples=60)
@given(TEXTS)
def test_hashes_of_lines_are_the_polynomials_of_their_plain_forms(texts):
    found = find_lines(texts)
    expected = [
        (polynomial(line), document, number)
        for document, text in enumerate(texts)
        for number, line in enumerate(text.split("\n"))
        if any(unicodedata.category(char)[0] in "LM" for char in line)
    ]
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


def test_blocks_leave_no_trace(tiny_blocks):
    texts = ["Ein Satz, der über viele Blöcke geht\nund noch 12 Zeilen\n" * 9, "", "你好世界" * 20, "kurz"]
    found = find_lines(texts)
    lines = [line for text in texts for line in text.split("\n") if line]
    assert found.hashes.tolist() == [polynomial(line) for line in lines]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("Page 3 of 10", "page 7 of 99", True),
        ("Page 3 of 10", "page 3 of 9", False),
        ("Read more…", "read  more", True),
        ("$ 5", "€ 5", False),
        ("résumé", "resume", False),
        ("therapist", "the rapist", True),  # white space plays no part
    ],
)
def test_what_is_equal(one, other, equal):
    hashes = find_lines([one + " x", other + " x"]).hashes
    assert (hashes[0] == hashes[1]) == equal


def test_few_letters_and_rows_of_numbers_are_never_listed():
    section = LinesSection(min_characters=5)
    texts = ["abcd 1234567890\n---------\n12.5 | 13.5 | 14.5\nabcde\n\n"]
    hashes, documents = line_keys(large(texts), section)
    assert hashes.tolist() == [polynomial("abcde")]
    assert documents.tolist() == [0]


def test_a_line_stays_in_its_first_documents():
    rows = np.array([[5, 30], [5, 10], [5, 20], [9, 10], [7, 40], [7, 30]], np.uint64)
    assert surplus_lines(rows, LinesSection()).tolist() == [[20, 5], [30, 5], [40, 7]]
    assert surplus_lines(rows, LinesSection(max_documents=2)).tolist() == [[30, 5]]
    assert surplus_lines(rows[:0], LinesSection()).shape == (0, 2)


def dedup_lines(texts, section, ordinals=None):
    ordinals = np.arange(len(texts), dtype=np.uint64) * 3 if ordinals is None else ordinals
    hashes, documents = line_keys(large(texts), section)
    removals = surplus_lines(np.stack((hashes, ordinals[documents]), axis=1), section)
    left, lost = remove_lines(large(texts), ordinals, removals, section)
    return left.to_pylist(), lost.tolist()


def test_lines_go_from_later_documents_with_the_blank_lines_they_leave():
    texts = [f"{LONG}\n\nfirst", f"before\n\n{LONG.upper()}!\n\nafter", LONG, f"x\n{LONG}\n{LONG}\ny"]
    left, lost = dedup_lines(texts, LinesSection())
    assert left == [texts[0], "before\n\nafter", "", "x\ny"]
    assert lost == [0, 1, 1, 2]


def test_paragraphs():
    paragraph = f"{LONG}\nand a second line of it"
    texts = [f"{paragraph}\n\none", f"two\n \n{paragraph}\n\n\nthree\n{LONG}"]
    left, lost = dedup_lines(texts, LinesSection(unit="paragraph"))
    assert left == [texts[0], f"two\n \nthree\n{LONG}"]
    assert lost == [0, 1]


@settings(max_examples=50)
@given(
    st.lists(
        st.lists(st.sampled_from(["alpha", "Beta!", "gamma 1", "", "  ", "7"]), max_size=6), min_size=1, max_size=6
    ),
    st.integers(1, 2),
    st.randoms(use_true_random=False),
)
def test_lines_as_the_slow_way_in_any_order_and_none_the_second_time(documents, at_most, random):
    texts = ["\n".join(lines) for lines in documents]
    ordinals = list(range(len(texts)))
    random.shuffle(ordinals)
    section = LinesSection(min_characters=1, max_documents=at_most)
    left, _ = dedup_lines(texts, section, np.array(ordinals, np.uint64))
    order = sorted(range(len(texts)), key=ordinals.__getitem__)
    having = defaultdict(list)
    for place in order:
        for line in {plain(line) for line in documents[place]}:
            having[line].append(place)
    expected = [
        [
            line
            for line in documents[place]
            if line.strip() and (plain(line) in ("", "0") or place in having[plain(line)][:at_most])
        ]
        for place in range(len(texts))
    ]
    assert [[line for line in text.split("\n") if line.strip()] for text in left] == expected
    again, lost = dedup_lines(left, section, np.array(ordinals, np.uint64))
    assert again == left
    assert not any(lost)


def test_real_lines_are_removed_once(real_data):
    paths = sorted((real_data / "techdocs").glob("*/*"))
    texts = [path.read_text(encoding="utf-8").strip() for path in paths]
    left, lost = dedup_lines(texts, LinesSection())
    assert sum(lost) > 100
    counts = Counter(hash_ for hash_ in line_keys(large(left), LinesSection())[0].tolist())
    assert max(counts.values()) == 1
    assert sum(dedup_lines(left, LinesSection())[1]) == 0


def test_sites():
    assert site_of("https://WWW.Example.org:8080/a?b") == "example.org"
    assert site_of("http://news.example.org./") == "news.example.org"
    for url in (None, "", "/local/path", "http://[1::2", "mailto:a@b.c", "http://"):
        assert site_of(url) == ""


def strip_boilerplate(texts, urls, section, batch=7):
    """The whole way, in batches and with the keys in ranges."""
    ordinals = np.arange(len(texts), dtype=np.uint64)
    rows, pages = [], []
    for start in range(0, len(texts), batch):
        some, where = large(texts[start : start + batch]), pa.array(urls[start : start + batch], pa.string())
        both, sites, documents = site_keys(some, where)
        rows.append(np.stack((both, sites, ordinals[start + documents]), axis=1))
        pages.append(site_pages(where))
    rows, pages = np.concatenate(rows), total_pages(np.concatenate(pages))
    removals = np.concatenate([boilerplate_lines(rows[rows[:, 0] % 3 == part], pages, section) for part in range(3)])
    removals = removals[np.lexsort(removals.T[::-1])]
    left, lost = remove_boilerplate(large(texts), pa.array(urls, pa.string()), ordinals, removals)
    return left.to_pylist(), lost.tolist()


def test_a_sites_menu_goes_and_its_articles_stay():
    texts = [f"Home\nAbout us\n\nArticle {'abcdefghij'[i] * 9}\nEnde\n1234\n© 20{i}" for i in range(10)]
    urls = [f"https://site.org/{i}" for i in range(10)]
    texts += ["Home\nelsewhere", "Home\nno address"]
    urls += ["https://other.org/", None]
    left, lost = strip_boilerplate(texts, urls, BoilerplateSection())
    assert left[3] == "Article ddddddddd\n1234\n© 203"  # no letters: a symbol and digits
    assert lost == [3] * 10 + [0, 0]
    assert left[10:] == texts[10:]


@pytest.mark.parametrize(
    ("pages", "on", "goes"), [(5, 5, True), (5, 4, False), (20, 6, False), (20, 7, True), (4, 4, False)]
)
def test_share_and_number_of_pages(pages, on, goes):
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"own {letters[i]}" + ("\nthe notice" if i < on else "") for i in range(pages)]
    left, lost = strip_boilerplate(texts, ["http://a.b/"] * pages, BoilerplateSection())
    assert lost == [int(goes and i < on) for i in range(pages)]


def test_no_documents():
    none, urls = large([]), pa.array([], pa.string())
    assert [len(column) for column in line_keys(none, LinesSection())] == [0, 0]
    assert [len(column) for column in site_keys(none, urls)] == [0, 0, 0]
    pages = total_pages(site_pages(urls))
    removals = boilerplate_lines(np.empty((0, 3), np.uint64), pages, BoilerplateSection())
    assert removals.shape == (0, 2)
    assert len(remove_boilerplate(none, urls, np.empty(0, np.uint64), removals)[0]) == 0
    assert len(remove_lines(none, np.empty(0, np.uint64), removals, LinesSection())[1]) == 0


def test_uncounted_sites_are_an_error():
    with pytest.raises(ValueError, match="weren't counted"):
        boilerplate_lines(
            np.array([[1, 2, 3], [1, 2, 4]], np.uint64), np.empty((0, 2), np.uint64), BoilerplateSection()
        )


def test_boilerplate_of_real_articles_given_menus_goes_once(real_data):
    articles = []
    with gzip.open(real_data / "wikipedia_random" / "docs.jsonl.gz", "rt") as file:
        for line in file:
            articles.append(json.loads(line)["text"])
    rng = np.random.default_rng(0)
    texts, urls, menus = [], [], 0
    for number, article in enumerate(articles[:900]):
        site = int(rng.integers(0, 12))
        menu = "\n".join(f"Site {'abcdefghijkl'[site]} section {word}" for word in ("home", "news", "shop"))
        texts.append(f"{menu}\n{article}\nCopyright {2000 + number % 20} by the owners of site {'abcdefghijkl'[site]}")
        urls.append(f"https://{site}.example.org/{number}")
        menus += 4
    left, lost = strip_boilerplate(texts, urls, BoilerplateSection(), batch=250)
    assert sum(lost) >= menus
    shown = "\n".join(left)
    assert "section news" not in shown
    assert "by the owners of site" not in shown
    again = strip_boilerplate(left, urls, BoilerplateSection(), batch=250)[1]
    assert sum(again) < 0.001 * sum(text.count("\n") + 1 for text in left)
    kept = sum(len(text) for text in left) / sum(len(article) for article in articles[:900])
    assert kept > 0.97  # of the articles only headings that a third of a site's pages have are lost
