"""The decoder written out, for what is fast in the model room to be compared with."""

import cmath
import math
from functools import partial

import pytest
import torch


@pytest.fixture(scope="session")
def formula():
    """The class :class:`Formula`."""
    return Formula


class Formula:
    """The model as its documentation says it, token by token and head by head."""

    def __init__(self, model):
        self.arch = model.arch
        self.weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def linear(self, name, x):
        out = x @ self.weights[f"{name}.weight"].T
        return out + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else out

    def norm(self, name, x, plain=False):
        weight, bias = self.weights.get(f"{name}.weight"), self.weights.get(f"{name}.bias")
        if self.arch.norm == "layer" and not plain:
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.arch.norm_eps).sqrt()
        if weight is not None:
            x = x * (weight + 1 if self.arch.norm_offset and not plain else weight)
        return x if bias is None else x + bias

    def frequencies(self, width, windowed):
        arch, scaling = self.arch, self.arch.rope_scaling
        theta = arch.rope_theta
        if windowed and arch.local_rope_theta:
            theta, scaling = arch.local_rope_theta, None
        found = [theta ** (-2 * i / width) for i in range(width // 2)]
        if scaling is None:
            return found, 1.0
        if scaling.kind == "linear":
            return [f / scaling.factor for f in found], 1.0
        turns = [scaling.original_context * f / (2 * math.pi) for f in found]
        if scaling.kind == "llama3":
            low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
            kept = [min(max((t - low) / (high - low), 0), 1) for t in turns]
        else:
            place = [
                width * math.log(scaling.original_context / (2 * math.pi * beta)) / (2 * math.log(theta))
                for beta in (scaling.beta_fast, scaling.beta_slow)
            ]
            first, last = max(math.floor(place[0]), 0), min(math.ceil(place[1]), width - 1)
            kept = [1 - min(max((i - first) / max(last - first, 0.001), 0), 1) for i in range(width // 2)]
        gain = 0.1 * math.log(scaling.factor) + 1 if scaling.kind == "yarn" else 1.0
        return [k * f + (1 - k) * f / scaling.factor for k, f in zip(kept, found, strict=True)], gain

    def turn(self, x, windowed, gained=True):
        """[T, d], each pair a complex number turned by its position's angle."""
        half = x.shape[-1] // 2
        frequencies, gain = self.frequencies(x.shape[-1], windowed)
        gain = gain if gained else 1.0
        turns = torch.tensor([[gain * cmath.exp(1j * t * f) for f in frequencies] for t in range(len(x))])
        turned = torch.complex(x[:, :half], x[:, half:]) * turns.to(torch.complex128)
        return torch.cat((turned.real, turned.imag), -1)

    def head(self, name, layer, head, q, k, v, scale):
        """One head: [T, d], [T, d], [T, e] to [T, e]."""
        arch, out = self.arch, []
        slopes = {1: 2**-2, 2: 2**-4, 3: 2**-6, 4: 2**-8}  # of four heads
        sinks = self.weights.get(f"{name}.sinks")
        for t in range(len(q)):
            first = max(0, t - arch.window + 1) if arch.has_window(layer) else 0
            scores = k[first : t + 1] @ q[t] * scale
            if arch.attention_softcap:
                scores = arch.attention_softcap * torch.tanh(scores / arch.attention_softcap)
            if arch.positions == "alibi":
                scores = scores - slopes[head + 1] * torch.arange(t - first, -1, -1)
            powers = scores.exp()
            total = powers.sum() + (sinks[head].exp() if sinks is not None else 0)
            out.append((powers / total) @ v[first : t + 1])
        return torch.stack(out)

    def attention(self, name, layer, ids, x):
        arch, windowed = self.arch, self.arch.has_window(layer)
        if arch.latent:
            return self.latent(name, layer, x)
        q, k, v = (self.linear(f"{name}.{part}_proj", x) for part in "qkv")
        if arch.qk_norm == "width":
            q, k = self.norm(f"{name}.q_norm", q), self.norm(f"{name}.k_norm", k)
        q, k, v = (each.split(arch.resolved_head_dim, dim=-1) for each in (q, k, v))
        if arch.qk_norm == "head":
            q, k = ([self.norm(f"{name}.{n}_norm", each) for each in heads] for n, heads in (("q", q), ("k", k)))
        if arch.positions == "rotary":
            q, k = ([self.turn(each, windowed) for each in heads] for heads in (q, k))
        table = self.weights.get(f"model.value_embeddings.{layer}.weight") if ".ahead." not in name else None
        if table is not None:
            gate = 2 / (1 + (-self.linear(f"{name}.value_gate", x)).exp())
            extra = table[ids].split(arch.resolved_head_dim, dim=-1)
            v = [each + gate[:, g : g + 1] * extra[g] for g, each in enumerate(v)]
        scale = arch.attention_scale or arch.resolved_head_dim**-0.5
        share = arch.heads // arch.kv_heads
        heads = [self.head(name, layer, h, q[h], k[h // share], v[h // share], scale) for h in range(arch.heads)]
        return self.linear(f"{name}.o_proj", torch.cat(heads, -1))

    def latent(self, name, layer, x):
        """DeepSeek-V2's eq. 9-19, with the matrices for keys and values of one head side by side."""
        arch, windowed = self.arch, self.arch.has_window(layer)
        plain, rank = arch.resolved_head_dim, arch.latent.kv_rank
        if arch.latent.query_rank:
            q = self.linear(f"{name}.q_b_proj", self.norm(f"{name}.q_a_layernorm", self.linear(f"{name}.q_a_proj", x)))
        else:
            q = self.linear(f"{name}.q_proj", x)
        down = self.linear(f"{name}.kv_a_proj_with_mqa", x)
        shared = self.turn(down[:, rank:], windowed, gained=False)
        scale = arch.key_dim**-0.5 * self.frequencies(arch.rotary_dim, windowed)[1] ** 2  # of YaRN: the whole score
        up = self.linear(f"{name}.kv_b_proj", self.norm(f"{name}.kv_a_layernorm", down[:, :rank]))
        heads = []
        for h, (query, both) in enumerate(zip(q.chunk(arch.heads, -1), up.chunk(arch.heads, -1), strict=True)):
            query = torch.cat((query[:, :plain], self.turn(query[:, plain:], windowed, gained=False)), -1)
            key = torch.cat((both[:, :plain], shared), -1)
            heads.append(self.head(name, layer, h, query, key, both[:, plain:], scale))
        return self.linear(f"{name}.o_proj", torch.cat(heads, -1))

    def activation(self, x):
        kind = self.arch.feed_forward
        if kind in ("gelu", "geglu"):
            return x * (1 + torch.erf(x / math.sqrt(2))) / 2
        if kind in ("gelu_tanh", "geglu_tanh"):
            return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        if kind == "swiglu":
            return x / (1 + (-x).exp())
        return x.clamp(min=0) ** (2 if kind == "squared_relu" else 1)

    def feed_forward(self, name, x):
        up = self.linear(f"{name}.up_proj", x)
        gated = f"{name}.gate_proj.weight" in self.weights
        inner = self.activation(self.linear(f"{name}.gate_proj", x)) * up if gated else self.activation(up)
        return self.linear(f"{name}.down_proj", inner)

    def mixture(self, name, x):
        table, out = self.arch.experts, []
        gates, ups, downs = (self.weights[f"{name}.experts.{part}_proj"] for part in ("gate", "up", "down"))
        for token in x:
            powers = self.linear(f"{name}.gate", token).exp()
            shares = (powers / powers.sum()).tolist()
            chosen = sorted(range(table.count), key=lambda e, s=shares: -s[e])[: table.per_token]
            total = sum(shares[e] for e in chosen) if table.renormalise else 1.0
            each = [downs[e] @ (self.activation(gates[e] @ token) * (ups[e] @ token)) for e in chosen]
            out.append(table.scale * sum(shares[e] / total * y for e, y in zip(chosen, each, strict=True)))
        mixed = torch.stack(out)
        return mixed + self.feed_forward(f"{name}.shared_experts", x) if table.shared else mixed

    def block(self, name, layer, x, start, ids):
        place, plain = self.arch.norm_placement, ".ahead." in name
        if f"{name}.residual_scale" in self.weights:
            x = self.weights[f"{name}.residual_scale"] * x
        if f"{name}.x0_scale" in self.weights:
            x = x + self.weights[f"{name}.x0_scale"] * start
        mixes = self.arch.has_experts(layer) and not plain
        attend, feed = (
            partial(self.attention, f"{name}.self_attn", layer, ids),
            self.mixture if mixes else self.feed_forward,
        )
        second = "post_attention" if place == "pre" else "pre_feedforward"
        parts = ((attend, "input", "post_attention"), (partial(feed, f"{name}.mlp"), second, "post_feedforward"))
        for part, first, last in parts:
            first, last = f"{name}.{first}_layernorm", f"{name}.{last}_layernorm"
            if place == "pre":
                x = x + part(self.norm(first, x))
            elif place == "sandwich":
                x = x + self.norm(last, part(self.norm(first, x)))
            elif place == "output":
                x = x + self.norm(last, part(x))
            else:
                x = self.norm(last, x + part(x))
        return x

    def embed(self, ids):
        arch, x = self.arch, self.weights["model.embed_tokens.weight"][ids]
        return x * arch.hidden_size**0.5 if arch.embedding_scale else x

    def hidden(self, ids):
        """[T] to [T, D]."""
        arch, x = self.arch, self.embed(ids)
        if arch.positions == "learned":
            x = x + self.weights["model.embed_positions.weight"][: len(ids)]
        if arch.positions == "sinusoidal":
            angles = [
                [t / 10_000 ** (c // 2 * 2 / arch.hidden_size) for c in range(arch.hidden_size)]
                for t in range(len(ids))
            ]
            x = x + torch.tensor([[(math.cos if c % 2 else math.sin)(a) for c, a in enumerate(row)] for row in angles])
        if arch.bigram_rows:
            rows = [
                (a * 2_246_822_519 + b * 3_266_489_917 + 1) % arch.bigram_rows
                for a, b in zip(ids[:-1], ids[1:], strict=True)
            ]
            pairs = self.weights["model.embed_bigrams.weight"][torch.tensor(rows)]
            x = x + torch.cat((torch.zeros(1, arch.hidden_size), pairs))
        if arch.embedding_norm:
            x = self.norm("none", x, plain=True)
        start = x
        for layer in range(arch.layers):
            x = self.block(f"model.layers.{layer}", layer, x, start, ids)
        return x if arch.norm_placement == "post" else self.norm("model.norm", x)

    def logits(self, hidden):
        tied = self.arch.tied_embeddings
        out = hidden @ self.weights["model.embed_tokens.weight" if tied else "lm_head.weight"].T
        cap = self.arch.logit_softcap
        return out if cap is None else cap * torch.tanh(out / cap)

    def ahead(self, hidden, ids):
        """The states that predict further tokens, [T - k, D] each, k = 1, 2, …"""
        states = []
        for k in range(self.arch.predict_ahead):
            name = f"model.ahead.layers.{k}"
            known = self.norm(f"{name}.hidden_norm", hidden[: len(hidden) - 1], plain=True)
            new = self.norm(f"{name}.embedding_norm", self.embed(ids[k + 1 :]), plain=True)
            x = self.linear(f"{name}.projection", torch.cat((known, new), -1))
            x = self.block(f"{name}.block", self.arch.layers - 1, x, None, ids)
            hidden = self.norm(f"{name}.norm", x, plain=True)
            states.append(hidden)
        return states
