"""Tasks for the tests of the engine: workers find them by name, so they stand in a module of their own."""

import os
import time
from pathlib import Path
from typing import Any

from groundup.run import UserError


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Do what the task says: "sleep", "fail", "mistake", "die" (once), and answer with the process."""
    time.sleep(task.get("sleep", 0.0))
    match task.get("what"):
        case "fail":
            raise ZeroDivisionError("a task's own error")
        case "mistake":
            raise UserError("no such thing", where="corpus.sources[0]", expected="a thing", mend="make one")
        case "die" if not Path(task["died"]).exists():
            Path(task["died"]).touch()
            os.kill(os.getpid(), 9)
    return {"number": task["number"], "process": os.getpid()}
