"""What a GGUF file holds: keys, tensors, types; its ids and chats through llama.cpp; what is refused."""

import gzip
import json
import runpy
import stat
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType, TokenType

from groundup.interchange.gguf import encoded
from groundup.interchange.gguf_layouts import interleave
from groundup.interchange.gguf_tokenizer import gguf_vocabulary
from groundup.model import Transformer
from groundup.run import UserError
from groundup.tokenizer import Tokenizer, adopt, chat_template, encode_chat, extend, train_bpe

SERVING = runpy.run_path(str(Path(__file__).with_name("gguf_serving.py")))
ARCH, ROWS, Llama, NASTY, TEXTS = (SERVING[name] for name in ("ARCH", "ROWS", "Llama", "NASTY", "TEXTS"))
exported, random_model = SERVING["exported"], SERVING["random_model"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(TEXTS, 320).to_str())


@pytest.fixture(scope="module")
def model() -> Transformer:
    return random_model(ARCH)


def read(path: Path) -> tuple[dict[str, Any], dict[str, gguf.ReaderTensor]]:
    """The keys of a file and its tensors, by the package's own reader."""
    reader = gguf.GGUFReader(path)
    return {key: field.contents() for key, field in reader.fields.items()}, {each.name: each for each in reader.tensors}


def test_keys_and_tensors(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    metrics = exported(model, tokenizer, tmp_path, name="Small one", licence="apache-2.0")
    path = tmp_path / "model.gguf"
    keys, tensors = read(path)
    count = sum(weight.numel() for weight in model.parameters())
    assert metrics == {
        "gguf_bytes": path.stat().st_size,
        "gguf_bits_per_weight": round(8 * path.stat().st_size / count, 3),
        "gguf_parameters": count,
        "gguf_tensors": len(list(model.parameters())),
        "gguf_layout": "qwen3",
        "gguf_quantization": "f32",
        "gguf_notes": [],
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert {file.name for file in tmp_path.iterdir()} == {"model", "tokenizer", "model.gguf"}
    expected = {
        "general.architecture": "qwen3",
        "general.type": "model",
        "general.name": "Small one",
        "general.license": "apache-2.0",
        "general.size_label": "150.7K",
        "general.file_type": LlamaFileType.ALL_F32,
        "qwen3.context_length": 256,
        "qwen3.embedding_length": 64,
        "qwen3.block_count": 3,
        "qwen3.feed_forward_length": 96,
        "qwen3.vocab_size": ROWS,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 32,
        "qwen3.attention.value_length": 32,
        "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "qwen3.rope.dimension_count": 32,
        "qwen3.rope.freq_base": 10_000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.bos_token_id": tokenizer.endoftext,
        "tokenizer.ggml.eos_token_id": tokenizer.end,
        "tokenizer.ggml.eot_token_id": tokenizer.end,
        "tokenizer.ggml.padding_token_id": tokenizer.pad,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": chat_template(learned_marks=False),
    }
    lists = {f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges")}
    assert {key: keys[key] for key in keys if key not in lists and not key.startswith("GGUF.")} == expected
    assert len(keys["tokenizer.ggml.tokens"]) == len(keys["tokenizer.ggml.token_type"]) == ROWS
    found = torch.from_numpy(np.array(tensors["blk.1.attn_q.weight"].data))
    assert torch.equal(found, model.model.layers[1].self_attn.q_proj.weight)
    assert "output.weight" not in tensors


def test_vocabulary(tokenizer: Tokenizer) -> None:
    more = Tokenizer(extend(tokenizer.json, [" red balls", "myoglobin"])[0])
    size = tokenizer.vocabulary_size
    found = gguf_vocabulary(more, ROWS)
    types = [TokenType.CONTROL] * 16 + [TokenType.NORMAL] * (size - 16) + [TokenType.USER_DEFINED] * 2
    assert found.types == types + [TokenType.UNUSED] * (ROWS - size - 2)
    assert found.tokens[:2] == ["<|endoftext|>", "<|pad|>"]
    assert found.tokens[16 + ord("a")] == "a"
    assert found.tokens[16 + ord(" ")] == "Ġ"
    assert found.tokens[size : size + 3] == [" red balls", "myoglobin", f"<|no_token_{size + 2}|>"]
    assert len({*found.tokens}) == ROWS
    assert found.merges[0].count(" ") == 1
    assert len(found.merges) == size - 16 - 256


@pytest.mark.parametrize(
    ("pattern", "whole", "name"),
    [("qwen2", False, "qwen2"), ("gpt2", False, "gpt-2"), ("gpt4", False, "dbrx"), ("llama3", True, "llama-bpe")],
)
def test_ids_of_each_way_to_split(pattern: str, whole: bool, name: str, model: Transformer, tmp_path: Path) -> None:
    trained = json.loads(train_bpe(TEXTS + NASTY, 320, split_pattern=pattern).to_str())
    trained["model"]["ignore_merges"] = whole
    tokenizer = Tokenizer(extend(json.dumps(trained), [" red balls", "31"])[0])
    assert gguf_vocabulary(tokenizer, ROWS).pre == name
    exported(model, tokenizer, tmp_path)
    served = Llama(tmp_path / "model.gguf")
    for text in [*NASTY, *TEXTS, "".join(NASTY), "312 red balls4123"]:
        assert served.ids(text) == tokenizer.encode(text)


def test_gpt2s_own_vocabulary(real_data: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(adopt(real_data / "gpt2_bpe").json)
    rows = tokenizer.vocabulary_size + 7
    assert gguf_vocabulary(tokenizer, rows).pre == "gpt-2"
    small = ARCH.replace(vocabulary_size=rows, layers=1, hidden_size=32, heads=1, kv_heads=1)
    exported(random_model(small), tokenizer, tmp_path, quantization="q4_0")
    served = Llama(tmp_path / "model.gguf")
    for text in NASTY:
        assert served.ids(text) == tokenizer.encode(text)


def test_ids_of_sentencepiece(model: Transformer, tmp_path: Path) -> None:
    made = runpy.run_path(str(Path(__file__).parents[1] / "tokenizer" / "made_pieces.py"))
    (tmp_path / "tokenizer.json").write_text(made["piece_tokenizer"]("llama").to_str())
    tokenizer = Tokenizer(extend(adopt(tmp_path).json, [" red balls", "31"])[0])
    rows = tokenizer.vocabulary_size + 9
    exported(random_model(ARCH.replace(vocabulary_size=rows)), tokenizer, tmp_path)
    keys, _ = read(tmp_path / "model.gguf")
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.token_type"][:4] == [TokenType.CONTROL] * 3 + [TokenType.BYTE]
    assert not keys["tokenizer.ggml.add_space_prefix"]
    assert {"tokenizer.ggml.pre", "tokenizer.ggml.merges"}.isdisjoint(keys)
    served = Llama(tmp_path / "model.gguf")
    for text in [*NASTY, *TEXTS, *made["TEXTS"], "".join(NASTY), "312 red balls4123"]:
        assert served.ids(text) == tokenizer.encode(text)
    check_chats(tokenizer, served)


def test_chats_and_where_they_end(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    exported(model, tokenizer, tmp_path)
    check_chats(tokenizer, Llama(tmp_path / "model.gguf"))


def check_chats(tokenizer: Tokenizer, served: Any) -> None:
    """Chats become the same ids by the file's template as by our own code; the ends of both kinds end an answer."""
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "  Where is Mia?\n"},
        {"role": "assistant", "content": "In the park. 😀"},
        {"role": "user", "content": 'And "Tom"? {{ x }}'},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    for offered in (None, tools):
        for chat in (messages, messages[:2], messages[1:]):
            more = {"tools": offered} if offered else {}
            shown = served.ask("/apply-template", messages=chat, **more)["prompt"]
            told = encode_chat(tokenizer, chat, tools=offered, generation_prompt=True).ids
            assert served.ids(shown, special=True) == list(told)
    assert list(told) != served.ids(shown)  # spelled in a text, control tokens are text
    for stop in (tokenizer.end, tokenizer.endoftext):
        answer = served.ask("/completion", prompt=told, n_predict=9, temperature=0, logit_bias=[[stop, 1000]])
        assert (answer["stop_type"], answer["tokens_predicted"]) == ("eos", 1)


def test_types_of_a_quantised_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Matrices are quantised, norms and routers are not, rows of 48 can't be; the embedding is finer than q4_0."""
    arch = ARCH.replace(intermediate_size=48, tied_embeddings=False, experts={"count": 4, "per_token": 2})
    metrics = exported(random_model(arch), tokenizer, tmp_path, quantization="q4_0")
    keys, tensors = read(tmp_path / "model.gguf")
    assert keys["general.file_type"] == LlamaFileType.MOSTLY_Q4_0
    assert keys["general.quantization_version"] == gguf.GGML_QUANT_VERSION
    kinds = {name: tensor.tensor_type for name, tensor in tensors.items() if not name.startswith(("blk.1", "blk.2"))}
    blocks = {f"blk.0.{name}": kind for name, kind in {
        **dict.fromkeys(("attn_norm.weight", "ffn_norm.weight", "attn_q_norm.weight", "attn_k_norm.weight"), Type.F32),
        **dict.fromkeys((f"attn_{part}.weight" for part in ("q", "k", "v", "output")), Type.Q4_0),
        **dict.fromkeys(("ffn_gate_exps.weight", "ffn_up_exps.weight"), Type.Q4_0),
        "ffn_gate_inp.weight": Type.F32,
        "ffn_down_exps.weight": Type.F16,
    }.items()}  # fmt: skip
    ends = {"token_embd.weight": Type.Q8_0, "output.weight": Type.Q8_0, "output_norm.weight": Type.F32}
    assert kinds == blocks | ends
    names = ", ".join(f"blk.{layer}.ffn_down_exps.weight" for layer in range(3))
    assert metrics["gguf_notes"] == [f"f16, since their rows are no multiple of 32 long: {names}"]


@pytest.mark.parametrize(("kind", "steps", "bits"), [(Type.Q8_0, 127, 8.5), (Type.Q4_0, 8, 4.5)])
def test_blocks(kind: Type, steps: int, bits: float) -> None:
    """A block of 32 has one scale, its largest number over the steps; numbers are rounded to it, and the scale to
    float16. Of q4_0, whose steps go from -8 to 7, a number as large on the other side loses a whole step."""
    values = torch.randn(6, 96, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 6)[:, None]
    stored = encoded(values, kind)
    assert stored.nbytes * 8 == values.numel() * bits
    assert np.array_equal(stored, gguf.quantize(values.numpy(), kind))
    blocks = values.reshape(-1, 32).numpy()
    error = np.abs(gguf.dequantize(stored, kind).reshape(-1, 32) - blocks)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / steps
    rounding = scale * steps * 2.0**-11 + 1e-7
    assert (error <= (0.5 if kind == Type.Q8_0 else 1.0) * scale + rounding).all()
    assert error.max() > 0


def test_plain_types_keep_their_values(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The weights' own dtype is kept where none is asked for, and copies of it are exact."""
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "f16")):
        weights = random_model(ARCH).to(dtype)
        assert exported(weights, tokenizer, tmp_path)["gguf_quantization"] == name
        stored = read(tmp_path / "model.gguf")[1]["token_embd.weight"]
        values = torch.from_numpy(np.array(gguf.dequantize(stored.data, stored.tensor_type)))
        assert torch.equal(values, weights.model.embed_tokens.weight.float())


def test_interleave_turns_neighbours_as_halves_are_turned() -> None:
    rows = interleave(torch.arange(12.0)[:, None], heads=2)[:, 0].tolist()
    assert rows == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_a_window_that_llama_cpp_lacks_bounds_the_context(tokenizer: Tokenizer, tmp_path: Path) -> None:
    metrics = exported(random_model(ARCH.replace(window=100)), tokenizer, tmp_path)
    assert read(tmp_path / "model.gguf")[0]["qwen3.context_length"] == 100
    assert "context of 100 tokens, not 256" in metrics["gguf_notes"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": "alibi"}, 'positions = "alibi"'),
        ({"logit_softcap": 30.0}, "logit_softcap = 30.0"),
        ({"value_embeddings": True}, "value_embeddings = true"),
        ({"attention_sinks": True, "x0_skip": True}, "attention_sinks = true and x0_skip = true"),
        ({"feed_forward": "squared_relu"}, 'feed_forward = "squared_relu"'),
        ({"rope_scaling": {"kind": "llama3", "factor": 4, "original_context": 64}}, 'rope_scaling of kind "llama3"'),
        ({"experts": {"count": 4, "per_token": 2, "shared": 1}}, "experts.shared = 1"),
        ({"experts": {"count": 4, "per_token": 2, "dense_layers": 1}}, "experts.dense_layers = 1"),
        ({"norm_placement": "sandwich", "feed_forward": "geglu_tanh", "embedding_scale": True}, "no window"),
        ({"window": 8, "local_rope_theta": 500.0}, "local_rope_theta = 500.0"),
    ],
)
def test_architectures_without_a_layout(
    changes: dict[str, Any], words: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="llama.cpp has no layout for a model with") as caught:
        exported(random_model(ARCH.replace(**changes)), tokenizer, tmp_path)
    assert words in str(caught.value)
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("options", [{"split_pattern": "o200k"}, {"split_pattern": r"\p{L}+|[^\p{L}]"}, {"digits": 2}])
def test_splits_that_llama_cpp_does_not_know(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="does not know how this tokenizer splits words") as caught:
        gguf_vocabulary(Tokenizer(train_bpe(TEXTS, 320, **options).to_str()), ROWS)
    assert "gpt2, gpt4, qwen2, llama3" in str(caught.value)


def test_digits_make_of_one_pattern_another() -> None:
    tokenizer = Tokenizer(train_bpe(TEXTS, 320, split_pattern="qwen2", digits=3).to_str())
    assert gguf_vocabulary(tokenizer, ROWS).pre == "dbrx"


def test_tokenizers_that_do_not_fit(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only 300 rows"):
        exported(random_model(ARCH.replace(vocabulary_size=300)), tokenizer, tmp_path)
    content = json.loads(extend(tokenizer.json, ["myoglobin"])[0])
    content["added_tokens"][-1]["single_word"] = True
    with pytest.raises(UserError, match="'myoglobin' is single_word"):
        gguf_vocabulary(Tokenizer(json.dumps(content)), ROWS)
    content = json.loads(tokenizer.json)
    content["model"]["ignore_merges"] = True
    assert gguf_vocabulary(Tokenizer(json.dumps(content)), ROWS).pre == "qwen2"  # merges make every token
    content["model"]["merges"].pop()
    with pytest.raises(UserError, match="does not know how"):
        gguf_vocabulary(Tokenizer(json.dumps(content)), ROWS)


def test_numbers_that_do_not_fit(tokenizer: Tokenizer, tmp_path: Path) -> None:
    weights = random_model(ARCH)
    with torch.no_grad():
        weights.model.layers[0].mlp.up_proj.weight[0, 0] = 70_000.0
    with pytest.raises(UserError, match=r"blk\.0\.ffn_up\.weight has the value 70000, and f16 ends at 65504"):
        exported(weights, tokenizer, tmp_path, quantization="f16")
    exported(weights, tokenizer, tmp_path, quantization="q8_0")
    before = (tmp_path / "model.gguf").read_bytes()
    with torch.no_grad():
        weights.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        exported(weights, tokenizer, tmp_path, quantization="q8_0")
    assert (tmp_path / "model.gguf").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"model", "tokenizer", "model.gguf"}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["qwen2", "gpt4", "gpt2"])
def test_ids_in_75_languages(pattern: str, model: Transformer, real_data: Path, tmp_path: Path) -> None:
    lines = []
    for file in sorted((real_data / "languages").glob("*.txt.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as opened:
            lines += [line for line in opened.read().splitlines() if line.strip()][:100]
    assert len(lines) > 5000
    tokenizer = Tokenizer(train_bpe(lines[::5], 3000, split_pattern=pattern).to_str())
    exported(random_model(ARCH.replace(vocabulary_size=3000, layers=1)), tokenizer, tmp_path)
    served = Llama(tmp_path / "model.gguf")
    assert [line for line in lines if served.ids(line) != tokenizer.encode(line)] == []
