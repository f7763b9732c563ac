"""What all tests share: one compute thread each, no deadlines, since machines may be busy."""

import os

# Before torch is first imported; pytest-xdist gives each core its own worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings  # noqa: E402  # after the line above, which must come first

settings.register_profile("groundup", deadline=None)
settings.load_profile("groundup")
