"""Trackers: TensorBoard, Weights & Biases, MLflow and trackio get each line of metrics.jsonl too, where asked for.

metrics.jsonl is what is relied on; a tracker is a copy for looking at. One that fails is dropped with a word, and
training goes on. After a resume a tracker goes on with the same run, and gets no line twice. Each library is an extra
of its own (``pip install 'groundup[tensorboard]'``) and imported only where the recipe names it. None uses the network
unless the recipe says so.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from groundup.recipe import TrackerName, TrackingTable
from groundup.run import Interrupted, UserError, log, read_json, write_json

Status = Literal["finished", "interrupted", "failed"]
FOLDER = "trackers"
"""Below a stage's directory, what a tracker writes for that stage alone. It is no part of the stage's result."""
IDENTITIES = ".trackers.json"
"""In a stage's directory: under which id each tracker knows it, and what it was sent that training has gone back on."""
PARAMETERS_AT_ONCE = 100
"""Most parameters that MLflow takes in one call."""


@dataclass(frozen=True)
class Tracking:
    """What the recipe says of trackers, and what they are told of the run.

    Attributes:
        run: the run's name.
        directory: the run's directory.
        recipe: the whole recipe, as JSON has it.
    """

    names: tuple[TrackerName, ...]
    table: TrackingTable
    run: str
    directory: Path
    recipe: Mapping[str, Any]


class Tracker(Protocol):
    """One tracker of one training stage.

    Attributes:
        id: under which it can be found again; None before the first :meth:`begin`.
    """

    id: str | None

    def begin(self, name: str, recipe: Mapping[str, Any], step: int) -> None:
        """Begin the run, or where there is an ``id`` go on with it, after update ``step`` (0: from the beginning)."""
        ...

    def held(self, sent: Mapping[str, int]) -> Mapping[str, int]:
        """The last step of each key that it has, having gone on; ``sent`` is what was sent and gone back on."""
        ...

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step. Steps never fall; one may come twice, with other keys."""
        ...

    def finish(self, status: Status) -> None:
        """Write everything out; the run is over, for now or for good."""
        ...


class TensorBoard:
    """Event files in STAGE/trackers/tensorboard: ``tensorboard --logdir RUN``."""

    def __init__(self, tracking: Tracking, out: Path, id: str | None) -> None:
        self.id, self._folder = id, out / FOLDER / "tensorboard"

    def begin(self, name: str, recipe: Mapping[str, Any], step: int) -> None:
        writer: Any = import_module("torch.utils.tensorboard")
        self._step = step
        # Readers drop what earlier files have from this step on.
        self._writer: Any = writer.SummaryWriter(str(self._folder), purge_step=None if self.id is None else step + 1)
        if self.id is None:
            self.id = _new_id()
            self._writer.add_text("recipe", f"```json\n{json.dumps(recipe, indent=2)}\n```")

    def held(self, sent: Mapping[str, int]) -> Mapping[str, int]:
        return {key: min(last, self._step) for key, last in sent.items()}

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def finish(self, status: Status) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Files in STAGE/trackers/wandb, sent by ``wandb sync`` or, with ``wandb_mode = "online"``, as they come."""

    def __init__(self, tracking: Tracking, out: Path, id: str | None) -> None:
        self.id, self._tracking, self._folder = id, tracking, out / FOLDER

    def begin(self, name: str, recipe: Mapping[str, Any], step: int) -> None:
        table = self._tracking.table
        if table.wandb_mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb: Any = import_module("wandb")
        self.id = self.id or _new_id()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=table.project,
            group=self._tracking.run,
            name=name,
            id=self.id,
            resume="allow",
            mode=table.wandb_mode,
            dir=str(self._folder),
            config=dict(recipe),
            settings=wandb.Settings(console="off", silent=True),
        )

    def held(self, sent: Mapping[str, int]) -> Mapping[str, int]:
        return sent

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def finish(self, status: Status) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)


class Mlflow:
    """RUN/mlflow.db (``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db``), or the server of ``mlflow_uri``."""

    def __init__(self, tracking: Tracking, out: Path, id: str | None) -> None:
        self.id, self._tracking = id, tracking

    def begin(self, name: str, recipe: Mapping[str, Any], step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._entities: Any = import_module("mlflow.entities")
        tracking: Any = import_module("mlflow.tracking")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        table, run = self._tracking.table, self._tracking.directory.resolve()
        self._client: Any = tracking.MlflowClient(table.mlflow_uri or f"sqlite:///{run / 'mlflow.db'}")
        if self.id is not None:
            self._client.update_run(self.id, status="RUNNING")
            return
        artifacts = None if table.mlflow_uri else (run / "mlflow.artifacts").as_uri()
        found = self._client.get_experiment_by_name(table.project)
        experiment = found.experiment_id if found else self._client.create_experiment(table.project, artifacts)
        begun = self._client.create_run(experiment, run_name=name, tags={"groundup.run": self._tracking.run})
        self.id = str(begun.info.run_id)
        parameters = [self._entities.Param(key, value) for key, value in flattened(recipe)]
        for at in range(0, len(parameters), PARAMETERS_AT_ONCE):
            self._client.log_batch(self.id, params=parameters[at : at + PARAMETERS_AT_ONCE])

    def held(self, sent: Mapping[str, int]) -> Mapping[str, int]:
        keys = self._client.get_run(self.id).data.metrics
        return {key: max(each.step for each in self._client.get_metric_history(self.id, key)) for key in keys}

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        at = int(1000 * time.time())
        metrics = [self._entities.Metric(key, value, at, step) for key, value in numbers.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def finish(self, status: Status) -> None:
        words = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
        self._client.set_terminated(self.id, words[status])


class Trackio:
    """The local database of trackio (in $TRACKIO_DIR, where that is set): ``trackio show``."""

    def __init__(self, tracking: Tracking, out: Path, id: str | None) -> None:
        self.id, self._tracking = id, tracking

    def begin(self, name: str, recipe: Mapping[str, Any], step: int) -> None:
        self.id = self.id or f"{name}-{_new_id()}"  # it finds runs by name, those of other directories too
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio: Any = import_module("trackio")
            self._run: Any = self._trackio.init(
                project=self._tracking.table.project,
                group=self._tracking.run,
                name=self.id,
                resume="allow",
                config=dict(recipe),
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def held(self, sent: Mapping[str, int]) -> Mapping[str, int]:
        return sent

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def finish(self, status: Status) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()


KINDS: Mapping[TrackerName, Callable[[Tracking, Path, str | None], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
"""Their names are those of their packages and of the extras that install them."""


def require_trackers(names: Iterable[TrackerName]) -> None:
    """Raise ``UserError`` where a tracker's package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"the tracker {name!r} needs the package {name}, which is not installed",
                where="[run] trackers",
                mend=f"pip install 'groundup[{name}]', or leave it out",
            )


class Trackers:
    """All trackers of one training stage, as a context that ends them. None of them can make training fail."""

    def __init__(self, live: Mapping[str, Tracker], sent: Mapping[str, Mapping[str, int]]) -> None:
        """``sent``: of each tracker, the last step that it has of each key; it is sent later ones only."""
        self._live = dict(live)
        self._sent = {name: dict(sent.get(name, {})) for name in live}

    @classmethod
    def begin(
        cls,
        tracking: Tracking,
        out: Path,
        step: int,
        lines: Iterable[dict[str, Any]],
        forgotten: Mapping[str, int],
    ) -> Self:
        """Begin the trackers of a stage at update ``step``, or go on with those of an earlier process.

        Args:
            out: the stage's directory.
            lines: those of metrics.jsonl so far: a tracker that is new to the stage gets them first.
            forgotten: the last step of each key in lines that were cut off when training went back to ``step``.

        Raises:
            UserError: a package is not installed.
        """
        require_trackers(tracking.names)
        path = out / IDENTITIES
        known = _known(path)
        live: dict[str, Tracker] = {}
        for name in dict.fromkeys(tracking.names):
            entry = known.get(name)
            sent = dict(entry["sent"]) if entry else {}
            for key, last in forgotten.items() if entry else ():
                sent[key] = max(last, sent.get(key, 0))
            tracker = KINDS[name](tracking, out, entry["id"] if entry else None)
            try:
                stage = out.relative_to(tracking.directory).as_posix()
                tracker.begin(f"{tracking.run}/{stage}", tracking.recipe, step)
                sent = dict(tracker.held(sent)) if entry else {}
            except Exception as error:  # noqa: BLE001 - training matters more than any tracker
                _tell(name, error)
                continue
            live[name] = tracker
            known[name] = {"id": tracker.id, "sent": sent, "new": entry is None}
        trackers = cls(live, {name: known[name]["sent"] for name in live})
        fresh = [name for name in live if known[name].pop("new")]
        if fresh:
            for record in lines:
                trackers.log(record, fresh)
        write_json(path, known)
        return trackers

    def log(self, record: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
        """Send the numbers of a line of metrics.jsonl to all, or to those named."""
        step = record["step"]
        for name in self._live.keys() & set(self._live if names is None else names):
            sent = self._sent[name]
            numbers = {key: value for key, value in record.items() if key != "step" and step > sent.get(key, -1)}
            if numbers:
                self._guarded(name, partial(self._live[name].log, step, numbers))
                sent.update(dict.fromkeys(numbers, step))

    def finish(self, status: Status) -> None:
        """End them all."""
        for name, tracker in list(self._live.items()):
            self._guarded(name, partial(tracker.finish, status))
        self._live.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("finished")
        else:
            self.finish("interrupted" if issubclass(kind, Interrupted | KeyboardInterrupt) else "failed")

    def _guarded(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - training matters more than any tracker
            del self._live[name]
            _tell(name, error)


def flattened(recipe: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """The recipe as (dotted key, value) pairs; lists are JSON."""
    found: list[tuple[str, str]] = []
    for key, value in recipe.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            found += flattened(value, here)
        elif value is not None:
            found.append((here, value if isinstance(value, str) else json.dumps(value)))
    return found


def _known(path: Path) -> dict[str, Any]:
    """What earlier processes left; nothing where there were none, or the file has been spoilt."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        content = read_json(path)
        if isinstance(content, dict):
            return content
    return {}


def _new_id() -> str:
    return uuid.uuid4().hex[:8]


def _tell(name: str, error: Exception) -> None:
    log(f"the tracker {name} failed and is left out from here on; metrics.jsonl has everything: {error!r}")
