"""What a device could do at best: from its data sheet where it is a known GPU, else measured. Never assumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from groundup.hardware.probe import square_probe


@dataclass(frozen=True)
class Peak:
    """The rate that model FLOPs utilisation (MFU) is a share of.

    Attributes:
        gflops: GFLOP/s of dense matrix products at the run's precision.
        source: "catalogue" (the vendor's data sheet) or "measured" (the best square product on this machine).
        device: the name of the GPU, or the kind of device.
    """

    gflops: float
    source: Literal["catalogue", "measured"]
    device: str

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)


# Dense TFLOP/s of matrix products, accumulated in fp32, from the vendors' data sheets and architecture white papers.
# Where these state a rate "with sparsity", half of it is what dense matrices get. Missing: what the GPU lacks in
# hardware. fp32 is left out: it depends on whether PyTorch may use TF32, so it is measured as it is set.
# A pattern matches the whole of what torch.cuda.get_device_name says, so that laptop editions, slices (MIG) and
# models made slower for a market match none, and are measured.
CATALOGUE: tuple[tuple[str, Mapping[str, float]], ...] = (
    # NVIDIA A100 Tensor Core GPU data sheet (PCIe and SXM have the same rates)
    (r"(NVIDIA )?A100-(SXM4|PCIE)-(40|80)GB|NVIDIA A100 80GB PCIe", {"bf16": 312, "fp16": 312}),
    # NVIDIA H100 Tensor Core GPU data sheet: 1,979 (SXM), 1,513 (PCIe) and 1,671 (NVL) with sparsity
    (r"NVIDIA H100 80GB HBM3", {"bf16": 989.4, "fp16": 989.4, "fp8": 1978.9}),
    (r"NVIDIA H100 PCIe", {"bf16": 756.5, "fp16": 756.5, "fp8": 1513}),
    (r"NVIDIA H100 NVL", {"bf16": 835.5, "fp16": 835.5, "fp8": 1670.5}),
    # NVIDIA H200 Tensor Core GPU data sheet; NVIDIA GH200 Grace Hopper Superchip data sheet
    (r"NVIDIA H200|NVIDIA GH200 \d+GB", {"bf16": 989.4, "fp16": 989.4, "fp8": 1978.9}),
    (r"NVIDIA H200 NVL", {"bf16": 835.5, "fp16": 835.5, "fp8": 1670.5}),
    # NVIDIA Blackwell data sheet, HGX B200 and GB200: 4,500 and 5,000 with sparsity
    (r"NVIDIA B200", {"bf16": 2250, "fp16": 2250, "fp8": 4500}),
    (r"NVIDIA GB200", {"bf16": 2500, "fp16": 2500, "fp8": 5000}),
    # NVIDIA L4, L40, L40S and A10 data sheets
    (r"NVIDIA L4", {"bf16": 121, "fp16": 121, "fp8": 242.5}),
    (r"NVIDIA L40", {"bf16": 181.05, "fp16": 181.05, "fp8": 362}),
    (r"NVIDIA L40S", {"bf16": 362.05, "fp16": 362.05, "fp8": 733}),
    (r"NVIDIA A10", {"bf16": 125, "fp16": 125}),
    # GA102, Ada and RTX Blackwell white papers. GeForce halves the rate of products accumulated in fp32.
    (r"NVIDIA GeForce RTX 3090", {"bf16": 71, "fp16": 71}),
    (r"NVIDIA GeForce RTX 4090", {"bf16": 165.2, "fp16": 165.2, "fp8": 330.3}),
    (r"NVIDIA GeForce RTX 5090", {"bf16": 209.5, "fp16": 209.5, "fp8": 419}),
    (r"NVIDIA RTX 6000 Ada Generation", {"bf16": 364.2, "fp16": 364.2, "fp8": 728.5}),
    # NVIDIA V100 and T4 data sheets; neither has bf16
    (r"(NVIDIA )?(Tesla )?V100-SXM[23]-(16|32)GB(-LS)?", {"fp16": 125}),
    (r"(NVIDIA )?(Tesla )?V100-PCIE-(16|32)GB", {"fp16": 112}),
    (r"(NVIDIA )?Tesla T4", {"fp16": 65}),
    # AMD Instinct MI250X data sheet: 383 for both dies of a module, of which a device is one; MI300X: 1,307.4
    (r"AMD Instinct MI250X( ?/ ?MI250)?", {"bf16": 191.5, "fp16": 191.5}),
    (r"AMD Instinct MI300X", {"bf16": 1307.4, "fp16": 1307.4, "fp8": 2614.9}),
)


def catalogue_gflops(device_name: str, precision: str) -> float | None:
    """Dense GFLOP/s of a known GPU by its whole name; None where it, or its rate at this precision, is unknown."""
    for pattern, rates in CATALOGUE:
        if re.fullmatch(pattern, device_name.strip()):
            return 1e3 * rates[precision] if precision in rates else None
    return None


def find_peak(device: str, precision: str, *, threads: int) -> Peak | None:
    """The peak of a device: the catalogue's for a GPU that it knows, else the best square product, measured now.

    Measuring takes up to two seconds, so a run asks once and keeps the answer.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: "fp32", "bf16" or "fp8".
        threads: CPU threads to measure with.

    Returns None where the device can't multiply that type.
    """
    name = device_name(device)
    if device == "cuda" and (known := catalogue_gflops(name, precision)) is not None:
        return Peak(known, "catalogue", name)
    measured = square_probe(device, precision, threads=threads)
    return Peak(measured, "measured", name) if measured is not None else None


def device_name(device: str) -> str:
    """What the driver calls the GPU; of other devices their kind."""
    if device != "cuda":
        return device
    import torch

    return torch.cuda.get_device_name()
