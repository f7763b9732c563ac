"""groundup show of what is no decoder of this package's own making: translators, and checkpoints of others."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest

from groundup.cli import command_line
from groundup.cli.encoder_decoder import describe_encoder_decoder
from groundup.inference import Translator
from groundup.model import EncoderDecoder, EncoderDecoderArchitecture, encoder_decoder_flops
from groundup.recipe import dump_toml, load_recipe, parse_recipe
from groundup.run import now, write_manifest
from groundup.tokenizer.words import WordVocabulary

MADE = Path(__file__).parents[1] / "build" / "made_checkpoint.py"
TABLES = {"shared": (40, 40), "tied": (40, 30), "separate": (40, 30)}


def show(capsys, *arguments):
    """What the command prints."""
    capsys.readouterr()
    assert command_line(["show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def small(**changes):
    shape = {"layers": 2, "hidden_size": 16, "heads": 2, "intermediate_size": 24, "context_length": 20}
    return EncoderDecoderArchitecture(**{**shape, "source_vocabulary": 40, "target_vocabulary": 40, **changes})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder made by transformers: Qwen 3 of 2 layers of 32 channels, 323 rows."""
    pytest.importorskip("transformers")
    return runpy.run_path(str(MADE))["checkpoint"]("qwen3", tmp_path_factory.mktemp("sources") / "tiny-qwen3")


@pytest.fixture
def translated(tmp_path):
    """A run whose translator is trained."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(dump_toml(load_recipe("seq2seq", ())))
    words = WordVocabulary.learn("words", ["the old dog sees the cat ."], 100)
    arch = small(source_vocabulary=len(words), target_vocabulary=len(words))
    Translator(EncoderDecoder(arch), words, words).save(run / "seq2seq" / "final")
    write_manifest(
        run / "seq2seq", stage="seq2seq", kind="seq2seq", fingerprint="0", inputs={}, metrics={}, started=now()
    )
    return run, arch


@pytest.mark.parametrize("embeddings", TABLES)
@pytest.mark.parametrize("context", [1, 20])
def test_the_parts_of_a_translator_add_up(embeddings, context):
    source, target = TABLES[embeddings]
    arch = small(embeddings=embeddings, source_vocabulary=source, target_vocabulary=target)
    record = describe_encoder_decoder(arch, context)
    assert record["parameters"]["total"] == sum(weight.numel() for weight in EncoderDecoder(arch).parameters())
    stacks = [record["encoder"], record["decoder"]]
    assert record["flops_per_pair"] == encoder_decoder_flops(arch, context, context, 1)
    assert arch.layers * sum(stack["flops"] for stack in stacks) + record["head_flops"] == pytest.approx(
        record["flops_per_pair"], rel=1e-12
    )
    for stack in stacks:
        inside = sum(row["flops"] for row in stack["parts"])
        assert stack["flops"] == inside + sum(stack["score_flops"].values())
    # Keys and values of 16 channels in 2 layers, 2 bytes each.
    assert record["cache_bytes_per_word"] == 2 * 2 * 2 * 16


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_recipe_of_translation_is_drawn(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = show(capsys, "seq2seq")
    lines = text.splitlines()
    width = max(60, min(columns, 100))
    assert max(map(len, lines)) <= width
    assert {len(line) for line in lines if line[:1] in "╭╰" or line.endswith("│")} == {width}
    assert lines[0] == "recipe seq2seq"
    order = r"encoder: |decoder: |├─╮|⊕─╯|LayerNorm|masked multi|multi-head attention to|multi-head|feed-forward"
    assert re.findall(order, text) == [
        *("encoder: ", "├─╮", "multi-head", "⊕─╯", "LayerNorm", "├─╮", "feed-forward", "⊕─╯", "LayerNorm"),
        *("decoder: ", "├─╮", "masked multi", "⊕─╯", "LayerNorm", "├─╮", "multi-head attention to", "⊕─╯"),
        *("LayerNorm", "├─╮", "feed-forward", "⊕─╯", "LayerNorm"),
    ]
    said = " ".join(text.split())
    assert "401.7 MFLOPs a pair of sentences of 64 words each" in said
    assert "as in the first 2,000 sentence pairs of each source" in said
    assert re.search(r"embed_target +128 → 364, tied +17\.89M", text)
    assert columns == 40 or re.search(r"embed_target +364 × 128, of both +46\.59k", text)


def test_a_trained_translator_is_drawn_as_it_is(capsys, translated):
    run, arch = translated
    record = json.loads(show(capsys, run, "--json"))
    assert record["kind"] == "encoder-decoder"
    assert record["name"] == f"{run}, stage seq2seq"
    assert EncoderDecoderArchitecture.model_validate(record["architecture"]) == arch
    assert json.loads(show(capsys, run, "--stage", "seq2seq", "--json")) == record
    assert json.loads(show(capsys, run / "seq2seq" / "final", "--json"))["architecture"] == record["architecture"]
    assert "not trained yet" not in show(capsys, run)
    (run / "seq2seq" / "manifest.json").unlink()
    assert show(capsys, run).startswith(f"{run}, not trained yet\nparameters  969,216")
    (run / "seq2seq" / "final" / "config.json").write_text('{"groundup": {"encoder_decoder": {"layers": 0}}}')
    assert command_line(["show", str(run / "seq2seq" / "final")]) == 2
    assert "config.json describes no encoder-decoder" in capsys.readouterr().err


def test_a_vocabulary_that_can_not_be_counted_is_the_largest_allowed(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[seq2seq]\ndata = ["nowhere.tsv"]\nsteps = 1\nmax_vocabulary = 500\nmodel = { embeddings = "tied" }\n'
    )
    record = json.loads(show(capsys, path, "--json"))
    assert {row["name"]: row["shape"][0] for row in record["embedding"]} == {
        "embed_target.weight": 500,
        "embed_source.weight": 500,
    }
    assert "counted with max_vocabulary" in record["notes"]["vocabulary"]


def test_a_recipe_that_imports_shows_its_checkpoint(capsys, checkpoint, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f"[import]\nsource = '{checkpoint}'\n[model]\nlayers = 9\n")
    record = json.loads(show(capsys, path, "--json"))
    assert (record["architecture"]["layers"], record["architecture"]["hidden_size"]) == (2, 32)
    assert record["notes"] == {"checkpoint": f"qwen3, from {checkpoint}"}
    assert json.loads(show(capsys, checkpoint, "--json"))["architecture"] == record["architecture"]


def test_without_its_checkpoint_a_recipe_has_no_shape(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line(["show", "finetune"]) == 2
    message = capsys.readouterr().err
    assert "recipe finetune: the shape is that of the checkpoint, and there is none in 'checkpoint/'" in message


def test_a_run_shows_what_was_imported(capsys, checkpoint, tmp_path):
    source, run = shutil.copytree(checkpoint, tmp_path / "source"), tmp_path / "run"
    assert command_line(["import", str(source), "--out", str(run)]) == 0
    shutil.rmtree(source)
    text = show(capsys, run)
    assert text.startswith(f"{run}, stage import\n")
    assert "imported    qwen3, bfloat16, 283 tokens in 323 rows, from" in text
    notes = json.loads(show(capsys, run, "--json"))["notes"]
    assert notes == {"imported": f"qwen3, bfloat16, 283 tokens in 323 rows, from {source}"}
    shutil.rmtree(run / "import")
    recipe = parse_recipe((run / "recipe.toml").read_text())
    (run / "recipe.toml").write_text(dump_toml(recipe))
    assert command_line(["show", str(run)]) == 2
    assert "the shape is that of the checkpoint" in capsys.readouterr().err
