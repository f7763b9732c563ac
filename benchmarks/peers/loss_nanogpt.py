"""nanoGPT's side of time_to_loss.py: its own train.py with the options that its README gives for a CPU.

    loss_nanogpt.py '{"checkout": …, "text": …, "seed": 1, "threads": 2}'

Needs a checkout of https://github.com/karpathy/nanoGPT as $PEERS/nanoGPT; nothing is written into it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import runpy
import sys
import tempfile
from pathlib import Path

import torch
from shakespeare import characters, score, splits

ITERATIONS = 2000
OPTIONS = [
    "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
    "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128", f"--max_iters={ITERATIONS}",
    f"--lr_decay_iters={ITERATIONS}", "--dropout=0.0",
    f"--eval_interval={ITERATIONS}",  # the README's 250 would only add passes that the clock leaves out
]  # fmt: skip


def prepare(checkout: Path, text: Path, folder: Path) -> None:
    """What train.py expects beside it, as its data/shakespeare_char/prepare.py makes it."""
    for name in ("config", "configurator.py"):
        (folder / name).symlink_to(checkout / name)
    data = folder / "data" / "shakespeare_char"
    data.mkdir(parents=True)
    for name, ids in zip(("train.bin", "val.bin"), splits(text), strict=True):
        ids.tofile(data / name)
    alphabet = characters(text)
    meta = {
        "vocab_size": len(alphabet),
        "itos": dict(enumerate(alphabet)),
        "stoi": {c: i for i, c in enumerate(alphabet)},
    }
    with (data / "meta.pkl").open("wb") as file:
        pickle.dump(meta, file)


def train(checkout: Path, seed: int) -> list[float]:
    """Run train.py in this process; returns the seconds of each iteration that it printed."""
    sown, printed = torch.manual_seed, io.StringIO()
    torch.manual_seed = lambda number: sown(number + seed)  # its seed is not an option
    sys.argv = ["train.py", *OPTIONS]
    sys.path.insert(0, str(checkout))
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(checkout / "train.py"), run_name="__main__")
    print(printed.getvalue(), file=sys.stderr)
    return [
        float(number) / 1000 for number in re.findall(r"^iter .* time ([0-9.]+)ms", printed.getvalue(), re.MULTILINE)
    ]


def main() -> None:
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    checkout, text = Path(given["checkout"]), Path(given["text"])
    with tempfile.TemporaryDirectory() as folder:
        prepare(checkout, text, Path(folder))
        os.chdir(folder)
        seconds = train(checkout, given["seed"])
        if len(seconds) != ITERATIONS + 1:
            raise SystemExit(f"train.py printed {len(seconds)} iterations")
        # Its first iteration and the one after the last include a validation pass, so one of the others stands in.
        between = seconds[1:ITERATIONS]
        kept = torch.load("out-shakespeare-char/ckpt.pt", weights_only=True)
        os.chdir("/")
    if kept["iter_num"] != ITERATIONS:
        raise SystemExit(f"train.py kept the weights of iteration {kept['iter_num']}")
    from model import GPT, GPTConfig

    model = GPT(GPTConfig(**kept["model_args"])).eval()
    model.load_state_dict(kept["model"])
    _, validation = splits(text)
    loss = score(lambda ids: model(ids, ids)[0], validation, kept["model_args"]["block_size"])
    updated = ITERATIONS * 12 * 64
    print(json.dumps({"seconds": sum(between) * ITERATIONS / len(between), "loss": loss, "tokens": updated}))


if __name__ == "__main__":
    main()
