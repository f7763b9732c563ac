"""GGUF files through llama.cpp: the logits and the greedy texts of every layout and option are ours."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from groundup.model import Transformer, fresh_model
from groundup.tokenizer import Tokenizer, train_bpe

SERVING = runpy.run_path(str(Path(__file__).with_name("gguf_serving.py")))
ARCH, Llama, exported, random_model = (SERVING[name] for name in ("ARCH", "Llama", "exported", "random_model"))
our_logprobs, our_greedy = SERVING["our_logprobs"], SERVING["our_greedy"]

NO_NORM, EXPERTS = {"qk_norm": "none"}, {"count": 6, "per_token": 2, "intermediate_size": 64}
OLMO2 = {"qk_norm": "width", "norm_placement": "output", "tied_embeddings": False, "head_dim": 16}
GEMMA3 = {
    "norm_placement": "sandwich",
    "norm_offset": True,
    "feed_forward": "geglu_tanh",
    "embedding_scale": True,
    "window": 16,
    "window_pattern": "SSL",
    "local_rope_theta": 500.0,
}
GPT2 = {
    "qk_norm": "none",
    "positions": "learned",
    "norm": "layer",
    "norm_eps": 1e-5,
    "feed_forward": "gelu_tanh",
    "biases": "all",
    "kv_heads": 4,
    "head_dim": 16,
}


def scaled(kind: str, **more: float) -> dict[str, Any]:
    return {"rope_scaling": {"kind": kind, "factor": 4.0, "original_context": 64, **more}}


EVERYDAY: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "llama": ("llama", NO_NORM | {"tied_embeddings": False}),
    "mixtral": ("llama", NO_NORM | {"experts": EXPERTS}),
    "qwen3moe": ("qwen3moe", {"experts": EXPERTS}),
    "olmo2": ("olmo2", OLMO2),
    "gemma3": ("gemma3", GEMMA3),
    "gpt2": ("gpt2", GPT2),
    "llama 3's scaling": ("llama", NO_NORM | scaled("llama3")),
    "yarn": ("qwen3", scaled("yarn", attention_factor=1.7)),
}
THOROUGH: dict[str, tuple[str, dict[str, Any]]] = {
    "a head of its own": ("qwen3", {"tied_embeddings": False}),
    "multi-query": ("qwen3", {"kv_heads": 1}),
    "multi-head": ("qwen3", {"kv_heads": 4}),
    "attention scale": ("qwen3", {"attention_scale": 0.3}),
    "no gains": ("qwen3", {"norm_gains": False}),
    "gains from 1": ("qwen3", {"norm_offset": True}),
    "scaled embeddings": ("qwen3", {"embedding_scale": True}),
    "normalised embeddings": ("qwen3", {"embedding_norm": True, "embedding_scale": True, "tied_embeddings": False}),
    "residual scalars": ("qwen3", {"residual_scalars": True}),
    "linear scaling": ("qwen3", scaled("linear")),
    "yarn's own gain": ("qwen3", scaled("yarn")),
    "predict ahead": ("qwen3", {"predict_ahead": 1}),
    "window": ("qwen3", {"window": 128}),
    "qwen2's biases": ("llama", NO_NORM | {"biases": "qkv"}),
    "all biases": ("llama", NO_NORM | {"biases": "all", "attention_scale": 0.3, "residual_scalars": True}),
    "llama and yarn": ("llama", NO_NORM | scaled("yarn", attention_factor=1.3)),
    "llama and linear": ("llama", NO_NORM | scaled("linear")),
    "scaled experts": ("llama", NO_NORM | {"experts": EXPERTS | {"scale": 1.7}}),
    "experts and more": ("qwen3moe", {"experts": EXPERTS | {"scale": 1.7}, "residual_scalars": True, **scaled("yarn")}),
    "olmo2, tied": ("olmo2", OLMO2 | {"tied_embeddings": True}),
    "olmo2 and yarn": ("olmo2", OLMO2 | scaled("yarn") | {"attention_scale": 0.4}),
    "gemma3's own pattern": ("gemma3", GEMMA3 | {"window_pattern": "SSSSSL", "layers": 6}),
    "gemma3 and linear": ("gemma3", GEMMA3 | scaled("linear")),
    "gemma3, one theta": ("gemma3", GEMMA3 | {"local_rope_theta": None}),
    "gemma3, another head": ("gemma3", GEMMA3 | {"tied_embeddings": False, "embedding_scale": False}),
    "gemma3, 27B's layers": ("gemma3", GEMMA3 | {"layers": 62, "attention_scale": 0.25}),
    "gpt2 without biases": ("gpt2", GPT2 | {"biases": "none", "norm_gains": False}),
    "gpt2, grouped": ("gpt2", GPT2 | {"kv_heads": 2, "window": 128}),
    "gpt2 and more": ("gpt2", GPT2 | {"tied_embeddings": False, "attention_scale": 0.4, "embedding_scale": True}),
    "sinusoidal": ("gpt2", GPT2 | {"positions": "sinusoidal"}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(SERVING["TEXTS"], 320).to_str())


def prompt(length: int = 60) -> list[int]:
    return torch.randint(16, 320, (length,), generator=torch.Generator().manual_seed(0)).tolist()


def with_ggml_gelu(model: Transformer) -> Transformer:
    """ggml looks GELU up in a table from float16 to float16."""
    for module in model.modules():
        if getattr(module, "activation", None) is not None and model.arch.feed_forward.startswith("ge"):
            module.activation = lambda x: F.gelu(x.half().float(), approximate="tanh").half().float()
    return model


def check_architecture(case: tuple[str, dict[str, Any]], tokenizer: Tokenizer, folder: Path, count: int) -> None:
    layout, changes = case
    model = random_model(ARCH.replace(**changes))
    assert exported(model, tokenizer, folder)["gguf_layout"] == layout
    served, model = Llama(folder / "model.gguf"), with_ggml_gelu(model)
    ours, theirs = our_logprobs(model, prompt()), served.logprobs(prompt())
    assert ours.max() - ours.min() > 15
    table = model.arch.feed_forward.startswith("ge")  # a number at the edge of two of its rows makes a step
    assert (ours - theirs).abs().max() < (5e-3 if table else 2e-4)
    assert served.greedy(prompt(), count) == our_greedy(model, prompt(), (tokenizer.end, tokenizer.endoftext), count)


@pytest.mark.parametrize("name", EVERYDAY)
def test_logits_of_each_layout(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_architecture(EVERYDAY[name], tokenizer, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", THOROUGH)
def test_logits_of_each_option(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    check_architecture(THOROUGH[name], tokenizer, tmp_path, 50 if "27B" not in name else 10)


@pytest.fixture(scope="module")
def trained(tokenizer: Tokenizer) -> Transformer:
    """A model with grouped queries, tied embeddings and QK-norm that has learned something."""
    model = fresh_model(ARCH, 0).train()
    texts = [[*tokenizer.encode(text), tokenizer.endoftext] for text in SERVING["TEXTS"] + SERVING["NASTY"]]
    ids, generator = torch.tensor([each for text in texts for each in text]), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        starts = torch.randint(0, len(ids) - 65, (8,), generator=generator)
        rows = torch.stack([ids[start : start + 65] for start in starts])
        loss = F.cross_entropy(model.logits(model(rows[:, :-1])).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.5
    return model.eval()


def test_a_trained_model_goes_through_llama_cpp(trained: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Ids, first-token logprobs and 50 greedy tokens, with llama.cpp's default cache (float16) too."""
    assert exported(trained, tokenizer, tmp_path)["gguf_quantization"] == "f32"
    for cache, bound in (("F32", 1e-4), ("F16", 5e-3)):
        served = Llama(tmp_path / "model.gguf", cache)
        for text in SERVING["NASTY"][:-1]:
            ids = tokenizer.encode(text)
            assert served.ids(text) == ids
            assert (our_logprobs(trained, ids) - served.logprobs(ids)).abs().max() < bound
        ids = tokenizer.encode("Mia has 7 red")
        assert served.greedy(ids) == our_greedy(trained, ids, (tokenizer.end, tokenizer.endoftext))


@pytest.mark.parametrize(
    ("quantization", "bound", "rounding"),
    [("f16", 5e-3, 5e-3), ("bf16", 3e-2, 3e-2), ("q8_0", 0.1, 3e-2), ("q4_0", 1.0, 3e-2)],
)
def test_what_quantisation_costs(
    quantization: str, bound: float, rounding: float, trained: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Against our model, and against ours with the file's own numbers: what is left then is that llama.cpp rounds
    activations too."""
    exported(trained, tokenizer, tmp_path, quantization=quantization)
    served, ids = Llama(tmp_path / "model.gguf"), tokenizer.encode("Mia has 7 red")
    theirs = served.logprobs(ids)
    difference = (our_logprobs(trained, ids) - theirs).abs().max()
    rounded = with_numbers_of(tmp_path / "model.gguf", trained)
    assert (our_logprobs(rounded, ids) - theirs).abs().max() < rounding
    assert 0 < difference < bound


def with_numbers_of(path: Path, model: Transformer) -> Transformer:
    """A copy of a model of the qwen3 layout with the weights of a file."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, model.arch.layers)
    stored = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}
    found = {name: stored[names.get_name(name, (".weight",))] for name in model.state_dict()}
    copied = Transformer(model.arch)
    copied.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in found.items()})
    return copied.eval()
