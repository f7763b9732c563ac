"""nanoGPT's side of the training benchmarks: its model and optimizer, stepped as its train.py does: in float32 on a
CPU, on a GPU in bfloat16 by autocast, with TF32 for the rest and fused AdamW.

Needs a checkout of https://github.com/karpathy/nanoGPT as $PEERS/nanoGPT.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from steps import batches, channel, feed, serve, shape


def main() -> None:
    told, given, begun = channel(), shape(), time.perf_counter()
    sys.path.insert(0, given["checkout"])
    from model import GPT, GPTConfig

    device, micro = given.get("device", "cpu"), given.get("micro", given["rows"])
    passes = given["rows"] // micro
    context = torch.amp.autocast(device, torch.bfloat16) if device == "cuda" else nullcontext()
    torch.set_num_threads(given["threads"])
    torch.manual_seed(1337)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    model = GPT(
        GPTConfig(
            block_size=given["length"], vocab_size=given["vocabulary"], n_layer=given["layers"],
            n_head=given["heads"], n_embd=given["width"], dropout=0.0, bias=False,
        )
    ).to(device)  # fmt: skip
    count = sum(weight.numel() for weight in model.parameters())
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), device)
    run = torch.compile(model) if given["compile"] else model
    source = feed(batches(Path(given["data"]), micro, given["length"]), device)
    batch = next(source)

    def step() -> float:
        nonlocal batch
        for _ in range(passes):
            with context:
                _, loss = run(*batch)
            batch = next(source)  # while a GPU is still at it
            (loss / passes).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    serve(
        told, step, begun, device=device, parameters=count, precision="bf16" if device == "cuda" else "fp32",
        compiled=given["compile"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
