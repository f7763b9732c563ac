"""Contamination: which runs of words are found, against a slow reference; what is removed; what is reported."""

import gzip
import json
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.decontaminate import Contamination, decontaminate, without_spans
from groundup.corpus.dedup import stretches
from groundup.corpus.targets import SHORTEST, Targets, read_tests
from groundup.recipe.dedup import DecontaminateSection
from groundup.run import UserError

QUESTION = "Which of these planets has the shortest year, and how many of our days does it last? Mercury, with 88."
THIRTEEN = "Which of these planets has the shortest year, and how many of our"
EIGHT = "eight words are enough for a short test"


def large(texts):
    return pa.array(texts, pa.large_string())


def words_of(text):
    """(word, start, end) of each word, the slow way."""
    found, word = [], ""
    for place, char in enumerate(text + " "):
        unspaced = any(first <= ord(char) <= last for first, last in stretches.UNSPACED)
        is_word = unicodedata.category(char)[0] in "LMN"
        if word and (not is_word or unspaced):
            found.append((word, place - len(word), place))
            word = ""
        if is_word and unspaced:
            found.append((char, place, place + 1))
        elif is_word:
            word += char.lower()[0]
    return found


def slow_hits(text, targets, ngram):
    """(start, end) of every run of words that a target has."""
    runs = set()
    for target in targets:
        words = [word for word, _, _ in words_of(unicodedata.normalize("NFC", target).strip())]
        if len(words) < ngram:
            runs.add(tuple(words) if len(words) >= min(SHORTEST, ngram) else ("",))
        else:
            runs |= {tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)}
    words = words_of(text)
    hits = set()
    for length in {len(run) for run in runs}:
        for start in range(len(words) - length + 1):
            if tuple(word for word, _, _ in words[start : start + length]) in runs:
                hits.add((words[start][1], words[start + length - 1][2]))
    return sorted(hits)


def found_in(texts, targets):
    hits = targets.find(texts)
    rows = list(zip(*(column.tolist() for column in hits[:3]), strict=True))
    return [[(start, end) for document, start, end in rows if document == number] for number in range(len(texts))]


@pytest.fixture
def tiny_blocks(monkeypatch):
    stretches._powers.cache_clear()
    monkeypatch.setattr(stretches, "BLOCK", 16)
    yield
    stretches._powers.cache_clear()


def test_exact_recased_and_repunctuated_copies_are_found_and_twelve_words_are_not():
    targets = Targets.build([("planets", QUESTION)], 13)
    twelve = " ".join(THIRTEEN.split()[:12])
    texts = [
        f"Before it. {QUESTION} After it.",
        f"some words {THIRTEEN.upper()} seconds",
        "«" + THIRTEEN.replace(" ", " — ").replace(",", " ;\n") + "»",
        f"{twelve} own days does it last",
        twelve,
        THIRTEEN.replace("planets", "planet"),
        "",
    ]
    assert [bool(hits) for hits in found_in(texts, targets)] == [True, True, True, False, False, False, False]
    outcome, _ = decontaminate(large(texts), targets, "document")
    assert outcome.failed.tolist() == [0, 0, 0, -1, -1, -1, -1]
    assert outcome.value[:2].tolist() == [8, 1]
    assert np.isnan(outcome.value[3:]).all()
    assert outcome.texts is None


def test_short_tests_count_as_a_whole_from_eight_words_on():
    targets = Targets.build([("a", EIGHT), ("b", "only seven words here are too few"), ("b", "")], 13)
    assert targets.lengths.tolist() == [8]
    assert targets.skipped.tolist() == [0, 2]
    texts = [f"so: {EIGHT.title()}.", "seven: only seven words here are too few", EIGHT.rsplit(" ", 1)[0]]
    assert [len(hits) for hits in found_in(texts, targets)] == [1, 0, 0]


def test_no_run_goes_across_two_documents():
    targets = Targets.build([("a", EIGHT)], 8)
    first, last = EIGHT.split(" for ")
    assert found_in([first + " for", last, "for " + last, EIGHT], targets) == [[], [], [], [(0, len(EIGHT))]]


WORD = st.sampled_from(["one", "Two", "THREE", "vier", "fünf", "é", "你", "好", "สวย", "6", "7٣"])
GAP = st.sampled_from([" ", "  ", ", ", "\n\n", " — ", "’", "🙂", "\t(", "."])
PROSE = st.lists(st.tuples(WORD, GAP), max_size=24).map(lambda pairs: "".join(word + gap for word, gap in pairs))


@settings(max_examples=120)
@given(st.lists(PROSE, min_size=1, max_size=4), st.lists(PROSE, max_size=4), st.sampled_from([5, 9, 10]))
def test_as_the_slow_way(texts, tests, ngram):
    targets = Targets.build([("task", test) for test in tests], ngram)
    # Parts of tests, so that there is something to find.
    texts += [("One two, " + test + " one two").title() for test in tests] + [test[3:] for test in tests]
    assert found_in(texts, targets) == [slow_hits(text, tests, ngram) for text in texts]


def test_blocks_leave_no_trace(tiny_blocks):
    tests = [QUESTION, EIGHT, "你好世界這是一個測試文本的句子", "a longer test " * 7]
    targets = Targets.build([("task", test) for test in tests], 13)
    texts = [f"Und hier {test} — Ende. " * 3 for test in tests] + ["x" * 100, "", QUESTION]
    assert found_in(texts, targets) == [slow_hits(text, tests, 13) for text in texts]
    assert found_in([QUESTION], targets)[0] == [(0, 65), *found_in([QUESTION], targets)[0][1:]]


def test_spans_are_cut_with_their_punctuation():
    targets = Targets.build([("planets", QUESTION), ("short", EIGHT)], 13)
    texts = [
        f"A text. ({QUESTION}) And more, {EIGHT}! The end.",
        f"{QUESTION}\n\n{EIGHT}…",
        "nothing of it  here ",
    ]
    outcome, _ = decontaminate(large(texts), targets, "span")
    assert outcome.texts.to_pylist() == ["A text. And more, The end.", "", "nothing of it  here "]
    assert outcome.failed.tolist() == [-1, 0, -1]
    again, hits = decontaminate(outcome.texts, targets, "span")
    assert again.texts is None
    assert len(hits.documents) == 0


def test_a_short_test_within_a_longer_one_cuts_no_less():
    inner = "these planets has the shortest year and how"
    targets = Targets.build([("planets", QUESTION), ("short", inner)], 13)
    outcome, hits = decontaminate(large([f"A {QUESTION} B"]), targets, "span")
    assert {
        len(run.split()) for run in (QUESTION[s:e] for s, e in zip(hits.starts - 2, hits.ends - 2, strict=True))
    } == {8, 13}
    assert outcome.texts.to_pylist() == ["A B"]
    nested = decontaminate(large([f"A {THIRTEEN}, B"]), targets, "span")[0]
    assert nested.texts.to_pylist() == ["A B"]


def test_cuts():
    assert without_spans("ab cd ef", [(3, 5)]) == "ab ef"
    assert without_spans("ab [cd], ef\ngh", [(4, 6), (12, 14)]) == "ab ef"
    assert without_spans("一二三四", [(1, 3)]) == "一四"


def test_nothing_removed_is_still_reported():
    targets = Targets.build([("b", QUESTION), ("a", EIGHT), ("b", QUESTION + " And one more!"), ("a", "x")], 13)
    texts = large([f"{QUESTION} {EIGHT}", "clean", f"see {EIGHT}"])
    outcome, hits = decontaminate(texts, targets, "nothing")
    assert (outcome.failed == -1).all()
    found, other = Contamination(), Contamination()
    found.add(targets, hits, texts, pa.array(["f", "f", "g"]), pa.array([1, 2, 3]))
    other.add(targets, hits, texts, pa.array(["h"] * 3), pa.array([4, 5, 6]))
    found.merge(Contamination.load(json.loads(json.dumps(other.dump()))))
    report = found.report(targets)
    assert list(report) == ["b", "a"]
    assert {name: report["b"][name] for name in ("texts", "too_short", "found", "documents")} == {
        "texts": 2, "too_short": 0, "found": 2, "documents": 2,
    }  # fmt: skip
    assert {name: report["a"][name] for name in ("texts", "too_short", "found", "documents")} == {
        "texts": 2, "too_short": 1, "found": 1, "documents": 4,
    }  # fmt: skip
    places = [(example["file"], example["record"]) for example in report["a"]["examples"]]
    assert places == [("f", 1), ("g", 3), ("h", 4), ("h", 6)]
    assert EIGHT in report["a"]["examples"][1]["excerpt"]


def test_saved_targets_find_the_same(tmp_path):
    targets = Targets.build([("a\nb", QUESTION), ("ü", EIGHT)], 13)
    targets.save(tmp_path)
    again = Targets.load(tmp_path)
    assert again.tasks == ("a\nb", "ü")
    texts = [QUESTION, EIGHT, "x"]
    assert found_in(texts, again) == found_in(texts, targets)
    empty = Targets.build([], 13)
    (tmp_path / "none").mkdir()
    empty.save(tmp_path / "none")
    assert Targets.load(tmp_path / "none").tasks == ()
    assert found_in(texts, Targets.load(tmp_path / "none")) == [[], [], []]
    (tmp_path / "targets.npz").write_bytes((tmp_path / "targets.npz").read_bytes()[:-200])
    with pytest.raises(UserError):
        Targets.load(tmp_path)


def test_files_of_tests(tmp_path):
    records = [{"query": QUESTION, "choices": [EIGHT, "no"], "gold": 1}, {"deep": {"er": [["x y"]]}}]
    lines = "\n".join(map(json.dumps, records))
    (tmp_path / "quiz.v1.jsonl").write_text(lines)
    (tmp_path / "quiz.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    expected = [("quiz", text) for text in (QUESTION, EIGHT, "no", "x y")]
    assert list(read_tests(str(tmp_path / "quiz.v1.jsonl"))) == expected
    assert list(read_tests(str(tmp_path / "quiz.jsonl.gz"))) == expected
    (tmp_path / "prose.txt").write_text("one\ntwo\n \nthree\n\n\n")
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    assert [text for _, text in read_tests(str(tmp_path / "prose.txt"))] == ["one\ntwo", "three"]
    assert [text for _, text in read_tests(str(tmp_path / "lines.txt"))] == ["one", "two"]
    section = DecontaminateSection(files=(str(tmp_path / "quiz.jsonl.gz"),))
    assert Targets.of_section(section, [("other", EIGHT)]).tasks == ("other", "quiz")
    (tmp_path / "broken.jsonl").write_text('{"a": "b"}\n{"a": \n')
    for name in ("broken.jsonl", "missing.txt"):
        with pytest.raises(UserError):
            list(read_tests(str(tmp_path / name)))


def test_real_tests_planted_in_real_articles(real_data):
    tests = []
    for name in ("gsm8k", "boolq", "winogrande"):
        tests += [(task, text) for task, text in read_tests(str(real_data / "eval" / f"{name}.jsonl.gz"))][:2000]
    targets = Targets.build(tests, 13)
    with gzip.open(real_data / "wikipedia_random" / "docs.jsonl.gz", "rt") as file:
        articles = [json.loads(line)["text"] for line, _ in zip(file, range(300), strict=False)]
    usable = [text for _, text in tests if len(words_of(text)) >= SHORTEST]
    rng = np.random.default_rng(0)
    planted = rng.choice(len(articles), 60, replace=False)
    texts = list(articles)
    for place in planted:
        test = usable[int(rng.integers(len(usable)))]
        cut = int(rng.integers(len(texts[place]) + 1))
        texts[place] = f"{texts[place][:cut]} {test.upper().replace(' ', '  ')} {texts[place][cut:]}"
    clean, _ = decontaminate(large(articles), targets, "document")
    outcome, _ = decontaminate(large(texts), targets, "document")
    assert (outcome.failed[planted] >= 0).all()
    others = np.delete(np.arange(len(texts)), planted)
    assert (outcome.failed[others] == clean.failed[others]).all()
    assert (clean.failed >= 0).sum() <= 5  # of BoolQ's passages, which are from Wikipedia
