"""Token shards: what is written is what is read, and damage is noticed."""

from pathlib import Path

import numpy as np
import pytest

from groundup.run import GroundupError, UserError
from groundup.tokenizer import ShardSource, ShardWriter, TokenShards, dtype_for


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("shard_tokens", [10, 1000])
def test_round_trip(tmp_path: Path, dtype: str, shard_tokens: int) -> None:
    documents = [[1, 2, 3], [], [2**16 - 1], list(range(25)), [7, 8]]
    masks = [[number % 2 == 0 for number in document] for document in documents]
    sources = [ShardSource("a"), ShardSource("b", 2.0, 3)]
    with ShardWriter(tmp_path, dtype, with_mask=True, sources=sources, shard_tokens=shard_tokens) as writer:
        for number, (document, mask) in enumerate(zip(documents, masks, strict=True)):
            writer.add(document, number % 2, mask)
    shards = TokenShards(tmp_path)
    assert len(shards) == 5
    assert shards.tokens == 31
    assert shards.lengths.tolist() == [3, 0, 1, 25, 2]
    for number, (document, mask) in enumerate(zip(documents, masks, strict=True)):
        assert shards.doc(number).tolist() == document
        learned = shards.mask(number)
        assert learned is not None
        assert learned.tolist() == mask
        assert shards.source(number) == sources[number % 2]
    assert shards.span(3, 20, 23).tolist() == [20, 21, 22]
    assert shards.doc(3).dtype == np.dtype(dtype)
    assert len(shards.index["shards"]) == (3 if shard_tokens == 10 else 1)
    assert shards.verify() == []


def test_no_documents(tmp_path: Path) -> None:
    ShardWriter(tmp_path, "uint16").close()
    assert len(TokenShards(tmp_path)) == 0


def test_damage_is_noticed(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "uint16") as writer:
        writer.add([1, 2, 3])
    path = tmp_path / "00000.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\x09")
    assert TokenShards(tmp_path).verify() == [f"{path}: its content is not what was written"]
    path.write_bytes(good[:-2])
    with pytest.raises(GroundupError, match="has 4 bytes; its index says 6"):
        TokenShards(tmp_path)
    with pytest.raises(UserError, match="no token shards"):
        TokenShards(tmp_path / "nowhere")


def test_wrong_documents_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "uint16", with_mask=True)
    with pytest.raises(ValueError, match="ids from 0 to 65536 do not fit uint16"):
        writer.add([0, 65536], mask=[True, True])
    with pytest.raises(ValueError, match="needs a mask; got none"):
        writer.add([1])
    with pytest.raises(ValueError, match="got one of 1"):
        writer.add([1, 2], mask=[True])
    with pytest.raises(ValueError, match="source 1 is not one of the 1"):
        writer.add([1], 1, mask=[True])
    assert dtype_for(65536) == "uint16"
    assert dtype_for(65537) == "uint32"
