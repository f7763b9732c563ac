"""The tokenizer stage over a corpus stage's directory."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from groundup.corpus import build_corpus, read_documents
from groundup.recipe import CorpusSection, TokenizerSection
from groundup.run import GroundupError, UserError, read_json, write_json
from groundup.tokenizer import PackedRows, Tokenizer, TokenShards, build, build_tokenizer, encode, encode_chat


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


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_two_builds_are_byte_identical_and_the_sample_is_bounded(corpus: Path, tmp_path: Path) -> None:
    section = TokenizerSection(vocabulary_size=512, sample_bytes=20_000)
    metrics = [build_tokenizer(section, corpus, tmp_path / name) for name in ("a", "b")]
    assert metrics[0] == metrics[1]
    assert 10_000 < metrics[0]["sample_bytes"] < 30_000
    found = files_of(tmp_path / "a")
    assert sorted(found) == [
        "pieces.json",
        *(
            f"shards/{split}/{name}"
            for split in ("train", "validation")
            for name in ("00000.bin", "00000.offsets.bin", "00000.sources.bin", "counts.bin", "index.json")
        ),
        "tokenizer.json",
    ]
    assert found == files_of(tmp_path / "b")
    assert not list(tmp_path.glob(".*"))


def test_units_processes_and_interruptions_give_the_same_bytes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "LEAST_UNIT", 1)
    section = TokenizerSection(vocabulary_size=600)
    many = split_up(corpus, tmp_path / "corpus")
    tasks = encode.make_tasks(many, "train", tmp_path, ["a"])
    assert encode.UNITS // 2 < len(tasks) <= 2 * encode.UNITS
    build_tokenizer(section, many, tmp_path / "one", work=tmp_path / "w1", workers=1, identity="x")
    build_tokenizer(section, many, tmp_path / "two", work=tmp_path / "w2", workers=2, identity="x")
    expected = files_of(tmp_path / "one")
    assert files_of(tmp_path / "two") == expected
    assert TokenShards(tmp_path / "one" / "shards" / "train").verify() == []
    whole = TokenShards(tmp_path / "one" / "shards" / "train")
    assert len(whole.index["shards"]) == len(tasks)
    counts = np.fromfile(tmp_path / "one" / "shards" / "train" / "counts.bin", "<u8")
    ids = np.concatenate([whole.doc(number) for number in range(len(whole))])
    assert counts.tolist() == np.bincount(ids, minlength=600).tolist()

    done: list[str] = []
    real = encode.encode_unit

    def stops_at_the_fifth(task: dict[str, Any]) -> dict[str, Any]:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(task["out"])
        return real(task)

    monkeypatch.setattr(build, "encode_unit", stops_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        build_tokenizer(section, many, tmp_path / "three", work=tmp_path / "w3", identity="x")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "w3").rglob("record.json")}
    assert len(times) == 5
    monkeypatch.setattr(build, "encode_unit", real)
    monkeypatch.setattr(build, "train_bpe", None)  # what is learned is not learned again
    build_tokenizer(section, many, tmp_path / "three", work=tmp_path / "w3", identity="x")
    assert files_of(tmp_path / "three") == expected
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def split_up(corpus: Path, out: Path) -> Path:
    """The same corpus in row groups of 20 documents, and in two files."""
    (out / "documents").mkdir(parents=True)
    (out / "funnel.json").write_bytes((corpus / "funnel.json").read_bytes())
    for split in ("train", "validation"):
        table = pq.read_table(corpus / "documents" / f"{split}-00000.parquet")
        half = table.num_rows // 2
        for number, part in enumerate((table.slice(0, half), table.slice(half))):
            pq.write_table(part, out / "documents" / f"{split}-{number:05d}.parquet", row_group_size=20)
    return out


def test_an_adopted_vocabulary_with_words_of_the_field(corpus: Path, tmp_path: Path) -> None:
    build_tokenizer(TokenizerSection(vocabulary_size=600), corpus, tmp_path / "first")
    old = Tokenizer.load(tmp_path / "first")
    section = TokenizerSection(adopt=str(tmp_path / "first"), extra_tokens=("myoglobin", " zorbulon"))
    metrics = build_tokenizer(section, corpus, tmp_path / "second")
    new = Tokenizer.load(tmp_path / "second")
    assert metrics["vocabulary_size"] == new.vocabulary_size == 602
    assert new.encode("of myoglobin, zorbulon") == [*old.encode("of "), 600, *old.encode(","), 601]
    assert read_json(tmp_path / "second" / "pieces.json") == {
        "600": old.encode("myoglobin"),
        "601": old.encode(" zorbulon"),
    }
    shards = TokenShards(tmp_path / "second" / "shards" / "train")
    texts = [document.text for document in read_documents(corpus, "train")]
    assert [new.decode(shards.doc(number)) for number in range(len(shards))] == texts


def test_one_document_and_none(corpus: Path, tmp_path: Path) -> None:
    one = split_up(corpus, tmp_path / "one")
    funnel = read_json(one / "funnel.json")
    for path in (one / "documents").iterdir():
        table = pq.read_table(path)
        pq.write_table(table.slice(0, int(path.name == "train-00000.parquet")), path)
    funnel["total"]["steps"]["train"]["documents"] = 1
    write_json(one / "funnel.json", funnel)
    metrics = build_tokenizer(TokenizerSection(), one, tmp_path / "out")
    assert (metrics["train_documents"], metrics["validation_documents"], metrics["validation_tokens"]) == (1, 0, 0)
    assert metrics["vocabulary_size"] < 4096
    assert PackedRows(TokenShards(tmp_path / "out" / "shards" / "train"), 16, 1).rows(0) >= 1
    with pytest.raises(UserError, match="nothing to learn from"):
        PackedRows(TokenShards(tmp_path / "out" / "shards" / "validation"), 16, 1)
    funnel["total"]["steps"]["train"]["documents"] = 0
    write_json(one / "funnel.json", funnel)
    with pytest.raises(UserError, match="no document to train on"):
        build_tokenizer(TokenizerSection(), one, tmp_path / "none")
    (one / "documents" / "train-00000.parquet").write_bytes(b"PAR1 no")
    funnel["total"]["steps"]["train"]["documents"] = 1
    write_json(one / "funnel.json", funnel)
    with pytest.raises(UserError, match=r"not a Parquet file(.|\n)*train-00000"):
        build_tokenizer(TokenizerSection(), one, tmp_path / "broken")


def test_engines_that_disagree_end_the_stage(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "encode_array", lambda self, text: np.array([self.pad], np.uint32))
    with pytest.raises(GroundupError, match="gigatoken and tokenizers give different ids"):
        build_tokenizer(TokenizerSection(vocabulary_size=600, min_frequency=1), corpus, tmp_path / "out")


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


def test_a_word_that_is_a_token_already_is_not_added_again(corpus: Path, tmp_path: Path) -> None:
    build_tokenizer(TokenizerSection(vocabulary_size=600), corpus, tmp_path / "plain")
    word = next(token.decode() for token in Tokenizer.load(tmp_path / "plain").tokens() if len(token) > 4)
    section = TokenizerSection(vocabulary_size=600, extra_tokens=(word, "myoglobin"))
    build_tokenizer(section, corpus, tmp_path / "extra")
    found = Tokenizer.load(tmp_path / "extra")
    assert found.vocabulary_size in (599, 600)  # the word may have been the last merge, for which room is one less now
    assert len(found.encode("myoglobin")) == 1
    with pytest.raises(UserError, match=r"given twice(.|\n)*tokenizer\.extra_tokens\[1\]"):
        build_tokenizer(TokenizerSection(extra_tokens=("xyzzy", "xyzzy")), corpus, tmp_path / "twice")


def test_joining_over_an_earlier_result_leaves_the_parts_alone(corpus: Path, tmp_path: Path) -> None:
    """The same directory filled twice, by two vocabularies; the first's units are whole afterwards."""
    first, second = (TokenizerSection(vocabulary_size=size) for size in (600, 560))
    build_tokenizer(first, corpus, tmp_path / "out", work=tmp_path / "work")
    expected = files_of(tmp_path / "out")
    build_tokenizer(second, corpus, tmp_path / "out", work=tmp_path / "work")
    assert files_of(tmp_path / "out") != expected
    build_tokenizer(first, corpus, tmp_path / "out", work=tmp_path / "work")
    assert files_of(tmp_path / "out") == expected
    for record in (tmp_path / "work").rglob("record.json"):
        assert TokenShards(record.parent).verify() == []


def test_workers_end_with_an_interruption(corpus: Path, tmp_path: Path) -> None:
    """Whatever takes long in them: the stage doesn't wait for units that are begun."""
    program = (
        "import sys, time\nfrom groundup.tokenizer.work import in_processes\n"
        "def slow(task):\n    print('begun', flush=True)\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(in_processes(slow, [{}, {}], 2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) != 0
    assert process.stdout.read() == ""  # the pipe is closed: no worker holds it any more
