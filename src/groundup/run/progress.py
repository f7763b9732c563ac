"""Progress on stderr: a bar with rate and time left on a terminal, nothing elsewhere.

Results go to stdout, so a pipe sees only those. ``log`` prints a line without tearing a live bar.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_live: list[Any] = []


@cache
def console() -> Console:
    """The one console on stderr, shared so that lines and bars don't overwrite each other."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)


def log(message: str) -> None:
    """Print one line to stderr, above a live bar where there is one."""
    console().print(message, soft_wrap=True)


class Bar:
    """One progress bar. Its methods cost nothing where stderr is no terminal."""

    def __init__(self, live: Progress | None, task: TaskID | None, total: float | None) -> None:
        self._live, self._task = live, task
        self.total, self.completed = total, 0.0

    def advance(self, n: float = 1) -> None:
        """Count ``n`` more units as done."""
        self.update(self.completed + n)

    def update(self, completed: float) -> None:
        """Say that ``completed`` units are done in all."""
        self.completed = completed
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=completed)

    def note(self, text: str) -> None:
        """Show ``text`` at the end of the bar, as "loss 1.23"."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, note=text)


@contextmanager
def progress(description: str, total: float | None, unit: str = "it") -> Iterator[Bar]:
    """A bar for ``total`` units of work (None where it isn't known), with rate and time left."""
    if not console().is_terminal:
        yield Bar(None, None, total)
        return
    live, own = (_live[-1], False) if _live else (_new_display(), True)
    if own:
        live.start()
        _live.append(live)
    task = live.add_task(description, total=total, unit=unit, note="")
    try:
        yield Bar(live, task, total)
    finally:
        live.remove_task(task)
        if own:
            _live.remove(live)
            live.stop()


def _new_display() -> Progress:
    """A rich display: name, bar, share, rate, time left, note."""
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units a second, smoothed."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{human(speed)} {task.fields['unit']}/s", style="cyan")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        Rate(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=console(),
        transient=True,
    )


def human(number: float) -> str:
    """A number in at most four characters and a suffix: 0.52, 12.3, 950, 1.2k, 3.4M, 7.0G, 1.0T."""
    magnitude = abs(number)
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if magnitude >= size:
            return f"{number / size:.1f}{suffix}"
    if magnitude >= 100 or number == int(number):
        return f"{number:.0f}"
    return f"{number:.1f}" if magnitude >= 10 else f"{number:.2f}"
