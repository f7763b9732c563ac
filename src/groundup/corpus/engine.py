"""The engine: one function over many small task descriptions, in processes of this machine or on a Ray cluster.

Daft (https://www.getdaft.io) is both: its native runner here, its Ray runner there, one code path. What is asked of
it is narrow on purpose. A query is a list of task descriptions and one function over them, never a shuffle, a
group-by or a write: those lose data when a node dies, don't spill and aren't atomic. A task reads and writes files
itself, whole or not at all, so that running one twice does no harm and a lost worker costs its tasks and no more.
The arithmetic that Daft does best (MinHash) is called directly, see `groundup.corpus.kernels`.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from groundup.run import GroundupError, UserError, log

# Before daft is first imported: no telemetry, and no progress bars of its own on our standard error.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

TRIES = 3  # for tasks whose worker died; an error that a task itself raises is final

Perform = Callable[[dict[str, Any]], dict[str, Any]]


class Engine:
    """Where tasks run.

    Args:
        workers: processes; 1 runs tasks in this very process. A cluster has one for each of its processors.
        cluster: None for this machine; "local" for a Ray started for the purpose; else the address of a Ray
            cluster whose nodes have groundup installed and see the run directory at the same absolute path.

    Raises UserError where Ray is asked for and isn't installed or can't be reached.
    """

    def __init__(self, workers: int = 1, cluster: str | None = None) -> None:
        self.workers, self.cluster = max(1, workers), cluster
        if cluster is not None:
            self.workers = _join_cluster(cluster)

    def run(
        self, perform: Perform, tasks: Sequence[dict[str, Any]], workers: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Call `perform` on every task, in any order and on any worker; yields results as they come.

        `workers` is how many are worth their start for these tasks, at most the engine's.

        `perform` is a module's function, so that workers find it by name. A task is JSON-like. A task may be
        performed twice when a worker dies, so it must be idempotent.

        Raises what a task raised (UserError as itself, anything else as GroundupError with its traceback), and
        GroundupError when workers keep dying.
        """
        wanted = min(self.workers, workers or self.workers, len(tasks))
        if wanted <= 1 and (self.cluster is None or len(tasks) <= 1):
            yield from map(perform, tasks)
            return
        left = {json.dumps(task, sort_keys=True) for task in tasks}
        for attempt in range(1, TRIES + 1):
            try:
                for description, result in _in_thread(self._query(perform, sorted(left), wanted)):
                    if description in left:
                        left.remove(description)
                        yield _checked(result)
            except GroundupError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever the engine says when a worker or a node is gone
                if attempt == TRIES:
                    raise GroundupError(f"workers died {TRIES} times, the last time of:\n{_brief(error)}") from error
                log(f"a worker died ({_brief(error)}); its tasks are done again")
            if not left:
                return
        raise GroundupError(f"{len(left)} tasks were not done in {TRIES} tries, and no worker said why")

    def _query(
        self, perform: Perform, descriptions: Sequence[str], workers: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """One Daft query: a source of one row a task, and a function over it in processes."""
        import daft
        from daft import DataType

        @daft.cls(max_concurrency=workers, use_process=True)
        class Worker:
            def __init__(self, folder: str, parent: int | None) -> None:
                if os.path.isdir(folder):  # relative paths in a recipe start where the build was called
                    os.chdir(folder)
                if parent is not None:
                    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

            @daft.method(return_dtype=DataType.string())
            def perform(self, task: str) -> str:
                return _perform(perform, task)

        worker = Worker(os.getcwd(), None if self.cluster is not None else os.getpid())
        rows = _task_source(descriptions).read().with_column("result", cast(Any, worker).perform(daft.col("task")))
        for row in rows.iter_rows():
            yield row["task"], json.loads(row["result"])

    def close(self) -> None:
        """Leave the cluster; a Ray that was started for us ends, nobody else's does."""
        if self.cluster is not None:
            import ray

            ray.shutdown()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _in_thread(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, made by another thread.

    Waiting inside Daft's iterator a signal would go unnoticed until its end, and Daft takes SIGINT for a failed
    query. Here the main thread waits in Python, so that the build's own handlers act at once.
    """
    ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    given_up = threading.Event()

    def pump() -> None:
        try:
            for item in items:
                if given_up.is_set():
                    return
                ready.put(("item", item))
            ready.put(("end", None))
        except BaseException as error:  # noqa: BLE001  # handed over, not swallowed
            ready.put(("error", error))

    thread = threading.Thread(target=pump, name="corpus engine", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        given_up.set()
        # On SIGINT Daft ends its query too; coming back to an interpreter that is ending, the thread would abort it.
        thread.join(timeout=3)


def _brief(error: Exception) -> str:
    """The end of what the engine says, where the cause stands; it tells of the way there in pages."""
    text = str(error).strip()
    return text if len(text) < 500 else f"… {text[-500:]}"


def _end_with(parent: int) -> None:
    """End this worker soon after the build that started it, however that one ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _perform(perform: Perform, task: str) -> str:
    """Run one task in a worker. Errors come back as values: one that reaches the engine means a dead worker."""
    try:
        return json.dumps({"ok": perform(json.loads(task))})
    except UserError as error:
        parts = {"what": error.what, "where": error.where, "expected": error.expected, "mend": error.mend}
        return json.dumps({"user_error": parts})
    except Exception:  # noqa: BLE001  # handed over with its traceback, and raised by `_checked`
        return json.dumps({"error": traceback.format_exc(), "task": task})


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    if "user_error" in result:
        raise UserError(**result["user_error"])
    if "error" in result:
        raise GroundupError(f"task {result['task']} failed:\n{result['error']}")
    found: dict[str, Any] = result["ok"]
    return found


def _task_source(descriptions: Sequence[str]) -> Any:
    """A Daft source in which every task is a scan of its own, so that a cluster spreads them."""
    import pyarrow as pa
    from daft.io.source import DataSource, DataSourceTask
    from daft.recordbatch import RecordBatch
    from daft.schema import Schema

    shape = pa.schema([("task", pa.string())])

    class OneTask(DataSourceTask):
        def __init__(self, description: str) -> None:
            self.description = description

        @property
        def schema(self) -> Any:
            return Schema.from_pyarrow_schema(shape)

        async def read(self) -> Any:
            batch = pa.record_batch({"task": [self.description]}, schema=shape)
            yield RecordBatch.from_arrow_record_batches([batch], shape)

    class Tasks(DataSource):
        name = "tasks"

        @property
        def schema(self) -> Any:
            return Schema.from_pyarrow_schema(shape)

        async def get_tasks(self, pushdowns: Any) -> Any:
            for description in descriptions:
                yield OneTask(description)

    return Tasks()


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at "host:port": Ray itself would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


def _join_cluster(cluster: str) -> int:
    """Make Daft's runner Ray's, once in a process; the processors of the cluster."""
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "hardware.cluster needs Ray, which is not installed", mend="pip install 'groundup[cluster]'"
        ) from error
    import daft

    try:
        if not ray.is_initialized():
            _knock(cluster)
            ray.init(address=cluster, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster answers at {cluster!r}: {error}",
            where="hardware.cluster",
            expected='"local", "auto" or the address of a running cluster, as "10.0.0.5:6379"',
            mend="start one with `ray start --head`; where it asks for tokens, set RAY_AUTH_MODE=token on every node",
        ) from error
    daft.set_runner_ray(noop_if_initialized=True)
    resources: dict[str, float] = cast(Any, ray).cluster_resources()
    return max(1, int(resources.get("CPU", 1)))
