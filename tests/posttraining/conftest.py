"""A small tokenizer and a small model with no zero in it, for all tests of the room."""

from collections.abc import Iterator

import pytest
import torch

from groundup.hardware import Hardware
from groundup.model import Architecture, Transformer
from groundup.tokenizer import Tokenizer, train_bpe
from groundup.training import prepare

TEXTS = [
    f"{who} has {n} red balls. {who} went to the {place}. Where is {who}? {who} is in the {place}. It was late."
    for who in ("Mia", "Tom", "Ana")
    for n in "0123456789"
    for place in ("park", "hill", "lake")
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(TEXTS, 360).to_str())


@pytest.fixture(scope="session")
def cpu() -> Hardware:
    return Hardware("cpu", "fp32", False, 1, {})


@pytest.fixture(scope="session")
def arch(tokenizer: Tokenizer) -> Architecture:
    return Architecture(
        vocabulary_size=tokenizer.vocabulary_size,
        layers=2,
        hidden_size=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        intermediate_size=48,
        context_length=64,
    )


@pytest.fixture
def model(arch: Architecture) -> Transformer:
    """Two layers, width 32; every weight is random, so that each part of the model has its say."""
    network = Transformer(arch)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            scale = 0.3 if weight.ndim == 1 else 0.15
            weight.copy_((weight.ndim == 1) + scale * torch.randn(weight.shape, generator=generator))
    return network


@pytest.fixture
def reproducible_kernels(cpu: Hardware) -> Iterator[None]:
    prepare(cpu)
    yield
    torch.use_deterministic_algorithms(False)
