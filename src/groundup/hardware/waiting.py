"""How long a thread of a parallel loop waits for the others before it sleeps."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "10000"
"""Turns of libgomp's waiting loop, some tenths of a millisecond. Its own 300,000 are longer than a slice of the
scheduler: beside one other busy process a thread that waits then keeps the core that the awaited one needs, and
training takes twenty times as long instead of three and a half. Fewer cost time where nothing else runs
(docs/performance.md)."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Say so to the OpenMP library that PyTorch brings, which listens only while it is loaded: call this before
    ``import torch``. What the user said about it stays."""
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
