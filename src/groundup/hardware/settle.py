"""What each ``auto`` of ``[hardware]`` means here, settled once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from groundup.hardware.machine import Device, can_compile, has_fp8, physical_cores, usable_devices
from groundup.hardware.peaks import Peak
from groundup.hardware.probe import matrix_probe

Precision = Literal["fp32", "bf16", "fp8"]

# bf16 must beat fp32 by this factor: casting and lost digits have their price.
_WORTHWHILE = 1.15


@dataclass(frozen=True)
class Hardware:
    """What a run computes on.

    Attributes:
        matrix_gflops: the rates that precision was chosen by, empty where nothing was probed.
        peak: what utilisation is measured against; None where nobody has asked for it (see :func:`find_peak`).
    """

    device: Device
    precision: Precision
    compile: bool
    threads: int
    matrix_gflops: Mapping[str, float]
    peak: Peak | None = None

    def apply(self) -> None:
        """Give PyTorch the run's number of threads."""
        import torch

        torch.set_num_threads(self.threads)

    def as_dict(self) -> dict[str, Any]:
        """For run.json, where the peak has its own place."""
        return {name: value for name, value in asdict(self).items() if name != "peak"}

    def bits(self) -> dict[str, Any]:
        """The fields that change the results of a training stage, for its fingerprint."""
        return {"device": self.device, "precision": self.precision, "compile": self.compile}


def resolve(
    *,
    device: str,
    precision: str,
    compile: bool | str,
    threads: int | str,
    stored: Mapping[str, Any] | None = None,
) -> Hardware:
    """Settle every ``auto``.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32", "bf16" or "fp8".
        compile: "auto", true or false.
        threads: "auto" or a number of CPU threads.
        stored: an earlier answer for this run, from ``as_dict``; its values stand for ``auto`` as long as
            the device is the same, and nothing is probed again.

    Raises ValueError where the wished-for device is not there, or has no 8-bit products.
    """
    settled = _settle_device(device, stored)
    earlier = stored if stored is not None and stored.get("device") == settled else {}
    count = int(earlier.get("threads", physical_cores())) if threads == "auto" else int(threads)
    rates = dict(earlier.get("matrix_gflops", {}))
    if precision != "auto":
        chosen = precision
    elif "precision" in earlier:
        chosen = str(earlier["precision"])
    else:
        rates = matrix_probe(settled, threads=count)
        chosen = "bf16" if rates.get("bf16", 0.0) > _WORTHWHILE * rates["fp32"] else "fp32"
    if compile == "auto":
        compiled = bool(earlier["compile"]) if "compile" in earlier else can_compile(settled)
    else:
        compiled = bool(compile)
    if chosen == "fp8" and not has_fp8(settled):
        raise ValueError(f"{settled} here has no fp8 products: these need an NVIDIA GPU, Ada, Hopper or later")
    known: Precision = next((each for each in get_args(Precision) if each == chosen), "fp32")
    return Hardware(settled, known, compiled, count, rates)


def _settle_device(wish: str, stored: Mapping[str, Any] | None) -> Device:
    if wish == "auto" and stored is not None and "device" in stored:
        wish = str(stored["device"])
    if wish == "auto":
        return usable_devices()[0]
    for device in usable_devices():
        if device == wish:
            return device
    raise ValueError(f"device {wish!r} is not usable here; usable: {', '.join(usable_devices())}")
