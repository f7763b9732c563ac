"""Settling the recipe's wishes on this machine, once."""

import shutil

import pytest
import torch

from groundup.hardware import (
    Hardware,
    can_compile,
    cpp_compiler,
    matrix_probe,
    physical_cores,
    resolve,
    settle,
    usable_memory,
    wait_briefly,
)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _never(*_, **__):
    raise AssertionError("probed")


def test_explicit_wishes_are_taken_without_a_probe(monkeypatch):
    monkeypatch.setattr(settle, "matrix_probe", _never)
    monkeypatch.setattr(settle, "can_compile", _never)
    found = resolve(device="cpu", precision="fp32", compile=False, threads=1)
    assert found == Hardware("cpu", "fp32", False, 1, {})
    assert found.bits() == {"device": "cpu", "precision": "fp32", "compile": False}
    assert found.as_dict() == found.bits() | {"threads": 1, "matrix_gflops": {}}


@pytest.mark.parametrize(
    ("rates", "precision"),
    [
        ({"fp32": 100.0, "bf16": 240.0}, "bf16"),
        ({"fp32": 100.0, "bf16": 105.0}, "fp32"),
        ({"fp32": 100.0, "bf16": 20.0}, "fp32"),
        ({"fp32": 100.0}, "fp32"),
    ],
)
def test_precision_is_what_the_probe_found_worthwhile(monkeypatch, rates, precision):
    monkeypatch.setattr(settle, "matrix_probe", lambda device, threads: rates)
    found = resolve(device="cpu", precision="auto", compile=False, threads=2)
    assert found.precision == precision
    assert found.matrix_gflops == rates


def test_what_was_settled_is_never_probed_again(monkeypatch):
    monkeypatch.setattr(settle, "matrix_probe", _never)
    monkeypatch.setattr(settle, "can_compile", _never)
    stored = Hardware("cpu", "bf16", True, 3, {"fp32": 1.0, "bf16": 2.0})
    again = resolve(device="auto", precision="auto", compile="auto", threads="auto", stored=stored.as_dict())
    assert again == stored
    changed = resolve(device="cpu", precision="fp32", compile="auto", threads=2, stored=stored.as_dict())
    assert changed == Hardware("cpu", "fp32", True, 2, {"fp32": 1.0, "bf16": 2.0})


def test_another_device_is_settled_anew(monkeypatch):
    monkeypatch.setattr(settle, "matrix_probe", lambda device, threads: {"fp32": 5.0, "bf16": 1.0})
    stored = Hardware("cuda", "bf16", True, 3, {"fp32": 1.0, "bf16": 2.0}).as_dict()
    found = resolve(device="cpu", precision="auto", compile=False, threads=1, stored=stored)
    assert found == Hardware("cpu", "fp32", False, 1, {"fp32": 5.0, "bf16": 1.0})


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(settle, "usable_devices", lambda: ["cpu"])
    with pytest.raises(ValueError, match="'cuda' is not usable here; usable: cpu"):
        resolve(device="cuda", precision="fp32", compile=False, threads=1)


def test_the_probe_measures_real_rates():
    rates = matrix_probe("cpu", threads=1)
    assert {"fp32", "bf16"} == rates.keys()
    # From a slow laptop to a big server core; wrong units would be outside.
    assert 0.5 < rates["fp32"] < 5000
    assert torch.get_num_threads() == 1


def test_compiling_needs_a_compiler_that_works(monkeypatch, tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert cpp_compiler() == str(broken)
    assert can_compile("cpu") is False
    assert can_compile("mps") is False
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("CXX")
    assert cpp_compiler() is None
    assert can_compile("cpu") is False


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine")
def test_the_compiler_found_is_first_the_one_asked_for(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    assert cpp_compiler() == shutil.which("g++")


def test_cores_and_memory():
    assert 1 <= physical_cores() <= 4096
    assert usable_memory() > 2**28


def test_threads_are_applied():
    Hardware("cpu", "fp32", False, 1, {}).apply()
    assert torch.get_num_threads() == 1


def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise():
    plain: dict[str, str] = {}
    wait_briefly(plain)
    assert plain == {"GOMP_SPINCOUNT": "10000"}
    for own in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        kept = dict(own)
        wait_briefly(kept)
        assert kept == own


def test_fp8_is_for_gpus_that_have_it(monkeypatch):
    """Asked for by name, or settled before on another machine."""
    for wish, stored in (("fp8", None), ("auto", {"device": "cpu", "precision": "fp8", "threads": 1})):
        with pytest.raises(ValueError, match="cpu here has no fp8 products"):
            resolve(device="cpu", precision=wish, compile=False, threads=1, stored=stored)
    monkeypatch.setattr("groundup.hardware.settle.has_fp8", lambda device: True)
    assert resolve(device="cpu", precision="fp8", compile=False, threads=1).precision == "fp8"
