"""nanoGPT's side of pretrain_cpu.py: its model and optimizer, stepped as its train.py does on a CPU (float32).

Needs a checkout of https://github.com/karpathy/nanoGPT as $PEERS/nanoGPT.
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
    from model import GPT, GPTConfig

    torch.set_num_threads(given["threads"])
    torch.manual_seed(1337)
    model = GPT(
        GPTConfig(
            block_size=given["length"], vocab_size=given["vocabulary"], n_layer=given["layers"],
            n_head=given["heads"], n_embd=given["width"], dropout=0.0, bias=False,
        )
    )  # fmt: skip
    count = sum(weight.numel() for weight in model.parameters())
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    run = torch.compile(model) if given["compile"] else model
    source = batches(Path(given["data"]), given["rows"], given["length"])

    def step() -> float:
        ids, targets = (torch.from_numpy(each) for each in next(source))
        _, loss = run(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    serve(told, step, begun, parameters=count, precision="fp32", compiled=given["compile"])


if __name__ == "__main__":
    main()
