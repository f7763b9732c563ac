"""A saved model comes back; stock tools load the export with equal ids, logits and greedy text."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.inference import SamplingParams, generate
from groundup.interchange import export_hf, load_model, save_model
from groundup.model import Architecture, Transformer
from groundup.run import UserError
from groundup.tokenizer import Tokenizer, encode_chat, train_bpe

os.environ["HF_HUB_OFFLINE"] = "1"
PLACES = ("park", "hill", "lake")
TEXTS = [f"Mia has {n} red balls. Tom went to the {p}." for n in "0123456789" for p in PLACES]
VARIED = [
    "Where is Mia?",
    "  two  spaces\n\n\tand a tab ",
    "naïve café, 世界, Привет, 😀👩‍👩‍👧",
    "x = 12345.678e-9; don't we'll I'M",
    "",
]
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
STOCK = Architecture(
    vocabulary_size=320,
    layers=2,
    hidden_size=32,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate_size=48,
    context_length=128,
)


def random_model(arch: Architecture) -> Transformer:
    torch.manual_seed(5)
    model = Transformer(arch)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0 if weight.ndim == 1 else 0.0, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(TEXTS, 320).to_str())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tied_embeddings": False},
        {"positions": "learned"},
        {"positions": "sinusoidal"},
        {"qk_norm": False},
    ],
)
def test_saved_model_comes_back(tmp_path: Path, change: dict[str, Any]) -> None:
    model = random_model(STOCK.replace(**change))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.arch == model.arch
    assert not loaded.training
    ids = torch.arange(40)[None] % 320
    assert torch.equal(loaded(ids), model(ids))
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) == (not model.arch.tied_embeddings)
    kind = "groundup" if "positions" in change else "llama" if "qk_norm" in change else "qwen3"
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind


def test_dtype_asked_for(tmp_path: Path) -> None:
    save_model(random_model(STOCK).to(torch.bfloat16), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert load_model(tmp_path, dtype=torch.bfloat16).head_weight.dtype == torch.bfloat16
    assert load_model(tmp_path).head_weight.dtype == torch.float32


def test_wrong_tensors_are_listed(tmp_path: Path) -> None:
    save_model(random_model(STOCK), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.extra"] = torch.zeros(3)
    tensors["model.embed_tokens.weight"] = torch.zeros(2, 32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert "missing: model.norm.weight [32]" in str(caught.value)
    assert "unknown: model.extra [3]" in str(caught.value)
    assert "shape: model.embed_tokens.weight is [2, 32], should be [320, 32]" in str(caught.value)


def test_missing_broken_and_pickled_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(tmp_path)
    save_model(random_model(STOCK), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(UserError, match="can run any code"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(UserError, match="doesn't describe a model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"positions": "learned"}, {"positions": "sinusoidal"}, {"bigram_rows": 64}],
)
def test_no_stock_layout_no_export(tmp_path: Path, tokenizer: Tokenizer, change: dict[str, Any]) -> None:
    save_model(random_model(STOCK.replace(**change)), tmp_path / "model")
    tokenizer.save(tmp_path / "tokenizer")
    with pytest.raises(UserError, match="no stock layout exists"):
        export_hf(tmp_path / "model", tmp_path / "tokenizer", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_tokenizer_larger_than_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(random_model(STOCK.replace(vocabulary_size=300)), tmp_path / "model")
    tokenizer.save(tmp_path / "tokenizer")
    with pytest.raises(UserError, match="only 300 rows"):
        export_hf(tmp_path / "model", tmp_path / "tokenizer", tmp_path / "hf")


def test_stock_tools_agree_exactly(tmp_path: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for tied, kv_heads in ((True, 2), (False, 1), (True, 4)):
            arch = STOCK.replace(tied_embeddings=tied, kv_heads=kv_heads, vocabulary_size=328)
            out = tmp_path / f"hf{tied}{kv_heads}"
            _check_model(transformers, random_model(arch), tokenizer, tmp_path, out)
        _check_tokenizer(transformers.AutoTokenizer.from_pretrained(out), tokenizer)
    finally:
        torch.set_num_threads(before)


def _check_model(transformers: Any, ours: Transformer, tokenizer: Tokenizer, tmp_path: Path, out: Path) -> None:
    save_model(ours, tmp_path / "model")
    tokenizer.save(tmp_path / "tokenizer")
    metrics = export_hf(tmp_path / "model", tmp_path / "tokenizer", out, name="tiny")
    assert metrics["hf_parameters"] == sum(weight.numel() for weight in ours.parameters())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, attn_implementation="sdpa").eval()
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    assert theirs.dtype == torch.float32
    ids = torch.randint(0, 300, (3, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = (theirs(ids).logits - ours.logits(ours(ids))).abs().max().item()
    assert difference == 0.0
    config = json.loads((out / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == ours.arch.rope_theta
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert config["vocab_size"] == 328
    assert {file.name for file in out.iterdir()} == FILES
    assert "# tiny" in (out / "README.md").read_text()
    assert theirs.generation_config.eos_token_id == [tokenizer.end, tokenizer.endoftext]
    prompt = tokenizer.encode("Where is Mia?")
    params = SamplingParams(max_tokens=24, stop_ids=(tokenizer.end, tokenizer.endoftext))
    mine = generate(ours, [prompt], params)[0].ids
    with torch.no_grad():
        hf = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0].tolist()
    assert hf == prompt + mine


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    """Unless its content is given as this package reads it."""
    save_model(random_model(STOCK), tmp_path / "model")
    source = tmp_path / "source"
    source.mkdir()
    (source / "mine.tiktoken").write_text("YQ== 0\n")
    with pytest.raises(UserError, match=r"expected: tokenizer\.json, vocab\.json or tokenizer\.model"):
        export_hf(tmp_path / "model", None, tmp_path / "hf", source_tokenizer=source)
    words = {"added_tokens": [{"id": 7, "content": "</s>"}], "model": {}}
    (tmp_path / "model" / "config.json").write_text(
        json.dumps(json.loads((tmp_path / "model" / "config.json").read_text()) | {"eos_token_id": [7, 9]})
    )
    export_hf(tmp_path / "model", None, tmp_path / "hf", source_tokenizer=source, adopted=json.dumps(words))
    assert json.loads((tmp_path / "hf" / "tokenizer.json").read_text()) == words
    settings = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert (settings["tokenizer_class"], settings["eos_token"]) == ("PreTrainedTokenizerFast", "</s>")
    assert "bos_token" not in settings


def _check_tokenizer(theirs: Any, ours: Tokenizer) -> None:
    for text in VARIED + TEXTS:
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (
        ours.end,
        ours.pad,
        ours.endoftext,
    )
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "  Where is Mia?\n"},
        {"role": "assistant", "content": "Mia is in the park. 😀"},
        {"role": "user", "content": "And Tom?"},
    ]
    for prompt in (False, True):
        ids = theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=True)[
            "input_ids"
        ]
        assert ids == encode_chat(ours, messages, generation_prompt=prompt).ids
