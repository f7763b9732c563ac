"""The book of a run: what it gathers is what the run says, and every template compiles for full and for bare runs."""

import inspect
import io
import json
import math
import shutil

import numpy as np
import pypdf
import pytest
import torch

from groundup.book import build_book
from groundup.book.build import gather, typeset
from groundup.book.curves import _curve, _samples, picture
from groundup.book.listings import SHOWN, listings
from groundup.book.scores import _fault
from groundup.book.shape import _mentions, _spread, _tokens_before
from groundup.interchange import load_model
from groundup.model import attend_reference
from groundup.recipe import BookSection
from groundup.run import read_json, read_manifest
from groundup.tokenizer import Tokenizer


def pages_of(pdf):
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages]


def test_whole_run_gives_a_book_with_its_numbers(tiny_run):
    run, _ = tiny_run
    pages = pages_of((run / "book" / "book.pdf").read_bytes())
    manifest = read_manifest(run / "book")
    assert len(pages) == manifest.metrics["pages"] >= 12
    text = "\n".join(pages)
    parameters = read_manifest(run / "pretrain").metrics["parameters"]
    assert f"{parameters:,}" in pages[0]
    assert "A. Writer" in pages[0]
    for chapter in ("The data", "The tokenizer", "The model", "Pretraining", "Learning to answer"):
        assert chapter in pages[1]
    for chapter in ("Learning what is preferred", "What it can do", "In its own words", "Taking it elsewhere"):
        assert chapter in pages[1]
    assert "Once *upon* #a time" in text
    weights = read_manifest(run / "dpo").files["final/model.safetensors"]["sha256"]
    assert weights in text
    assert f"{read_json(run / 'pretrain' / 'manifest.json')['metrics']['loss']:.3f}" in text


def test_own_text_gives_a_sound_book_without_the_missing_chapters(own_run):
    run, _ = own_run
    pages = pages_of((run / "book" / "book.pdf").read_bytes())
    text = "\n".join(pages)
    assert len(pages) >= 12
    assert "Of #my *own* $texts" in pages[0]
    for absent in (
        "Learning to answer",
        "Learning what is preferred",
        "story world",
        "Taking it elsewhere",
        "Muon keeps",
    ):
        assert absent not in text
    assert "⟨U+4F60⟩" in text
    assert "learned positions" in text
    content = read_json(run / "book" / "book.json")
    assert content["world"] is None
    assert content["answered"] == []
    assert [set(row) >= {"prompt", "answer", "truth"} for row in content["continued"]]


@pytest.mark.parametrize("missing", ["export", "sft", "pretrain", "tokenizer", "corpus"])
def test_a_run_that_stopped_early_still_has_a_book(tiny_run, tmp_path, missing):
    run, recipe = tiny_run
    order = ["corpus", "tokenizer", "pretrain", "sft", "dpo", "evaluate", "export"]
    part = tmp_path / "part"
    for name in order[: order.index(missing)]:
        shutil.copytree(run / name, part / name)
    shutil.copy(run / "run.json", part / "run.json") if part.exists() else part.mkdir()
    content = gather(BookSection(), part, recipe)
    pdf, pages = typeset(content)
    assert len(pages_of(pdf)) == pages >= 3


def test_the_same_run_gives_the_same_book(tiny_run, tmp_path):
    run, recipe = tiny_run
    metrics = build_book(recipe.book, run=run, recipe=recipe, out=tmp_path)
    assert (tmp_path / "book.pdf").read_bytes() == (run / "book" / "book.pdf").read_bytes()
    assert (tmp_path / "book.json").read_bytes() == (run / "book" / "book.json").read_bytes()
    assert metrics["bytes"] == (tmp_path / "book.pdf").stat().st_size


def test_what_is_gathered_agrees_with_the_run(tiny_run):
    run, recipe = tiny_run
    content = read_json(run / "book" / "book.json")
    funnel = read_json(run / "corpus" / "funnel.json")["total"]["steps"]
    corpus = content["corpus"]
    assert [step["name"] for step in corpus["steps"]] == ["read", "cleaned", "exact_duplicates", "kept"]
    assert all(step["documents"] == funnel[step["name"]]["documents"] for step in corpus["steps"])
    assert corpus["splits"] == {split: funnel[split] for split in ("train", "validation")}
    tool = Tokenizer.load(run / "tokenizer")
    token = content["tokenizer"]
    assert tool.decode([each["id"] for each in token["tokens"]]) == token["sentence"]
    final = token["steps"]["states"][-1]["pieces"]
    assert "".join(final) == token["steps"]["word"]
    model = load_model(run / "dpo" / "final")
    assert content["model"]["total"] == sum(weight.numel() for weight in model.parameters())
    assert sum(part["parameters"] for part in content["model"]["parts"]) == content["model"]["total"]
    assert sum(row["parameters"] for row in content["model"]["tensors"]) == content["model"]["total"]
    results = read_json(run / "evaluate" / "results.json")
    table = next(task for task in content["evaluation"][0]["tasks"] if task["task"] == "storyworld_qa")
    for row in table["rows"]:
        for split, cell in zip(table["splits"], row["cells"], strict=True):
            assert cell == results[row["name"]]["storyworld_qa"][split]
    assert content["evaluation"][0]["expectations"][0]["met"] is True
    dpo = next(stage for stage in content["training"] if stage["kind"] == "dpo")
    assert dpo["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    conversation = content["conversations"]["sft"]
    assert any(each["learned"] for each in conversation["tokens"])
    assert not conversation["tokens"][0]["learned"]
    assert len(content["answered"]) == 11
    json.dumps(content, allow_nan=False)


def test_listings_are_the_source_as_it_stands():
    shown = listings()
    assert shown.keys() == SHOWN.keys()
    entry = shown["attend_reference"]
    assert entry["source"] == inspect.getsource(attend_reference).rstrip()
    assert entry["file"] == "groundup/model/attend.py"
    lines = inspect.getsourcelines(attend_reference)
    assert entry["line"] == lines[1]
    assert shown["rms_norm"]["source"].startswith("def forward(self, x: Tensor)")


def test_long_curves_are_thinned_by_means():
    rows = [{"step": step, "loss": float(step)} for step in range(1, 1001)] + [{"step": 1001, "loss": math.nan}]
    curve = _curve(rows, "loss")
    assert len(curve) == 300
    assert curve[0] == [4.0, 2.5]
    assert curve[-1][0] == 1000
    assert _curve(rows[:3], "loss") == [[1, 1.0], [2, 2.0], [3, 3.0]]


def test_samples_are_spread_from_first_to_last():
    rows = [
        {"step": step, "prompt": prompt, "completion": f"{prompt}{step}\n\n\nend"}
        for step in range(10, 510, 10)
        for prompt in "ab"
    ]
    found = _samples(rows)
    assert [each["prompt"] for each in found] == ["a", "b"]
    steps = [each["step"] for each in found[0]["texts"]]
    assert steps[0] == 10
    assert steps[-1] == 500
    assert len(steps) == 4
    assert found[0]["texts"][0]["text"] == "a10\nend"


def test_masks_become_bounded_pictures():
    mask = torch.ones(600, 600, dtype=torch.bool).tril()
    shown = picture(mask)
    assert shown["size"] == 200
    grid = np.array(shown["map"]).reshape(200, 200)
    assert grid[0, 1] == 255
    assert grid[1, 0] < 255
    assert _spread(3, 8) == [0, 1, 2]
    assert _spread(32, 8) == [0, 4, 9, 13, 18, 22, 27, 31]


def test_places_of_a_word_in_tokens(tiny_run):
    run, _ = tiny_run
    tool = Tokenizer.load(run / "tokenizer")
    ids = tool.encode("Mia is in the garden. The garden is big.")
    places = _mentions(tool, ids, "garden")
    assert tool.decode([ids[place] for place in places]).split() == ["garden", "garden"]
    before = _tokens_before(tool, ids, "Mia is in the garden. The garden is big.".index("garden"))
    assert tool.decode(ids[:before]) == "Mia is in the"


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"scores": {"storyworld_qa": True}, "finished": True, "verdict": {}}, "right"),
        ({"scores": {"storyworld_qa": False}, "finished": False, "verdict": {}}, "did not end"),
        (
            {"scores": {"storyworld_qa": False}, "finished": True, "verdict": {"abstains": True, "claim": None}},
            "said the story does not say",
        ),
        (
            {"scores": {"storyworld_qa": False}, "finished": True, "verdict": {"abstains": False, "claim": "red"}},
            "named another candidate",
        ),
    ],
)
def test_wrong_answers_are_named(record, fault):
    assert _fault(record) == fault
