"""What is no checkpoint, or none that can become a run, is refused by its name, before anything is written."""

import json
import runpy
import shutil
from pathlib import Path

import pytest

from groundup.build import build
from groundup.recipe import parse_recipe
from groundup.run import UserError, read_json

pytest.importorskip("transformers")
MADE = runpy.run_path(str(Path(__file__).with_name("made_checkpoint.py")))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return MADE["checkpoint"]("gpt2", tmp_path_factory.mktemp("sources") / "gpt2")


def recipe_of(source):
    return parse_recipe(f"[import]\nsource = '{source}'\n[hardware]\ndevice = 'cpu'\nprecision = 'fp32'\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("meta-llama/Llama-3.2-1B", r"hf download meta-llama/Llama-3.2-1B --local-dir Llama-3.2-1B`"),
        ("hf://openai-community/gpt2", r"hf download openai-community/gpt2 --local-dir gpt2`"),
        ("gpt2", "nothing is downloaded"),
        ("/nowhere/at all", "no directory '/nowhere/at all'"),
    ],
)
def test_a_name_is_no_directory(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        build(recipe_of(source), tmp_path / "run")
    assert ("hf download" in str(caught.value)) == (" " not in source)


def test_what_is_no_checkpoint_is_refused_before_anything_is_written(gpt2, tmp_path):
    def refused(source, match):
        with pytest.raises(UserError, match=match):
            build(recipe_of(source), tmp_path / "run")
        assert not (tmp_path / "run" / "import").exists()

    refused(tmp_path, "no config.json")
    source = shutil.copytree(gpt2, tmp_path / "source")
    refused(source / "config.json", "is a file, not a directory")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    refused(source, "weights in a pickle are refused")
    (source / "pytorch_model.bin").rename(source / "model.safetensors")
    (source / "tokenizer_config.json").write_text("{")
    refused(source, "not JSON")
    (source / "tokenizer.json").rename(source / "other.json")
    refused(source, "no vocabulary here")
    words = read_json(source / "other.json")
    words["model"]["type"] = "Unigram"
    (source / "tokenizer.json").write_text(json.dumps(words))
    refused(source, "the model is 'Unigram'")


def test_a_vocabulary_of_more_ids_than_rows_is_refused(gpt2, tmp_path):
    source = shutil.copytree(gpt2, tmp_path / "source")
    words = read_json(source / "tokenizer.json")
    last = max(token["id"] for token in words["added_tokens"])
    words["added_tokens"].append(words["added_tokens"][-1] | {"content": "<|more|>", "id": last + 1})
    (source / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(UserError, match=r"(?s)has \d+ ids and the weights \d+ rows.*<\|more\|> \d+"):
        build(recipe_of(source), tmp_path / "run")
    assert not (tmp_path / "run" / "import").exists()
