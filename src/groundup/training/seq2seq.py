"""Translation: sentence pairs to the original encoder-decoder, tested by beam search on what it never saw."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.hardware import Hardware
from groundup.inference import Translator
from groundup.model import (
    IGNORE,
    EncoderDecoder,
    EncoderDecoderArchitecture,
    encoder_decoder_flops,
    initialise_encoder_decoder,
    smoothed_cross_entropy_sum,
)
from groundup.recipe import Seq2SeqSection
from groundup.run import UserError, log, staged_directory, write_json, write_text
from groundup.tokenizer.words import EOS, WordVocabulary
from groundup.training.budget import Plan, kept_plan, settle
from groundup.training.compute import prepare
from groundup.training.failures import plain_words
from groundup.training.loop import Job, train
from groundup.training.memory import rows_in_pass
from groundup.training.objective import to_tensors
from groundup.training.sentence_pairs import Integers, PairRows, SentencePairs, TextPair, read_pairs
from groundup.training.stage import measure_updates
from groundup.training.trackers import Tracking
from groundup.training.translation_test import (
    TASK,
    baseline_results,
    score_translations,
    translate_tests,
    units,
)

SAMPLES = 3

Tensors = dict[str, Tensor]


class TranslationObjective:
    """Label-smoothed cross-entropy of the target's words; reported besides: the plain one, and the share foretold."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def count(self, rows: Any) -> int:
        return int(rows.target_tokens)

    def flops(self, model: EncoderDecoder, rows: PairRows) -> float:
        return encoder_decoder_flops(model.arch, rows.source_tokens, rows.target_tokens, len(rows))

    def loss(self, model: EncoderDecoder, batch: Tensors) -> tuple[Tensor, Tensors]:
        hidden, targets = model(batch["sources"], batch["inputs"]), batch["targets"]
        loss = smoothed_cross_entropy_sum(hidden, model.head, targets, self.smoothing)
        with torch.no_grad():
            scored = targets != IGNORE
            logits, right = model.logits(hidden[scored]).float(), targets[scored]
            plain = F.cross_entropy(logits, right, reduction="sum")
            foretold = (logits.argmax(-1) == right).sum()
        return loss, {"cross_entropy": plain, "accuracy": foretold}


def learn_vocabularies(section: Seq2SeqSection, training: Sequence[TextPair]) -> tuple[WordVocabulary, WordVocabulary]:
    """The vocabularies of source and target, from the training pairs alone; one and the same where they are shared."""
    sources, targets = [pair.source for pair in training], [pair.target for pair in training]
    if section.model.embeddings == "shared":
        both = WordVocabulary.learn(section.unit, [*sources, *targets], section.max_vocabulary)
        return both, both
    learned = [WordVocabulary.learn(section.unit, texts, section.max_vocabulary) for texts in (sources, targets)]
    return learned[0], learned[1]


def encode_pairs(
    training: Sequence[TextPair], source: WordVocabulary, target: WordVocabulary, longest: int
) -> tuple[list[tuple[Integers, Integers]], int]:
    """The pairs as ids with their end marks, and how many were too long and are left out."""
    pairs = []
    for pair in training:
        ids = ([*source.encode(pair.source), EOS], [*target.encode(pair.target), EOS])
        if max(map(len, ids)) <= longest:
            pairs.append((np.array(ids[0], np.int64), np.array(ids[1], np.int64)))
    if not pairs:
        raise UserError(
            f"no sentence pair fits {longest} places",
            where="[seq2seq] model.context_length",
            mend="raise it (and sequence_length, where given)",
        )
    return pairs, len(training) - len(pairs)


def seq2seq(
    section: Seq2SeqSection,
    *,
    out: Path,
    seed: int,
    hardware: Hardware,
    fingerprint: str,
    should_stop: Callable[[], bool],
    tracking: Tracking | None = None,
) -> dict[str, Any]:
    """Train on the section's pairs, then translate the test splits; carries on from ``out``/checkpoints.

    Writes ``out``/final (model.safetensors, config.json, vocabulary.json), results.json in the shape of the evaluation
    stage's, and translations.jsonl: every test sentence with what became of it.

    Returns:
        counts of the data, the metrics of the training loop, and the exact match of each split.

    Raises:
        UserError: a record of the data can't be read, or no pair is left.
    """
    prepare(hardware)
    data = read_pairs(section, seed)
    if data.pairs_left_out:
        log(f"{out.name}: {data.pairs_left_out} pairs of files have the words of built-in sentences held out: left out")
    translator = fresh_translator(section, data.training, seed)
    model = translator.model.to(hardware.device)
    longest = min(section.sequence_length or model.arch.context_length, model.arch.context_length)
    pairs, too_long = encode_pairs(data.training, translator.source, translator.target, longest)
    rows = SentencePairs(pairs, section.pairs_per_update, seed)
    objective = TranslationObjective(section.label_smoothing)
    plan = make_plan(section, model, rows, objective, longest, out, fingerprint, hardware, seed)
    section = with_rates(section, model.arch, plan.steps)
    job = Job(
        out.name, section.kind, out, fingerprint, model, objective, rows, section, plan, hardware, seed, should_stop,
        validate=validator(translator, data.validation),
        sample=sampler(translator, section.sample_prompts, data.validation),
        tracking=tracking,
    )  # fmt: skip
    metrics = train(job)
    model.eval()
    with plain_words(out.name, out), staged_directory(out / "final") as directory:
        translator.save(directory)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "pairs": len(pairs),
        "pairs_too_long": too_long,
        "pairs_left_out": data.pairs_left_out,
        "tests_left_out": data.tests_left_out,
        "vocabulary": len(translator.target),
        "peak_lr": section.optimizer.adamw_lr,
        **metrics,
        **write_tests(section, translator, data.training, data.tests, out, seed),
    }


def fresh_translator(section: Seq2SeqSection, training: Sequence[TextPair], seed: int) -> Translator:
    """A model of the section's shape, its weights from the seed, with vocabularies learnt from the training pairs."""
    source, target = learn_vocabularies(section, training)
    model = EncoderDecoder(EncoderDecoderArchitecture.from_section(section.model, len(source), len(target)))
    initialise_encoder_decoder(model, seed)
    return Translator(model, source, target)


def make_plan(
    section: Seq2SeqSection,
    model: EncoderDecoder,
    rows: SentencePairs,
    objective: TranslationObjective,
    longest: int,
    out: Path,
    fingerprint: str,
    hardware: Hardware,
    seed: int,
) -> Plan:
    """Settle the stage's plan (see :func:`settle`). Updates differ in their lengths, so nothing is compiled."""
    if (kept := kept_plan(out, fingerprint)) is not None:
        return kept
    with plain_words(out.name, out):
        micro, _ = rows_in_pass(section, model, section.pairs_per_update, longest, hardware, divisor=False)

    def seconds_per_update() -> tuple[float, float]:
        trial = Plan("", 1 << 30, section.pairs_per_update, micro, longest)
        job = Job("probe", "probe", out / ".probe", "", model, objective, rows, section, trial, hardware, seed, bool)
        return measure_updates(job, [(1.0, rows)], len(rows.pairs))

    return settle(
        out,
        fingerprint,
        section,
        rows_per_update=section.pairs_per_update,
        micro=micro,
        sequence_length=longest,
        tokens_per_update=rows.mean_tokens(),
        updates_in=lambda epochs: epochs * len(rows.pairs) / section.pairs_per_update,
        seconds_per_update=seconds_per_update,
        compiles=lambda steps: False,
    )


def with_rates(section: Seq2SeqSection, arch: EncoderDecoderArchitecture, steps: int) -> Seq2SeqSection:
    """The section with the rates that it stands for: the paper's peak, 1 / sqrt(D · warm-up), or its own."""
    if section.peak_lr == "given":
        return section
    warmup = max(1, round(section.schedule.warmup_fraction * steps))
    peak = 1 / math.sqrt(arch.hidden_size * warmup)
    optimizer = section.optimizer.model_copy(update={"adamw_lr": peak, "embedding_lr": peak})
    return section.model_copy(update={"optimizer": optimizer})


def validator(translator: Translator, pairs: Sequence[TextPair]) -> Callable[[EncoderDecoder], dict[str, float]] | None:
    """A function that measures the model on these pairs; None where there is none.

    ``validation_loss`` is in nats a word of the given translation; ``exact_match`` is that of greedy search.
    """
    longest = translator.model.arch.context_length
    encoded = []
    for pair in pairs:
        ids = translator.encode_source(pair.source), translator.encode_target(pair.target)
        if max(map(len, ids)) <= longest:
            encoded.append((pair, (np.array(ids[0], np.int64), np.array(ids[1], np.int64))))
    if not encoded:
        return None
    rows = PairRows.of([ids for _, ids in encoded])
    texts = [pair.source for pair, _ in encoded]
    wanted = [units(pair.target, translator.target.unit) for pair, _ in encoded]

    @torch.no_grad()
    def measure(model: EncoderDecoder) -> dict[str, float]:
        batch = to_tensors(rows, str(model.head.weight.device))
        hidden = model(batch["sources"], batch["inputs"])
        nats = smoothed_cross_entropy_sum(hidden, model.head, batch["targets"], 0.0).item()
        said = [units(best[0].text, translator.target.unit) for best in translator.translate(texts, beam=1)]
        right = sum(one == other for one, other in zip(said, wanted, strict=True))
        return {"validation_loss": nats / rows.target_tokens, "exact_match": right / len(wanted)}

    return measure


def sampler(
    translator: Translator, prompts: Sequence[str], validation: Sequence[TextPair]
) -> Callable[[EncoderDecoder, int], list[dict[str, Any]]] | None:
    """A function that translates the recipe's sentences, or for want of them the first to validate with, greedily."""
    pairs = [TextPair(prompt, "") for prompt in prompts] or validation[:SAMPLES]
    longest = translator.model.arch.context_length
    pairs = [pair for pair in pairs if len(translator.encode_source(pair.source)) <= longest]
    if not pairs:
        return None

    def sample(model: EncoderDecoder, step: int) -> list[dict[str, Any]]:
        found = translator.translate([pair.source for pair in pairs], beam=1)
        return [
            {"prompt": pair.source, "completion": best[0].text, **({"expected": pair.target} if pair.target else {})}
            for pair, best in zip(pairs, found, strict=True)
        ]

    return sample


def write_tests(
    section: Seq2SeqSection,
    translator: Translator,
    training: Sequence[TextPair],
    tests: dict[str, list[TextPair]],
    out: Path,
    seed: int,
) -> dict[str, float]:
    """Translate the tests and write out/translations.jsonl and out/results.json; the exact match of each split."""
    if not tests:
        log(f"{out.name}: no sentence pair was held out, so nothing is measured (raise held_out_fraction)")
        write_text(out / "translations.jsonl", "")
        write_json(out / "results.json", {})
        return {}
    found = translate_tests(translator, tests, section.beam, section.length_penalty)
    texts = {split: [best.text for best in translations] for split, translations in found.items()}
    results = score_translations(out.name, texts, tests, section.unit, seed)
    baselines = baseline_results(training, tests, section.unit, seed)
    suffix = "" if out.name == section.kind else f"_{out.name}"  # a run may have several translators
    results |= {name + suffix: tasks for name, tasks in baselines.items()}
    records = [
        {
            "split": split,
            "source": pair.source,
            "target": pair.target,
            "translation": best.text,
            "right": units(best.text, section.unit) == units(pair.target, section.unit),
            "score": best.score if math.isfinite(best.score) else None,
            "finished": best.finished,
        }
        for split, pairs in tests.items()
        for pair, best in zip(pairs, found[split], strict=True)
    ]
    write_text(out / "translations.jsonl", "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records))
    write_json(out / "results.json", results)
    return {f"exact_match_{split}": leaf["value"] for split, leaf in results[out.name][TASK].items()}
