"""A run and the source of its import: what the run still needs of it, and what it does without."""

import runpy
import shutil
from pathlib import Path

import pytest

from groundup.build import build, verify
from groundup.recipe import parse_recipe
from groundup.run import UserError

pytest.importorskip("transformers")
MADE = runpy.run_path(str(Path(__file__).with_name("made_checkpoint.py")))


@pytest.fixture
def source(tmp_path):
    return MADE["checkpoint"]("gpt2", tmp_path / "source")


def recipe_of(source, more=""):
    return parse_recipe(f"[import]\nsource = '{source}'\n{more}[hardware]\ndevice = 'cpu'\nprecision = 'fp32'\n")


def written(run):
    return parse_recipe((run / "recipe.toml").read_text())


def test_a_finished_import_does_without_its_source(source, tmp_path, monkeypatch):
    run = tmp_path / "run"
    recipe = recipe_of(source)
    build(recipe, run)
    digest = written(run).import_.sha256
    shutil.rmtree(source)
    for each in (recipe, written(run)):
        assert build(each, run).skipped == ("import", "tokenizer")
        assert written(run).import_.sha256 == digest
    monkeypatch.chdir(tmp_path)
    assert build(recipe_of("source"), run).skipped == ("import", "tokenizer")  # the same place by another name
    with pytest.raises(UserError, match="no directory"):
        build(recipe_of(tmp_path / "another"), run)


@pytest.mark.parametrize("gone", ["model.safetensors", "tokenizer.json", "config.json"])
def test_files_that_are_gone_are_not_missed(source, tmp_path, gone):
    run = tmp_path / "run"
    recipe = recipe_of(source)
    build(recipe, run)
    (source / gone).unlink()
    for each in (recipe, written(run)):
        assert build(each, run).skipped == ("import", "tokenizer")
    with pytest.raises(UserError):
        build(written(run), run, fresh=True)
    assert verify(run).stages == ("import", "tokenizer")  # what can't be made again was not removed
    with pytest.raises(UserError):
        build(recipe, tmp_path / "another")  # where nothing is imported


def test_an_interrupted_import_needs_its_source(source, tmp_path):
    run = tmp_path / "run"
    build(recipe_of(source), run)
    shutil.rmtree(run / "import")
    (source / "model.safetensors").unlink()
    for recipe in (recipe_of(source), written(run)):
        with pytest.raises(UserError, match=r"no model\.safetensors"):
            build(recipe, run)


def test_files_that_have_changed_are_no_less_refused(source, tmp_path):
    run = tmp_path / "run"
    build(recipe_of(source), run)
    (source / "config.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        build(written(run), run)


def test_a_vocabulary_that_is_gone_is_not_missed(source, tmp_path):
    words = (source / "tokenizer.json").rename(tmp_path / "words.json")
    run = tmp_path / "run"
    recipe = recipe_of(source, f"tokenizer = '{words}'\n")
    build(recipe, run)
    words.unlink()
    assert build(recipe, run).skipped == ("import", "tokenizer")
    with pytest.raises(UserError, match="no vocabulary here"):
        build(recipe_of(source), run)  # asks for another one
