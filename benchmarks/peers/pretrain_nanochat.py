"""nanochat's side of the training benchmarks: its model, compiled, and its own Muon and AdamW, stepped as its
base_train.py does: in float32 on a CPU, in bfloat16 on a GPU that has it, in FP8 where asked for.

Needs a checkout of https://github.com/karpathy/nanochat as $PEERS/nanochat.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import torch
from steps import batches, channel, feed, serve, shape


def to_fp8(model: Any) -> None:
    """Its linear layers in FP8, all that its base_train.py converts: sizes of whole 16s, from 128 on."""
    from nanochat.fp8 import Float8LinearConfig, convert_to_float8_training

    def chosen(module: Any, name: str) -> bool:
        if not isinstance(module, torch.nn.Linear):
            return False
        sides = (module.in_features, module.out_features)
        return min(sides) >= 128 and not any(side % 16 for side in sides)

    config = Float8LinearConfig.from_recipe_name("tensorwise")
    convert_to_float8_training(model, config=config, module_filter_fn=chosen)


def main() -> None:
    told, given, begun = channel(), shape(), time.perf_counter()
    sys.path.insert(0, given["checkout"])
    from nanochat.flash_attention import USE_FA3
    from nanochat.gpt import COMPUTE_DTYPE, GPT, GPTConfig

    device, micro = given.get("device", "cpu"), given.get("micro", given["rows"])
    passes = given["rows"] // micro
    torch.set_num_threads(given["threads"])
    torch.manual_seed(42)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    with torch.device("meta"):
        model = GPT(
            GPTConfig(
                sequence_len=given["length"], vocab_size=given["vocabulary"], n_layer=given["layers"],
                n_head=given["heads"], n_kv_head=given["heads"], n_embd=given["width"], window_pattern="L",
            )
        )  # fmt: skip
    model.to_empty(device=device)
    model.init_weights()
    if given.get("fp8", False):
        to_fp8(model)
    count = sum(weight.numel() for weight in model.parameters())
    run = torch.compile(model, dynamic=False) if given["compile"] else model
    optimizer = model.setup_optimizer()
    source = feed(batches(Path(given["data"]), micro, given["length"]), device)
    batch, settled = next(source), False

    def step() -> float:
        nonlocal batch, settled
        for _ in range(passes):
            loss = run(*batch)
            (loss / passes).backward()
            batch = next(source)  # while a GPU is still at it
        optimizer.step()
        model.zero_grad(set_to_none=True)
        found = loss.item()
        if device == "cuda" and not settled:  # as it does after its first step
            gc.collect()
            gc.freeze()
            gc.disable()
            settled = True
        return found

    precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(COMPUTE_DTYPE, str(COMPUTE_DTYPE))
    serve(
        told, step, begun, device=device, parameters=count, precision="fp8" if given.get("fp8", False) else precision,
        compiled=given["compile"], attention="FlashAttention 3" if USE_FA3 else "SDPA",
    )  # fmt: skip


if __name__ == "__main__":
    main()
