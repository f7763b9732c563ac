"""nanochat's side of pretrain_cpu.py: its model, compiled, and its own Muon and AdamW (float32 on a CPU).

Needs a checkout of https://github.com/karpathy/nanochat as $PEERS/nanochat.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from steps import batches, channel, serve, shape


def main() -> None:
    told, given, begun = channel(), shape(), time.perf_counter()
    sys.path.insert(0, given["checkout"])
    from nanochat.gpt import GPT, GPTConfig

    torch.set_num_threads(given["threads"])
    torch.manual_seed(42)
    with torch.device("meta"):
        model = GPT(
            GPTConfig(
                sequence_len=given["length"], vocab_size=given["vocabulary"], n_layer=given["layers"],
                n_head=given["heads"], n_kv_head=given["heads"], n_embd=given["width"], window_pattern="L",
            )
        )  # fmt: skip
    model.to_empty(device="cpu")
    model.init_weights()
    count = sum(weight.numel() for weight in model.parameters())
    optimizer = model.setup_optimizer()
    run = torch.compile(model, dynamic=False) if given["compile"] else model
    source = batches(Path(given["data"]), given["rows"], given["length"])

    def step() -> float:
        ids, targets = (torch.from_numpy(each) for each in next(source))
        loss = run(ids, targets)
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.item()

    serve(told, step, begun, parameters=count, precision="fp32", compiled=given["compile"])


if __name__ == "__main__":
    main()
