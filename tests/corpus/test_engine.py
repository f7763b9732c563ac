"""The engine, and one test for each trap that its libraries lay (silent loss, dying queries, no resume)."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from groundup.corpus.engine import Engine
from groundup.corpus.keys import KeyWriter, count_rows, read_range, read_rows_of
from groundup.corpus.sizes import measure
from groundup.run import GroundupError, UserError

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import this folder's tasks by name."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def perform():
    import engine_tasks

    return engine_tasks.perform


def test_one_worker_runs_here() -> None:
    with Engine(1) as engine:
        found = list(engine.run(perform(), [{"number": n} for n in range(3)]))
    assert found == [{"number": n, "process": os.getpid()} for n in range(3)]


def test_two_workers_are_two_processes() -> None:
    """A plain function would hold one process's lock: processes have to be asked for."""
    with Engine(2) as engine:
        found = list(engine.run(perform(), [{"number": n, "sleep": 0.1} for n in range(8)]))
    assert sorted(each["number"] for each in found) == list(range(8))
    processes = {each["process"] for each in found}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_task_s_own_error_is_told_as_it_is() -> None:
    tasks = [{"number": n} for n in range(3)]
    with Engine(2) as engine:
        with pytest.raises(GroundupError, match="ZeroDivisionError: a task's own error"):
            list(engine.run(perform(), [*tasks, {"number": 3, "what": "fail"}]))
        with pytest.raises(UserError) as caught:
            list(engine.run(perform(), [*tasks, {"number": 3, "what": "mistake"}]))
    assert (caught.value.where, caught.value.mend) == ("corpus.sources[0]", "make one")


def test_a_dead_worker_costs_its_tasks_and_no_more(tmp_path: Path) -> None:
    tasks = [{"number": n} for n in range(5)]
    tasks.append({"number": 5, "what": "die", "died": str(tmp_path / "died")})
    with Engine(2) as engine:
        found = list(engine.run(perform(), tasks))
    assert sorted(each["number"] for each in found) == list(range(6))
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_once_and_workers_end(number: signal.Signals) -> None:
    """Daft takes SIGINT for a failed query and doesn't hear SIGTERM; the build's own handler must win."""
    program = """
        import os
        import engine_tasks
        from groundup.build.signals import stop_on_signals
        from groundup.corpus.engine import Engine
        from groundup.run import Interrupted
        if __name__ == "__main__":
            try:
                with stop_on_signals(), Engine(2) as engine:
                    tasks = [{"number": n, "sleep": 30.0 * (n > 1)} for n in range(6)]
                    for each in engine.run(engine_tasks.perform, tasks):
                        print(each["process"], flush=True)
            except Interrupted:
                os._exit(130)  # as the command does
    """
    running = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    workers = {int(running.stdout.readline()) for _ in range(2)}
    running.send_signal(number)
    assert running.wait(timeout=20) == 130
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_no_telemetry_and_no_engine_before_it_is_needed() -> None:
    program = (
        "import os, sys; os.environ.pop('DO_NOT_TRACK', None); import groundup.corpus.engine;"
        "assert os.environ['DO_NOT_TRACK'] == '1' and 'daft' not in sys.modules and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_words_are_counted_the_same_each_time() -> None:
    """pyarrow's own splitting on white space depends on what lies in memory behind a trailing blank."""
    texts = ["a b ", " a", "", "  ", "one\ttwo\n\nthree \n", "é à\x0bx", "x"]
    array = pa.array(["padding ", *texts], pa.large_string())
    for _ in range(20):
        sizes, words = measure(array.slice(1))
        assert words.tolist() == [len(text.split()) for text in texts]
        assert sizes.tolist() == [len(text.encode()) for text in texts]


def test_ranges_of_keys_are_read_once_each_and_only_then(tmp_path: Path) -> None:
    """Daft's group-by doesn't spill: what is grouped comes a range at a time from sorted tables instead."""
    random = np.random.default_rng(1)
    edges = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    everything = []
    for number in range(3):
        keys = np.concatenate([random.integers(0, 2**64, 1000, np.uint64), edges])
        writer = KeyWriter(tmp_path / f"{number}.npy", 2)
        writer.add(keys[:400], np.arange(400))
        writer.add(keys[400:], np.arange(400, len(keys)))
        writer.close()
        everything += [(int(key), place) for place, key in enumerate(keys)]
    KeyWriter(tmp_path / "empty.npy", 2).close()
    paths = sorted(tmp_path.glob("*.npy"))
    assert count_rows(paths) == len(everything)
    for count in (1, 2, 7):
        parts = [read_range(paths, number, count) for number in range(count)]
        assert sorted(map(tuple, np.concatenate(parts).tolist())) == sorted(everything)
        for number, part in enumerate(parts):
            assert all(number * 2**64 // count <= key < (number + 1) * 2**64 // count for key in part[:, 0].tolist())
    low, high = 2**40, 2**63
    found = read_rows_of(paths, low, high)
    assert [tuple(row) for row in found.tolist()] == sorted(row for row in everything if low <= row[0] < high)


def test_a_cluster_that_does_not_answer_is_named() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'groundup[cluster]'")
    program = (
        "from groundup.corpus.engine import Engine\nfrom groundup.run import UserError\n"
        "try:\n    Engine(2, '127.0.0.1:1')\nexcept UserError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stdout
    assert "RAY_AUTH_MODE" in done.stdout


def test_tasks_that_are_lost_without_a_word_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(self: Engine, perform: object, descriptions: list[str], workers: int) -> object:
        return iter([(each, {"ok": {}}) for each in descriptions if '"number": 3' not in each])

    monkeypatch.setattr(Engine, "_query", lossy)
    with Engine(2) as engine, pytest.raises(GroundupError, match="1 tasks were not done"):
        list(engine.run(perform(), [{"number": n} for n in range(5)]))
