"""Peaks: the catalogue by whole names, and what is measured where it says nothing."""

import re

import pytest
import torch

from groundup.hardware import find_peak, peak_resident, peaks, probe, usable_memory
from groundup.hardware.peaks import CATALOGUE, Peak, catalogue_gflops


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Small products: it is not speed that is tested."""
    monkeypatch.setattr(probe, "SIDES_ELSEWHERE", (128, 256))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e3),
        ("A100-SXM4-80GB", 312e3),
        ("NVIDIA A100 80GB PCIe", 312e3),
        ("NVIDIA H100 80GB HBM3", 989.4e3),
        ("NVIDIA H100 PCIe", 756.5e3),
        ("NVIDIA H100 NVL", 835.5e3),
        ("NVIDIA H200", 989.4e3),
        ("NVIDIA H200 NVL", 835.5e3),
        ("NVIDIA B200", 2250e3),
        ("NVIDIA L4", 121e3),
        ("NVIDIA L40", 181.05e3),
        ("NVIDIA L40S", 362.05e3),
        ("NVIDIA A10", 125e3),
        ("NVIDIA GeForce RTX 3090", 71e3),
        ("NVIDIA GeForce RTX 4090", 165.2e3),
        ("NVIDIA GeForce RTX 5090", 209.5e3),
        ("NVIDIA RTX 6000 Ada Generation", 364.2e3),
        ("AMD Instinct MI250X", 191.5e3),
        ("AMD Instinct MI300X", 1307.4e3),
    ],
)
def test_known_gpus(name, bf16):
    assert catalogue_gflops(name, "bf16") == pytest.approx(bf16)
    assert sum(re.fullmatch(pattern, name) is not None for pattern, _ in CATALOGUE) == 1


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA A10G",
        "NVIDIA H20",
        "NVIDIA H800",
        "Quadro RTX 6000",
        "",
    ],
)
def test_relatives_of_known_gpus_are_not_taken_for_them(name):
    assert catalogue_gflops(name, "bf16") is None


def test_what_a_gpu_lacks_in_hardware_is_unknown():
    for name in ("Tesla V100-SXM2-32GB", "Tesla T4"):
        assert catalogue_gflops(name, "bf16") is None
        assert catalogue_gflops(name, "fp16") > 60e3
    assert catalogue_gflops("NVIDIA H100 80GB HBM3", "fp32") is None


def test_eight_bits_are_twice_as_fast_as_sixteen():
    """So are all tensor cores that have both; a slip of the pen would show."""
    for pattern, rates in CATALOGUE:
        assert rates.get("bf16", rates["fp16"]) == rates["fp16"], pattern
        if "fp8" in rates:
            assert rates["fp8"] == pytest.approx(2 * rates["bf16"], rel=0.02), pattern


def test_a_known_gpu_is_not_measured_and_an_unknown_one_is(monkeypatch):
    monkeypatch.setattr(peaks, "square_probe", lambda device, precision, threads: 123.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert find_peak("cuda", "bf16", threads=1) == Peak(989.4e3, "catalogue", "NVIDIA H200")
    assert find_peak("cuda", "fp32", threads=1) == Peak(123.0, "measured", "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H300")
    assert find_peak("cuda", "bf16", threads=1) == Peak(123.0, "measured", "NVIDIA H300")
    assert find_peak("cpu", "bf16", threads=1) == Peak(123.0, "measured", "cpu")
    monkeypatch.setattr(peaks, "square_probe", lambda device, precision, threads: None)
    assert find_peak("cpu", "bf16", threads=1) is None


def test_the_measured_peak_is_a_rate_and_draws_nothing():
    state = torch.random.get_rng_state()
    for precision in ("fp32", "bf16"):
        found = find_peak("cpu", precision, threads=1)
        assert (found.source, found.device) == ("measured", "cpu")
        assert 0.1 < found.gflops < 20_000  # wrong units would be outside
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_peak_is_the_best_of_the_products(monkeypatch):
    """By a clock of our own: 128 takes 1 ms, 256 takes 2 ms, and then 4 ms for want of luck."""
    durations = iter([1e-3] * probe.SQUARE_REPEATS + [2e-3] + [4e-3] * (probe.SQUARE_REPEATS - 1))
    at = [0.0]
    calls = []

    def clock() -> float:
        return at[0]

    def product(a, b, out=None):
        if out is not None:
            at[0] += next(durations)
            calls.append(len(a))
        return a

    monkeypatch.setattr(probe.time, "perf_counter", clock)
    monkeypatch.setattr(torch, "mm", product)
    assert probe.square_probe("cpu", "fp32", threads=1) == pytest.approx(2 * 256**3 / 2e-3 / 1e9, abs=0.1)
    assert calls == [128] * probe.SQUARE_REPEATS + [256] * probe.SQUARE_REPEATS


def test_products_in_8_bits_are_timed(monkeypatch):
    monkeypatch.setattr(probe, "SIDES_ELSEWHERE", (64, 128))
    found = probe.square_probe("cpu", "fp8", threads=1)
    assert found is not None
    assert found > 0


def test_a_slow_machine_is_not_kept_waiting(monkeypatch):
    at = [0.0]

    def product(a, b, out=None):
        at[0] += 0.7
        return a

    monkeypatch.setattr(probe.time, "perf_counter", lambda: at[0])
    monkeypatch.setattr(torch, "mm", product)
    assert probe.square_probe("cpu", "fp32", threads=1) is not None
    assert at[0] < 2.0


def test_peak_memory_grows_with_what_is_held():
    before = peak_resident()
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    after = peak_resident()
    assert before > 2**25
    assert after <= usable_memory() or usable_memory() == 0
    big = torch.ones(max(1, after - before) + before, dtype=torch.uint8)  # more than was ever held at once
    assert peak_resident() >= len(big)
    assert len(held) == 64 * 2**20
