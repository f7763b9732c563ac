"""The optimizer and the schedule against hand-made values."""

import math

import pytest
import torch
from torch import nn

from groundup.model import Architecture, Transformer, fresh_model, initialise
from groundup.recipe import OptimizerTable, ScheduleTable
from groundup.training import Optimizer, lr_factor, orthogonalise
from groundup.training.guard import PATIENCE, READY, Guard
from groundup.training.optimizers import Muon, gradient_norm

ARCH = Architecture(
    vocabulary_size=16,
    layers=1,
    hidden_size=8,
    heads=2,
    kv_heads=1,
    head_dim=4,
    intermediate_size=12,
    context_length=16,
)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 4, 12), (2, 12, 4)])
def test_orthogonalise_drives_singular_values_to_one_and_keeps_directions(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalise(matrices, torch.float64).double()
    values = u.mT @ found @ vh.mT
    diagonal = torch.diagonal(values, dim1=-2, dim2=-1)
    assert (values - torch.diag_embed(diagonal)).abs().max().item() < 1e-4
    assert diagonal.min().item() > 0.6
    assert diagonal.max().item() < 1.3


def test_one_muon_step_by_hand():
    """Momentum 0.85 at step 0: m = 0.15 g, the Nesterov mix is 0.15 g + 0.85 m, whose direction is that of g."""
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    muon = Muon({"w": weight}, OptimizerTable(muon_lr=0.1), torch.float32)
    muon.step(0.5, 0)
    assert torch.allclose(muon.momentum["w"], 0.15 * torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    step = orthogonalise(torch.eye(2)[None])[0]
    assert torch.allclose(weight.detach(), -0.05 * step, atol=1e-6)


def test_tall_matrices_step_further():
    tall, wide = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.zeros(2, 8))
    tall.grad, wide.grad = torch.randn(8, 2), torch.randn(2, 8)
    wide.grad = tall.grad.T.clone()
    Muon({"t": tall, "w": wide}, OptimizerTable(muon_lr=0.1), torch.float32).step(1.0, 0)
    assert torch.allclose(tall.detach(), 2.0 * wide.detach().T, atol=1e-5)


def test_adamw_part_equals_torch():
    """Both get the same gradients: computed twice they differ by rounding, and AdamW divides by their size."""
    model, twin = Transformer(ARCH), Transformer(ARCH)
    initialise(model, 0)
    twin.load_state_dict(model.state_dict())
    table = OptimizerTable(muon_lr=0.0, adamw_lr=1e-2, embedding_lr=3e-2, weight_decay=0.1)
    ours = Optimizer(model, table)
    others = dict(twin.named_parameters())
    embedding = [others.pop("model.embed_tokens.weight")]
    groups = [
        {"params": embedding, "lr": 0.5 * 3e-2, "weight_decay": 0.1},
        {"params": [w for w in others.values() if w.ndim == 2], "lr": 0.5 * 1e-2, "weight_decay": 0.1},
        {"params": [w for w in others.values() if w.ndim == 1], "lr": 0.5 * 1e-2, "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, betas=table.betas, eps=table.epsilon, foreach=False, fused=False)
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            # Sizes from a billionth to a thousandth: epsilon has its say in some and not in others.
            scale = 10.0 ** -torch.randint(3, 10, a.shape, generator=generator)
            a.grad = scale * torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        ours.step(0.5, step)
        reference.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.allclose(ours.adamw.state[a][key], reference.state[b][key], rtol=1e-5, atol=0)


@pytest.mark.parametrize("muon_lr", [0.0, 0.02])
def test_cautious_decay_pulls_only_where_the_update_does(muon_lr):
    """Against plain decay and none: each number goes the way of one of the two, by the sign of its update."""
    found = {}
    for decay, cautious in ((0.0, False), (0.5, False), (0.5, True)):
        model = Transformer(ARCH)
        initialise(model, 0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        table = OptimizerTable(muon_lr=muon_lr, weight_decay=decay, cautious_decay=cautious)
        optimizer = Optimizer(model, table)
        for name, weight in model.named_parameters():
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
        optimizer.step(1.0, 0)
        found[decay, cautious] = dict(model.named_parameters())
    for name, start in before.items():
        none, plain, ours = (found[key][name].detach() for key in ((0.0, False), (0.5, False), (0.5, True)))
        shrinks = (start - none) * start >= 0
        assert torch.allclose(ours, torch.where(shrinks, plain, none), rtol=1e-6, atol=1e-7), name
        if start.ndim > 1:
            assert 0.2 < shrinks.float().mean() < 0.8
            assert not torch.equal(ours, plain)


def test_groups_by_role():
    optimizer = Optimizer(Transformer(ARCH), OptimizerTable(weight_decay=0.1))
    assert set(optimizer.muon.momentum) == {n for n in optimizer.named if ".layers." in n and "proj" in n}
    decays = [group["weight_decay"] for group in optimizer.adamw.param_groups]
    assert decays == [0.1, 0.0]  # the table, the gains; no other matrix is left
    assert sum(len(g["params"]) for g in optimizer.adamw.param_groups) + len(optimizer.muon.momentum) == len(
        optimizer.named
    )


def test_state_round_trip_continues_bit_equal():
    torch.manual_seed(0)

    def gradients(model, step):
        generator = torch.Generator().manual_seed(step)
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)

    model = Transformer(ARCH)
    initialise(model, 0)
    optimizer = Optimizer(model, OptimizerTable())
    for step in range(3):
        gradients(model, step)
        optimizer.step(1.0, step)
    other = Transformer(ARCH)
    other.load_state_dict(model.state_dict())
    resumed = Optimizer(other, OptimizerTable())
    resumed.load({name: tensor.clone() for name, tensor in optimizer.tensors().items()})
    for network, opt in ((model, optimizer), (other, resumed)):
        gradients(network, 3)
        opt.step(1.0, 3)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(KeyError):
        resumed.load({})


def test_gradient_norm():
    layer = nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert gradient_norm(layer).item() == pytest.approx(5.0)


def test_schedule_by_hand():
    table = ScheduleTable(warmup_fraction=0.1, cooldown_fraction=0.5, final_lr_fraction=0.2)
    found = [lr_factor(step, 20, table) for step in range(20)]
    assert found[:2] == [0.5, 1.0]
    assert found[2:10] == [1.0] * 8
    assert found[10:] == pytest.approx([1.0 - 0.08 * k for k in range(10)])
    assert lr_factor(0, 5, ScheduleTable(warmup_fraction=0, cooldown_fraction=0)) == 1.0


def test_cosine_by_hand():
    table = ScheduleTable(kind="cosine", warmup_fraction=0.2, final_lr_fraction=0.1)
    assert table.cooldown_fraction == pytest.approx(0.8)
    assert ScheduleTable(**table.model_dump()) == table
    found = [lr_factor(step, 10, table) for step in range(10)]
    assert found[:2] == [0.5, 1.0]
    assert found[2:] == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])
    late = ScheduleTable(kind="cosine", warmup_fraction=0, cooldown_fraction=0.5)
    assert [lr_factor(step, 4, late) for step in range(4)] == pytest.approx([1, 1, 1, 0.5])


def test_the_guard_skips_spikes_and_gives_up_with_a_diagnosis():
    guard = Guard()
    for step in range(READY):
        assert guard.accepts(1.0, 1.0, step)
    assert not guard.accepts(1.0, 13.0, 32)
    assert guard.skipped == 1
    assert guard.accepts(1.0, 11.0, 33)
    assert guard.in_a_row == 0
    twin = Guard()
    twin.restore(guard.state())
    assert twin.state() == guard.state()
    for step in range(PATIENCE - 1):
        assert not guard.accepts(math.nan, 1.0, step)
    with pytest.raises(Exception, match="come apart.*Lower the learning rates"):
        guard.accepts(math.inf, 1.0, 99)


def test_weights_without_a_gradient_stay_and_resume():
    """What an objective does not use, as DPO the blocks that predict ahead, has no gradient and no state."""
    arch = ARCH.replace(predict_ahead=1)
    table = OptimizerTable(muon_lr=0.1)

    def stepped(model: Transformer, optimizer: Optimizer, step: int) -> None:
        model(torch.arange(6)[None]).square().sum().backward()
        optimizer.step(1.0, step)

    model = Transformer(arch)
    initialise(model, 0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = Optimizer(model, table)
    stepped(model, optimizer, 0)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved
    assert not any(".ahead." in name for name in moved)

    twin = Transformer(arch)
    twin.load_state_dict(model.state_dict())
    resumed = Optimizer(twin, table)
    resumed.load({name: tensor.clone() for name, tensor in optimizer.tensors().items()})
    stepped(model, optimizer, 1)
    stepped(twin, resumed, 1)
    for (name, weight), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(weight, other), name


def test_each_expert_is_a_matrix_and_routers_are_adamw_s():
    arch = ARCH.replace(experts={"count": 3, "per_token": 2}, value_embeddings=True, bigram_rows=7)
    optimizer = Optimizer(Transformer(arch), OptimizerTable(muon_lr=0.1))
    hidden = set(optimizer.muon.momentum)
    assert "model.layers.0.mlp.experts.up_proj" in hidden
    for name in ("mlp.gate", "self_attn.value_gate"):
        assert f"model.layers.0.{name}.weight" not in hidden
    assert not any("embed" in name for name in hidden)
    stack = torch.randn(3, 4, 6)
    assert torch.equal(orthogonalise(stack)[1], orthogonalise(stack[1:2])[0])


def test_rates_of_adamw_follow_the_width_and_those_of_muon_and_gains_do_not():
    table = OptimizerTable(muon_lr=0.0, adamw_lr=0.01, embedding_lr=0.2, base_width=ARCH.hidden_size * 4)
    groups = Optimizer(Transformer(ARCH), table).adamw.param_groups
    assert [group["peak_lr"] for group in groups] == pytest.approx([0.2 * 2, 0.01 * 4, 0.01])
    plain = Optimizer(Transformer(ARCH), table.model_copy(update={"base_width": None})).adamw.param_groups
    assert [group["peak_lr"] for group in plain] == pytest.approx([0.2, 0.01, 0.01])

    torch.manual_seed(1)
    weights = []
    for base in (None, 4 * ARCH.hidden_size):
        model = fresh_model(ARCH, 1)
        optimizer = Optimizer(model, OptimizerTable(muon_lr=0.1, base_width=base))
        for name, weight in model.named_parameters():
            weight.grad = torch.full_like(weight, 0.5) if ".q_proj." in name else torch.zeros_like(weight)
        optimizer.step(1.0, 0)
        weights.append(model.model.layers[0].self_attn.q_proj.weight.detach().clone())
    assert torch.equal(*weights)
