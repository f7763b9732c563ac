"""groundup show: what is drawn, its numbers, and whom it names where nothing can be drawn."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.cli import command_line
from groundup.cli.architecture_docs import architectures_markdown
from groundup.cli.boxes import short
from groundup.cli.show import cache_bytes, describe
from groundup.interchange import save_model
from groundup.model import Architecture, Transformer, flops_per_token, initialise, parameter_count
from groundup.recipe import ModelSection, dump_toml, parse_recipe
from groundup.recipe.architectures import architecture_names
from groundup.run import now, write_manifest

RECIPE = """
[corpus]
sources = ["builtin:storyworld"]
[tokenizer]
vocabulary_size = 600
[model]
layers = 2
hidden_size = 32
heads = 2
kv_heads = 1
intermediate_size = 64
context_length = 64
[pretrain]
steps = 1
[sft]
steps = 1
data = [{ path = "builtin:storyworld" }]
"""
ODD = {
    "layers": 6,
    "kv_heads": 1,
    "qk_norm": "none",
    "positions": "alibi",
    "window": 64,
    "window_pattern": "SSL",
    "value_embeddings": True,
    "residual_scalars": True,
    "x0_skip": True,
    "bigram_rows": 128,
    "predict_ahead": 2,
    "attention_sinks": True,
    "attention_softcap": 50.0,
    "logit_softcap": 15.0,
    "embedding_norm": True,
    "norm_gains": False,
}
MIXTURE = {"experts": {"count": 4, "per_token": 2, "shared": 1, "dense_layers": 1}, "biases": "qkv"}


def show(capsys, *arguments):
    """What the command prints."""
    assert command_line(["show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def arch(**changes):
    return Architecture.from_section(ModelSection(**changes), 512)


@pytest.fixture
def trained(tmp_path):
    """A run of which pretraining is done, with a model of 3 layers, and tuning is not."""
    run = tmp_path / "run"
    recipe = parse_recipe(RECIPE)
    run.mkdir()
    (run / "recipe.toml").write_text(dump_toml(recipe))
    model = Transformer(Architecture.from_section(recipe.model, 600).replace(layers=3))
    initialise(model, seed=0)
    save_model(model, run / "pretrain" / "final")
    write_manifest(
        run / "pretrain", stage="pretrain", kind="pretrain", fingerprint="0", inputs={}, metrics={}, started=now()
    )
    return run


def test_a_preset_is_drawn(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = show(capsys, "qwen3-0.6b", "--context", "1024")
    lines = text.splitlines()
    assert lines[0].startswith("qwen3-0.6b: Qwen3 0.6B")
    assert "parameters  596,049,920" in lines
    assert "751,632,384 in all" in text
    assert re.search(r"embed_tokens +151,936 × 1,024 +155\.6M +26\.1%", text)
    assert "28 × block, 15,730,944 parameters each" in text
    assert "grouped-query attention, 16 heads of" in text
    assert re.search(r"q_proj +1,024 → 2,048 +58\.72M +9\.9% 352\.3M", text)
    assert re.search(r"scores, values +512 keys on average", text)
    assert re.search(r"gate_proj +1,024 → 3,072 +88\.08M", text)
    assert re.search(r"embed_tokens +1,024 → 151,936, tied +933\.5M", text)
    # 28 layers · 2 · 8 heads · 128 · 2 bytes, as the paper's grouped queries leave it.
    assert "114,688 bytes a token in bfloat16; 112.00 MiB for 1,024 tokens" in text


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("name", ["deepseek-v2-lite", "gemma-3-27b", "attention-is-all-you-need", "olmo-2-32b"])
def test_lines_fit(capsys, monkeypatch, columns, name):
    """The boxes' right borders stand below one another, within the terminal or the narrowest drawing."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _, *lines = show(capsys, name).splitlines()
    width = max(60, min(columns, 100))
    assert max(map(len, lines)) == width
    assert {len(line) for line in lines if line[:1] in "╭╰" or line.endswith("│")} == {width}
    assert not any(line.endswith(" ") for line in lines)


def test_norms_stand_where_the_architecture_has_them(capsys, monkeypatch):
    """Before the layer (pre), on its branch after it (output), on the stream after the sum (post), on both sides."""
    monkeypatch.setenv("COLUMNS", "100")
    expected = {
        "qwen3-0.6b": "├─╮ RMSNorm attention ⊕─╯ ├─╮ RMSNorm feed-forward ⊕─╯",
        "olmo-2-1b": "├─╮ attention RMSNorm ⊕─╯ ├─╮ feed-forward RMSNorm ⊕─╯",
        "attention-is-all-you-need": "├─╮ attention ⊕─╯ LayerNorm ├─╮ feed-forward ⊕─╯ LayerNorm",
        "gemma-3-270m": "├─╮ RMSNorm attention RMSNorm ⊕─╯ ├─╮ RMSNorm feed-forward RMSNorm ⊕─╯",
    }
    for name, order in expected.items():
        block = show(capsys, name).split("parameters each")[1].partition("╰")[0]
        assert " ".join(re.findall(r"├─╮|⊕─╯|\w+Norm|attention|feed-forward", block)) == order


def test_options_are_drawn(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "100")
    recipe = parse_recipe(RECIPE)
    odd = recipe.model_copy(update={"model": ModelSection(**ODD)})
    (tmp_path / "odd.toml").write_text(dump_toml(odd))
    left = (line[:69] for line in show(capsys, tmp_path / "odd.toml").splitlines())  # the numbers stand on the right
    text = " ".join(word for line in left for word in line.split() if word != "│")
    for words in (
        "layers SSLSSL (S: a window of 64 tokens, L: everything)",
        "embed_bigrams 128 × 192",
        "value_embeddings.5 600 × 48",
        "multi-query attention, 4 heads of 48, 1 of keys and values, ALiBi, scores bent below 50, sinks, a window of",
        "2 × block ahead, in training only",
        "logits bent to stay below 15",
        "RMSNorm no gains",
    ):
        assert words in text


@pytest.mark.parametrize("changes", [{}, ODD, MIXTURE, {"tied_embeddings": False, "positions": "learned"}])
def test_the_parts_add_up(changes):
    """Parameters and FLOPs of all boxes are those of the model."""
    model = arch(**changes)
    record = describe(model, 100)
    single = [*record["embedding"], *record["ahead"], *record["end"]]
    blocks = record["blocks"]
    assert sorted(layer for block in blocks for layer in block["layers"]) == list(range(model.layers))
    assert (
        sum(row["parameters"] for row in single) + sum(len(block["layers"]) * block["parameters"] for block in blocks)
        == parameter_count(model).total
    )
    flops = sum(row["flops"] for row in single) + sum(len(block["layers"]) * block["flops"] for block in blocks)
    flops += record["head_flops"] + record["ahead_score_flops"]
    assert flops == pytest.approx(flops_per_token(model, 100), rel=1e-12)
    for block in blocks:
        assert block["flops"] == sum(row["flops"] for row in block["parts"]) + block["score_flops"]


def test_layers_of_one_kind_share_a_box():
    kinds = [block["layers"] for block in describe(arch(**ODD), 100)["blocks"]]
    assert kinds == [[0, 4], [1, 3], [2], [5]]
    assert [block["layers"] for block in describe(arch(**MIXTURE), 100)["blocks"]] == [[0], [1, 2, 3]]


def test_cached_bytes_by_hand():
    """Keys and values of 2 bytes; a layer with a window needs no more tokens than it; latent attention one vector."""
    windowed = arch(layers=3, heads=4, kv_heads=2, head_dim=16, window=10, window_pattern="SSL")
    assert cache_bytes(windowed, 1) == 3 * 2 * 2 * 16 * 2
    assert cache_bytes(windowed, 100) == (10 + 10 + 100) * 2 * 2 * 16 * 2
    latent = arch(layers=3, latent={"kv_rank": 24, "rotary_dim": 8}, qk_norm="none")
    assert cache_bytes(latent, 5) == 5 * 3 * (24 + 8) * 2


def test_json_of_a_large_preset(capsys):
    """80 layers are looked at without memory for them."""
    record = json.loads(show(capsys, "llama-3.1-70b", "--json"))
    assert record["name"] == "llama-3.1-70b"
    assert record["parameters"]["total"] == record["preset"]["published_parameters"] == 70_553_706_496
    assert record["context"] == 131072
    assert record["cache_bytes_per_token"] == 80 * 2 * 8 * 128 * 2
    assert record["blocks"][0]["layers"] == list(range(80))
    assert Architecture.from_dict(record["architecture"]).hidden_size == 8192


def test_without_a_name_the_presets_are_listed(capsys):
    text = show(capsys)
    assert all(re.search(rf"^{re.escape(name)} ", text, re.M) for name in architecture_names())
    assert re.search(r"^mixtral-8x7b +46\.70B +12\.88B ", text, re.M)
    rows = json.loads(show(capsys, "--json"))
    assert [row["name"] for row in rows] == list(architecture_names())
    assert {row["name"]: row["parameters"] for row in rows}["gpt2"] == 124_439_808


def test_a_run_shows_what_was_trained_last(capsys, trained):
    assert json.loads(show(capsys, trained, "--json"))["architecture"]["layers"] == 3
    assert show(capsys, trained).startswith(f"{trained}, stage pretrain\n")
    assert json.loads(show(capsys, trained, "--stage", "pretrain", "--json"))["architecture"]["layers"] == 3
    assert show(capsys, trained / "pretrain" / "final").startswith(f"{trained / 'pretrain' / 'final'}\n")


def test_an_untrained_run_shows_its_recipe(capsys, trained):
    (trained / "pretrain" / "manifest.json").unlink()
    record = json.loads(show(capsys, trained, "--json"))
    assert (record["architecture"]["layers"], record["architecture"]["vocabulary_size"]) == (2, 600)
    assert record["name"] == f"{trained}, not trained yet"


def test_a_recipe_has_the_vocabulary_of_its_tokenizer(capsys, tmp_path):
    """An adopted one is not looked at: the preset's size stands for it."""
    assert json.loads(show(capsys, "laptop", "--json"))["architecture"]["vocabulary_size"] == 768
    text = RECIPE.partition("[model]")[0] + '[model]\npreset = "gpt2"\n'
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert json.loads(show(capsys, path, "--json"))["architecture"]["vocabulary_size"] == 600
    path.write_text(text.replace("vocabulary_size = 600", 'adopt = "gpt2_files"'))
    assert json.loads(show(capsys, path, "--json"))["architecture"]["vocabulary_size"] == 50257


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["qwen3-06b"], ["'qwen3-06b' is no run, preset or recipe", "did you mean 'qwen3-0.6b'?"]),
        (["gpt2", "--context", "0"], ["--context 0"]),
        (["gpt2", "--stage", "sft"], ["--stage sft needs a run"]),
        (["nowhere.toml"], ["no recipe file 'nowhere.toml'"]),
        (["RUN", "--stage", "corpus"], ["'corpus' trains no model", "one of pretrain, sft"]),
        (["RUN", "--stage", "sft"], ["'sft' is not built yet"]),
        (["RUN", "--stage", "dpo"], ["no stage 'dpo'"]),
        (["RUN/pretrain"], ["no config.json"]),
    ],
)
def test_mistakes_are_explained(capsys, trained, arguments, words):
    assert command_line(["show", *(each.replace("RUN", str(trained)) for each in arguments)]) == 2
    message = capsys.readouterr().err
    assert all(each in message for each in words)
    assert "Traceback" not in message


def test_numbers_are_short():
    cases = {0: "0", 999: "999", 1000: "1.000k", 99_999: "100.0k", 999_960: "1.000M", 596_049_920: "596.0M"}
    assert {number: short(number) for number in cases} == cases
    assert short(1.5e13) == "15.00T"
    assert short(17.67e9, "kMGT", " ") == "17.67 G"


def test_help_loads_no_heavy_package():
    program = (
        "import sys\nfrom groundup.cli import command_line\ncommand_line(['show', '--help'])\n"
        "print(sorted({'torch', 'numpy', 'pydantic'} & sys.modules.keys()), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Example: groundup show qwen3-0.6b" in found.stdout
    assert found.stderr.strip() == "[]"


def test_the_page_of_architectures_is_current():
    page = Path(__file__).parents[2] / "docs" / "architectures.md"
    assert page.read_text(encoding="utf-8") == architectures_markdown(), "run: python -m groundup.cli.architecture_docs"
