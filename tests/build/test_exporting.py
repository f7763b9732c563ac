"""Models out of a run: what is refused before anything is made, what is replaced, and what becomes of an import."""

import base64
import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from groundup.build import build, import_facts, open_run
from groundup.build.exporting import require_exportable
from groundup.build.stages import ADAPTERS
from groundup.recipe import load_recipe, parse_recipe
from groundup.run import UserError, read_json
from groundup.tokenizer.alphabet import byte_of_character
from groundup.tokenizer.ranks import KNOWN, KnownRanks

transformers = pytest.importorskip("transformers")
MADE = runpy.run_path(str(Path(__file__).with_name("made_checkpoint.py")))
PLAIN = "[hardware]\ndevice = 'cpu'\nprecision = 'fp32'\ncompile = false\nthreads = 1\nprocesses = 1\n"
NASTY = ["  two  spaces\n\tand a tab", "Größe, 世界 😀", "12345 don't", "The cat sat on the mat."]
ONLY_GGUF = ("model.positions=learned", "model.norm=layer", "model.qk_norm=none", "model.feed_forward=gelu_tanh")


def recipe_of(source, more="", *overrides):
    return parse_recipe(f"[import]\nsource = '{source}'\n{more}\n{PLAIN}", overrides)


def smoke(*overrides):
    return load_recipe("smoke", overrides)


def refusal(recipe, run, **options):
    with pytest.raises(UserError) as caught:
        build(recipe, run, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """GPT-2's weights without a vocabulary, and the vocabulary."""
    source = MADE["checkpoint"]("gpt2", tmp_path_factory.mktemp("sources") / "gpt2")
    words = transformers.AutoTokenizer.from_pretrained(source)
    content = read_json(source / "tokenizer.json")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (source / name).unlink(missing_ok=True)
    return source, words, content


@pytest.fixture
def stand_in(monkeypatch):
    """An adapter for every kind: of exports it writes the files, of all others nothing but a word."""

    def adapter(context):
        (context.out / "out.txt").write_text(context.stage.name)
        return {}

    def export(context):
        from groundup.build.exporting import EXPORTED, tell_replaced

        tell_replaced(context.run, context.stage, context.recipe.exported_stage(context.stage.section))
        for layout in context.stage.section.formats:
            (context.out / EXPORTED[layout]).write_text(layout)
        return {}

    for kind in ADAPTERS:
        monkeypatch.setitem(ADAPTERS, kind, export if kind == "export" else adapter)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model.feed_forward=geglu", 'export.formats=["hf","gguf"]'), ['feed_forward = "geglu"', "format 'gguf'"]),
        (ONLY_GGUF, ["kv_heads = 1", "format 'hf'"]),
        (("tokenizer.split_pattern=o200k", 'export.formats=["gguf"]'), ["does not know how", "split_pattern"]),
        (("tokenizer.digits=2", 'export.formats=["gguf"]'), ["does not know how", "[tokenizer] split_pattern"]),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_made(tmp_path, overrides, words):
    message = refusal(smoke(*overrides), tmp_path / "run")
    assert all(word in message for word in words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        (*ONLY_GGUF, 'export.formats=["gguf"]'),
        ("model.feed_forward=geglu",),
        ("tokenizer.split_pattern=o200k",),
        ("tokenizer.split_pattern=llama3", 'export.formats=["hf","gguf"]'),
    ],
)
def test_only_the_formats_that_are_asked_for_are_looked_at(tmp_path, overrides):
    recipe = smoke(*overrides)
    require_exportable(recipe, tmp_path, recipe.ordered_stages())


def test_an_untuned_import_is_no_gguf_file(bare, tmp_path):
    recipe = recipe_of(bare[0], "[export]\nformats = ['hf', 'gguf']")
    assert "which an imported model has not learned" in refusal(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_amended_recipe_takes_the_place_of_the_runs_own_once_it_is_made(stand_in, tmp_path, monkeypatch):
    build(smoke(), tmp_path)
    before = (tmp_path / "recipe.toml").read_bytes()
    amended = smoke('export.formats=["gguf"]')
    working = ADAPTERS["export"]

    def failing(context):
        raise UserError("no")

    monkeypatch.setitem(ADAPTERS, "export", failing)
    refusal(amended, tmp_path, only=["export"], amends=True)
    assert (tmp_path / "recipe.toml").read_bytes() == before
    assert build(smoke(), tmp_path).built == ()
    monkeypatch.setitem(ADAPTERS, "export", working)
    build(amended, tmp_path, only=["export"], amends=True)
    assert open_run(tmp_path).export.formats == ("gguf",)


def test_what_an_export_replaces_is_told(stand_in, tmp_path, capsys):
    build(smoke('export.formats=["hf","gguf"]'), tmp_path)
    assert "is replaced" not in capsys.readouterr().err
    build(smoke('export.formats=["hf","gguf"]', "export.dtype=bf16"), tmp_path)
    assert "is replaced" not in capsys.readouterr().err  # made anew, of the same model
    build(smoke('export.formats=["hf"]'), tmp_path)
    told = capsys.readouterr().err
    assert f"{tmp_path / 'export' / 'model.gguf'}, the model of stage 'dpo', is replaced by this export" in told
    assert f"groundup export {tmp_path} --stage dpo --format gguf --out PATH" in told
    assert "export/hf, " not in told
    build(smoke('export.formats=["hf"]', "export.stage=sft"), tmp_path)
    assert f"{tmp_path / 'export' / 'hf'}, the model of stage 'dpo', is replaced" in capsys.readouterr().err


def check_vocabulary(out, words):
    """transformers reads the export as it read the source."""
    found = transformers.AutoTokenizer.from_pretrained(out)
    assert [found(text).input_ids for text in NASTY] == [words(text).input_ids for text in NASTY]
    assert len(found) == len(words)
    assert found("<|endoftext|>").input_ids == words("<|endoftext|>").input_ids == [words.eos_token_id]
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert max(max(found(text).input_ids) for text in NASTY) < model.config.vocab_size


def openai_files(content, folder):
    folder.mkdir()
    table = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    (folder / "encoder.json").write_text(json.dumps(table))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


def test_openais_two_files_go_out_by_the_names_that_stock_tools_know(bare, tmp_path):
    source, words, content = bare
    files = openai_files(content, tmp_path / "files")
    run = tmp_path / "run"
    build(recipe_of(source, f"tokenizer = '{files}'\n[export]"), run)
    out = run / "export" / "hf"
    assert (out / "vocab.json").read_bytes() == (files / "encoder.json").read_bytes()
    assert (out / "merges.txt").read_bytes() == (files / "vocab.bpe").read_bytes()
    check_vocabulary(out, words)


def test_a_rank_file_goes_out_as_the_vocabulary_that_it_is(bare, tmp_path, monkeypatch):
    source, words, content = bare
    table, ids = byte_of_character(), content["model"]["vocab"]
    special = {token["content"]: token["id"] for token in content["added_tokens"]}
    ranks = {bytes(table[each] for each in token): n for token, n in ids.items() if token not in special}
    monkeypatch.setitem(KNOWN, "tiny", KnownRanks(len(ranks), "gpt2", special))
    path = tmp_path / "tiny.ranks"  # by whatever ending: it is found again
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
    run = tmp_path / "run"
    build(recipe_of(source, f"tokenizer = '{path}'\n[export]"), run)
    assert (run / "import" / "source" / "tiny.tiktoken").read_bytes() == path.read_bytes()
    check_vocabulary(run / "export" / "hf", words)


def test_a_vocabulary_by_another_name(bare, tmp_path):
    source, words, content = bare
    path = tmp_path / "some-name.json"
    path.write_text(json.dumps(content))
    run = tmp_path / "run"
    build(recipe_of(source, f"tokenizer = '{path}'\n[export]"), run)
    assert (run / "import" / "source" / "tokenizer.json").read_bytes() == path.read_bytes()
    assert import_facts(run)["tokens"] == len(words)
    check_vocabulary(run / "export" / "hf", words)


def test_templates_that_lie_beside_the_tokenizer(tmp_path):
    source = MADE["checkpoint"]("llama", tmp_path / "source")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}")
    (source / "chat_template.json").write_text(json.dumps({"chat_template": MADE["CHATML"]}))
    build(recipe_of(source, "[export]"), tmp_path / "run")
    assert import_facts(tmp_path / "run")["template"] is True
    hf = tmp_path / "run" / "export" / "hf"
    for name in ("additional_chat_templates/rag.jinja", "chat_template.json"):
        assert (hf / name).read_bytes() == (source / name).read_bytes()


@pytest.fixture(scope="module")
def mistral(tmp_path_factory):
    """A checkpoint in the hub's own cache, with a licence and without a window, and a run that imported it."""
    folder = tmp_path_factory.mktemp("cache")
    source = folder / "models--some-lab--tiny-mistral" / "snapshots" / "0123abcd"
    words = MADE["vocabulary"](["<|endoftext|>"])
    config = transformers.MistralConfig(
        vocab_size=words.get_vocab_size(), sliding_window=None, tie_word_embeddings=False, **MADE["SIZES"]
    )
    torch.manual_seed(3)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(source)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(source)
    (source / "LICENSE").write_text("Do what is right.\n")
    (source / "NOTICE.txt").write_text("Made by some lab.\n")
    run = tmp_path_factory.mktemp("runs") / "tiny"
    build(recipe_of(source, "[export]"), run)
    return source, run


def test_the_card_of_an_untouched_import(mistral):
    out = mistral[1] / "export" / "hf"
    card = (out / "README.md").read_text()
    assert "The checkpoint `some-lab/tiny-mistral` (family `mistral`), imported by groundup and written out" in card
    assert "from the ground up" not in card
    assert "base_model" not in card  # it is that model
    assert "brought LICENSE, NOTICE.txt, which lie beside this file" in card
    assert (out / "LICENSE").read_text() == "Do what is right.\n"
    assert (out / "NOTICE.txt").read_text() == "Made by some lab.\n"


def test_a_tuned_model_keeps_its_family_and_names_its_base(mistral, tmp_path):
    source, imported = mistral
    run = shutil.copytree(imported, tmp_path / "run")
    chats = tmp_path / "chats.jsonl"
    talk = [{"messages": [{"role": r, "content": f"{r} {i}"} for r in ("user", "assistant")]} for i in range(200)]
    chats.write_text("".join(json.dumps(each) + "\n" for each in talk))
    tuning = f"[sft]\nsteps = 2\nsequence_length = 64\ntokens_per_update = 128\ndata = ['{chats}']\n[export]\n"
    build(recipe_of(source, tuning), run)
    out = run / "export" / "hf"
    assert read_json(out / "config.json")["architectures"] == ["MistralForCausalLM"]
    assert type(transformers.AutoModelForCausalLM.from_pretrained(out)).__name__ == "MistralForCausalLM"
    card = (out / "README.md").read_text()
    assert "trained further with groundup from the checkpoint `some-lab/tiny-mistral` (family `mistral`)" in card
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\nbase_model: some-lab/tiny-")
    assert (out / "LICENSE").is_file()
    plain = source.rename(tmp_path / "plain")  # a folder's name is nobody's on the hub
    build(recipe_of(plain, tuning + "dtype = 'bf16'\n"), run)
    card = (out / "README.md").read_text()
    assert "checkpoint `plain` (family" in card
    assert "base_model" not in card
    plain.rename(source)
