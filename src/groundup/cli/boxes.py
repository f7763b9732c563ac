"""Boxes in a terminal, with a column for parameters and one for FLOPs: what all drawings of models are made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Facts = dict[str, Any]
WIDEST, NARROWEST = 100, 60
CELL = 7  # characters of a number's column; there are four
INDENT, LABEL = 2, 18


@dataclass(frozen=True)
class Line:
    """One line in a box: a text, and numbers where it has any."""

    text: str
    parameters: int | None = None
    flops: float | None = None
    style: str = ""


@dataclass(frozen=True)
class Box:
    """A part of the model: what stands on the arrow that leads to it, its title, and its lines."""

    arrow: str
    title: str
    lines: Sequence[Line]


def print_drawing(
    title: str, facts: Sequence[tuple[str, str]], boxes: Iterable[Box], totals: tuple[int, float]
) -> None:
    """Print a whole drawing to stdout.

    Args:
        facts: names, which may be empty, and what is to be said.
        totals: parameters and FLOPs, of which shares are shown.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = max(NARROWEST, min(console.width, WIDEST))
    console.print(Text(title, style="bold"), soft_wrap=True)
    shown: list[RenderableType] = []
    for name, text in facts:
        first, *others = textwrap.wrap(text, width - 12, break_on_hyphens=False)
        shown += [Text(f"{name:<12}{first}"), *(Text(" " * 12 + line) for line in others)]
    names = "".join(f"{name:>{CELL}}" for name in ("params", "share", "FLOPs", "share"))
    shown.append(Text(names.rjust(width - 2), style="dim"))
    for number, box in enumerate(boxes):
        if number:
            shown.append(Text(f"  │ {box.arrow}", style="dim"))
        shown.append(_panel(box.title, box.lines, width, totals))
    console.width = width
    for each in shown:
        console.print(each)


def short(number: float, units: str = "kMBT", gap: str = "") -> str:
    """Four digits and a unit: 596.0M, 1.236B."""
    for power, unit in reversed([*enumerate(units, 1)]):
        value = number / 1000**power
        if value >= 0.99995:
            return f"{value:.{3 if value < 9.9995 else 2 if value < 99.995 else 1}f}{gap}{unit}"
    return f"{number:.0f}{gap}"


def module_lines(rows: Iterable[Facts], prefix: str = "") -> Iterator[Line]:
    """A line for each module, its weight and bias in one.

    Args:
        rows: tensors, each with name, shape, parameters and flops.
        prefix: of the names, which is not shown.
    """
    modules: dict[str, list[Facts]] = {}
    for row in rows:
        name = row["name"].removeprefix(prefix)
        place, _, last = name.rpartition(".")
        modules.setdefault(place if last in ("weight", "bias") else name, []).append(row)
    for name, tensors in modules.items():
        yield summed(labelled(name, _shape(tensors) + bias(tensors)), tensors)


def _shape(tensors: list[Facts]) -> str:
    """As what it does: rows × channels of a table, in → out of a matrix, count × (in → out) of a stack."""
    shape = tensors[0]["shape"]
    if len(shape) == 3:
        return f"{shape[0]:,} × ({shape[2]:,} → {shape[1]:,})"
    if len(shape) == 2 and tensors[0]["flops"]:
        return f"{shape[1]:,} → {shape[0]:,}"
    return " × ".join(f"{size:,}" for size in shape)


def bias(tensors: list[Facts]) -> str:
    """What a module's shape ends with where it has a bias."""
    return " + bias" if any(row["name"].endswith(".bias") for row in tensors) else ""


def summed(text: str, rows: list[Facts]) -> Line:
    """A line with what tensors have in sum."""
    return Line(text, sum(row["parameters"] for row in rows), sum(row["flops"] for row in rows))


def labelled(label: str, text: str) -> str:
    """A label, and a text that stands below other texts."""
    return f"{label:<{LABEL}} {text}"


def railed(lines: Iterable[Line], rails: str) -> Iterator[Line]:
    """The same lines behind the rails of the residual stream, and of a branch."""
    return (Line(rails + line.text, line.parameters, line.flops, line.style) for line in lines)


def spans(layers: list[int]) -> str:
    """Layers as ranges: 0–4, 6–10; of many ranges the first few and the last."""
    found: list[list[int]] = []
    for layer in layers:
        if found and found[-1][1] == layer - 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    names = [str(low) if low == high else f"{low}–{high}" for low, high in found]
    if len(names) > 5:
        names = [*names[:3], "…", names[-1]]
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(names)


def in_bytes(count: int) -> str:
    """Bytes in the largest unit of which there is one."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


def _panel(title: str, lines: Sequence[Line], width: int, totals: tuple[int, float]) -> RenderableType:
    from rich.panel import Panel
    from rich.text import Text

    inner = width - 4
    body = Text()
    for number, line in enumerate(lines):
        body.append("\n" if number else "")
        body.append(_rendered(line, inner, totals))
    return Panel(body, title=Text(title), title_align="left", width=width, padding=(0, 1))


def _rendered(line: Line, inner: int, totals: tuple[int, float]) -> Text:
    """The text on the left, wrapped under its own rail, and the numbers on the right of its first line."""
    from rich.text import Text

    rail = line.text[: len(line.text) - len(line.text.lstrip("│ "))]
    hanging = rail + " " * INDENT
    left = inner - 4 * CELL
    wrapped = _wrap(line.text[len(rail) :], left, rail, hanging)
    numbers = _cells(line.parameters, totals[0], "kMBT") + _cells(line.flops, totals[1], "kMGT")
    first = f"{wrapped[0]:<{left}}{numbers}".rstrip()
    return Text("\n".join([first, *wrapped[1:]]), style=line.style)


def _wrap(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    """Lines of ``text``; spaces within stay, since they align columns."""
    if len(first) + len(text) <= width:
        return [first + text]
    return textwrap.wrap(
        " ".join(text.split()), width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _cells(number: float | None, total: float, units: str) -> str:
    if not number:
        return " " * (2 * CELL)
    share = number / total
    text = f"{share:.1%}" if share >= 0.0005 else "<0.1%"
    return f"{short(number, units):>{CELL}}{text:>{CELL}}"
