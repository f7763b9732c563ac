"""What all tests share: one compute thread each, no deadlines, since machines may be busy."""

import os

# Before torch is first imported; pytest-xdist gives each core its own worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402  # after the line above, which must come first

settings.register_profile("groundup", deadline=None)
settings.load_profile("groundup")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, $GROUNDUP_DATA or ../shared/data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("GROUNDUP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; $GROUNDUP_DATA names another folder")
    return folder
