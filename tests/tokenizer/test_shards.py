"""Token shards: what is written is what is read, however it is cut and joined, and damage is noticed."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.run import GroundupError, UserError
from groundup.tokenizer import ShardSource, ShardWriter, TokenShards, dtype_for
from groundup.tokenizer.writer import join_shards


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("shard_tokens", [10, 1000])
def test_round_trip(tmp_path: Path, dtype: str, shard_tokens: int) -> None:
    documents = [[1, 2, 3], [], [2**16 - 1], list(range(25)), [7, 8]]
    masks = [[number % 2 == 0 for number in document] for document in documents]
    sources = [ShardSource("a"), ShardSource("b", 2.0, 3)]
    with ShardWriter(tmp_path, dtype, pad_id=9, with_mask=True, sources=sources, shard_tokens=shard_tokens) as writer:
        for number, (document, mask) in enumerate(zip(documents, masks, strict=True)):
            writer.add(document, number % 2, mask)
    shards = TokenShards(tmp_path)
    assert len(shards) == 5
    assert shards.tokens == 31
    assert shards.pad_id == 9
    assert shards.lengths.tolist() == [3, 0, 1, 25, 2]
    for number, (document, mask) in enumerate(zip(documents, masks, strict=True)):
        assert shards.doc(number).tolist() == document
        learned = shards.mask(number)
        assert learned is not None
        assert learned.tolist() == mask
        assert shards.source(number) == sources[number % 2]
    assert shards.span(3, 20, 23).tolist() == [20, 21, 22]
    assert shards.doc(3).dtype == np.dtype(dtype) == shards.dtype
    assert len(shards.index["shards"]) == (3 if shard_tokens == 10 else 1)
    assert shards.verify() == []


lengths = st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=5)


@settings(max_examples=80, deadline=None)
@given(batches=lengths, shard_tokens=st.integers(1, 40))
def test_batches_give_the_same_files_as_single_documents(batches: list[list[int]], shard_tokens: int) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        with (
            ShardWriter(Path(one), "uint16", pad_id=1, shard_tokens=shard_tokens) as single,
            ShardWriter(Path(other), "uint16", pad_id=1, shard_tokens=shard_tokens) as many,
        ):
            for batch in batches:
                ids = np.arange(sum(batch))
                many.add_many(ids, batch, [0] * len(batch))
                for start, size in zip(np.cumsum([0, *batch]), batch, strict=False):
                    single.add(ids[start : start + size])
        files = sorted(path.name for path in Path(one).iterdir())
        assert files == sorted(path.name for path in Path(other).iterdir())
        for name in files:
            assert (Path(one) / name).read_bytes() == (Path(other) / name).read_bytes()
        shards = TokenShards(Path(one))
        assert shards.lengths.tolist() == [size for batch in batches for size in batch]
        longest = max([shard_tokens, *shards.lengths])
        assert all(shard["tokens"] <= longest for shard in shards.index["shards"])


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    for part, documents in enumerate([[[1, 2], [3]], [], [[4], [5, 6, 7]]]):
        with ShardWriter(
            tmp_path / str(part), "uint16", pad_id=0, sources=[ShardSource("x")], shard_tokens=2
        ) as writer:
            for document in documents:
                writer.add(document)
    index = join_shards([tmp_path / str(part) for part in range(3)], tmp_path / "all", [ShardSource("x", 0.5)])
    shards = TokenShards(tmp_path / "all")
    assert index == shards.index
    assert [shards.doc(number).tolist() for number in range(4)] == [[1, 2], [3], [4], [5, 6, 7]]
    assert [shard["name"] for shard in index["shards"]] == ["00000", "00001", "00002", "00003"]
    assert shards.source(0) == ShardSource("x", 0.5)
    assert shards.verify() == []


def test_no_documents(tmp_path: Path) -> None:
    ShardWriter(tmp_path, "uint16", pad_id=1).close()
    assert len(TokenShards(tmp_path)) == 0
    TokenShards(tmp_path).require_sound()


def test_damage_is_noticed_and_named(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "uint16", pad_id=1) as writer:
        writer.add([1, 2, 3])
    path = tmp_path / "00000.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\x09")
    assert TokenShards(tmp_path).verify() == [f"{path}: its content is not what was written"]
    with pytest.raises(GroundupError, match=r"damaged:\n.*00000\.bin: its content"):
        TokenShards(tmp_path).require_sound()
    path.write_bytes(good[:-2])
    with pytest.raises(GroundupError, match="has 4 bytes; its index says 6"):
        TokenShards(tmp_path)
    path.unlink()
    with pytest.raises(GroundupError, match=r"00000\.bin has None bytes"):
        TokenShards(tmp_path)
    with pytest.raises(UserError, match="no token shards"):
        TokenShards(tmp_path / "nowhere")
    index = tmp_path / "index.json"
    for content, message in (("{", "is damaged"), ('{"version": 1}', "version 1"), ("[]", "version None")):
        index.write_text(content)
        with pytest.raises(GroundupError, match=message):
            TokenShards(tmp_path)


def test_wrong_documents_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "uint16", pad_id=1, with_mask=True)
    with pytest.raises(ValueError, match="ids from 0 to 65536 do not fit uint16"):
        writer.add([0, 65536], mask=[True, True])
    with pytest.raises(ValueError, match="needs? a mask; got none"):
        writer.add([1])
    with pytest.raises(ValueError, match="got one of 1"):
        writer.add([1, 2], mask=[True])
    with pytest.raises(ValueError, match="source 1 is not one of the 1"):
        writer.add([1], 1, mask=[True])
    with pytest.raises(ValueError, match="1 lengths, 2 sources and 3 ids"):
        writer.add_many(np.arange(3), [3], [0, 0], np.ones(3, bool))
    assert dtype_for(65536) == "uint16"
    assert dtype_for(65537) == "uint32"
