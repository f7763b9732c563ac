"""The ladder's chapter: it shows what was foretold and found, and is not there where no ladder is."""

import io
import re
import shutil

import pypdf
import pytest

from groundup.book.build import gather, typeset
from groundup.book.ladder import drawn
from groundup.build import build, verify
from groundup.planning import fit_law
from groundup.recipe import BookSection, parse_recipe
from groundup.run import read_json, read_manifest

RECIPE = """
[run]
name = "rungs"
[corpus]
sources = [{ path = "builtin:storyworld", documents = 200 }]
validation_fraction = 0.1
[tokenizer]
vocabulary_size = 512
[model]
layers = 1
hidden_size = 24
heads = 1
kv_heads = 1
intermediate_size = 64
context_length = 64
[ladder]
rungs = [
    { layers = 1, hidden_size = 8, seeds = 2 },
    { layers = 1, hidden_size = 12 },
    { layers = 1, hidden_size = 16 },
    { layers = 1, hidden_size = 20 },
    { name = "last", layers = 2, hidden_size = 24 },
]
tokens_per_parameter = 0.5
tokens_per_update = 1024
log_every = 1
validate_every = 0
[book]
[hardware]
device = "cpu"
precision = "fp32"
compile = false
threads = 1
"""


@pytest.fixture(scope="module")
def ladder_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("ladder") / "run"
    recipe = parse_recipe(RECIPE)
    report = build(recipe, run)
    assert report.built == ("corpus", "tokenizer", "ladder", "book")
    return run, recipe


def pages_of(pdf):
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages]


def test_the_chapter_shows_what_was_foretold_and_found(ladder_run):
    run, _ = ladder_run
    pages = pages_of((run / "book" / "book.pdf").read_bytes())
    found = read_json(run / "ladder" / "ladder.json")
    last = found["rungs"][-1]
    text = re.sub(r"\s+", " ", "\n".join(pages))
    assert "The ladder" in pages[1]
    for value in (last["prediction"]["value"], last["outcome"]["value"], last["prediction"]["high"]):
        assert f"{value:.4f}" in text
    assert ("outside the interval" in text) is (not last["outcome"]["inside"])
    assert last["prediction"]["written"][:19].replace("T", " ") in text
    assert f"{last['multiplying']:,}" in text
    assert f"{last['parameters']:,}" in pages[0]  # the model that the book describes is the largest rung
    for absent in ("Pretraining", "What it can do", "In its own words"):
        assert absent not in pages[1]


def test_a_run_with_a_ladder_is_whole(ladder_run):
    run, recipe = ladder_run
    assert verify(run).problems == ()
    files = read_manifest(run / "ladder").files
    assert "rungs/last/final/model.safetensors" in files
    assert "rungs/last/prediction.json" in files
    assert not any("checkpoints" in name for name in files)
    assert build(recipe, run).built == ()


def test_a_ladder_that_is_not_done_leaves_no_chapter(ladder_run, tmp_path):
    run, recipe = ladder_run
    part = tmp_path / "part"
    for name in ("corpus", "tokenizer"):
        shutil.copytree(run / name, part / name)
    shutil.copy(run / "run.json", part / "run.json")
    content = gather(BookSection(), part, recipe)
    assert content["ladders"] == []
    pdf, _ = typeset(content)
    assert "The ladder" not in "".join(pages_of(pdf))


def test_a_law_is_drawn_with_its_band_and_without_where_there_is_none():
    compute = [1e12, 4e12, 1.6e13, 6.4e13]
    bare = drawn(fit_law(compute[:3], [[3.0], [2.5], [2.2]]), 1e12, 1e14)
    assert bare["band"] == []
    assert len(bare["line"]) == 60
    known = drawn(fit_law(compute, [[3.0], [2.5], [2.2], [2.0]]), 1e12, 1e14)
    assert len(known["band"]) == 60
    assert all(low <= value <= high for (_, low, high), (_, value) in zip(known["band"], known["line"], strict=True))
