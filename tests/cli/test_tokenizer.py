"""groundup tokenize and groundup tokenizer stats: what is printed, and what a user's mistakes get."""

import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.cli import command_line
from groundup.tokenizer import Tokenizer, encode_chat

MADE = runpy.run_path(str(Path(__file__).parents[1] / "tokenizer" / "made_run.py"))
CHAT = [{"role": "user", "content": "Hi <|end|>"}, {"role": "assistant", "content": "The kite"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return MADE["make_run"](tmp_path_factory.mktemp("runs") / "made")


@pytest.fixture(scope="module")
def tokenizer(made):
    return Tokenizer.load(made / "tokenizer")


def run(*arguments):
    return command_line([str(argument) for argument in arguments])


def printed(capsys, *arguments):
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def rows_of(shown):
    """The pieces and labels of the plain form."""
    lines = [[cell.rstrip() for cell in line.split("│")[:-1]] for line in shown.splitlines() if "│" in line]
    return [cell for line in lines[::2] for cell in line], [cell for line in lines[1::2] for cell in line]


def test_help_loads_no_heavy_package():
    for command in (["tokenize"], ["tokenizer", "stats"]):
        program = (
            f"import sys\nfrom groundup.cli import command_line\ncommand_line({[*command, '--help']!r})\n"
            "print(sorted({'torch', 'numpy', 'pyarrow', 'pydantic', 'tokenizers'} & sys.modules.keys()), "
            "file=sys.stderr)"
        )
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert found.stderr == "[]\n"


def test_pieces_stand_above_their_ids(made, tokenizer, capsys):
    text = "The kite 凧\n\tflew\u202e over"
    shown = printed(capsys, "tokenize", made, "--text", text)
    pieces, ids = rows_of(shown)
    assert [int(number) for number in ids] == tokenizer.encode(text)
    assert "\u202e" not in shown
    seen = "".join(pieces)
    assert seen.startswith("The·kite·")
    assert "<E5><87><A7>⏎⇥" in seen
    count, size = len(ids), len(text.encode())
    assert f"{count} tokens, {size} bytes, {len(text)} characters, {size / count:.2f} bytes per token\n" in shown
    assert "\x1b" not in shown


def test_as_json(made, tokenizer, capsys):
    found = json.loads(printed(capsys, "tokenize", made, "--text", "The kite 凧", "--json"))
    assert [token["id"] for token in found["tokens"]] == tokenizer.encode("The kite 凧")
    assert b"".join(bytes.fromhex(token["bytes"]) for token in found["tokens"]).decode() == "The kite 凧"
    assert {token["text"] for token in found["tokens"] if int(token["bytes"][:2], 16) >= 0x80} == {None}
    assert found["count"] == len(found["tokens"])
    assert (found["bytes"], found["characters"], found["special"]) == (12, 10, 0)
    assert found["bytes_per_token"] == 12 / found["count"]


def test_files_and_standard_input_are_read_to_the_byte(made, tokenizer, tmp_path, capsys, monkeypatch):
    content = "\ufeffThe\r\nkite\r".encode()
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    expected = printed(capsys, "tokenize", made, path, "--json")
    assert b"".join(bytes.fromhex(token["bytes"]) for token in json.loads(expected)["tokens"]) == content
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert printed(capsys, "tokenize", made, "-", "--json") == expected


def test_what_is_long_is_counted_whole_and_shown_in_part(made, tokenizer, tmp_path, capsys):
    text = "The kite flew. " * 1000
    (tmp_path / "long.txt").write_text(text)
    shown = printed(capsys, "tokenize", made, tmp_path / "long.txt", "--count", "7")
    count = len(tokenizer.encode(text))
    assert [int(number) for number in rows_of(shown)[1]] == tokenizer.encode(text)[:7]
    assert f"[{count - 7:,} more tokens; --count shows them]" in shown
    assert f"{count:,} tokens, 15,000 bytes" in shown
    assert len(rows_of(printed(capsys, "tokenize", made, tmp_path / "long.txt"))[1]) == 2000
    found = json.loads(printed(capsys, "tokenize", made, tmp_path / "long.txt", "--count", "7", "--json"))
    assert (len(found["tokens"]), found["count"]) == (7, count)


def test_ids_are_decoded(made, tokenizer, capsys):
    ids = [*tokenizer.encode("The kite\nflew"), tokenizer.end]
    shown = printed(capsys, "tokenize", made, "--ids", ", ".join(map(str, ids)))
    assert "\nThe kite\nflew<|end|>\n" in shown
    assert "(1 special), 13 bytes, 13 characters" in shown
    assert rows_of(shown)[0][-1] == "<|end|>"
    found = json.loads(printed(capsys, "tokenize", made, "--ids", " ".join(map(str, ids)), "--json"))
    assert found["text"] == "The kite\nflew<|end|>"
    assert found["tokens"][-1] == {
        "id": tokenizer.end, "text": "<|end|>", "bytes": b"<|end|>".hex(), "special": True,
    }  # fmt: skip


def test_a_chat_shows_its_format_and_what_is_learned(made, tokenizer, tmp_path, capsys):
    encoded = encode_chat(tokenizer, CHAT)
    shown = printed(capsys, "tokenize", made, "--chat", "--text", json.dumps(CHAT))
    pieces, labels = rows_of(shown)
    assert labels == [f"{i}*" if yes else str(i) for i, yes in zip(encoded.ids, encoded.loss_mask, strict=True)]
    assert pieces[0] == "<|user|>"
    assert pieces.count("<|end|>") == 2  # and not the one that the user spelled
    assert f"{sum(encoded.loss_mask)} tokens are learned" in shown
    assert f"{len(encoded.ids)} tokens (4 special), 18 bytes, 18 characters" in shown
    found = json.loads(printed(capsys, "tokenize", made, "--chat", "--text", json.dumps({"messages": CHAT}), "--json"))
    assert [token["learned"] for token in found["tokens"]] == encoded.loss_mask
    assert found["learned"] == sum(encoded.loss_mask)


def test_another_vocabulary_is_compared_on_the_text_alone(made, tokenizer, tmp_path, capsys):
    from groundup.tokenizer import train_bpe

    other = Tokenizer(train_bpe(["the the"], 274).to_str())
    other.save(tmp_path)
    found = json.loads(printed(capsys, "tokenize", made, "--text", "The kite", "--compare", tmp_path, "--json"))
    theirs = len(other.encode("The kite"))
    assert found["compare"] == {
        "path": str(tmp_path), "count": theirs, "bytes_per_token": 8 / theirs, "ratio": found["count"] / theirs,
    }  # fmt: skip
    chat = json.loads(
        printed(capsys, "tokenize", made, "--chat", "--text", json.dumps(CHAT), "--compare", tmp_path, "--json")
    )
    assert chat["compare"]["count"] == sum(len(other.encode(message["content"])) for message in CHAT)
    inside = chat["count"] - chat["special"]
    shown = printed(capsys, "tokenize", made, "--chat", "--text", json.dumps(CHAT), "--compare", tmp_path)
    assert f"ours are {inside / chat['compare']['count']:.2f} times as many" in shown
    # The other vocabulary may itself be looked at: its directory, or its file.
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        pieces, ids = rows_of(printed(capsys, "tokenize", place, "--text", "the"))
        assert [int(number) for number in ids] == other.encode("the")


def test_nothing_to_show(made, capsys):
    assert printed(capsys, "tokenize", made, "--text", "") == (
        "0 tokens, 0 bytes, 0 characters, – bytes per token\n"
    )  # fmt: skip


def test_colours_on_a_terminal_and_none_where_they_are_not_wanted(made):
    program = (
        "import rich.console, sys\n"
        "rich.console.Console.is_terminal = property(lambda self: True)\n"
        "from groundup.cli import command_line\n"
        f"command_line(['tokenize', {str(made)!r}, '--chat', '--text', {json.dumps(CHAT)!r}])"
    )
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "TERM": "xterm-256color", "COLUMNS": "200"}
    environment.pop("NO_COLOR", None)

    def shown(more):
        found = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, env=environment | more, encoding="utf-8"
        )
        return found.stdout

    coloured = shown({})
    assert "│" not in coloured
    assert "\x1b[30;48;5;179m<|user|>" in coloured
    assert coloured.count("48;5;24m") >= 2
    assert coloured.count("48;5;60m") >= 2
    assert re.search(r"\x1b\[4;37;48;5;\d+mThe", coloured)  # learned
    assert re.search(r"\x1b\[37;48;5;\d+mH", coloured)  # not
    plain = shown({"NO_COLOR": "1"})
    assert "48;5" not in plain
    assert "│" in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokenize"], "try: groundup tokenize --help"),
        (["tokenize", "RUN"], "exactly one of FILE, --text and --ids"),
        (["tokenize", "RUN", "a.txt", "--text", "a"], "exactly one of FILE, --text and --ids"),
        (["tokenize", "RUN", "nowhere.txt"], "no file 'nowhere.txt'"),
        (["tokenize", "RUN", "RUN"], "no file"),
        (["tokenize", "RUN", "BROKEN"], "byte 3 is not UTF-8"),
        (["tokenize", "EMPTY", "--text", "a"], "has no tokenizer yet"),
        (["tokenize", "nowhere", "--text", "a"], "no such file"),
        (["tokenize", "RUN", "--ids", "17 x"], "'x' is no id of this vocabulary"),
        (["tokenize", "RUN", "--ids", "17 -1"], "'-1' is no id"),
        (["tokenize", "RUN", "--ids", "99999999999999999999999"], "is no id"),
        (["tokenize", "RUN", "--ids", "٣"], "is no id"),
        (["tokenize", "RUN", "--ids", "1", "--chat"], "not for --ids"),
        (["tokenize", "RUN", "--text", "a", "--count", "0"], "--count 0 can't be used"),
        (["tokenize", "RUN", "--text", "{", "--chat"], "not JSON"),
        (["tokenize", "RUN", "--text", "[" * 100_000, "--chat"], "not JSON"),
        (["tokenize", "RUN", "--text", '{"a": 1}', "--chat"], "no list of messages"),
        (["tokenize", "RUN", "--text", "[1]", "--chat"], "messages[0]"),
        (["tokenize", "RUN", "--text", "a", "--compare", "nowhere"], "no such file"),
        (["tokenizer", "stats"], "try: groundup tokenizer stats --help"),
        (["tokenizer", "stats", "nowhere"], "'nowhere' is not a run"),
        (["tokenizer", "stats", "EMPTY"], "has no tokenizer yet"),
        (["tokenizer", "stats", "RUN", "--compare", "nowhere"], "no such file"),
    ],
)
def test_a_users_mistake_gets_a_sentence_and_exit_code_2(arguments, message, made, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_bytes((made / "recipe.toml").read_bytes())
    (tmp_path / "broken").write_bytes(b"abc\xff")
    places = {"RUN": str(made), "EMPTY": str(tmp_path), "BROKEN": str(tmp_path / "broken")}
    assert run(*(places.get(each, each) for each in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("groundup: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_stats_shows_the_figures(made, tokenizer, tmp_path, capsys):
    tokenizer.save(tmp_path)
    shown = printed(capsys, "tokenizer", "stats", made, "--compare", tmp_path)
    for title in (
        "Tokens of validation texts", "Tokens of train texts", "Vocabulary", "Tokens by length",
        "Most frequent tokens", "Longest tokens", "Size of vocabulary",
    ):  # fmt: skip
        assert f"\n{title} " in f"\n{shown}"
    figures = json.loads(printed(capsys, "tokenizer", "stats", made, "--compare", tmp_path, "--json"))
    for name in ("books", "chats", "en", "de", "zh"):
        part = figures["fertility"]["train"]
        rates = {**part["sources"], **part["languages"]}[name]
        assert rates["ratio"] == 1
        word = "–" if name == "zh" else rf"{rates['tokens_per_word']:.3f}"
        cells = f"{rates['tokens']:,} +{rates['tokens_per_byte']:.4f} +{rates['tokens_per_character']:.4f} +{word}"
        assert re.search(rf"\n {name} +[\d.]+ k?B +{cells} +\S+ +\S+ +1\.000", shown)
    assert "scripts without spaces" in shown
    best = figures["advice"]["best"]
    assert re.search(rf"\n {best['vocabulary_size']:,} .*best", shown)
    assert "The present size takes the fewest FLOPs per byte of text" in shown
    assert "bits per byte" in shown
    assert "arXiv:2407.13623" in shown
    assert "no more merges to give" in shown


def test_stats_without_a_model_gives_no_advice(made, tmp_path, capsys):
    copied = MADE["make_run"](tmp_path / "run", count=10)
    recipe = (copied / "recipe.toml").read_text()
    (copied / "recipe.toml").write_text(recipe.partition("[model]")[0])
    shown = printed(capsys, "tokenizer", "stats", copied)
    assert "Size of vocabulary" not in shown
    assert json.loads(printed(capsys, "tokenizer", "stats", copied, "--json"))["advice"] is None


def test_what_a_tokens_text_spells_is_no_markup(made, capsys):
    shown = printed(capsys, "tokenize", made, "--text", "[bold]kite[/bold] :smile:")
    assert "".join(rows_of(shown)[0]) == "[bold]kite[/bold]·:smile:"
