"""Our own writer and reader of safetensors: what the library reads, one tensor at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groundup.interchange.stock import stock_configuration, stock_form
from groundup.interchange.tensor_files import Planned, TensorFiles, planned, write_file, write_sharded
from groundup.model import Architecture
from groundup.model.count import model_parts


def test_written_files_are_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {
        "narrow": torch.arange(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "wide": torch.arange(5, dtype=torch.float64),
        "turned": torch.arange(6.0).view(2, 3).T,
        "scalar": torch.tensor(3.5),
        "half": torch.ones(1, 2, 3, dtype=torch.float16),
    }
    write_file(planned(tensors), tmp_path / "a.safetensors")
    got = load_file(tmp_path / "a.safetensors")
    files = TensorFiles([tmp_path / "a.safetensors"])
    assert got.keys() == tensors.keys() == files.entries.keys()
    for name, tensor in tensors.items():
        for read in (got[name], files.read(name)):
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)
        assert files.entries[name].offset % tensor.element_size() == 0
    assert torch.equal(files.read("turned", (1, slice(1, 2))), torch.tensor([4.0]))
    stack = torch.arange(24.0).view(2, 3, 4)
    write_file([Planned("stack", torch.float32, (2, 3, 4), lambda: iter(stack))], tmp_path / "b.safetensors")
    assert torch.equal(load_file(tmp_path / "b.safetensors")["stack"], stack)
    with pytest.raises(ValueError, match="stack was planned as 96 bytes"):
        write_file([Planned("stack", torch.float32, (2, 3, 4), lambda: [stack[0]])], tmp_path / "b.safetensors")
    assert torch.equal(load_file(tmp_path / "b.safetensors")["stack"], stack)


MEMORY = """
import resource, sys
from pathlib import Path
from groundup.interchange import export_hf, import_checkpoint
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
import_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))  # small: whatever is loaded once
export_hf(Path(sys.argv[2]), None, Path(sys.argv[6]), source_tokenizer=Path(sys.argv[5]))
before = peak()
import_checkpoint(Path(sys.argv[3]), Path(sys.argv[4]))
export_hf(Path(sys.argv[4]), None, Path(sys.argv[6]), source_tokenizer=Path(sys.argv[5]), dtype="bf16")
print(peak() - before)
"""


def fake_checkpoint(folder: Path, width: int) -> int:
    """A Llama of zeros in shards, with matrices of about width², written without ever being in memory; its bytes."""
    arch = Architecture(
        vocabulary_size=width,
        layers=5,
        hidden_size=width,
        heads=4,
        kv_heads=4,
        intermediate_size=width,
        qk_norm="none",
        tied_embeddings=False,
    )
    form = stock_form(arch, "llama")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(stock_configuration(form, torch.float32)))
    plans = [
        Planned(part.name, torch.float32, part.shape, lambda shape=part.shape: [torch.zeros(shape)])  # type: ignore[misc]
        for part in model_parts(arch)
    ]
    assert len(write_sharded(plans, folder, max_shard_bytes=50_000_000)) == (4 if width == 1024 else 1)
    return sum(plan.bytes for plan in plans)


@pytest.mark.slow
def test_memory_is_bounded_by_one_tensor(tmp_path: Path) -> None:
    """155 MB in tensors of 4 MB come in and go out again in a fraction of that."""
    fake_checkpoint(tmp_path / "small", 64)
    size = fake_checkpoint(tmp_path / "large", 1024)
    assert size > 150e6
    (tmp_path / "tokenizer.json").write_text("{}")
    folders = [str(tmp_path / name) for name in ("small", "small.out", "large", "large.out", ".", "hf")]
    done = subprocess.run([sys.executable, "-c", MEMORY, *folders], capture_output=True, text=True, check=True)
    grown = int(done.stdout)
    assert grown < 4 * 1024 * 1024 * 4 + 4e6
    assert grown < size / 7
