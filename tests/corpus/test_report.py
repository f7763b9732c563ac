"""What a reader is shown of a corpus: the funnel's tables and figure, figures of its documents, samples."""

import random
import re
import runpy
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from groundup.corpus.funnel import SourceFunnel, funnel_json
from groundup.corpus.look import limits, open_corpus, sample_passages, sample_rejections
from groundup.corpus.report import funnel_table, share, show, size, steps, tables
from groundup.corpus.sankey import LABELS, OUT, RULES, SOURCES, TRUNK, clip, sankey_svg
from groundup.corpus.stats import Lengths, corpus_statistics, removed_as_repeated
from groundup.recipe import CorpusSection
from groundup.run import UserError

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("finished.py"))))
STEPS = made.STEPS
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.make_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def funnel() -> dict:
    return funnel_json(made.funnels(), STEPS)


def printed(*shown: object, width: int = 100) -> str:
    console = Console(width=width, highlight=False, markup=False, no_color=True)
    with console.capture() as capture:
        for each in shown:
            console.print(each)
    return capture.get()


def random_funnel(seed: int, sources: int = 3, rules: int = 4) -> dict:
    """Sources whose documents are refused at random, counted as the stage counts."""
    chance = random.Random(seed)
    found = []
    for number in range(sources):
        one = SourceFunnel(f"source/{number}", files=1)
        left = chance.randint(0, 300)
        one.count("read", left, 100 * left)
        for step in STEPS[:9]:
            for rule in range(rules if step != "personal_data" else 0):
                for record in range(chance.randint(0, min(left, 20))):
                    one.reject(step, f"rule_{rule}", file="f", record=record, size=100, words=9)
                    left -= 1
            if step != "read":
                one.count(step, left, 100 * left, 9 * left)
        one.count("kept", left, 100 * left, 9 * left)
        one.count("train", left, 100 * left, 9 * left)
        found.append(one)
    return funnel_json(found, STEPS)


@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_every_document_read_is_kept_or_refused_by_a_rule(seed: int) -> None:
    funnel = random_funnel(seed)
    total = funnel["total"]
    passed = steps(total, funnel["steps"])
    refused = [sum(rule["documents"] for rule in step.refused.values()) for step in passed]
    assert passed[0].documents == total["steps"]["read"]["documents"]
    assert passed[0].documents - sum(refused) == passed[-1].documents == total["steps"]["kept"]["documents"]
    for before, after in zip(passed[1:], passed[2:], strict=False):
        gone = sum(rule["documents"] for rule in after.refused.values())
        assert after.documents == before.documents - gone
    assert all(step.bytes == total["steps"][step.name]["bytes"] for step in passed)


def test_steps_have_their_bytes_words_and_edits(funnel: dict) -> None:
    passed = {step.name: step for step in steps(funnel["total"], funnel["steps"])}
    assert (passed["extracted"].documents, passed["extracted"].bytes) == (161, 190_000)
    assert passed["extracted"].words is passed["read"].words is None
    assert passed["cleaned"].words == 161 * 150
    assert passed["lines"].edits == {"documents shortened": 5, "lines removed": 9}
    names = [[step.name for step in steps(source, funnel["steps"])] for source in funnel["sources"]]
    assert "extracted" not in names[0]  # which has no pages
    assert "extracted" in names[1]


def test_tables_hold_the_numbers(funnel: dict) -> None:
    lines = printed(funnel_table(funnel)).splitlines()
    assert any(re.match(r" read +162 +100\.0 % +970\.0 kB +– *$", line) for line in lines)
    assert any(re.match(r"   min_words +−12 +7\.4 % +5\.5 kB +111 *$", line) for line in lines)
    assert any(re.match(r" kept +118 +72\.8 % +118\.0 kB +17,700 *$", line) for line in lines)
    assert any(re.match(r" passages to validate on +2 +2\.0 kB +300 *$", line) for line in lines)
    web = printed(funnel_table(funnel, "web"))
    assert "Funnel of web" in web
    assert re.search(r"  language +−30 +30\.0 %", web)
    every = printed(*tables(funnel), width=80)
    assert re.search(r"texts +3 +62 +50 +80\.6 % +50\.0 kB +42\.4 %", every)
    assert re.search(r"personal_data/email +12", every)
    assert all(len(line.rstrip()) <= 80 for line in every.splitlines())
    tests = {"quiz": {"texts": 40, "too_short": 6, "found": 2, "documents": 3}}
    assert re.search(r"quiz +40 +6 +2 +3", printed(*tables(funnel | {"contamination": tests})))
    one = funnel_json(made.funnels()[:1], STEPS)
    assert "Sources" not in printed(*tables(one))


def test_show_prints_to_stderr(funnel: dict, capsys: pytest.CaptureFixture[str]) -> None:
    show(funnel)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "passages to train on" in captured.err


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 9, "0.0 %"),
        (1, 10**6, "<0.1 %"),
        (999_999, 10**6, ">99.9 %"),
        (5, 5, "100.0 %"),
        (1, 0, "–"),
        (1, 8, "12.5 %"),
    ],
)
def test_shares_are_never_rounded_to_none_or_all(part: int, whole: int, shown: str) -> None:
    assert share(part, whole) == shown


def test_sizes() -> None:
    assert [size(count) for count in (None, 0, 999, 1000, 999_949, 999_950, 3.2e12, 4e16)] == [
        "–", "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "3.2 TB", "40,000.0 TB",
    ]  # fmt: skip


def drawn(svg: str) -> tuple[dict[str, list[str]], list[tuple[str, float, str]]]:
    """Paths by their title, and labels as (side, y, text)."""
    root = ElementTree.fromstring(svg)
    paths = defaultdict(list)
    for path in root.iter(f"{SVG}path"):
        title = path.find(f"{SVG}title")
        if title is not None:
            paths[str(title.text)].append(path.attrib["d"])
    labels = [
        ("left" if text.get("text-anchor") == "end" else "right", float(text.attrib["y"]), "".join(text.itertext()))
        for text in root.iter(f"{SVG}text")
    ]
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {"svg", "title", "desc", "path", "text", "tspan"}
    return paths, labels


def thickness(path: str) -> float:
    """Of a refused flow, where it ends."""
    found = re.search(rf"([\d.]+)H{OUT}V([\d.]+)", path)
    assert found
    return float(found[2]) - float(found[1])


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 12, 40]), st.sampled_from([1, 3, 40]))
@settings(max_examples=25)
def test_flows_are_as_wide_as_their_documents_and_labels_stand_apart(seed: int, sources: int, rules: int) -> None:
    funnel = random_funnel(seed, sources, rules)
    read = max(1, funnel["total"]["steps"]["read"]["documents"])
    svg = sankey_svg(funnel)
    paths, labels = drawn(svg)
    for title, drawn_paths in paths.items():
        found = re.fullmatch(r"(\w+), (rule \d+|rule_\d+|\d+ more rules): ([\d,]+) documents", title)
        if found:
            wide = TRUNK * int(found[3].replace(",", "")) / read
            assert thickness(drawn_paths[0]) == pytest.approx(max(wide, 0.8), abs=0.02)
    refused = sum(
        int(title.rsplit(": ", 1)[1].split()[0].replace(",", "")) for title in paths if re.match(r"\w+, ", title)
    )
    assert refused == read - funnel["total"]["steps"]["kept"]["documents"] or read == 1
    for side in ("left", "right"):
        heights = sorted(y for where, y, _ in labels if where == side)
        assert all(after - before >= 14 for before, after in zip(heights, heights[1:], strict=False))
    height = float(ElementTree.fromstring(svg).attrib["height"])
    assert all(0 < y < height for _, y, _ in labels)
    assert sum("more sources" in text for *_, text in labels) == (sources > SOURCES)
    shown = Counter(title.partition(",")[0] for title in paths if re.match(r"\w+, ", title))
    assert max(shown.values(), default=0) <= RULES


def test_hostile_names_stay_text() -> None:
    name = 'a"><script>alert(1)</script>\x1b\ufffe' + "x" * 300
    one = SourceFunnel(name)
    one.count("read", 2, 10)
    one.reject("read", "<b>&amp;", text="x")
    for step in ("cleaned", "kept", "train"):
        one.count(step, 1, 5, 1)
    one.edits["cleaned/<i>"] = 1
    _, labels = drawn(sankey_svg(funnel_json([one], ["read", "cleaned", "kept", "train", "validation"])))
    assert any(text.startswith("<b>&amp;  1") for *_, text in labels)
    assert all(len(text) < 60 for *_, text in labels)
    assert "changed: <i> 1" in [text for *_, text in labels]


def test_an_empty_funnel_has_a_figure() -> None:
    empty = funnel_json([SourceFunnel("nothing")], ["read", "cleaned", "kept", "train", "validation"])
    _, labels = drawn(sankey_svg(empty))
    assert [text for side, _, text in labels if side == "left"][-2:] == ["kept  0  –", "0 B"]
    assert "kept" in printed(funnel_table(empty))


def test_the_beginning_of_a_path_is_clipped_and_the_end_of_a_name() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("abcdef", 4) == "abc…"
    assert clip("/data/wiki/a.jsonl", 9) == "…/a.jsonl"
    assert clip("日本語の本", 7) == "日本語…"
    assert LABELS > OUT


@given(st.lists(st.one_of(st.integers(0, 5000), st.integers(0, 2**45)), min_size=1, max_size=300))
@settings(max_examples=60)
def test_quantiles_are_within_a_thousandth(values: list[int]) -> None:
    found = Lengths()
    for start in range(0, len(values), 7):
        found.add(np.array(values[start : start + 7], np.int64))
    for part in (0.01, 0.25, 0.5, 0.95, 1.0):
        true = int(np.quantile(np.array(values), part, method="inverted_cdf"))
        assert abs(found.quantile(part) - true) <= true / 1024
    shown = found.as_json()
    assert (shown["min"], shown["max"]) == (min(values), max(values))
    assert shown["mean"] == pytest.approx(sum(values) / len(values), abs=0.01)


def test_statistics_are_those_of_the_documents(run: Path) -> None:
    found = corpus_statistics(run / "corpus")
    corpus = open_corpus(run)
    documents = [document for _, document in sample_passages(corpus, 1000)[0]]
    assert len(documents) == 120
    sizes = [len(document.text.encode()) for document in documents]
    words = [len(document.text.split()) for document in documents]
    assert sum(each["bytes"] for each in found["splits"].values()) == sum(sizes)
    assert found["splits"]["validation"]["passages"] == 2
    for key, name in (("sources", "mixture"), ("languages", "language")):
        for value, tally in found[key].items():
            chosen = [i for i, document in enumerate(documents) if (getattr(document, name) or "unknown") == value]
            assert tally == {
                "passages": len(chosen), "bytes": sum(sizes[i] for i in chosen), "words": sum(words[i] for i in chosen),
            }  # fmt: skip
    assert {name: tally["passages"] for name, tally in found["licences"].items()} == {"MIT": 48, "unknown": 72}
    assert found["lengths"]["bytes"]["p50"] == int(np.quantile(sizes, 0.5, method="inverted_cdf"))
    assert found["lengths"]["words"]["max"] == max(words)
    assert sum(found["quality"]["counts"]) == found["quality"]["counts"][3] == 70
    assert found["quality"]["unknown"] == 50
    by_file: Counter[str] = Counter()
    for document, length in zip(documents, sizes, strict=True):
        by_file[document.source] += length
    assert [(each["file"], each["bytes"]) for each in found["largest_files"]][:3] == by_file.most_common(3)
    assert removed_as_repeated(corpus.funnel) == {
        "exact_duplicates": {"documents": 0, "bytes": 0},
        "lines": {"documents": 0, "bytes": 0, "documents shortened": 5, "lines removed": 9},
        "near_duplicates": {"documents": 1, "bytes": 800},
    }


def test_few_of_many_files_are_kept_in_mind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.stats.FILES", 40)
    documents = made.rows("texts", 400, 1)
    for part in range(4):
        made.write_split(tmp_path / "documents", "train", part, documents[part * 100 : part * 100 + 100])
    made.write_split(tmp_path / "documents", "validation", 0, made.rows("texts", 1, 1))
    found = corpus_statistics(tmp_path)["largest_files"]
    assert [each["file"] for each in found] == [f"texts/{number}.txt" for number in range(79, 69, -1)]
    assert found[0]["passages"] == 5


def test_every_passage_is_as_likely_as_any_other(run: Path) -> None:
    corpus = open_corpus(run)
    counts: Counter[str] = Counter()
    for seed in range(150):
        found, total = sample_passages(corpus, 20, seed=seed)
        keys = [f"{document.mixture} {split} {document.record}" for split, document in found]
        assert len(set(keys)) == 20
        counts.update(keys)
    assert total == len(counts) == 120
    # Chi-squared on 119 degrees of freedom is above 178 once in 3,000 times; drawing without replacement lowers it.
    expected = 150 * 20 / 120
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 178
    assert sample_passages(corpus, 20, seed=1) == sample_passages(corpus, 20, seed=1)


def test_passages_of_a_source_and_with_a_text(run: Path) -> None:
    corpus = open_corpus(run)
    found, total = sample_passages(corpus, 500, source="web")
    assert total == len(found) == 70
    assert {document.mixture for _, document in found} == {"web"}
    found, total = sample_passages(corpus, 500, search="W04")
    assert total == 18
    assert {document.text.split()[0] for _, document in found} == {f"w{number:03d}" for number in range(40, 50)}
    assert sample_passages(corpus, 5, source="texts", search="w060") == ([], 0)
    with pytest.raises(UserError, match="did you mean 'web'"):
        sample_passages(corpus, 1, source="wep")


def test_refused_examples_come_one_of_each_rule_in_turn(run: Path) -> None:
    corpus = open_corpus(run)
    found, total = sample_rejections(corpus, 4)
    assert total == 1 + 11 + 20 + 1 + 1
    assert len({(each.step, each.rule) for each in found}) == 4
    assert len(sample_rejections(corpus, 99)[0]) == total
    found, total = sample_rejections(corpus, 99, rule="language")
    assert total == 20  # the examples kept of 30
    assert {each.documents for each in found} == {30}
    assert sample_rejections(corpus, 99, rule="min_words")[1] == 12
    assert sample_rejections(corpus, 99, rule="gopher_quality/min_words", source="web")[1] == 1
    assert [each.text for each in sample_rejections(corpus, 9, search="NUMBER 7")[0]] == ["Too short, number 7."]
    for wrong in ("min_word", "c4/min_words"):
        with pytest.raises(UserError, match="min_words"):
            sample_rejections(corpus, 1, rule=wrong)


def test_limits_are_the_recipes() -> None:
    section = CorpusSection.model_validate(
        {
            "filters": {
                "gopher_quality": {"min_words": 40},
                "language": {"keep": ["en"]},
                "bad_words": {"files": ["en"]},
            },
            "dedup": {"near": {"threshold": 0.8}},
            "decontaminate": {},
        }
    )
    assert limits(section, "gopher_quality", "min_words") == {"corpus.filters.gopher_quality.min_words": 40}
    assert limits(section, "language", "language") == {"corpus.filters.language.keep": ["en"]}
    assert limits(section, "bad_words", "bad_words")["corpus.filters.bad_words.files"] == ["en"]
    assert limits(section, "near_duplicates", "near_duplicate")["corpus.dedup.near.threshold"] == 0.8
    assert limits(section, "exact_duplicates", "exact_duplicate") == {"corpus.dedup.exact": True}
    assert limits(section, "contamination", "gsm8k")["corpus.decontaminate.ngram"] == 13
    assert limits(section, "lines", "gopher_quality/min_words") == {"corpus.filters.gopher_quality.min_words": 40}
    assert limits(section, "read", "binary_file") == limits(section, "c4", "no_lines") == {}


def test_no_corpus_is_a_users_error(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        open_corpus(tmp_path)
    (tmp_path / "recipe.toml").write_text((run / "recipe.toml").read_text())
    with pytest.raises(UserError, match="has no corpus yet"):
        open_corpus(tmp_path)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "funnel.json").write_text('{"version": 1}')
    with pytest.raises(UserError, match="another version"):
        open_corpus(tmp_path)
