"""Roles of weights, and that the optimizer's groups are made of whole roles."""

import re

import pytest
import torch
from torch import nn

from groundup.model import Architecture, EncoderDecoder, EncoderDecoderArchitecture, Transformer
from groundup.recipe import OptimizerTable, load_recipe, parse_recipe
from groundup.training.optimizers import Optimizer
from groundup.training.roles import HIDDEN, ROLES, TABLES, by_role, role_of

MODELS = (
    "preset = 'gpt2'",
    "preset = 'qwen3-0.6b'",
    "preset = 'mixtral-8x7b'",
    "preset = 'gemma-3-270m'",
    "preset = 'deepseek-v2-lite'",
    "layers = 3\nbigram_rows = 50\nvalue_embeddings = true\nattention_sinks = true\nresidual_scalars = true\n"
    "x0_skip = true\npredict_ahead = 2\nbiases = 'all'\nnorm = 'layer'",
)


def decoder(text: str) -> nn.Module:
    section = parse_recipe(f"[model]\n{text}\n").model
    with torch.device("meta"):
        return Transformer(Architecture.from_section(section, 100))


def translator() -> nn.Module:
    section = load_recipe("seq2seq").seq2seq
    with torch.device("meta"):
        return EncoderDecoder(EncoderDecoderArchitecture.from_section(section.model, 60, 60))


def all_models() -> list[nn.Module]:
    return [*(decoder(text) for text in MODELS), translator()]


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("model.embed_tokens.weight", (9, 4), "embeddings"),
        ("model.embed_positions.weight", (9, 4), "embeddings"),
        ("model.value_embeddings.1.weight", (9, 4), "embeddings"),
        ("embed_target.weight", (9, 4), "embeddings"),
        ("lm_head.weight", (9, 4), "head"),
        ("model.layers.0.self_attn.q_proj.weight", (4, 4), "attention"),
        ("decoder.layers.0.cross_attn.o_proj.weight", (4, 4), "attention"),
        ("model.layers.0.mlp.gate_proj.weight", (8, 4), "feed_forward"),
        ("model.layers.0.mlp.shared_experts.up_proj.weight", (8, 4), "feed_forward"),
        ("model.layers.0.mlp.experts.up_proj", (3, 8, 4), "experts"),
        ("model.layers.0.mlp.gate.weight", (3, 4), "routers"),
        ("model.layers.0.self_attn.value_gate.weight", (2, 4), "routers"),
        ("model.ahead.layers.0.projection.weight", (4, 8), "projections"),
        ("something.weight", (4, 8), "others"),
        ("model.norm.weight", (4,), "gains"),
        ("model.layers.0.self_attn.q_proj.bias", (4,), "gains"),
        ("model.layers.0.x0_scale", (1,), "gains"),
    ],
)
def test_role_by_name_and_shape(name, shape, role):
    assert role_of(name, torch.empty(shape, device="meta")) == role
    assert role in ROLES


def test_every_weight_has_one_role_and_ours_have_no_other():
    for model in all_models():
        found = by_role(model.named_parameters())
        assert sum(map(len, found.values())) == len(list(model.parameters()))
        assert "others" not in found
        assert list(found) == [role for role in ROLES if role in found]


@pytest.mark.parametrize("number", range(len(MODELS) + 1))
def test_groups_of_the_optimizer_are_whole_roles(number):
    """Muon has the hidden matrices; AdamW's groups are tables and head, routers, and gains."""
    model = all_models()[number]
    optimizer = Optimizer(model, OptimizerTable(muon_lr=0.02))
    muon = set(optimizer.muon.momentum)
    roles = {name: role_of(name, weight) for name, weight in model.named_parameters()}
    assert muon == {name for name, role in roles.items() if role in HIDDEN}
    names = {weight: name for name, weight in model.named_parameters()}
    for group in optimizer.adamw.param_groups:
        held = {roles[names[weight]] for weight in group["params"]}
        assert held <= TABLES or held <= {"routers", "others"} or held == {"gains"}


def test_the_models_above_have_every_role_between_them():
    found = set().union(*(by_role(model.named_parameters()) for model in all_models()))
    assert found == set(ROLES) - {"others"}
    names = [re.sub(r"\d+", "N", name) for model in all_models() for name, _ in model.named_parameters()]
    assert len(set(names)) > 40
