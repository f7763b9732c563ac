"""``[run]``: the name of the run, the seed everything random is drawn from, and who else is told of its metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrackingTable(Section):
    """Settings of trackers. None of them uses the network unless it says so here."""

    project: str = Field(
        default="groundup",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Project of Weights & Biases and trackio, experiment of MLflow, under which runs are found.",
    )
    wandb_mode: Literal["offline", "online"] = Field(
        default="offline",
        description="`offline`: Weights & Biases writes files, which `wandb sync` sends later. `online`: sent as it is "
        "logged, with the account that `wandb login` knows.",
    )
    mlflow_uri: str | None = Field(
        default=None,
        description='Where MLflow keeps its runs, as "http://10.0.0.5:5000"; absent: mlflow.db beside the stages.',
    )


class RunSection(Section):
    """The run as a whole."""

    name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="Name of the run; its directory is runs/NAME unless --out says otherwise. "
        "Empty means the recipe's own name.",
    )
    seed: int = Field(
        default=1, ge=0, lt=2**31, description="Seed of everything random. Same recipe, same seed, same bits."
    )
    trackers: tuple[TrackerName, ...] = Field(
        default=(),
        description="Programs that get each line of metrics.jsonl too; each is an extra of that name to install, as "
        "`pip install 'groundup[tensorboard]'`. They are no part of a stage: other ones make nothing anew.",
    )
    tracking: TrackingTable = Field(default=TrackingTable(), description="Settings of trackers.")
