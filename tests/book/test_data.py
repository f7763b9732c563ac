"""The data chapter: what was on, what it did in this run, and nothing of what was off."""

import io
import re
import runpy
from pathlib import Path

import pypdf
import pytest

from groundup.book.build import gather, typeset
from groundup.book.policy import compared, policy, refused_examples, repetitions
from groundup.corpus.look import open_corpus
from groundup.corpus.report import steps
from groundup.recipe import BookSection, CorpusSection, load_recipe
from groundup.run import now, write_manifest

MADE = runpy.run_path(str(Path(__file__).parents[1] / "corpus" / "finished.py"))
EVERYTHING = """
[run]
name = "all"
seed = 3
[corpus]
sources = ["texts", "web"]
[corpus.filters.language]
keep = ["en", "de"]
[corpus.filters.length]
max_words = 12345
[corpus.filters.symbols]
[corpus.filters.gopher_repetition]
[corpus.filters.gopher_quality]
min_words = 40
[corpus.filters.c4]
[corpus.filters.fineweb]
[corpus.filters.bad_words]
files = ["words.txt"]
[corpus.filters.classifier]
positive = ["good.txt"]
negative = ["bad.txt"]
[corpus.personal_data]
[corpus.dedup]
against = ["runs/before"]
[corpus.dedup.boilerplate]
[corpus.dedup.lines]
unit = "paragraph"
[corpus.dedup.near]
bands = 9
rows = 13
threshold = 0.75
[corpus.decontaminate]
[book]
"""
NOTHING = """
[run]
name = "none"
[corpus]
sources = ["texts", "web"]
[corpus.dedup]
exact = false
[book]
"""


def chapter(run):
    """The text of the book of a run that has nothing but its corpus, and what it was made from."""
    made_of = {"stage": "corpus", "kind": "corpus", "fingerprint": "f" * 64, "inputs": {}, "metrics": {}}
    write_manifest(run / "corpus", started=now(), **made_of)
    content = gather(BookSection(), run, load_recipe(run / "recipe.toml"))
    pdf, _ = typeset(content)
    pages = [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages]
    return " ".join(" ".join(pages).split()).replace("\u200b", ""), content["corpus"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return chapter(MADE["make_run"](tmp_path_factory.mktemp("whole"), EVERYTHING))


def test_every_step_that_was_on_is_explained(whole):
    text, content = whole
    for heading in (
        "The sources", "What is refused, and by which rule", "Which languages are kept", "Words on lists",
        "Text unlike good examples", "Examples of what was refused", "Personal data", "Repetitions", "Lines of a site.",
        "Shared paragraphs.", "Nearly equal texts.", "Tests among the texts", "Passages, and the two sides",
    ):  # fmt: skip
        assert heading in text
    assert "for the 9 bands of 13 hashes of this run" in text
    assert f"<0.1 % at 𝑠=0.3, 0.1 % at 𝑠=0.5, {100 * (1 - (1 - 0.75**13) ** 9):.1f} % at 𝑠=0.75" in text
    assert "Here 1 of 119 documents went." in text
    assert "The corpora of 1 earlier run counted as read before" in text
    assert "12,345" in text
    assert "Rae et al. 2021" in text
    assert "2112.11446" in text
    assert re.search(r"gopher quality, 12 documents measured \d+\.\d+; recipe 40", text)
    assert "e-mail addresses" in text
    assert "quiz.jsonl 40 6 2 3" in text
    assert "Looked for and not found: keys and tokens" in text
    assert "118 passages to train on" in text
    assert content["figure"].startswith("<svg")


def test_what_was_off_is_not_mentioned(tmp_path):
    text, content = chapter(MADE["make_run"](tmp_path, NOTHING))
    for absent in (
        "What is refused, and by which rule",
        "Personal data",
        "Repetitions",
        "Tests among",
        "MinHash",
        "Gopher",
    ):
        assert absent not in text.replace("Examples of what was refused", "")
    assert content["policy"] == []
    assert content["personal"] is None
    assert content["contamination"] is None
    assert content["repetitions"]["near"] is None
    assert "Passages, and the two sides" in text


def test_a_policy_is_the_recipes_with_what_its_rules_refused(whole):
    _, content = whole
    by_name = {filter_["name"]: filter_ for filter_ in content["policy"]}
    order = "language c4 length symbols gopher_repetition gopher_quality fineweb bad_words classifier"
    assert list(by_name) == order.split()
    words = next(setting for setting in by_name["gopher_quality"]["settings"] if setting["name"] == "min_words")
    assert (words["value"], words["documents"]) == ("40", 12)
    kept = next(setting for setting in by_name["language"]["settings"] if setting["name"] == "keep")
    assert (kept["value"], kept["documents"]) == ("en, de", 30)
    assert "max_characters" not in {setting["name"] for setting in by_name["length"]["settings"]}


def test_examples_are_of_each_rule_and_in_the_order_of_the_steps(tmp_path):
    corpus = open_corpus(MADE["make_run"](tmp_path))
    found = refused_examples(corpus, seed=1)
    assert [(each["step"], each["rule"], each["documents"]) for each in found] == [
        ("read", "binary_file", 1),
        ("language", "language", 30),
        ("gopher_quality", "min_words", 12),
        ("near_duplicates", "near_duplicate", 1),
    ]
    assert found[2]["asked"] == {"min_words": "40"}
    assert found[1]["cut"]
    assert found == refused_examples(corpus, seed=1)


def test_the_curve_of_the_bands():
    assert compared(0.0, 18, 6) == 0.0
    assert compared(1.0, 18, 6) == 1.0
    # By counting: two bands of one hash each miss with probability (1 - s)^2.
    assert compared(0.3, 2, 1) == pytest.approx(1 - 0.7 * 0.7)
    section = CorpusSection.model_validate(
        {"dedup": {"near": {"bands": 4, "rows": 5, "hashes": 100, "threshold": 0.6}}}
    )
    found = repetitions(section, [])
    assert found["near"]["curve"][80] == [0.8, pytest.approx(1 - (1 - 0.8**5) ** 4)]
    assert found["near"]["error"] == pytest.approx((0.6 * 0.4 / 100) ** 0.5)
    assert found["exact"]["documents"] == 0
    assert policy(section, []) == []


def test_chapter_of_the_smallest_recipe_stays_short(tiny_run):
    run, recipe = tiny_run
    content = gather(BookSection(), run, recipe)["corpus"]
    funnel = open_corpus(run).funnel
    passed = [step.name for step in steps(funnel["total"], funnel["steps"])]
    assert passed == [step["name"] for step in content["steps"]] == ["read", "cleaned", "exact_duplicates", "kept"]
    assert content["refused"] == content["policy"] == []
    assert content["figure"].count("<text") < 12
