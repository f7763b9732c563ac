"""Options that a layout lacks, worked into the weights: equal logits in float64, and what cannot be is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from groundup.interchange import export_hf, save_model, why_no_stock_layout
from groundup.interchange.fold import Folded, nearest
from groundup.interchange.layouts import LAYOUTS, layout_named
from groundup.interchange.layouts.layout import FREE, PLAIN
from groundup.interchange.stock import stock_form
from groundup.interchange.tensor_files import TensorFiles, planned, write_file
from groundup.model import Architecture, Transformer
from groundup.model.context import ForwardContext, make_context
from groundup.recipe.model import ModelShape
from groundup.run import UserError
from groundup.tokenizer import Tokenizer, encode_chat, train_bpe

os.environ["HF_HUB_OFFLINE"] = "1"

QWEN3: dict[str, Any] = {
    "vocabulary_size": 97,
    "layers": 3,
    "hidden_size": 32,
    "heads": 4,
    "kv_heads": 2,
    "intermediate_size": 48,
    "context_length": 64,
    "norm_eps": 1e-6,
}
LLAMA = QWEN3 | {"qk_norm": "none"}
GPT2 = LLAMA | {"kv_heads": 4, "positions": "learned", "norm": "layer", "biases": "all", "feed_forward": "gelu"}
GEMMA = QWEN3 | {
    "norm_placement": "sandwich",
    "norm_offset": True,
    "embedding_scale": True,
    "window": 9,
    "window_pattern": "SL",
    "local_rope_theta": 500.0,
}
OLMO = QWEN3 | {"qk_norm": "width", "norm_placement": "output"}
EXPERTS = {"count": 3, "per_token": 2, "intermediate_size": 24}
UNTIED = {"tied_embeddings": False}
LAYOUT_OF = {"qwen3": QWEN3, "llama": LLAMA, "gpt2": GPT2, "gemma3_text": GEMMA, "olmo2": OLMO}

FOLDS: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {"norm_gains": False}),
    ("qwen3", {"attention_scale": 0.31}),
    ("qwen3", {"attention_scale": 0.31, "norm_gains": False}),
    ("qwen3", {"norm_offset": True, "residual_scalars": True}),
    ("qwen3", {"embedding_scale": True}),
    ("qwen3", {"embedding_scale": True, **UNTIED}),
    ("qwen3", {"embedding_norm": True, **UNTIED}),
    ("qwen3", {"embedding_norm": True, "embedding_scale": True, "residual_scalars": True, **UNTIED}),
    ("qwen3", {"residual_scalars": True}),
    ("qwen3", {"residual_scalars": True, "norm_gains": False, "embedding_scale": True}),
    ("qwen3", {"residual_scalars": True, **UNTIED}),
    ("llama", {"residual_scalars": True, "biases": "all", "attention_scale": 2.0}),
    ("qwen2", {"qk_norm": "none", "biases": "none", "window": 7, "window_pattern": "SL"}),
    ("olmo2", {"attention_scale": 0.2, "norm_gains": False, "residual_start": "scaled"}),
    ("gpt2", {"biases": "none"}),
    ("gpt2", {"biases": "qkv", "norm_gains": False, "attention_scale": 0.3}),
    ("gpt2", {"positions": "sinusoidal"}),
    ("gpt2", {"residual_scalars": True}),
    ("gpt2", {"residual_scalars": True, "positions": "sinusoidal", "norm_gains": False, "embedding_scale": True}),
    ("gemma3_text", {"norm_gains": False, "norm_offset": False, "residual_start": "scaled"}),
    ("gemma3_text", {"norm_offset": False, "residual_scalars": True}),
    ("gemma3_text", {"embedding_scale": False, "attention_scale": 0.3}),
    ("gemma3_text", {"embedding_scale": False, "residual_scalars": True, **UNTIED}),
    ("mixtral", {"qk_norm": "none", "experts": {**EXPERTS, "scale": 1.7}, "residual_scalars": True}),
    ("qwen3_moe", {"experts": {**EXPERTS, "dense_layers": 1, "renormalise": False}, "residual_scalars": True}),
]  # fmt: skip


def random_model(arch: Architecture, dtype: torch.dtype = torch.float64) -> Transformer:
    torch.manual_seed(5)
    model = Transformer(arch).to(dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.3)
            if weight.ndim == 1 and not (arch.norm_offset and name.endswith("norm.weight")):
                weight.add_(0.0 if name.endswith("bias") else 1.0)
            if name.endswith("residual_scale"):
                weight.uniform_(0.6, 1.5)
    return model.eval()


@torch.no_grad()
def logits(model: Transformer, ids: Tensor) -> Tensor:
    return model.logits(model(ids))


def folded(arch: Architecture, model: Transformer, folder: Path, prefer: str) -> Transformer:
    """The model of the stock layout's architecture, from folded tensors."""
    form = stock_form(arch, prefer)
    assert form.layout.model_type == prefer
    write_file(planned(model.state_dict()), folder / "own.safetensors")
    source = Folded(TensorFiles([folder / "own.safetensors"]), arch, form.arch)
    stock = Transformer(form.arch).double()
    stock.load_state_dict({name: source.read(name) for name in stock.state_dict()}, strict=True)
    return stock.eval()


@pytest.mark.parametrize(("family", "change"), FOLDS)
def test_folded_logits_are_equal(family: str, change: dict[str, Any], tmp_path: Path) -> None:
    """With an epsilon of nothing in norms, folding is exact but for the rounding of float64."""
    base = LAYOUT_OF.get(family, QWEN3)
    arch = Architecture.from_dict({**base, **change, "norm_eps": 1e-30})
    model = random_model(arch)
    stock = folded(arch, model, tmp_path, family)
    ids = torch.randint(0, 97, (2, 30), generator=torch.Generator().manual_seed(1))
    want = logits(model, ids)
    assert want.std() > 0.1
    torch.testing.assert_close(logits(stock, ids), want, atol=1e-9, rtol=0)
    assert stock.arch == stock_form(stock.arch, family).arch


def test_residual_scalars_differ_by_epsilon_alone(tmp_path: Path) -> None:
    """With embeddings so small that a norm's epsilon is felt, the first block still computes what it did; behind it the
    stream is larger, and what is left of the difference shrinks with epsilon."""
    ids = torch.arange(30)[None]
    left = []
    for epsilon in (1e-5, 1e-8):
        arch = Architecture.from_dict({**QWEN3, "residual_scalars": True, "norm_eps": epsilon})
        model = random_model(arch)
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(0.02)
        stock = folded(arch, model, tmp_path, "qwen3")
        first = [each.model.layers[0](each.model.embed(ids), _context(each, ids)) for each in (stock, model)]
        torch.testing.assert_close(first[0], first[1], atol=1e-12, rtol=0)
        left.append((logits(stock, ids) - logits(model, ids)).abs().max().item())
    assert left[0] < 2e-4
    assert left[1] < left[0] / 300


def _context(model: Transformer, ids: Tensor) -> ForwardContext:
    return make_context(model.arch, ids, None, None, None)


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_residual_scalars_that_are_not_positive(tmp_path: Path, value: float) -> None:
    model = random_model(Architecture.from_dict({**QWEN3, "residual_scalars": True}), torch.float32)
    with torch.no_grad():
        model.model.layers[1].residual_scale.fill_(value)
    save_model(model, tmp_path / "model")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"that of layer 1 is -?0.*no stock layout exists"):
        export_hf(tmp_path / "model", None, tmp_path / "hf", source_tokenizer=tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions": "alibi"}, 'positions = "alibi"'),
        ({"positions": "none"}, 'positions = "none"'),
        ({"x0_skip": True}, "x0_skip = true"),
        ({"value_embeddings": True}, "value_embeddings = true"),
        ({"bigram_rows": 512}, "bigram_rows = 512"),
        ({"attention_sinks": True}, "attention_sinks = true"),
        ({"logit_softcap": 30.0}, "logit_softcap = 30.0"),
        ({"attention_softcap": 30.0}, "attention_softcap = 30.0"),
        ({"embedding_norm": True}, "embedding_norm = true"),
        ({"norm_placement": "post"}, 'norm_placement = "post"'),
        ({"feed_forward": "squared_relu"}, 'feed_forward = "squared_relu"'),
        ({"latent": {"kv_rank": 8, "rotary_dim": 4}, "qk_norm": "none", "kv_heads": 4}, "latent"),
        ({"experts": {**EXPERTS, "shared": 1}}, "experts.shared = 1"),
        ({"experts": {**EXPERTS, "renormalise": False}, "qk_norm": "none"}, "experts.renormalise = false"),
        ({**OLMO, "residual_scalars": True}, "residual_scalars = true"),
        ({**GPT2, "kv_heads": 2}, "kv_heads = 2"),
        ({"local_rope_theta": 100.0, "window": 8, "window_pattern": "SL"}, "local_rope_theta = 100.0"),
        ({"experts": EXPERTS, "window": 8, "window_pattern": "SL"}, 'window_pattern = "SL"'),
    ],
)
def test_options_without_a_stock_layout_are_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    arch = Architecture.from_dict({**QWEN3, **change})
    assert why_no_stock_layout(arch) == [reason]
    save_model(random_model(arch, torch.float32), tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "groundup"
    with pytest.raises(UserError) as caught:
        export_hf(tmp_path / "model", None, tmp_path / "hf", source_tokenizer=tmp_path)
    assert f"no stock layout exists for a model with {reason}" in str(caught.value)
    assert not (tmp_path / "hf").exists()


def test_every_field_is_thought_of() -> None:
    """A new option of the model must be said to change nothing, or to have one value in stock layouts."""
    assert FREE | PLAIN.keys() == set(ModelShape.model_fields)
    for field, values in PLAIN.items():
        default = ModelShape.model_fields[field].default
        assert field == "qk_norm" or default in values


def test_layouts_express_what_they_read() -> None:
    """A window that no layer has, or an initialisation, stands in nobody's way; what is folded has no reasons left."""
    plain = Architecture.from_dict(QWEN3)
    assert not why_no_stock_layout(plain.replace(window=8, window_pattern="L"))
    assert not why_no_stock_layout(plain.replace(attention_start="lookup", dropout=0.1, predict_ahead=2))
    assert stock_form(plain.replace(predict_ahead=1)).folded == ()
    for layout in LAYOUTS:
        assert layout_named(layout.model_type) is layout
        base = Architecture.from_dict(LAYOUT_OF.get(layout.model_type, LLAMA))
        assert nearest(base, layout).layers == 3
    assert stock_form(Architecture.from_dict(LLAMA)).layout.model_type == "llama"
    assert stock_form(Architecture.from_dict(LLAMA), "mistral").layout.model_type == "mistral"
    assert stock_form(Architecture.from_dict({**LLAMA, "window": 8})).layout.model_type == "mistral"
    assert stock_form(Architecture.from_dict({**LLAMA, "biases": "qkv"})).layout.model_type == "qwen2"
    odd = Architecture.from_dict(
        {**LLAMA, "hidden_size": 36, "heads": 5, "kv_heads": 5, "head_dim": 8, "biases": "all"}
    )
    assert why_no_stock_layout(odd) == ["hidden_size = 36, which is no multiple of heads = 5"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(["Mia has 3 red balls. Tom went to the park."] * 20, 320).to_str())


OWN: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", QWEN3 | {"window": 9, "window_pattern": "LS", "predict_ahead": 1}),
    ("llama", LLAMA | UNTIED | {"residual_scalars": True}),
    ("mistral", LLAMA | {"window": 9}),
    ("qwen2", LLAMA | {"biases": "qkv"}),
    ("olmo2", OLMO),
    ("gemma3_text", GEMMA | {"logit_softcap": 10.0}),
    ("gpt2", GPT2),
    ("mixtral", LLAMA | {"experts": EXPERTS}),
    ("qwen3_moe", QWEN3 | {"experts": {**EXPERTS, "dense_layers": 1}}),
]


@pytest.mark.parametrize(("family", "fields"), OWN, ids=[family for family, _ in OWN])
@torch.no_grad()
def test_our_own_models_in_every_layout(
    family: str, fields: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """With our tokenizer: logits, ids, the chat template and the tokens that end an answer."""
    transformers = pytest.importorskip("transformers")
    arch = Architecture.from_dict({**fields, "vocabulary_size": 328})
    model = random_model(arch, torch.float32)
    save_model(model, tmp_path / "model")
    tokenizer.save(tmp_path / "tokenizer")
    metrics = export_hf(tmp_path / "model", tmp_path / "tokenizer", tmp_path / "hf", name="tiny")
    assert metrics["hf_model_type"] == family
    assert bool(metrics["hf_left_out"]) == bool(arch.predict_ahead)
    assert metrics["hf_folded"] == (["residual_scalars"] if arch.residual_scalars else [])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ids = torch.randint(0, 328, (2, 40), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(theirs(ids).logits, logits(model, ids), atol=1e-4, rtol=0)
    assert theirs.generation_config.eos_token_id == [tokenizer.end, tokenizer.endoftext]
    tool = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for text in ("  two  spaces\n\n\tand a tab ", "naïve café, 世界, Привет, 😀👩‍👩‍👧", "x = 12345.678e-9; don't", ""):
        assert tool(text)["input_ids"] == tokenizer.encode(text)
        assert tool.decode(tokenizer.encode(text)) == text
    messages = [{"role": "user", "content": "Where is Mia?"}]
    chat = tool.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)
    assert chat["input_ids"] == list(encode_chat(tokenizer, messages, generation_prompt=True).ids)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert f"`{metrics['hf_model_type'] and type(theirs).__name__}` layout" in card
    assert ("residual_scalars" in card) == arch.residual_scalars
    if "residual_scalars" not in metrics["hf_folded"] and not arch.predict_ahead:
        held = load_file(tmp_path / "hf" / "model.safetensors")
        assert sum(tensor.numel() for tensor in held.values()) == sum(weight.numel() for weight in model.parameters())
