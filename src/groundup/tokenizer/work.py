"""Functions in processes of their own: several at a time over tasks, or one that tells how far it is."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from groundup.run import GroundupError, UserError

Task = dict[str, Any]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CONTEXT = get_context("spawn")  # a fork of a process with threads may hang


def in_processes(function: Callable[[Task], Task], tasks: Sequence[Task], workers: int) -> Iterator[Task]:
    """Call a module's function on every task, in any order; yields results as they come.

    With one worker, or one task, this process does the work. Raises what the function raised, and GroundupError where
    a process was killed, as for want of memory.
    """
    if min(workers, len(tasks)) <= 1:
        yield from map(function, tasks)
        return
    stop = _CONTEXT.Event()
    pool = ProcessPoolExecutor(min(workers, len(tasks)), _CONTEXT, initializer=_follow, initargs=(os.getpid(), stop))
    done = False
    try:
        for future in as_completed([pool.submit(function, task) for task in tasks]):
            yield future.result()
        done = True
    except BrokenProcessPool as error:
        raise GroundupError(
            "a process that encodes was killed, perhaps for want of memory; what is done is kept. "
            "Fewer at a time need less: hardware.processes"
        ) from error
    finally:
        if not done:  # a task may take a minute, and one that is broken off is done again
            stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def in_process(function: Callable[..., Any], *arguments: Any, heard: Callable[[Any], None]) -> Any:
    """Call a module's function(say, *arguments) in a process of its own, and return what it returns.

    The caller stays responsive, whatever library is at work there, and what it says is handed to `heard` meanwhile.

    Raises its UserError or GroundupError; GroundupError for any other error, with its traceback, and for its death.
    """
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_call, args=(theirs, os.getpid(), function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            kind, value = ours.recv()
            if kind == "said":
                heard(value)
            elif kind == "error":
                raise value
            else:
                return value
    except EOFError as error:
        process.join()
        raise GroundupError(
            f"{function.__name__.strip('_')} died with exit code {process.exitcode}, perhaps for want of memory"
        ) from error
    finally:
        process.terminate()
        process.join()
        ours.close()


def _call(pipe: Connection, parent: int, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    _follow(parent)
    try:
        pipe.send(("done", function(lambda value: pipe.send(("said", value)), *arguments)))
    except (UserError, GroundupError) as error:
        pipe.send(("error", error))
    except Exception:  # noqa: BLE001  # handed over with its traceback
        pipe.send(("error", GroundupError(traceback.format_exc())))


def _follow(parent: int, stop: Event | None = None) -> None:
    """Leave signals from the keyboard to the parent, and end when told to, or soon after the parent.

    On Linux the system ends this process with its parent, even while a library keeps Python's lock; elsewhere a thread
    looks for it, and has to wait for the lock.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()


def _end_with(parent: int, stop: Event | None) -> None:
    while os.getppid() == parent and not (stop is not None and stop.is_set()):
        time.sleep(0.2)
    os._exit(1)
