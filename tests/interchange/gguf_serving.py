"""What the tests of GGUF files share: llama.cpp with a file, models to write into one, texts that are hard to split."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.interchange import export_gguf, save_model
from groundup.model import Architecture, Transformer
from groundup.tokenizer import Tokenizer

TEXTS = [f"Mia has {n} red balls. Tom went to the {p}." for n in "0123456789" for p in ("park", "hill", "lake")]
NASTY = [
    "Where is Mia?",
    "Hello World 123 45678 don't we'll I'M HELLO'S i'LL It'D 's ’s 'ſ",
    "naïve café École ÉCOLEécole ǅabc ʰa ªb Straße İstanbul K",
    "  two  spaces\n\n\tand a tab \r\n \r\n  ",
    "   \n   \n\n\n x\t\t\ty \x0b\x0c\x1c\x85\u2028\u3000\xa0z ",
    "世界，你好。こんにちは 한국어 ไทย นี้ नमस्ते தமிழ் עברית العربية ١٢٣٤",
    "😀👩‍👩‍👧🏽🇩🇪 e\u0301\u0301 a\u0308b\u200b\ufeff\U0010ffff\ue000",
    "x = 12345.678e-9; // a\n\n\tif (x!=y) {}  #!/bin/sh\\n Ⅷ½²",
    "<|endoftext|><|user|>hi<|end|><|reserved_0|> <|no_token_320|> < |pad|>",
    "a\0b\0\0c",
    "1234567890 1 22 333 4444",
    "",
]
ROWS = 328
"""of the embedding table, eight more than small vocabularies have tokens"""
ARCH = Architecture(
    vocabulary_size=ROWS,
    layers=3,
    hidden_size=64,
    heads=4,
    kv_heads=2,
    head_dim=32,
    intermediate_size=96,
    context_length=256,
)


class Llama:
    """llama.cpp with a file loaded, asked over its own HTTP interface."""

    def __init__(self, path: Path, cache: str = "F32") -> None:
        xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp, llama.cpp as a wheel, is not installed")
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity = str(path), 256, 1, 0
        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{cache}")
        params.cache_type_k, params.cache_type_v = kind, kind
        if cache == "F32":  # which the fused kernel would round
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.warmup = params.fit_params = params.ui = False
        self.server = xllamacpp.Server(params)

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            self.server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        found: list[int] = self.ask("/tokenize", content=text, add_special=False, parse_special=special)["tokens"]
        return found

    def logprobs(self, ids: list[int], rows: int = ROWS) -> Tensor:
        """Of the token that follows, for every id. Llama.cpp tells none where the token it takes ends within a
        character, so it is made to take an "a", which these numbers don't feel."""
        options = {"n_probs": rows, "logit_bias": [["a", 1000]], "temperature": 0, "cache_prompt": False}
        told = self.ask("/completion", prompt=ids, n_predict=1, **options)["completion_probabilities"][0]
        found = torch.full((rows,), float("nan"))
        for each in told["top_logprobs"]:
            found[each["id"]] = each["logprob"]
        return found

    def greedy(self, ids: list[int], count: int = 50) -> list[int]:
        options = {"temperature": 0, "ignore_eos": True, "cache_prompt": False, "return_tokens": True}
        found: list[int] = self.ask("/completion", prompt=ids, n_predict=count, **options)["tokens"]
        return found


def random_model(arch: Architecture) -> Transformer:
    """Weights under which tokens, places and experts all matter, and logits lie far apart."""
    model, generator = Transformer(arch), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                offset = name.endswith("bias") or (arch.norm_offset and "norm" in name)
                weight.copy_(0.2 * noise + (0.0 if offset else 1.0))
            elif "embed" in name or "lm_head" in name:
                weight.copy_(0.5 * noise)
            else:
                weight.copy_((2.0 if name.endswith("mlp.gate.weight") else 1.5) * noise * weight.shape[-1] ** -0.5)
    return model.eval()


def exported(model: Transformer, tokenizer: Tokenizer, folder: Path, **options: Any) -> dict[str, Any]:
    save_model(model, folder / "model")
    tokenizer.save(folder / "tokenizer")
    return export_gguf(folder / "model", folder / "tokenizer", folder / "model.gguf", **options)


@torch.no_grad()
def our_logprobs(model: Transformer, ids: list[int]) -> Tensor:
    return model.logits(model(torch.tensor([ids])))[0, -1].float().log_softmax(-1)


def our_greedy(model: Transformer, ids: list[int], stops: tuple[int, ...], count: int = 50) -> list[int]:
    """Greedy ids that never are one of ``stops``, as llama.cpp's with ``ignore_eos``."""
    made: list[int] = []
    for _ in range(count):
        logprobs = our_logprobs(model, ids + made)
        logprobs[list(stops)] = -torch.inf
        made.append(int(logprobs.argmax()))
    return made
