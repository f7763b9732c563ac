"""What all tests share: one compute thread each, no deadlines, since machines may be busy, and plain arithmetic."""

import os
import sys
from collections.abc import Iterator

# Before torch is first imported; pytest-xdist gives each core its own worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402  # after the line above, which must come first
from hypothesis import settings  # noqa: E402

settings.register_profile("groundup", deadline=None)
settings.load_profile("groundup")


@pytest.fixture(autouse=True)
def subnormal_numbers() -> Iterator[None]:
    """Training lets them count as zero, in the whole process; the next test gets them back."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
