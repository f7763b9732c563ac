"""A task by its description: the one function that workers are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.corpus.plan import Beat, load_plan


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Do one task (see `as_task`) unless it is done; what it makes lies in the plan's folder afterwards.

    Each phase is imported where it begins: a worker of a short phase needn't load the libraries of all.
    """
    work, phase, index = Path(task["work"]), task["phase"], task["index"]
    plan = load_plan(work)
    if not plan.place(phase, index).is_dir():
        beat = Beat(work, phase, index)
        match phase:
            case "harvest":
                from groundup.corpus.harvest import harvest

                harvest(plan, index, beat)
            case "settle" | "settle_again":
                from groundup.corpus.settle import settle

                settle(plan, index, task["count"], phase)
            case "settle_lines":
                from groundup.corpus.settle import settle_lines

                settle_lines(plan, index, task["count"])
            case "refine":
                from groundup.corpus.settle import refine

                refine(plan, index, beat)
            case "pair":
                from groundup.corpus.pairing import pair

                pair(plan, index, task["count"])
            case "cluster":
                from groundup.corpus.pairing import cluster

                cluster(plan)
            case "write" | "write_held_out":
                from groundup.corpus.write import write

                write(plan, index, beat, task["limit"], phase=phase, threshold=task.get("threshold"))
    return {"phase": phase, "index": index}
