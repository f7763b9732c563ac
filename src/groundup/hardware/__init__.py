"""This machine: what it has, what each ``auto`` of ``[hardware]`` means on it, and how fast it could be.

In come the recipe's wishes; out comes a ``Hardware`` with nothing left open. Precision is measured, not
guessed: a short probe times fp32 and bf16 matrix products and takes the faster. Whoever calls ``resolve``
stores the answer with the run and passes it as ``stored`` ever after, because a second measurement could
differ and so change the bits.

``machine.py`` looks, ``probe.py`` measures, ``peaks.py`` is the catalogue of known GPUs, ``settle.py`` decides;
``waiting.py`` tells threads how to wait.
"""

from groundup.hardware.machine import (
    Device,
    can_compile,
    corpus_processes,
    cpp_compiler,
    has_fp8,
    peak_resident,
    physical_cores,
    usable_devices,
    usable_memory,
)
from groundup.hardware.peaks import Peak, device_name, find_peak
from groundup.hardware.probe import matrix_probe
from groundup.hardware.settle import Hardware, Precision, resolve
from groundup.hardware.waiting import wait_briefly

__all__ = [
    "Device",
    "Hardware",
    "Peak",
    "Precision",
    "can_compile",
    "corpus_processes",
    "cpp_compiler",
    "device_name",
    "find_peak",
    "has_fp8",
    "matrix_probe",
    "peak_resident",
    "physical_cores",
    "resolve",
    "usable_devices",
    "usable_memory",
    "wait_briefly",
]
