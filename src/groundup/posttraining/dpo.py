"""Direct preference optimisation: pairs of answers to a model that gives the preferred one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from groundup.hardware import Hardware
from groundup.model import IGNORE, PackedMask, Transformer, scored_logprobs
from groundup.posttraining.losses import dpo_loss
from groundup.posttraining.pairs import EncodedPair, PairSource, fit
from groundup.posttraining.records import read_preferences
from groundup.posttraining.sft import chat_prompt
from groundup.recipe import DpoSection
from groundup.run import UserError, atomic_path, progress, sha256_file
from groundup.tokenizer import Tokenizer, encode_chat
from groundup.training import (
    Job,
    Phase,
    Tracking,
    autocast,
    decoder_flops,
    is_out_of_memory,
    load_start,
    make_plan,
    plain_words,
    prepare,
    release_memory,
    sampler,
    save_final,
    to_tensors,
    train,
)

Tensors = dict[str, Tensor]


def answer_logprobs(model: Transformer, batch: Tensors) -> tuple[Tensor, Tensor]:
    """Log-probabilities of whole answers, [rows, K] for the chosen and [rows, K] for the rejected, float32."""
    mask = PackedMask(batch["documents"], batch["branches"])
    hidden = model(batch["ids"], positions=batch["positions"], mask=mask)
    logprobs = scored_logprobs(hidden, model.head, batch["targets"])
    most = batch["present"].shape[1]
    sums = torch.zeros(len(logprobs), 2 * most, dtype=torch.float32, device=logprobs.device)
    sums = sums.scatter_add(1, batch["slots"], logprobs * (batch["targets"] != IGNORE))
    return sums[:, 0::2], sums[:, 1::2]


class DpoObjective:
    """The DPO loss over packed pairs, and what its users watch."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def count(self, rows: Any) -> int:
        return int(rows.present.sum())

    def flops(self, model: Transformer, rows: Any) -> float:
        return decoder_flops(model, rows)

    def loss(self, model: Transformer, batch: Tensors) -> tuple[Tensor, Tensors]:
        chosen, rejected = answer_logprobs(model, batch)
        present = batch["present"]
        reference_chosen, reference_rejected = batch["reference_chosen"], batch["reference_rejected"]
        losses, margins = dpo_loss(chosen, rejected, reference_chosen, reference_rejected, self.beta)
        reported = {
            "accuracy": (margins > 0).float(),
            "margin": margins,
            "reward_chosen": self.beta * (chosen - reference_chosen),
            "reward_rejected": self.beta * (rejected - reference_rejected),
            "logp_chosen": chosen,
            "logp_rejected": rejected,
        }
        return (losses * present).sum(), {name: (value * present).sum() for name, value in reported.items()}


def encode_pairs(
    section: DpoSection, tokenizer: Tokenizer, length: int, seed: int
) -> tuple[list[EncodedPair], int, int]:
    """The section's pairs as ids that fit a row of ``length``: (pairs, how many were cut, how many left out).

    A prompt too long is cut from the left, the same for both answers; a pair whose answers alone do not fit, or whose
    answers are the same, is left out.
    """
    pairs: list[EncodedPair] = []
    cut = left_out = 0
    for item in read_preferences(section.data, seed):
        preference = item.preference
        try:
            prompt = encode_chat(tokenizer, preference.prompt, generation_prompt=True).ids
        except UserError as error:
            raise UserError(error.what, where=f"{item.where} {error.where}", expected=error.expected) from None
        chosen, rejected = (
            (*tokenizer.encode(text), tokenizer.end) for text in (preference.chosen, preference.rejected)
        )
        whole = EncodedPair(tuple(prompt), chosen, rejected)
        fitting = fit(whole, length)
        if fitting is None or chosen == rejected:
            left_out += 1
            continue
        cut += fitting is not whole
        pairs.append(fitting)
    if not pairs:
        raise UserError(
            "no preference pair is left to learn from",
            where="[dpo] data",
            expected=f"pairs whose two answers fit {length} tokens",
        )
    return pairs, cut, left_out


def reference_logprobs(
    model: Transformer, source: PairSource, hardware: Hardware, path: Path, key: str
) -> NDArray[np.float32]:
    """[pairs, 2] log-probabilities under the frozen starting weights; computed once, kept under ``key``.

    The key names everything the numbers depend on (weights, data, template, lengths, precision): a file of another
    key is computed anew. The model is the one that is about to be trained, and the forward is the one of training,
    so the first loss is log 2.
    """
    if path.exists():
        with safe_open(path, "numpy") as stored:
            if (stored.metadata() or {}).get("key") == key:
                kept: NDArray[np.float32] = stored.get_tensor("logprobs")
                return kept
    model.eval()  # no dropout in what the policy is compared with
    result = np.zeros((len(source.pairs), 2), np.float32)
    start, count = 0, 16 * source.multiple
    with plain_words(path.parent.name, path.parent):
        with progress("reference log-probabilities", total=len(source.pairs), unit="pair") as bar:
            while start < len(source.pairs):
                numbers = list(range(start, min(start + count, len(source.pairs))))
                try:
                    result[numbers] = _logprobs_of(model, source, numbers, hardware)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or len(numbers) == 1:
                        raise
                else:
                    start += len(numbers)
                    bar.advance(len(numbers))
                    continue
                count = len(numbers) // 2
                release_memory()
        with atomic_path(path) as temporary:
            save_file({"logprobs": result}, temporary, {"key": key})
    return result


@torch.no_grad()
def _logprobs_of(model: Transformer, source: PairSource, numbers: list[int], hardware: Hardware) -> NDArray[np.float32]:
    """[numbers, 2] log-probabilities of some pairs, in their order."""
    # Each pair carries its place where its reference will stand, to be found again after packing.
    source.references[numbers] = np.arange(len(numbers), dtype=np.float32)[:, None]
    batch = to_tensors(source.batch(numbers), hardware.device)
    with autocast(hardware):
        chosen, rejected = answer_logprobs(model, batch)
    present, found = batch["present"], np.zeros((len(numbers), 2), np.float32)
    at = batch["reference_chosen"][present].long().cpu().numpy()
    found[at, 0] = chosen[present].float().cpu().numpy()
    found[at, 1] = rejected[present].float().cpu().numpy()
    return found


def dpo(
    section: DpoSection,
    *,
    run: Path,
    out: Path,
    start: Path | None,
    seed: int,
    hardware: Hardware,
    fingerprint: str,
    should_stop: Callable[[], bool],
    tracking: Tracking | None = None,
) -> dict[str, Any]:
    """Align the weights in ``start`` on the section's pairs and write ``out``/final.

    Returns:
        the counts of the data and the metrics of the training loop.

    Raises:
        UserError: a record of the data can't be read, or no pair is left.
    """
    if start is None:
        raise ValueError("dpo needs weights to start from")
    prepare(hardware)
    tokenizer = Tokenizer.load(run / "tokenizer")
    model = load_start(start, run, tokenizer).to(hardware.device)
    length = section.sequence_length or model.arch.context_length
    pairs, cut, left_out = encode_pairs(section, tokenizer, length, seed)
    objective = DpoObjective(section.beta)

    def source_of(multiple: int) -> PairSource:
        return PairSource(
            pairs,
            np.zeros((len(pairs), 2), np.float32),
            per_update=section.pairs_per_update,
            length=length,
            multiple=multiple,
            pad_id=tokenizer.pad,
            seed=seed,
        )

    shape = source_of(1)
    rows = max(len(shape.update(step)) for step in range(4))
    plan = make_plan(
        section,
        model,
        PairPasses(shape),
        [Phase(1.0, rows, length, source_of(rows))],
        objective,
        out=out,
        fingerprint=fingerprint,
        hardware=hardware,
        seed=seed,
        filled_up=True,
    )
    source = source_of(plan.micro_rows)
    key = f"{fingerprint} {sha256_file(start / 'model.safetensors')}"
    out.mkdir(parents=True, exist_ok=True)
    source.references = reference_logprobs(model, source, hardware, out / "reference.safetensors", key)
    job = Job(
        stage=out.name,
        kind=section.kind,
        out=out,
        fingerprint=fingerprint,
        model=model,
        objective=objective,
        source=source,
        section=section,
        plan=plan,
        hardware=hardware,
        seed=seed,
        should_stop=should_stop,
        sample=sampler(section.sample_prompts, chat_prompt(tokenizer), tokenizer, tokenizer.end, seed),
        tracking=tracking,
    )
    metrics = train(job)
    save_final(model, out)
    return {"pairs": len(pairs), "prompts_cut": cut, "pairs_left_out": left_out, **metrics}


class PairPasses:
    """What a plan asks of its data, for updates that are counted in pairs."""

    def __init__(self, source: PairSource) -> None:
        self.source = source

    def updates_in(self, epochs: float) -> float:
        return epochs * len(self.source.pairs) / self.source.per_update

    def padding(self) -> float:
        """From a few updates."""
        sample = [self.source.update(step) for step in range(4)]
        return 1 - sum(batch.tokens for batch in sample) / (len(sample) * max(batch.ids.size for batch in sample))
