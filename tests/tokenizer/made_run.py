"""A small run made by hand, without the stages: a corpus of two sources and three languages, and its tokens."""

import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from groundup.tokenizer import ShardSource, ShardWriter, Tokenizer, encode_chat, train_bpe

RECIPE = """
[run]
name = "made"
[corpus]
sources = ["books", "chats"]
[tokenizer]
vocabulary_size = {asked}
[model]
layers = 2
hidden_size = 64
heads = 2
kv_heads = 2
intermediate_size = 128
context_length = 64
[pretrain]
steps = 1
sequence_length = 48
"""
ENGLISH = "The kite flew over the house number {n}, and the house stood where the kite had flown. "
GERMAN = "Über dem Haus Nummer {n} flog ein Drachen, größer als alle anderen. "
CHINESE = "风筝{n}飞过房子，房子还在那里。"
MESSAGES = [{"role": "user", "content": "Where is kite {n}?"}, {"role": "assistant", "content": "Over the house."}]


def documents(split: str, count: int) -> list[dict[str, Any]]:
    """English, German and Chinese texts in turn, then a chat for every second text."""
    rows = []
    for number in range(count):
        language = ("en", "de", "zh")[number % 3]
        text = {"en": ENGLISH, "de": GERMAN, "zh": CHINESE}[language].format(n=number) * (1 + number % 4)
        rows.append({"text": text, "mixture": "books", "language": language, "messages": None})
    for number in range(count // 2):
        messages = [message | {"content": message["content"].format(n=number)} for message in MESSAGES]
        text = "\n".join(message["content"] for message in messages)
        rows.append({"text": text, "mixture": "chats", "language": None, "messages": json.dumps(messages)})
    return [{"id": f"{zlib.crc32(f'{split}{n}'.encode()):032x}", **row} for n, row in enumerate(rows)]


def write_documents(folder: Path, split: str, rows: list[dict[str, Any]], group: int = 16) -> None:
    """One Parquet file with row groups of `group` documents."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = pa.schema([(name, pa.string()) for name in ("id", "text", "mixture", "language", "messages")])
    pq.write_table(pa.Table.from_pylist(rows, kinds), folder / f"{split}-00000.parquet", row_group_size=group)


def make_run(run: Path, count: int = 60, asked: int = 600) -> Path:
    """Recipe, corpus, tokenizer.json of at most 480 tokens, and token shards; the recipe asks for `asked` tokens."""
    train, validation = documents("train", count), documents("validation", count // 10)
    write_documents(run / "corpus" / "documents", "train", train)
    write_documents(run / "corpus" / "documents", "validation", validation)
    tokenizer = Tokenizer(train_bpe([row["text"] for row in train], 480).to_str())
    tokenizer.save(run / "tokenizer")
    names = ["books", "chats"]
    for split, rows in (("train", train), ("validation", validation)):
        folder = run / "tokenizer" / "shards" / split
        sources = [ShardSource(name) for name in names]
        with ShardWriter(folder, "uint16", pad_id=tokenizer.pad, sources=sources, shard_tokens=500) as writer:
            for row in rows:
                chat = row["messages"] and encode_chat(tokenizer, json.loads(row["messages"])).ids
                ids = [*(chat or tokenizer.encode(row["text"])), tokenizer.endoftext]
                writer.add(ids, names.index(row["mixture"]))
    (run / "recipe.toml").write_text(RECIPE.format(asked=asked), encoding="utf-8")
    return run
