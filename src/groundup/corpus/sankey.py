"""The funnel as a Sankey figure: documents flow down from the sources, and what a rule refuses turns off to the right.

Widths are documents, which add up at every step (bytes don't: pages shrink as their text is taken out). Labels
stand on lines of their own, so that they can't meet however many rules there are.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from groundup.corpus.report import Passed, number, passages, share, size, steps

WIDTH = 730  # of the figure; it and all below in the figure's own units, of which a letter is 12 high
LEFT, TRUNK = 262, 150  # the trunk's left edge, and its width where it carries all that was read
MARGIN = 12  # between the trunk and the labels on its left
OUT, LABELS = 436, 442  # where refused flows end and their labels begin
LINE = 17  # height of a line of labels
TURN = 7  # inner radius of a flow's turn
THIN = 0.8  # no flow is drawn thinner
LETTER = 6.8  # width of a letter, generously
SOURCES, RULES = 16, 24  # more than so many are drawn as one
FLOW, REFUSED, KEPT = "#5a9bc8", "#dd8a52", "#45a07d"  # seen on white and on black, and by colour-blind readers
SOURCE = ("#79b0d6", "#4a86b0")  # taken in turn


def sankey_svg(
    funnel: dict[str, Any], *, ink: str = "#767676", font: str = "system-ui, sans-serif", rules: int = RULES
) -> str:
    """The figure of a funnel.json as an SVG document, with no scripts, links or fonts in it.

    Args:
        funnel: the content of funnel.json, version 2.
        ink: colour of the labels; the default can be read on white as on black.
        font: family of the labels, as CSS names it.
        rules: of a step with more rules than this the smallest are drawn as one.
    """
    return _Figure(funnel, ink, font, rules).draw()


@dataclass
class _Figure:
    funnel: dict[str, Any]
    ink: str
    font: str
    rules: int
    parts: list[str] = field(default_factory=list)
    y: float = 14.0  # where the next line begins

    @property
    def read(self) -> int:
        return int(self.funnel["total"]["steps"]["read"]["documents"])

    @property
    def scale(self) -> float:
        """Width of a document."""
        return TRUNK / max(self.read, 1)

    def draw(self) -> str:
        total = self.funnel["total"]
        passed = steps(total, self.funnel["steps"])
        self._sources()
        self._steps(passed)
        height = round(self.y + 10)
        kept = passed[-1].documents
        about = f"{self.read:,} documents read, {kept:,} kept ({share(kept, self.read)})"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
                f'height="{height}" font-family="{_plain(self.font)}" font-size="12" fill="{_plain(self.ink)}">',
                "<title>Funnel of the corpus</title>",
                f"<desc>{about}. The width of a flow is its number of documents.</desc>",
                *self.parts,
                "</svg>\n",
            ]
        )

    def _sources(self) -> None:
        """Each source begins a strip of the trunk at its label's height, the first one outermost."""
        found = [(each["name"], each["steps"]["read"]["documents"]) for each in self.funnel["sources"]]
        if len(found) > SOURCES:
            found.sort(key=lambda item: (-item[1], item[0]))
            rest = found[SOURCES - 1 :]
            found = [*found[: SOURCES - 1], (f"{len(rest)} more sources", sum(count for _, count in rest))]
        bottom = self.y + LINE * len(found) + 8
        right = LEFT + self.read * self.scale
        for place, (name, count) in enumerate(found):
            thick = count * self.scale
            middle = self.y + LINE / 2
            if count:
                inner = right - max(thick, THIN)
                shape = f"M{inner:.2f} {middle:.2f}H{right:.2f}V{bottom + 0.5:.2f}H{inner:.2f}Z"
                self._path(shape, SOURCE[place % 2], f"{name}: {count:,} documents")
                if right - thick > LEFT + 1:
                    self._dots(LEFT - MARGIN + 4, right - thick - 3, middle)
            self._label_left(middle, name, number(count))
            right -= thick
            self.y += LINE
        self.y = bottom

    def _steps(self, passed: list[Passed]) -> None:
        """The trunk and its steps; what a step refuses leaves on the trunk's right, the outermost first."""
        place, right = len(self.parts), LEFT + self.read * self.scale
        edge = [f"M{LEFT} {self.y:.2f}H{right:.2f}"]
        for step in passed[:-1]:
            self._mark(right)
            amount = number(step.documents) + ("" if step.name == "read" else f"  {share(step.documents, self.read)}")
            self._label_left(self.y + 9, _words(step.name), amount)
            low = self.y + LINE + 6
            self.y += TURN + 1
            for rule, count in _gathered(step, self.rules):
                thick = max(count * self.scale, THIN)
                row = max(LINE, thick + 4)
                middle = self.y + row / 2
                turn = middle - thick / 2 - TURN
                self._path(_flow_out(right, thick, turn), REFUSED, f"{step.name}, {rule}: {count:,} documents")
                edge.append(f"V{turn:.2f}H{right - count * self.scale:.2f}")
                right -= count * self.scale
                self._label_right(middle, _words(rule), f"{count:,}  {share(count, self.read)}")
                self.y += row
            self._edits(step, right)
            self.y = max(low, self.y + 3)
        edge.append(f"V{self.y:.2f}H{LEFT}Z")
        self.parts.insert(place, _path("".join(edge), FLOW, f"{self.read:,} documents"))
        self._kept(passed[-1], right)

    def _edits(self, step: Passed, right: float) -> None:
        """What the step changed and did not refuse, in words without a flow."""
        edits = [f"{_words(edit)} {times:,}" for edit, times in sorted(step.edits.items())]
        for line in _wrapped(edits, WIDTH - LABELS):
            middle = self.y + LINE / 2
            if line.startswith("changed"):
                self._dots(right + 4, OUT, middle)
            self._text(LABELS, middle, f'<tspan font-style="italic">{_plain(line)}</tspan>')
            self.y += LINE

    def _kept(self, step: Passed, right: float) -> None:
        """The end of the trunk, and what the documents were cut into."""
        width = max(right - LEFT, THIN)
        self._mark(right)
        head = min(9.0, width / 2)
        shape = f"M{LEFT} {self.y:.2f}H{LEFT + width:.2f}v24l{-width / 2:.2f} {head:.2f}L{LEFT} {self.y + 24:.2f}Z"
        self._path(shape, KEPT, f"kept: {step.documents:,} documents")
        self._label_left(self.y + 9, "kept", f"{step.documents:,}  {share(step.documents, self.read)}")
        self._text(LEFT - MARGIN, self.y + 9 + LINE, _plain(size(step.bytes)), end=True)
        split = passages(self.funnel["total"])
        for line, (name, words) in enumerate((("train", "to train on"), ("validation", "to validate on"))):
            text = f"{split[name]['documents']:,} passages {words}, {size(split[name]['bytes'])}"
            self._text(LABELS, self.y + 9 + LINE * line, _plain(text))
        self.y += 24 + head

    def _mark(self, right: float) -> None:
        """A line across the trunk, where a step stands."""
        line = f"M{LEFT - MARGIN + 4} {self.y:.2f}H{right:.2f}"
        self.parts.append(f'<path d="{line}" stroke="{_plain(self.ink)}" stroke-width="0.6"/>')

    def _dots(self, left: float, right: float, y: float) -> None:
        line = f"M{left:.2f} {y:.2f}H{right:.2f}"
        self.parts.append(f'<path d="{line}" stroke="{_plain(self.ink)}" stroke-dasharray="1 3"/>')

    def _label_left(self, middle: float, name: str, amount: str) -> None:
        room = int((LEFT - MARGIN - 6) / LETTER) - len(amount) - 2
        content = f'<tspan font-weight="bold">{_plain(clip(name, room))}</tspan>  {_plain(amount)}'
        self._text(LEFT - MARGIN, middle, content, end=True)

    def _label_right(self, middle: float, name: str, amount: str) -> None:
        room = int((WIDTH - LABELS) / LETTER) - len(amount) - 2
        self._text(LABELS, middle, f"{_plain(clip(name, room))}  {_plain(amount)}")

    def _text(self, x: float, middle: float, content: str, *, end: bool = False) -> None:
        anchor = ' text-anchor="end"' if end else ""
        self.parts.append(f'<text x="{x:g}" y="{middle + 4:.2f}"{anchor} xml:space="preserve">{content}</text>')

    def _path(self, path: str, colour: str, about: str) -> None:
        self.parts.append(_path(path, colour, about))


def _path(path: str, colour: str, about: str) -> str:
    return f'<path d="{path}" fill="{colour}"><title>{_plain(about)}</title></path>'


def _flow_out(right: float, thick: float, turn: float) -> str:
    """From the trunk's edge at `right` down from `turn`, round to the right and out."""
    outer, inner = right - thick, TURN
    return (
        f"M{outer:.2f} {turn - 0.5:.2f}H{right:.2f}V{turn:.2f}A{inner} {inner} 0 0 0 {right + inner:.2f} "
        f"{turn + inner:.2f}H{OUT}V{turn + inner + thick:.2f}H{right + inner:.2f}"
        f"A{thick + inner:.2f} {thick + inner:.2f} 0 0 1 {outer:.2f} {turn:.2f}Z"
    )


def _gathered(step: Passed, most: int) -> list[tuple[str, int]]:
    """The rules with what they refused, the most first; the smallest as one where there are very many."""
    found = [(rule, tally["documents"]) for rule, tally in step.refused.items()]
    if len(found) <= most:
        return found
    rest = found[most - 1 :]
    return [*found[: most - 1], (f"{len(rest)} more rules", sum(count for _, count in rest))]


def _wrapped(items: list[str], room: float) -> list[str]:
    """ "changed: " and the items as lines that fit."""
    lines: list[str] = []
    for item in items:
        if lines and (len(lines[-1]) + len(item) + 2) * LETTER <= room:
            lines[-1] += f", {item}"
        else:
            if lines:
                lines[-1] += ","
            lines.append(item if lines else f"changed: {item}")
    return lines


def clip(text: str, room: int) -> str:
    """The text in at most `room` columns (an East Asian letter takes two): the end of a path, the start of others."""
    widths = [1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text]
    if sum(widths) <= room:
        return text
    path = "/" in text
    letters = list(zip(text, widths, strict=True))
    kept, used = [], 1
    for letter, width in reversed(letters) if path else letters:
        if used + width > room:
            break
        kept.append(letter)
        used += width
    return "…" + "".join(reversed(kept)) if path else "".join(kept) + "…"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(text: str) -> str:
    """Text for XML, which holds no control characters and no lone surrogates, not even escaped."""
    return escape("".join(letter if _allowed(letter) else "\ufffd" for letter in text), {'"': "&quot;"})


def _allowed(letter: str) -> bool:
    return (
        letter >= " "
        and not "\x7f" <= letter <= "\x9f"
        and not "\ud800" <= letter <= "\udfff"
        and letter not in "\ufffe\uffff"
    )
