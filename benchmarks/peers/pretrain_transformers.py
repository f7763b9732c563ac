"""The side of transformers in pretrain_cpu.py: a Llama and the Trainer, at its defaults or with bf16 and compiled."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from steps import batches, channel, peak_mb, shape


class Told(transformers.TrainerCallback):
    """Stops before each step that nobody asked for yet."""

    def __init__(self, told: Any, begun: float, known: dict[str, Any]) -> None:
        self.told, self.begun, self.known = told, begun, known
        self.left, self.count, self.since = 0, 0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 0:
            return
        if state.global_step == 1:
            content = {"ready": {**self.known, "first_seconds": time.perf_counter() - self.begun}}
            self.told.write(json.dumps(content) + "\n")
            self.told.flush()
        elif self.left == 0:
            seconds = time.perf_counter() - self.since
            self.told.write(json.dumps({"seconds": seconds, "losses": [], "peak_mb": peak_mb()}) + "\n")
            self.told.flush()
        if self.left == 0:
            line = sys.stdin.readline()
            if not line:
                os._exit(0)
            self.left, self.since = int(line), time.perf_counter()
        self.left -= 1


class Windows(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Rows for the Trainer's own loader."""

    def __init__(self, path: Path, length: int) -> None:
        self.source = batches(path, 1, length)

    def __iter__(self) -> Any:
        for ids, _ in self.source:
            row = torch.from_numpy(ids[0])
            yield {"input_ids": row, "labels": row}


def main() -> None:
    told, given, begun = channel(), shape(), time.perf_counter()
    torch.set_num_threads(given["threads"])
    config = transformers.LlamaConfig(
        vocab_size=given["vocabulary"], hidden_size=given["width"], intermediate_size=given["inner"],
        num_hidden_layers=given["layers"], num_attention_heads=given["heads"], num_key_value_heads=given["heads"],
        max_position_embeddings=given["length"], tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    known = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "precision": "bf16" if given["tuned"] else "fp32",
        "compiled": given["tuned"],
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=10**6, per_device_train_batch_size=given["rows"], use_cpu=True,
            save_strategy="no", report_to="none", disable_tqdm=True,
            **({"bf16": True, "torch_compile": True} if given["tuned"] else {}),
        )  # fmt: skip
        data = Windows(Path(given["data"]), given["length"])
        callback = Told(told, begun, known)
        transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback]).train()


if __name__ == "__main__":
    main()
