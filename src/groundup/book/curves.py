"""The training chapters: curves, samples, speed and checkpoints of each training stage, and what its data look like."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.book.text import excerpt, token_text
from groundup.model import document_mask
from groundup.posttraining import EncodedPair, pack, read_preferences
from groundup.posttraining.pairs import batch_of
from groundup.posttraining.sft import HELD_OUT
from groundup.recipe import DpoSection, Recipe, Stage, TrainSection
from groundup.run import Manifest, UserError, read_json
from groundup.tokenizer import PackedRows, Tokenizer, TokenShards, encode_chat
from groundup.training import read_journal, to_tensors

Facts = dict[str, Any]
POINTS = 300
PICTURE = 256
"""Most places along the side of a mask's picture."""
SAMPLE_STEPS = 4
SAMPLE_PROMPTS = 3
SAMPLE_CHARACTERS = 420
PLOTTED = (
    "loss", "lr", "grad_norm", "tokens_per_second", "mfu", "validation_loss", "bits_per_byte", "accuracy", "margin",
    "reward_chosen", "reward_rejected", "logp_chosen", "logp_rejected",
)  # fmt: skip


def training(run: Path, stage: Stage, manifest: Manifest) -> Facts:
    """One training stage: its plan, settings, curves and samples."""
    section = stage.section
    assert isinstance(section, TrainSection)
    directory = run / stage.name
    rows = read_journal(directory / "metrics.jsonl")
    try:
        plan = read_json(directory / "plan.json")
    except FileNotFoundError:
        plan = {}
    optimizer = section.optimizer
    return {
        "name": stage.name,
        "kind": stage.kind,
        "start": stage.start,
        "fresh_blocks": getattr(section, "fresh_blocks", 0),
        "plan": plan,
        "metrics": manifest.metrics,
        "optimizer": optimizer.model_dump(mode="json"),
        "schedule": section.schedule.model_dump(mode="json"),
        "ramped": bool(getattr(section, "batch_ramp", ())),
        "muon": optimizer.muon_lr > 0,
        "beta": section.beta if isinstance(section, DpoSection) else None,
        "pairs_per_update": section.pairs_per_update if isinstance(section, DpoSection) else None,
        "curves": {name: curve for name in PLOTTED if (curve := _curve(rows, name))},
        "gflops": _median([row["gflops"] for row in rows if "gflops" in row]),
        "mfu": _median([row["mfu"] for row in rows if "mfu" in row]),
        "first_loss": next((row["loss"] for row in rows if "loss" in row), None),
        "samples": _samples(read_journal(directory / "samples.jsonl")),
        "held_out": HELD_OUT,
        "checkpoints": sorted(path.name for path in (directory / "checkpoints").glob("step-*")),
        "keep_checkpoints": section.keep_checkpoints,
    }


def _curve(rows: Sequence[Facts], name: str) -> list[list[float]]:
    """[step, value] of a column, thinned to about ``POINTS`` points by the mean over equal shares of the steps."""
    points = [[row["step"], row[name]] for row in rows if name in row and math.isfinite(row[name])]
    if len(points) <= POINTS:
        return points
    parts = np.array_split(np.array(points), POINTS)
    return [[float(part[-1, 0]), float(part[:, 1].mean())] for part in parts]


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _samples(rows: Sequence[Facts]) -> list[Facts]:
    """A few prompts, each with its completions at a few steps from the first to the last."""
    steps = sorted({row["step"] for row in rows})
    if len(steps) > SAMPLE_STEPS:
        # Early text changes fastest, so the steps shown are spread over the logarithm of their number.
        wanted = np.geomspace(1, len(steps), SAMPLE_STEPS).round().astype(int) - 1
        steps = [steps[place] for place in sorted(set(wanted.tolist()))]
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))[:SAMPLE_PROMPTS]
    return [
        {
            "prompt": prompt,
            "texts": [
                {"step": row["step"], "tokens": row.get("tokens"), "text": _short(row["completion"])}
                for row in rows
                if row["prompt"] == prompt and row["step"] in steps
            ],
        }
        for prompt in prompts
    ]


def _short(text: str) -> str:
    """A completion without blank lines, cut to what a table bears."""
    shown, cut = excerpt(re.sub(r"\n\s*\n", "\n", text).strip("\n"), SAMPLE_CHARACTERS)
    return f"{shown} […]" if cut else shown


def row_mask(run: Path, recipe: Recipe) -> Facts | None:
    """The attention mask of the first packed row of pretraining: bytes, 255 where a query may look."""
    if recipe.pretrain is None:
        return None
    length = recipe.pretrain.sequence_length or recipe.model.context_length
    try:
        shards = TokenShards(run / "tokenizer" / "shards" / "train")
        packing = "best_fit" if recipe.pretrain.packing == "padded" else recipe.pretrain.packing
        packed = PackedRows(shards, length, recipe.run.seed, packing=packing)
    except UserError:
        return None
    most = max(range(min(16, packed.rows(0))), key=lambda row: len(packed.pieces(row)))
    documents = to_tensors(packed.row(most), "cpu")["documents"]
    mask = document_mask(documents)[0, 0] & (documents[0] > 0)[:, None]
    return {"length": length, "documents": int(documents.max()), **picture(mask)}


def picture(mask: Tensor) -> Facts:
    """A square mask as grey bytes, dark where it is true; of a large one every so many places."""
    every = -(-len(mask) // PICTURE)
    kept = mask[::every, ::every]
    return {"size": len(kept), "map": torch.where(kept, 40, 255).flatten().tolist()}


def conversation(run: Path, stage: Stage, tool: Tokenizer) -> Facts | None:
    """The first training conversation of an SFT stage as it is learned: each token, its id, and whether it counts."""
    for split in ("train", "validation"):
        try:
            shards = TokenShards(run / stage.name / "data" / split)
        except UserError:
            continue
        if len(shards):
            ids = [int(number) for number in shards.doc(0)]
            mask = shards.mask(0)
            learned = [bool(flag) for flag in mask] if mask is not None else [True] * len(ids)
            end = _second_answer(ids, learned)
            return {
                "tokens": [
                    {"text": token_text(tool.token(number, special=True)), "id": number, "learned": flag}
                    for number, flag in zip(ids[:end], learned[:end], strict=True)
                ],
                "cut": len(ids) - end,
                "ids": len(ids),
                "learned": sum(learned),
            }
    return None


def _second_answer(ids: Sequence[int], learned: Sequence[bool], most: int = 220) -> int:
    """Where the second learned stretch ends, but at most ``most`` tokens in."""
    stretches = 0
    for place in range(1, len(ids)):
        if learned[place - 1] and not learned[place]:
            stretches += 1
            if stretches == 2:
                return min(place, most)
    return min(len(ids), most)


def preference(stage: Stage, tool: Tokenizer, seed: int) -> Facts | None:
    """Pairs of a DPO stage in words, one for each axis, and the mask of the shortest as its row has it."""
    section = stage.section
    assert isinstance(section, DpoSection)
    try:
        found = [item.preference for item, _ in zip(read_preferences(section.data, seed), range(200), strict=False)]
    except UserError:
        return None  # a file of the user's that has moved since
    if not found:
        return None
    by_axis = {item.axis: item for item in reversed(found)}
    encoded = [
        EncodedPair(
            tuple(encode_chat(tool, item.prompt, generation_prompt=True).ids),
            (*tool.encode(item.chosen), tool.end),
            (*tool.encode(item.rejected), tool.end),
        )
        for item in found
    ]
    short = min(encoded, key=lambda pair: (pair.places, pair.chosen))
    assert pack([short], short.places) == [[0]]
    zeros = np.zeros((1, 2), np.float32)
    batch = batch_of([short], zeros, length=short.places, most=1, multiple=1, pad_id=tool.pad)
    tensors = to_tensors(batch, "cpu")
    mask = document_mask(tensors["documents"], tensors["branches"])[0, 0]
    return {
        "pairs": [
            {"axis": axis, "prompt": item.prompt[-1]["content"], "chosen": item.chosen, "rejected": item.rejected}
            for axis, item in by_axis.items()
        ],
        "places": short.places,
        **picture(mask),
        "prompt_places": len(short.prompt) - 1,
        "chosen_places": len(short.chosen),
        "rejected_places": len(short.rejected),
        "saved": 1 - sum(pair.places for pair in encoded) / sum(pair.places + len(pair.prompt) - 1 for pair in encoded),
    }
