"""The tokenizer stage over a corpus stage's directory."""

import json
from pathlib import Path

import pytest

from groundup.corpus import build_corpus, read_documents
from groundup.recipe import CorpusSection, TokenizerSection
from groundup.run import UserError
from groundup.tokenizer import Tokenizer, TokenShards, build_tokenizer, encode_chat


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    rows = directory / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"text": f"Row {n} says {n * n} <|end|> 世界."}) for n in range(400)))
    sources = [
        {"path": "builtin:storyworld", "documents": 600},
        {"path": str(rows), "weight": 2.0, "epochs": 3},
    ]
    section = CorpusSection.model_validate({"sources": sources, "validation_fraction": 0.1})
    build_corpus(section, seed=1, out=directory / "out")
    return directory / "out"


def test_stage(corpus: Path, tmp_path: Path) -> None:
    metrics = build_tokenizer(TokenizerSection(vocabulary_size=600), corpus, tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocabulary_size == metrics["vocabulary_size"] == 600
    for split in ("train", "validation"):
        documents = list(read_documents(corpus, split))
        shards = TokenShards(tmp_path / "shards" / split)
        assert len(shards) == len(documents) == metrics[f"{split}_documents"]
        for number, document in enumerate(documents):
            ids = shards.doc(number).tolist()
            assert ids[-1] == tokenizer.endoftext
            assert all(i >= 16 for i in ids[:-1])
            assert tokenizer.decode(ids) == document.text
            assert shards.source(number).name == document.source
        size = sum(len(document.text.encode()) for document in documents)
        assert metrics[f"{split}_bytes"] == size
        assert metrics[f"{split}_tokens"] == shards.tokens
        assert metrics[f"{split}_bytes_per_token"] == size / (shards.tokens - len(shards))
        assert metrics[f"{split}_bytes_per_token"] > 2
        assert 0 < metrics[f"{split}_vocabulary_used"] <= 1
    train, validation = (TokenShards(tmp_path / "shards" / split).sources for split in ("train", "validation"))
    assert [(source.weight, source.epochs) for source in train] == [(1.0, None), (2.0, 3.0)]
    assert [(source.weight, source.epochs) for source in validation] == [(1.0, None)] * 2


def test_two_builds_are_byte_identical_and_the_sample_is_bounded(corpus: Path, tmp_path: Path) -> None:
    section = TokenizerSection(vocabulary_size=512, sample_bytes=20_000)
    metrics = [build_tokenizer(section, corpus, tmp_path / name) for name in ("a", "b")]
    assert metrics[0] == metrics[1]
    assert 10_000 < metrics[0]["sample_bytes"] < 30_000
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 9
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus"):
        build_tokenizer(TokenizerSection(), tmp_path, tmp_path / "out")


def test_a_chat_of_the_corpus_is_encoded_message_by_message(tmp_path: Path) -> None:
    sources = [{"path": "builtin:storyworld", "documents": 60}, {"path": "builtin:storyworld-chats", "documents": 60}]
    section = CorpusSection.model_validate({"sources": sources, "validation_fraction": 0.1})
    build_corpus(section, seed=1, out=tmp_path / "corpus")
    build_tokenizer(TokenizerSection(vocabulary_size=512), tmp_path / "corpus", tmp_path)
    tokenizer, shards = Tokenizer.load(tmp_path), TokenShards(tmp_path / "shards" / "train")
    chats = 0
    for number, document in enumerate(read_documents(tmp_path / "corpus", "train")):
        ids = shards.doc(number).tolist()
        if document.messages is None:
            assert ids == [*tokenizer.encode(document.text), tokenizer.endoftext]
        else:
            chats += 1
            assert ids == [*encode_chat(tokenizer, json.loads(document.messages)).ids, tokenizer.endoftext]
            assert ids[0] == tokenizer.user
    assert 40 < chats < 60
