"""Commands about tokens: tokenize, tokenizer stats."""

from __future__ import annotations

import json as json_format
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from groundup.cli.output import print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from groundup.tokenizer import Tokenizer

BACKGROUNDS = ("white on color(24)", "white on color(60)")  # of pieces in turn
SPECIAL = "black on color(179)"

tokenizer = cyclopts.App(
    name="tokenizer",
    help="Look into the tokenizer of a run.\n\nExample: groundup tokenizer stats runs/laptop",
    version_flags=[],
)


@tokenizer.command
def stats(run: Path, /, *, compare: Path | None = None, json: bool = False) -> None:
    """Show how short the tokenizer makes texts, how its vocabulary is used, and which size would be cheapest.

    Example: groundup tokenizer stats runs/laptop --compare gpt2/

    Parameters
    ----------
    run
        A run directory.
    compare
        Another vocabulary for the same texts: a tokenizer.json or its directory, GPT-2's encoder.json and vocab.bpe
        (the directory), or a .tiktoken file.
    json
        Print the figures as one JSON object.
    """
    from groundup.tokenizer.report import report

    figures = report(run, compare)
    if json:
        print_json(figures)
        return
    from groundup.cli.token_tables import remarks, tables

    console = _console()
    for table in tables(figures):
        console.print(table)
    for line in remarks(figures):
        console.print(line, style="dim", soft_wrap=True)


def tokenize(
    run: Path,
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    text: str | None = None,
    ids: str | None = None,
    chat: bool = False,
    compare: Path | None = None,
    count: int = 2000,
    json: bool = False,
) -> None:
    """Show the tokens of a text, each piece above its id.

    Spaces are shown as ·, ends of lines as ⏎, tabs as ⇥; a token that is a part
    of a character as its bytes, as <E4><B8>.

    Example: groundup tokenize runs/laptop --text "Once upon a time"

    Parameters
    ----------
    run
        A run directory, or a tokenizer.json, or another vocabulary (see --compare).
    file
        A file to read; - reads standard input.
    text
        The text itself.
    ids
        Ids to decode instead of a text, as "17 5 320".
    chat
        The text is a JSON list of messages {role, content}, or an object {messages, tools}: show the chat format.
        What a model learns of it is underlined, or marked * where there are no colours.
    compare
        Another vocabulary to count with: a tokenizer.json or its directory, GPT-2's encoder.json and vocab.bpe (the
        directory), or a .tiktoken file.
    count
        Show so many tokens at most; all are counted.
    json
        Print the tokens and the counts as one JSON object.
    """
    from groundup.run import UserError

    if count < 1:
        raise UserError(f"--count {count} can't be used", expected="a number of at least 1")
    if sum(given is not None for given in (file, text, ids)) != 1:
        raise UserError("what to tokenize?", expected="exactly one of FILE, --text and --ids")
    if chat and ids is not None:
        raise UserError("--chat is for messages, not for --ids")
    opened = _open(run)
    found = _decoded(opened, ids) if ids is not None else _encoded(opened, text, file, chat=chat)
    other = None if compare is None else _adopted(compare)
    figures = _figures(opened, found, other, compare)
    if json:
        shown = [_as_json(opened, found, place) for place in range(min(count, len(found.ids)))]
        decoded = {} if ids is None else {"text": opened.decode(found.ids, special=True)}
        print_json({"tokens": shown, **decoded, **figures})
        return
    _show(opened, found, count)
    console = _console()
    if ids is not None:
        from groundup.tokenizer.report import visible

        console.print(visible(opened.decode_bytes(found.ids, special=True), spaces=False), soft_wrap=True)
    for line in _summary(figures, shown=count, masked=chat):
        console.print(line, style="dim", soft_wrap=True)


@dataclass(frozen=True)
class _Tokens:
    """What is shown: ids, the texts between special tokens, and of a chat whether each id is learned."""

    ids: list[int]
    texts: list[str]
    learned: list[bool] | None = None


def _open(path: Path) -> Tokenizer:
    """The tokenizer of a run, or any other vocabulary."""
    from groundup.run import UserError
    from groundup.tokenizer import Tokenizer

    if (path / "tokenizer" / "tokenizer.json").is_file():
        return Tokenizer.load(path / "tokenizer")
    if (path / "recipe.toml").is_file():
        raise UserError(f"{str(path)!r} has no tokenizer yet", mend="groundup build RECIPE --until tokenizer makes it")
    return _adopted(path)


def _adopted(path: Path) -> Tokenizer:
    from groundup.tokenizer import Tokenizer
    from groundup.tokenizer.adopt import adopt

    return Tokenizer(adopt(path).json)


def _encoded(opened: Tokenizer, text: str | None, file: Path | None, *, chat: bool) -> _Tokens:
    text = _read(file) if text is None and file is not None else text or ""
    if not chat:
        return _Tokens(opened.encode(text), [text])
    from groundup.run import UserError
    from groundup.tokenizer import encode_chat

    try:
        given = json_format.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}", where="--chat", expected="a list of {role, content}") from error
    messages, tools = (given.get("messages"), given.get("tools")) if isinstance(given, dict) else (given, None)
    if not isinstance(messages, list):
        raise UserError("no list of messages", where="--chat", expected="a list of {role, content}")
    encoded = encode_chat(opened, messages, tools=tools)
    return _Tokens(encoded.ids, _texts(opened, encoded.ids), encoded.loss_mask)


def _decoded(opened: Tokenizer, ids: str) -> _Tokens:
    from groundup.run import UserError

    numbers = []
    for part in ids.replace(",", " ").split():
        if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) < opened.vocabulary_size):
            raise UserError(
                f"{part[:20]!r} is no id of this vocabulary",
                where="--ids",
                expected=f"numbers from 0 to {opened.vocabulary_size - 1}",
            )
        numbers.append(int(part))
    return _Tokens(numbers, _texts(opened, numbers))


def _texts(opened: Tokenizer, ids: list[int]) -> list[str]:
    """What stands between special tokens."""
    special = set(opened.special_ids().values())
    parts = (list(part) for between, part in groupby(ids, special.__contains__) if not between)
    return [opened.decode(part) for part in parts]


def _read(file: Path) -> str:
    """The text of a file, or of standard input for "-", to the byte."""
    from groundup.run import UserError

    name = "standard input" if str(file) == "-" else str(file)
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"no file {name!r}", mend="check the path; --text takes a text itself") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start:,} is not UTF-8", where=name, expected="a text in UTF-8") from error


def _figures(opened: Tokenizer, found: _Tokens, other: Tokenizer | None, path: Path | None) -> dict[str, Any]:
    """Counts of all tokens; per token those of text alone, without special ones."""
    times = Counter(found.ids)
    inside = len(found.ids) - sum(times[number] for number in opened.special_ids().values())
    size = sum(len(opened.token(number)) * count for number, count in times.items())
    figures: dict[str, Any] = {
        "count": len(found.ids),
        "special": len(found.ids) - inside,
        "bytes": size,
        "characters": sum(map(len, found.texts)),
        "bytes_per_token": size / inside if inside else None,
    }
    if found.learned is not None:
        figures["learned"] = sum(found.learned)
    if other is not None:
        theirs = sum(map(len, other.encode_batch(found.texts)))
        figures["compare"] = {
            "path": str(path),
            "count": theirs,
            "bytes_per_token": size / theirs if theirs else None,
            "ratio": inside / theirs if theirs else None,
        }
    return figures


def _summary(figures: dict[str, Any], *, shown: int, masked: bool) -> list[str]:
    def rate(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    special = f" ({figures['special']:,} special)" if figures["special"] else ""
    lines = [
        f"{figures['count']:,} tokens{special}, {figures['bytes']:,} bytes, {figures['characters']:,} characters, "
        f"{rate(figures['bytes_per_token'])} bytes per token"
    ]
    if figures["count"] > shown:
        lines.insert(0, f"[{figures['count'] - shown:,} more tokens; --count shows them]")
    if masked:
        lines.append(f"{figures['learned']:,} tokens are learned")
    if (other := figures.get("compare")) is not None:
        lines.append(
            f"{other['path']}: {other['count']:,} tokens, {rate(other['bytes_per_token'])} bytes per token; "
            f"ours are {rate(other['ratio'])} times as many"
        )
    return lines


def _as_json(opened: Tokenizer, found: _Tokens, place: int) -> dict[str, Any]:
    """A token: its text, None where it is a part of a character, and its bytes; of a chat whether it is learned."""
    number = found.ids[place]
    content = opened.token(number, special=True)
    try:
        text: str | None = content.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    learned = {} if found.learned is None else {"learned": found.learned[place]}
    special = number in opened.special_ids().values()
    return {"id": number, "text": text, "bytes": content.hex(), "special": special, **learned}


def _show(opened: Tokenizer, found: _Tokens, count: int) -> None:
    """Pieces above their ids, as many beside each other as the terminal has room for; a new row after each ⏎."""
    from rich.cells import cell_len
    from rich.text import Text

    from groundup.tokenizer.report import visible

    console = _console()
    plain = not console.is_terminal or console.no_color
    special = set(opened.special_ids().values())
    pieces, labels = Text(), Text()
    for place, number in enumerate(found.ids[:count]):
        content = opened.token(number, special=True)
        learned = found.learned is not None and found.learned[place]
        piece, label = visible(content), f"{number}*" if plain and learned else str(number)
        width = max(cell_len(piece), len(label))
        end = " │" if plain else " "
        if pieces and pieces.cell_len + width + len(end) > console.width:
            _row(console, pieces, labels)
            pieces, labels = Text(), Text()
        style = SPECIAL if number in special else BACKGROUNDS[place % 2]
        pieces.append(piece, None if plain else style + (" underline" if learned else ""))
        pieces.append(" " * (width - cell_len(piece)) + end)
        labels.append(f"{label:<{width}}{end}", None if plain else "dim")
        if content.endswith(b"\n"):
            _row(console, pieces, labels)
            pieces, labels = Text(), Text()
    if pieces:
        _row(console, pieces, labels)


def _row(console: Console, pieces: Text, labels: Text) -> None:
    console.print(pieces, soft_wrap=True)
    console.print(labels, soft_wrap=True)


def _console() -> Console:
    """On stdout, wide enough for tables where it is no terminal. Texts are no markup, and never stop the output."""
    import io

    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=140)
