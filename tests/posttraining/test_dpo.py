"""DPO: answers that share their prompt score as they would alone, and the reference is what it says it is."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from groundup.hardware import Hardware
from groundup.model import Transformer
from groundup.posttraining import DpoObjective, EncodedPair, PairSource, answer_logprobs
from groundup.posttraining.dpo import encode_pairs, reference_logprobs
from groundup.recipe import DpoSection
from groundup.run import UserError
from groundup.storyworld import Preference
from groundup.tokenizer import Tokenizer, encode_chat
from groundup.training import Job, Plan, to_tensors
from groundup.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("reproducible_kernels")
LENGTH = 64
QUESTIONS = ["Where is Mia?", "Who has 7 red balls?", "Tom went to the hill. Where is Tom?", "Ana?"]
PREFERENCES = [
    Preference([{"role": "user", "content": question}], chosen, rejected, "")
    for question, chosen, rejected in [
        (QUESTIONS[0], "Mia is in the park.", "park"),
        (QUESTIONS[1], "Tom has 7 red balls.", "Mia is in the lake, and so is Tom."),
        (QUESTIONS[2], "Tom is in the hill.", ""),
        (QUESTIONS[3], "It was late.", "Mia."),
    ]
] + [
    Preference(
        [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Where is Ana?"},
            {"role": "assistant", "content": "In the park."},
            {"role": "user", "content": "And Tom?"},
        ],
        "In the lake.",
        "Tom",
        "",
    )
]


def encoded(tokenizer: Tokenizer) -> list[EncodedPair]:
    return [
        EncodedPair(
            tuple(encode_chat(tokenizer, each.prompt, generation_prompt=True).ids),
            (*tokenizer.encode(each.chosen), tokenizer.end),
            (*tokenizer.encode(each.rejected), tokenizer.end),
        )
        for each in PREFERENCES
    ]


def source(tokenizer: Tokenizer, multiple: int = 1, per_update: int = 5) -> PairSource:
    found = encoded(tokenizer)
    return PairSource(
        found,
        np.zeros((len(found), 2), np.float32),
        per_update=per_update,
        length=LENGTH,
        multiple=multiple,
        pad_id=tokenizer.pad,
        seed=2,
    )


def alone(model: Transformer, tokenizer: Tokenizer, prompt: list[dict[str, str]], answer: str) -> Tensor:
    """The log-probability of an answer in a row of its own, by the plainest means: [answer tokens + 1]."""
    chat = encode_chat(tokenizer, [*prompt, {"role": "assistant", "content": answer}])
    count = len(tokenizer.encode(answer)) + 1
    assert all(chat.loss_mask[-count:])
    assert not chat.loss_mask[-count - 1]
    ids = torch.tensor(chat.ids)[None]
    logprobs = model.logits(model(ids[:, :-1])).log_softmax(-1)
    return logprobs[0].gather(-1, ids[0, 1:, None])[-count:, 0]


def by_pair(batch: dict[str, Tensor], chosen: Tensor, rejected: Tensor) -> Tensor:
    """[pairs, 2] in the order of the pairs' numbers, which stand in reference_chosen."""
    present = batch["present"]
    order = batch["reference_chosen"][present].long().argsort()
    return torch.stack([chosen[present], rejected[present]], 1)[order]


def numbered(tokenizer: Tokenizer, multiple: int = 1) -> dict[str, Tensor]:
    pairs = source(tokenizer, multiple)
    pairs.references[:] = np.arange(len(PREFERENCES))[:, None]
    return to_tensors(pairs.batch(range(len(PREFERENCES))), "cpu")


def test_answers_that_share_a_prompt_score_as_alone(model, tokenizer):
    """T18: log-probabilities within 1e-5 and gradients within 1e-4 of each answer through encode_chat alone."""
    batch = numbered(tokenizer)
    assert batch["present"].sum(1).max() > 1, "no row holds two pairs"
    weights = torch.randn(len(PREFERENCES), 2, generator=torch.Generator().manual_seed(0))

    shared = by_pair(batch, *answer_logprobs(model, batch))
    (weights * shared).sum().backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    single = torch.stack(
        [
            torch.stack([alone(model, tokenizer, each.prompt, text).sum() for text in (each.chosen, each.rejected)])
            for each in PREFERENCES
        ]
    )
    (weights * single).sum().backward()
    assert (shared - single).abs().max().item() < 1e-5
    assert single.abs().min().item() > 1
    for ours, weight in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(ours, weight.grad, rtol=1e-4, atol=1e-4)
        assert weight.grad.abs().max().item() > 0


def test_the_end_counts_and_the_prompt_does_not(model, tokenizer):
    """T19: an empty answer is the one token <|end|>; only answers are targets."""
    batch = numbered(tokenizer)
    with torch.no_grad():
        found = by_pair(batch, *answer_logprobs(model, batch))
        parts = alone(model, tokenizer, PREFERENCES[0].prompt, PREFERENCES[0].chosen)
        end = alone(model, tokenizer, PREFERENCES[2].prompt, "")
    assert end.shape == (1,)
    assert found[2, 1].item() == pytest.approx(end.item(), abs=1e-5)
    assert found[0, 0].item() == pytest.approx(parts.sum().item(), abs=1e-5)
    assert abs(found[0, 0].item() - parts[:-1].sum().item()) > 0.1
    targets = batch["targets"][batch["targets"] != -100]
    assert len(targets) == sum(len(pair.chosen) + len(pair.rejected) for pair in encoded(tokenizer))
    assert (targets == tokenizer.end).sum() == 2 * len(PREFERENCES)


def test_padding_rows_change_nothing(model, tokenizer):
    with torch.no_grad():
        plain, padded = (numbered(tokenizer, multiple) for multiple in (1, 7))
        assert len(padded["ids"]) == 7 > len(plain["ids"])
        one, other = (by_pair(batch, *answer_logprobs(model, batch)) for batch in (plain, padded))
    assert torch.allclose(one, other, atol=1e-5)


def references(model, pairs: PairSource, cpu: Hardware, path: Path, key: str = "k") -> np.ndarray:
    return reference_logprobs(model, pairs, cpu, path, key)


def test_kept_reference_equals_one_computed_on_the_fly(model, tokenizer, cpu, tmp_path, monkeypatch):
    """T16."""
    path = tmp_path / "reference.safetensors"
    found = references(model, source(tokenizer, 3), cpu, path)
    with torch.no_grad():
        for number, each in enumerate(PREFERENCES):
            for side, text in enumerate((each.chosen, each.rejected)):
                expected = alone(model, tokenizer, each.prompt, text).sum().item()
                assert found[number, side] == pytest.approx(expected, abs=1e-5)

    def never(*_: object) -> None:
        raise AssertionError("computed a second time")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[reference_logprobs.__module__], "answer_logprobs", never)
        assert np.array_equal(references(model, source(tokenizer), cpu, path), found)
        with pytest.raises(AssertionError, match="second time"):
            references(model, source(tokenizer), cpu, path, "another key")

    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0] += 0.5
    assert np.array_equal(references(model, source(tokenizer), cpu, path), found)
    assert np.abs(references(model, source(tokenizer), cpu, path, "another key") - found).max() > 1e-3


def trainer(model: Transformer, cpu: Hardware, out: Path, micro: int, pairs: PairSource) -> Trainer:
    plan = Plan("f", 4, len(pairs.update(0)), micro, LENGTH)
    section = DpoSection(steps=4, pairs_per_update=5)
    return Trainer(Job("dpo", "dpo", out, "f", model, DpoObjective(0.1), pairs, section, plan, cpu, 1, lambda: False))


def test_the_first_loss_is_ln_2_however_rows_are_cut(model, tokenizer, cpu, tmp_path):
    kept = references(model, source(tokenizer), cpu, tmp_path / "r.safetensors")
    found = []
    for micro in (1, 2, 3):
        pairs = source(tokenizer, multiple=micro)
        pairs.references = kept
        work = trainer(model, cpu, tmp_path / str(micro), micro, pairs)
        loss, means = work.gradients(pairs.update(0))
        found.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
        model.zero_grad()
        assert loss == pytest.approx(math.log(2), abs=1e-6)
        assert means["margin"] == pytest.approx(0, abs=1e-6)
        assert means["logp_chosen"] == pytest.approx(kept[:, 0].mean(), abs=1e-4)
        assert means["logp_rejected"] == pytest.approx(kept[:, 1].mean(), abs=1e-4)
    assert found[0].abs().max().item() > 1e-3
    for gradient in found[1:]:
        assert torch.allclose(gradient, found[0], rtol=1e-4, atol=1e-6)


def test_the_gradient_at_the_start_is_half_beta_times_the_difference(model, tokenizer, cpu, tmp_path):
    pairs = source(tokenizer)
    pairs.references = references(model, source(tokenizer), cpu, tmp_path / "r.safetensors")
    trainer(model, cpu, tmp_path / "a", 1, pairs).gradients(pairs.update(0))
    found = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    model.zero_grad()
    batch = numbered(tokenizer)
    chosen, rejected = answer_logprobs(model, batch)
    (-0.05 * ((chosen - rejected) * batch["present"]).sum() / len(PREFERENCES)).backward()
    expected = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_pairs_that_fit_are_cut_alike_and_others_left_out(tokenizer, tmp_path):
    """T5 for pairs: both answers keep one prompt, cut from the left."""
    long = "Mia went to the park. " * 20
    records = [
        {"prompt": "Ana?", "chosen": "It was late.", "rejected": "Mia."},
        {"prompt": long, "chosen": "It was late.", "rejected": "Mia."},
        {"prompt": "Ana?", "chosen": long, "rejected": "Mia."},
        {"prompt": "Ana?", "chosen": "Mia.", "rejected": "Mia."},
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    section = DpoSection(steps=1, data=(str(path),))
    pairs, cut, left_out = encode_pairs(section, tokenizer, LENGTH, 0)
    assert (len(pairs), cut, left_out) == (2, 1, 2)
    whole = encode_chat(tokenizer, [{"role": "user", "content": long}], generation_prompt=True).ids
    assert pairs[1].places == LENGTH
    assert whole[-len(pairs[1].prompt) :] == list(pairs[1].prompt)
    assert pairs[0].chosen == pairs[1].chosen == (*tokenizer.encode("It was late."), tokenizer.end)
    path.write_text(json.dumps(records[2]))
    with pytest.raises(UserError, match="no preference pair is left"):
        encode_pairs(section, tokenizer, LENGTH, 0)


def test_a_bad_prompt_names_its_line(tokenizer, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": [{"role": "robot", "content": "a"}], "chosen": "b", "rejected": "c"}))
    with pytest.raises(UserError, match="'robot'") as caught:
        encode_pairs(DpoSection(steps=1, data=(str(path),)), tokenizer, LENGTH, 0)
    assert caught.value.where == f"{path}:1 messages[0]"
