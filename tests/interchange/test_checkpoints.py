"""Checkpoint directories as they are found: shards, old names and new, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.interchange import checkpoint_files, export_hf, import_checkpoint, load_architecture, load_model
from groundup.interchange.tensor_files import planned, write_sharded
from groundup.run import UserError

os.environ["HF_HUB_OFFLINE"] = "1"

LLAMA = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN3_MOE = LLAMA | {"model_type": "qwen3_moe", "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
GEMMA = LLAMA | {"model_type": "gemma3_text", "head_dim": 8}
GPT2 = {"model_type": "gpt2", "vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}


def llama_tensors(layers: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (50, 16), "model.norm.weight": (16,)}
    shapes["lm_head.weight"] = (50, 16)
    for layer in range(layers):
        name = f"model.layers.{layer}."
        shapes |= {f"{name}{norm}.weight": (16,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {
            f"{name}self_attn.{part}_proj.weight": (rows, 16) for part, rows in zip("qkvo", (16, 8, 8, 16), strict=True)
        }
        shapes |= {f"{name}mlp.{part}_proj.weight": (24, 16) for part in ("gate", "up")}
        shapes[f"{name}mlp.down_proj.weight"] = (16, 24)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    return folder


def refused(source: Path, tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        import_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    return str(caught.value)


def sharded(folder: Path, tensors: dict[str, Tensor]) -> list[Path]:
    write(folder, LLAMA)
    return write_sharded(planned(tensors), folder, max_shard_bytes=4000)


def test_imported_as_it_is(tmp_path: Path) -> None:
    tensors = llama_tensors(dtype=torch.bfloat16)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    source = write(
        tmp_path / "source", LLAMA | {"attention_dropout": 0.1, "use_cache": True, "pretraining_tp": 1}, tensors
    )
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    report = import_checkpoint(source, tmp_path / "out")
    assert (report.family, report.rows, report.dtype, report.stop_ids) == ("llama", 50, "bfloat16", (2, 7))
    (source / "generation_config.json").write_text('{"eos_token_id": "x"}')
    assert "eos_token_id = 'x'" in refused(source, tmp_path / "again")
    with pytest.raises(UserError, match="the same directory"):
        import_checkpoint(source, source)
    assert report.left_out == (
        "model.layers.0.self_attn.rotary_emb.inv_freq: frequencies are computed, not read",
        "config.json: attention_dropout = 0.1",
    )
    del tensors["model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert report.parameters == sum(tensor.numel() for tensor in tensors.values())
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert got.keys() == tensors.keys()
    assert all(got[name].dtype == each.dtype and torch.equal(got[name], each) for name, each in tensors.items())
    assert load_architecture(tmp_path / "out") == report.architecture
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["eos_token_id"], config["dtype"]) == ("llama", 2, "bfloat16")
    names = [path.name for path in checkpoint_files(source)]
    assert names == ["config.json", "generation_config.json", "model.safetensors"]


def test_shards_with_an_index_and_without(tmp_path: Path) -> None:
    tensors = llama_tensors()
    paths = sharded(tmp_path / "source", tensors)
    assert len(paths) == 7
    assert paths[0].name == "model-00001-of-00007.safetensors"
    index = json.loads((tmp_path / "source" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    for path in paths:
        held = load_file(path)
        assert {name for name, file in index["weight_map"].items() if file == path.name} == held.keys()
        assert sum(tensor.nbytes for tensor in held.values()) <= 4000
    files = checkpoint_files(tmp_path / "source")
    assert [path.name for path in files] == ["config.json", "model.safetensors.index.json", *(p.name for p in paths)]
    for _ in range(2):
        import_checkpoint(tmp_path / "source", tmp_path / "out")
        got = load_file(tmp_path / "out" / "model.safetensors")
        assert all(torch.equal(got[name], tensor) for name, tensor in tensors.items())
        (tmp_path / "source" / "model.safetensors.index.json").unlink(missing_ok=True)


def test_lone_files_of_any_names(tmp_path: Path) -> None:
    tensors = llama_tensors()
    source = write(tmp_path / "source", LLAMA)
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[::2]}, source / "first.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, source / "second.safetensors")
    save_file({"tok_embeddings.weight": torch.ones(3)}, source / "consolidated.safetensors")
    import_checkpoint(source, tmp_path / "out")
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(got[name], tensor) for name, tensor in tensors.items())
    save_file({"lm_head.weight": tensors["lm_head.weight"]}, source / "third.safetensors")
    assert "the tensor lm_head.weight is in first.safetensors too" in refused(source, tmp_path / "again")


@pytest.mark.parametrize("indexed", [True, False])
def test_missing_shards_are_named(tmp_path: Path, indexed: bool) -> None:
    paths = sharded(tmp_path / "source", llama_tensors())
    paths[1].unlink()
    paths[3].unlink()
    if not indexed:
        (tmp_path / "source" / "model.safetensors.index.json").unlink()
    message = refused(tmp_path / "source", tmp_path)
    assert "2 of 7 weight files are missing" in message
    assert "model-00002-of-00007.safetensors" in message
    assert "model-00004-of-00007.safetensors" in message
    with pytest.raises(UserError, match="2 of 7 weight files"):
        checkpoint_files(tmp_path / "source")


def test_an_index_that_is_wrong(tmp_path: Path) -> None:
    source = tmp_path / "source"
    sharded(source, llama_tensors())
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    last = index["weight_map"]["model.norm.weight"]
    index["weight_map"]["model.norm.weight"] = "model-00004-of-00007.safetensors"
    index["weight_map"]["model.more.weight"] = "model-00004-of-00007.safetensors"
    path.write_text(json.dumps(index))
    message = refused(source, tmp_path)
    assert f"model.norm.weight: in {last}, not in model-00004-of-00007.safetensors" in message
    assert "model.more.weight: nowhere, not in model-00004-of-00007.safetensors" in message
    for wrong in ("../other.safetensors", "pytorch_model-00001.bin"):
        path.write_text(json.dumps({"weight_map": {"model.norm.weight": wrong}}))
        assert f"the index names the file {wrong!r}" in refused(source, tmp_path)
    for broken in ("[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'):
        path.write_text(broken)
        refused(source, tmp_path)


def test_tensors_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    tensors = llama_tensors()
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.gate_proj.weight"] = torch.zeros(3, 16)
    tensors["model.layers.1.self_attn.q_norm.weight"] = torch.ones(4)
    tensors["model.layers.0.mlp.upproj.weight"] = torch.ones(2)
    tensors["score.weight"] = torch.ones(2)
    message = refused(write(tmp_path / "source", LLAMA, tensors), tmp_path)
    assert "missing: model.layers.1.mlp.up_proj.weight [24, 16]" in message
    assert "missing: model.norm.weight [16]" in message
    assert "shape: model.layers.0.mlp.gate_proj.weight is [3, 16], should be [24, 16]" in message
    assert "unknown: model.layers.1.self_attn.q_norm.weight [4]" in message
    assert "unknown: model.layers.0.mlp.upproj.weight [2]; did you mean 'model.layers.N.mlp.up_proj.weight'?" in message
    assert "unknown: score.weight [2]" in message


def test_a_head_beside_a_tied_one(tmp_path: Path) -> None:
    tensors = llama_tensors()
    source = write(tmp_path / "source", LLAMA | {"tie_word_embeddings": True}, tensors)
    assert "unknown: lm_head.weight" in refused(source, tmp_path)
    assert "tie_word_embeddings" in refused(source, tmp_path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    write(source, LLAMA | {"tie_word_embeddings": True}, tensors)
    report = import_checkpoint(source, tmp_path / "out")
    assert report.left_out == ("lm_head.weight: the same as the embedding, with which it is shared",)
    write(source, LLAMA, {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"})
    assert "missing: lm_head.weight [50, 16]" in refused(source, tmp_path / "again")


@pytest.mark.parametrize("scalar", ["lm_head.weight", "model.embed_tokens.weight"])
def test_a_table_without_rows_is_refused_by_its_shape(tmp_path: Path, scalar: str) -> None:
    tensors = llama_tensors() | {scalar: torch.tensor(1.0)}
    message = refused(write(tmp_path / "source", LLAMA | {"tie_word_embeddings": True}, tensors), tmp_path)
    assert f"{scalar} " in message
    assert "the tensors are not those that config.json says" in message


def test_pickles_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "source", LLAMA)
    assert "no model.safetensors" in refused(source, tmp_path)
    (source / "pytorch_model.bin").write_bytes(b"\x80")
    message = refused(source, tmp_path)
    assert "pytorch_model.bin: weights in a pickle are refused, because loading one can run any code" in message
    assert "save_pretrained" in message


def test_broken_and_quantised_files(tmp_path: Path) -> None:
    tensors = llama_tensors()
    source = write(tmp_path / "source", LLAMA, tensors)
    weights = source / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, 200, len(whole) - 1):
        weights.write_bytes(whole[:size])
        assert "not a readable safetensors file" in refused(source, tmp_path)
    tensors["model.norm.weight"] = torch.ones(16, dtype=torch.int8)
    save_file(tensors, weights)
    assert "model.norm.weight is stored as I8" in refused(source, tmp_path)
    for content in ("{", "[]", ""):
        (source / "config.json").write_text(content)
        refused(source, tmp_path)
    (source / "config.json").unlink()
    assert "no config.json" in refused(source, tmp_path)


def test_names_of_a_model_without_a_head(tmp_path: Path) -> None:
    tensors = {name.removeprefix("model."): tensor for name, tensor in llama_tensors().items()}
    del tensors["lm_head.weight"]
    import_checkpoint(write(tmp_path / "source", LLAMA | {"tie_word_embeddings": True}, tensors), tmp_path / "out")
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(got["model.layers.1.mlp.up_proj.weight"], tensors["layers.1.mlp.up_proj.weight"])
    tensors["model.norm.weight"] = tensors["norm.weight"].clone()
    write(tmp_path / "source", LLAMA | {"tie_word_embeddings": True}, tensors)
    assert "are both the layout's model.norm.weight" in refused(tmp_path / "source", tmp_path / "again")


def transformers_model(kind: str, config: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe"])
def test_joined_experts_of_newer_programs(tmp_path: Path, kind: str) -> None:
    """A state dict as it is in memory, with gate and up in one tensor, gives the same model as the files."""
    transformers = pytest.importorskip("transformers")
    sizes = {key: value for key, value in QWEN3_MOE.items() if key != "model_type"} | {"num_local_experts": 3}
    sizes.pop("num_experts")
    model = transformers_model(f"{kind}ForCausalLM", getattr(transformers, f"{kind}Config")(**sizes))
    model.save_pretrained(tmp_path / "files")
    joined = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert any("gate_up_proj" in name for name in joined)
    write(tmp_path / "joined", json.loads((tmp_path / "files" / "config.json").read_text()), joined)
    for name in ("files", "joined"):
        import_checkpoint(tmp_path / name, tmp_path / f"{name}.out")
    first, second = (load_file(tmp_path / f"{name}.out" / "model.safetensors") for name in ("files", "joined"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_gpt2_as_openai_published_it(tmp_path: Path) -> None:
    """No prefix, the masks among the tensors, the head written a second time."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(**{key: value for key, value in GPT2.items() if key != "model_type"})
    model = transformers_model("GPT2LMHeadModel", config)
    tensors = {name.removeprefix("transformer."): tensor.clone() for name, tensor in model.state_dict().items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 32, 32).tril() for layer in range(2)}
    summary = {"summary_type": "cls_index", "n_ctx": 32, "resid_pdrop": 0.2, "task_specific_params": {"a": 1}}
    report = import_checkpoint(write(tmp_path / "source", GPT2 | summary, tensors | masks), tmp_path / "out")
    assert report.left_out == (
        "lm_head.weight: the same as the embedding, with which it is shared",
        "h.0.attn.bias: the causal mask is computed, not read",
        "h.1.attn.bias: the causal mask is computed, not read",
        "config.json: resid_pdrop = 0.2",
    )
    ids = torch.arange(30)[None]
    ours = load_model(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(ids)), model(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("old", [True, False])
def test_the_text_part_of_gemma_that_sees(tmp_path: Path, old: bool) -> None:
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {key: value for key, value in GEMMA.items() if key != "model_type"} | {"sliding_window": 5}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision | {"image_size": 16, "patch_size": 8, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=49,
    )
    model = transformers_model("Gemma3ForConditionalGeneration", config)
    source = tmp_path / "source"
    model.save_pretrained(source)
    tensors = load_file(source / "model.safetensors")
    if not old:
        names = {name: name if name.startswith("lm_head") else f"model.{name}" for name in tensors}
        names |= {
            name: name.replace("language_model.model.", "model.language_model.")
            for name in tensors
            if "language" in name
        }
        save_file({names[name]: tensor for name, tensor in tensors.items()}, source / "model.safetensors")
    report = import_checkpoint(source, tmp_path / "out")
    assert report.family == "gemma3_text"
    assert len(report.left_out) == sum("vision_tower" in name or "projector" in name for name in tensors) > 10
    assert all(line.endswith(": of the part that sees pictures") for line in report.left_out)
    assert report.architecture.window == 5
    ids = torch.arange(3, 30)[None]
    ours = load_model(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(ids)), model(input_ids=ids).logits, atol=1e-4, rtol=0)


def test_export_in_shards_and_dtypes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tensors = llama_tensors()
    import_checkpoint(write(tmp_path / "source", LLAMA, tensors), tmp_path / "final")
    (tmp_path / "tokenizer.json").write_text("{}")
    for dtype, kind in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        out = tmp_path / dtype
        metrics = export_hf(tmp_path / "final", None, out, source_tokenizer=tmp_path, dtype=dtype, max_shard_bytes=4000)
        assert metrics["hf_weight_files"] == len(list(out.glob("*.safetensors"))) > 1
        assert (out / "model.safetensors.index.json").is_file()
        again = transformers.AutoModelForCausalLM.from_pretrained(out)
        assert again.dtype == kind
        assert all(torch.equal(weight, tensors[name].to(kind)) for name, weight in again.state_dict().items())
    with pytest.raises(UserError, match="dtype = 'int8'"):
        export_hf(tmp_path / "final", None, tmp_path / "x", source_tokenizer=tmp_path, dtype="int8")
    with pytest.raises(UserError, match="max_shard_bytes = 0"):
        export_hf(tmp_path / "final", None, tmp_path / "x", source_tokenizer=tmp_path, max_shard_bytes=0)
    tensors["model.norm.weight"][0] = 70_000.0
    import_checkpoint(write(tmp_path / "source", LLAMA, tensors), tmp_path / "final")
    with pytest.raises(UserError, match=r"model\.norm\.weight has the value 70000"):
        export_hf(tmp_path / "final", None, tmp_path / "x", source_tokenizer=tmp_path, dtype="fp16")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("drops", "found", "left"),
    [
        ({}, (0.1, None), ()),
        ({"attn_pdrop": 0.0}, (0.1, 0.0), ()),
        ({"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.2}, (0.3, 0.2), ()),
        ({"resid_pdrop": 0.2}, (0.0, 0.1), ("config.json: embd_pdrop = 0.1", "config.json: resid_pdrop = 0.2")),
    ],
)
def test_gpt2s_dropout(tmp_path, drops, found, left):
    """Of attention weights apart. Where layers and embeddings differ in theirs there is no such setting here."""
    transformers = pytest.importorskip("transformers")
    given = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1, **drops}
    config = transformers.GPT2Config(**{key: value for key, value in GPT2.items() if key != "model_type"})
    tensors = {
        name: tensor.clone() for name, tensor in transformers_model("GPT2LMHeadModel", config).state_dict().items()
    }
    report = import_checkpoint(write(tmp_path / "source", GPT2 | given, tensors), tmp_path / "out")
    arch = load_model(tmp_path / "out").arch
    assert (arch.dropout, arch.attention_dropout) == found
    assert {line for line in report.left_out if "pdrop" in line} == set(left)
