"""Tiny random models of `transformers` come in with equal logits, and go out with the same ones, bit for bit."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from groundup.inference import SamplingParams, generate
from groundup.inference.cache import KVCache
from groundup.interchange import ImportReport, export_hf, import_checkpoint, load_model
from groundup.model import PackedMask, Transformer

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")

ROWS, LENGTH, WINDOW = 323, 40, 9
NASTY = [
    "  two  spaces\n\n\tand a tab ",
    "naïve café, 世界, Привет, 😀👩‍👩‍👧",
    "<|endoftext|> 12345.678e-9; don't",
    "",
    "\x00\r\n ",
]
SIZES = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEAD = {"head_dim": 12}
MOE = {"num_experts_per_tok": 2, "num_local_experts": 5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 5_000.0,
}
LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 20_000.0}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
GPT2 = {"vocab_size": ROWS, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "eos_token_id": 2}
SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW}
UNTIED = {"tie_word_embeddings": False}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "llama": ("Llama", SIZES),
    "mistral": ("Mistral", SIZES | HEAD | {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2", SIZES | SLIDING | {"max_window_layers": 1, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", SIZES | HEAD | {"tie_word_embeddings": True}),
    "olmo2": ("Olmo2", SIZES),
    "gemma3_text": ("Gemma3Text", SIZES | HEAD | {"sliding_window": WINDOW, "query_pre_attn_scalar": 7}),
    "mixtral": ("Mixtral", SIZES | MOE),
    "qwen3_moe": ("Qwen3Moe", SIZES | HEAD | MOE | {"moe_intermediate_size": 24, "mlp_only_layers": [0]}),
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-untied-relu": ("gpt2", {"tie_word_embeddings": False, "activation_function": "relu", "n_inner": 40}),
    "llama-tied-llama3": ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama-biases-gelu": ("llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "mistral-everything-seen": ("mistral", {"sliding_window": None, "rope_parameters": LINEAR}),
    "qwen2-untied-yarn": ("qwen2", UNTIED | {"use_sliding_window": False, "rope_parameters": YARN}),
    "qwen3-untied-windows": (
        "qwen3",
        SLIDING | UNTIED | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "olmo2-tied-multi-head": ("olmo2", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "gemma3-untied-linear": (
        "gemma3_text",
        {
            "rope_parameters": GEMMA_ROPE,
            "tie_word_embeddings": False,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "final_logit_softcapping": 5.0,
        },
    ),
    "mixtral-window-tied": ("mixtral", {"sliding_window": WINDOW, "tie_word_embeddings": True}),
    "qwen3-moe-renormalised-window": (
        "qwen3_moe",
        SLIDING | {"mlp_only_layers": [], "norm_topk_prob": True, "tie_word_embeddings": True},
    ),
}  # fmt: skip


class Case(NamedTuple):
    """A checkpoint of theirs, and what became of it here."""

    source: Path
    theirs: Any
    imported: Path
    ours: Transformer
    report: ImportReport


def make(family: str, changes: dict[str, Any], folder: Path, **save: Any) -> Case:
    """A random model of a family, imported."""
    name, values = FAMILIES[family]
    config = getattr(transformers, name + "Config")(**{**values, **changes})
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    randomise(theirs)
    source = folder / "source"
    theirs.save_pretrained(source, **save)
    report = import_checkpoint(source, folder / "final")
    return Case(source, theirs, folder / "final", load_model(folder / "final"), report)


def randomise(model: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") or "ln_" in name else 0.0
            weight.copy_(mean + 0.2 * torch.randn(weight.shape, generator=generator))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {}


@pytest.fixture(params=FAMILIES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = request.param
    if family not in cases:
        cases[family] = make(family, {}, tmp_path_factory.mktemp(family))
    return cases[family]


def some_ids(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, ROWS, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def our_logits(model: Transformer, ids: Tensor, **options: Any) -> Tensor:
    return model.logits(model(ids, **options))


@torch.no_grad()
def test_equal_logits(case: Case) -> None:
    ids = some_ids(2, LENGTH)
    want = case.theirs(ids).logits
    assert want.std() > 0.1
    torch.testing.assert_close(our_logits(case.ours, ids), want, atol=1e-4, rtol=0)
    assert case.report.parameters == sum(weight.numel() for weight in case.theirs.parameters())
    assert (case.report.rows, case.report.dtype, case.report.stop_ids) == (ROWS, "float32", (2,))
    assert case.report.architecture == case.ours.arch
    assert case.report.left_out == ()


@torch.no_grad()
def test_equal_logits_with_a_cache(case: Case) -> None:
    ids = some_ids(2, LENGTH)
    cache = KVCache(case.ours.arch, 2, LENGTH, dtype=torch.float32, device=torch.device("cpu"))
    kept, got, want = None, [], []
    for begin, end in [(0, 13), (13, 14), (14, 20), *((i, i + 1) for i in range(20, LENGTH))]:
        positions = torch.arange(begin, end)[None].expand(2, -1)
        mask = torch.arange(end) <= positions[0, :, None]
        got.append(our_logits(case.ours, ids[:, begin:end], positions=positions, mask=mask[None, None], cache=cache))
        cache.advance(end - begin)
        out = case.theirs(ids[:, begin:end], past_key_values=kept, use_cache=True)
        kept = out.past_key_values
        want.append(out.logits)
    torch.testing.assert_close(torch.cat(got, 1), torch.cat(want, 1), atol=1e-4, rtol=0)


@torch.no_grad()
def test_equal_logits_padded_on_the_left(case: Case) -> None:
    ids, lengths = some_ids(3, LENGTH, 2), [LENGTH, 25, 3]
    real = torch.stack([torch.arange(LENGTH) >= LENGTH - length for length in lengths])
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    want = case.theirs(ids, attention_mask=real.long(), position_ids=positions).logits
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    mask = (causal & real[:, None, :] | torch.eye(LENGTH, dtype=torch.bool))[:, None]
    got = our_logits(case.ours, ids, positions=positions, mask=mask)
    torch.testing.assert_close(got[real], want[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_equal_logits_of_packed_documents(case: Case) -> None:
    ids = some_ids(1, LENGTH, 3)
    spans = [(0, 17), (17, 20), (20, LENGTH)]
    documents = torch.tensor([[1] * 17 + [2] * 3 + [3] * (LENGTH - 20)])
    positions = torch.cat([torch.arange(end - begin) for begin, end in spans])[None]
    got = our_logits(case.ours, ids, positions=positions, mask=PackedMask(documents))
    want = torch.cat([case.theirs(ids[:, begin:end]).logits for begin, end in spans], dim=1)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's tokenizer, which begins every text with a token and has a chat template of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|pad|>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS - 3, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(["Once upon a time there was a little model, and it had a friend."] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<|pad|>"
    )
    fast.chat_template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
    fast.save_pretrained(folder)
    return folder


@torch.no_grad()
def check_export(case: Case, tokenizer_files: Path, out: Path, **options: Any) -> Any:
    """An untouched model goes out as it came in."""
    metrics = export_hf(case.imported, None, out, source_tokenizer=tokenizer_files, **options)
    again = transformers.AutoModelForCausalLM.from_pretrained(out, attn_implementation="sdpa").eval()
    assert type(again) is type(case.theirs)
    assert metrics["hf_model_type"] == case.report.family
    assert metrics["hf_folded"] == metrics["hf_left_out"] == []
    assert metrics["hf_parameters"] == case.report.parameters
    want = case.theirs.state_dict()
    assert again.state_dict().keys() == want.keys()
    assert all(torch.equal(weight, want[name]) for name, weight in again.state_dict().items())
    ids = some_ids(2, LENGTH, 4)
    assert torch.equal(again(ids).logits, case.theirs(ids).logits)
    return again


@torch.no_grad()
def test_exported_again_bit_for_bit(case: Case, tokenizer_files: Path, tmp_path: Path) -> None:
    again = check_export(case, tokenizer_files, tmp_path / "hf")
    for file in tokenizer_files.iterdir():
        shutil.copy(file, case.source)  # which class reads them depends on config.json
    before = transformers.AutoTokenizer.from_pretrained(case.source)
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    chat = [{"role": "user", "content": "Hi"}]
    for text in NASTY:
        assert after(text)["input_ids"] == before(text)["input_ids"]
        assert case.report.family == "qwen2" or after(text)["input_ids"][0] == 1  # its class has no first token
    assert after.apply_chat_template(chat, tokenize=False) == before.apply_chat_template(chat, tokenize=False)
    prompt = before("Once upon")["input_ids"]
    rules = {"max_new_tokens": 20, "do_sample": False}
    want = case.theirs.generate(torch.tensor([prompt]), **rules)[0].tolist()
    assert again.generate(torch.tensor([prompt]), **rules)[0].tolist() == want
    assert again.generation_config.eos_token_id == case.theirs.generation_config.eos_token_id == 2
    mine = generate(case.ours, [prompt], SamplingParams(max_tokens=20, stop_ids=case.report.stop_ids))[0].ids
    assert prompt + mine == want


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_variants(name: str, tokenizer_files: Path, tmp_path: Path) -> None:
    family, changes = VARIANTS[name]
    case = make(family, changes, tmp_path)
    ids = some_ids(2, LENGTH)
    torch.testing.assert_close(our_logits(case.ours, ids), case.theirs(ids).logits, atol=1e-4, rtol=0)
    check_export(case, tokenizer_files, tmp_path / "hf")
