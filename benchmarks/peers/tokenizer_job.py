"""One timed job of benchmarks/tokenizer.py, in a process of its own: python tokenizer_job.py JOB CORPUS [TOKENIZER]

CORPUS is a corpus directory; TOKENIZER a tokenizer.json that all sides read. What is timed begins when the texts are in
memory and the libraries are loaded. The last line of output is {"wall", "cpu", "tokens", "bytes", "extra"}; CPU seconds
are those of all threads and children of the timed part.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

SIZE = 32_768
WORKERS = 2


def texts_of(corpus: str) -> list[str]:
    files = sorted((Path(corpus) / "documents").glob("train-*.parquet"))
    return [text for file in files for text in pq.read_table(file, columns=["text"]).column(0).to_pylist()]


def cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(function: Callable[[], Any]) -> dict[str, Any]:
    wall, used = time.perf_counter(), cpu()
    tokens, extra = function()
    return {"wall": time.perf_counter() - wall, "cpu": cpu() - used, "tokens": tokens, "extra": extra}


def load(path: str) -> Any:
    from groundup.tokenizer import Tokenizer

    return Tokenizer(Path(path).read_text(encoding="utf-8"))


def exact(path: str) -> Any:
    import tokenizers

    found = tokenizers.Tokenizer.from_file(path)
    found.encode_special_tokens = True
    return found


def tik(path: str) -> Any:
    import tiktoken

    tokenizer = load(path)
    pattern = json.loads(tokenizer.json)["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    special = set(tokenizer.special_ids().values())
    ranks = {tokenizer.token(each): each for each in range(tokenizer.vocabulary_size) if each not in special}
    return tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def train_ours(corpus: str, path: str) -> dict[str, Any]:
    from groundup.tokenizer import train_bpe

    texts = texts_of(corpus)

    def run() -> tuple[int, Any]:
        learned = train_bpe(texts, SIZE)
        Path(path).write_text(learned.to_str(), encoding="utf-8")
        return learned.get_vocab_size(), None

    return timed(run)


def train_tokenizers(corpus: str, path: str) -> dict[str, Any]:
    """The same split pattern, special tokens and size; ties between pairs are broken another way."""
    import tokenizers
    from tokenizers import Regex, models, pre_tokenizers, trainers

    from groundup.tokenizer.patterns import SPLIT_PATTERNS
    from groundup.tokenizer.special import special_tokens

    texts = texts_of(corpus)
    made = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERNS["qwen2"]), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        min_frequency=2,
        special_tokens=special_tokens(9),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )

    def run() -> tuple[int, Any]:
        made.train_from_iterator(texts, trainer)
        return made.get_vocab_size(), None

    return timed(run)


def encode_ours(corpus: str, path: str) -> dict[str, Any]:
    """Our `encode_batch`, lists of ids, on all cores."""
    tokenizer, texts = load(path), texts_of(corpus)
    return timed(lambda: (sum(map(len, tokenizer.encode_batch(texts))), tokenizer.engine))


def encode_tiktoken(corpus: str, path: str) -> dict[str, Any]:
    encoding, texts = tik(path), texts_of(corpus)
    return timed(lambda: (sum(map(len, encoding.encode_ordinary_batch(texts, num_threads=WORKERS))), None))


def encode_ours_core(corpus: str, path: str) -> dict[str, Any]:
    tokenizer, texts = load(path), texts_of(corpus)
    return timed(lambda: (sum(len(tokenizer.encode(text)) for text in texts), tokenizer.engine))


def encode_tiktoken_core(corpus: str, path: str) -> dict[str, Any]:
    encoding, texts = tik(path), texts_of(corpus)
    return timed(lambda: (sum(len(encoding.encode_ordinary(text)) for text in texts), None))


def encode_tokenizers_core(corpus: str, path: str) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer, texts = exact(path), texts_of(corpus)

    def run() -> tuple[int, Any]:
        count = 0
        for start in range(0, len(texts), 256):
            found = tokenizer.encode_batch_fast(texts[start : start + 256], add_special_tokens=False)
            count += sum(len(encoding.ids) for encoding in found)
        return count, None

    return timed(run)


_held: dict[str, Any] = {}


def _get_ready(corpus: str, path: str) -> None:
    _held.update(tokenizer=load(path), texts=texts_of(corpus))


def _encode_part(part: int) -> int:
    texts = _held["texts"][part::WORKERS]
    return sum(map(len, _held["tokenizer"].encode_arrays(texts)))


def _wait(_: int) -> None:
    time.sleep(0.5)  # long enough that each process takes one


def encode_processes(corpus: str, path: str) -> dict[str, Any]:
    """Ours in two processes that hold their texts and are up."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), initializer=_get_ready, initargs=(corpus, path)) as pool:
        list(pool.map(_wait, range(WORKERS)))
        begun = time.perf_counter()
        count = sum(pool.map(_encode_part, range(WORKERS)))
        wall = time.perf_counter() - begun
    return {"wall": wall, "cpu": None, "tokens": count, "extra": None}


def read_encode(corpus: str, path: str) -> dict[str, Any]:
    """What the stage does, less the writing: units of row groups read and encoded in processes."""
    from groundup.tokenizer.work import in_processes

    return _stage(corpus, path, lambda tasks: in_processes(read_unit, tasks, WORKERS))


def shards(corpus: str, path: str) -> dict[str, Any]:
    """The stage's token shards, checksums and all."""
    from groundup.tokenizer.encode import encode_unit
    from groundup.tokenizer.work import in_processes

    return _stage(corpus, path, lambda tasks: in_processes(encode_unit, tasks, WORKERS))


def read_unit(task: dict[str, Any]) -> dict[str, Any]:
    from groundup.tokenizer import encode

    tokenizer = encode._tokenizer(task["tokenizer"])
    count = 0
    for rows in encode._read(Path(task["corpus"]), task["groups"]):
        count += len(encode.encode_rows(tokenizer, rows)[0])
    return {"tokens": count}


def _stage(corpus: str, path: str, run: Callable[[list[dict[str, Any]]], Any]) -> dict[str, Any]:
    from groundup.tokenizer.encode import make_tasks

    with tempfile.TemporaryDirectory(dir=Path(path).parent) as name:
        load(path).save(Path(name))
        tasks = make_tasks(Path(corpus), "train", Path(name), ["wikipedia"])
        return timed(lambda: (sum(record["tokens"] for record in run(tasks)), len(tasks)))


def main(job: str, corpus: str, path: str) -> None:
    found = globals()[job.replace("-", "_")](corpus, path)
    size = sum(len(text.encode()) for text in texts_of(corpus))
    print(json.dumps(found | {"bytes": size}))


if __name__ == "__main__":  # workers import this file again
    main(*sys.argv[1:])
