"""groundup corpus: what is printed of a finished corpus, and what a user's mistakes get."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.cli import command_line

MADE = runpy.run_path(str(Path(__file__).parents[1] / "corpus" / "finished.py"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return MADE["make_run"](tmp_path_factory.mktemp("runs") / "made")


def run(*arguments):
    return command_line([str(argument) for argument in arguments])


def printed(capsys, *arguments):
    assert run("corpus", *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_help_loads_no_heavy_package():
    program = (
        "import sys\nfrom groundup.cli import command_line\ncommand_line(['corpus', 'inspect', '--help'])\n"
        "print(sorted({'torch', 'numpy', 'pyarrow', 'pydantic', 'daft'} & sys.modules.keys()), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stderr == "[]\n"


def test_the_commands_load_neither_torch_nor_the_engine(made):
    program = (
        f"import sys\nfrom groundup.cli import command_line\ncommand_line(['corpus', 'inspect', {str(made)!r}])\n"
        f"command_line(['corpus', 'stats', {str(made)!r}])\n"
        "print(sorted({'torch', 'daft', 'trafilatura'} & sys.modules.keys()), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, encoding="utf-8"
    )
    assert found.stderr == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect"], "try: groundup corpus inspect --help"),
        (["insp", "RUN"], 'Did you mean "inspect"?'),
        (["inspect", "nowhere"], "'nowhere' is not a run"),
        (["stats", "nowhere"], "'nowhere' is not a run"),
        (["inspect", "EMPTY"], "has no corpus yet"),
        (["stats", "EMPTY"], "groundup build RECIPE --until corpus"),
        (["inspect", "RUN", "--rule", "min_word"], "did you mean 'min_words'?"),
        (["inspect", "RUN", "--rule", "gopher"], "one of binary_file, gopher_quality, language, min_words"),
        (["inspect", "RUN", "--source", "text"], "did you mean 'texts'?"),
        (["inspect", "RUN", "--count", "0"], "--count 0 can't be used"),
        (["inspect", "RUN", "--search", ""], "--search needs a text"),
        (["inspect", "RUN", "--cont", "3"], "Did you mean --count?"),
    ],
)
def test_a_users_mistake_gets_a_sentence_and_exit_code_2(arguments, message, made, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_bytes((made / "recipe.toml").read_bytes())
    places = {"RUN": str(made), "EMPTY": str(tmp_path)}
    assert run("corpus", *(places.get(each, each) for each in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("groundup: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_inspect_shows_passages_and_says_what_it_leaves_out(made, capsys):
    shown = printed(capsys, "inspect", made, "--source", "web", "--count", "70")
    assert shown.count("── ") == 70
    assert "url      https://example.org/a" in shown
    assert "quality  0.310" in shown
    assert "70 of 70 such passages" in shown
    shown = printed(capsys, "inspect", made, "--search", "w199", "--count", "1")
    assert "no such passage" in shown
    shown = printed(capsys, "inspect", made, "--search", "w001", "--count", "9")
    long = 2 * 200 * 5 // 2 - 1  # the characters of the second document of validation
    assert f"[{long - 800:,} more characters; --full shows them]" in shown
    assert "size     999 bytes, 200 words" in shown
    whole = printed(capsys, "inspect", made, "--search", "w001", "--count", "9", "--full")
    assert "more characters" not in whole
    assert " ".join(["w001"] * 200) in whole
    assert printed(capsys, "inspect", made, "--seed", "1") == printed(capsys, "inspect", made, "--seed", "1")
    assert printed(capsys, "inspect", made, "--seed", "1") != printed(capsys, "inspect", made, "--seed", "2")


def test_what_is_searched_is_shown(tmp_path, capsys):
    run_ = MADE["make_run"](tmp_path)
    text = "x " * 3000 + "the needle" + " y" * 3000
    row = {"id": "0", "text": text, "source": "long.txt", "record": 0, "mixture": "texts"}
    MADE["write_split"](run_ / "corpus" / "documents", "train", 7, [row])
    shown = printed(capsys, "inspect", run_, "--search", "NEEDLE")
    assert "the needle" in shown
    assert re.search(r"\[5,80\d characters before\]", shown)
    assert "from     long.txt (source texts)" in shown


def test_a_chat_is_shown_with_its_roles(tmp_path, capsys):
    run_ = MADE["make_run"](tmp_path)
    messages = [{"role": "user", "content": "Hi [b]there[/b]"}, {"role": "assistant", "content": "Hello"}]
    row = {"id": "0", "text": "Hi [b]there[/b]\nHello", "source": "", "record": 4, "mixture": "chats"}
    row["messages"] = json.dumps(messages)
    MADE["write_split"](run_ / "corpus" / "documents", "train", 7, [row])
    shown = printed(capsys, "inspect", run_, "--search", "hello")
    assert "user: Hi [b]there[/b]\nassistant: Hello" in shown


def test_inspect_shows_the_refused_with_the_reason(made, capsys):
    shown = printed(capsys, "inspect", made, "--rule", "min_words", "--source", "web")
    assert "refused by gopher_quality/min_words" in shown
    assert "measured 3\n" in shown
    assert "recipe   corpus.filters.gopher_quality.min_words = 40\n" in shown
    assert "from     web/a.warc.gz, record 77 (source web)\n" in shown
    assert "refused  1 by this rule, 1.0 % of the source's documents" in shown
    shown = printed(capsys, "inspect", made, "--rejected", "--count", "50")
    assert shown.count("── ") == 34
    assert 'recipe   corpus.filters.language.keep = ["en", "de"]' in shown
    assert "\x1b" not in shown
    assert "⟨U+001B⟩[31mred⟨U+0007⟩" in shown
    shown = printed(capsys, "inspect", made, "--rule", "language", "--count", "1", "--full")
    assert "[of refused texts only the first 1,500 characters were kept]" in shown
    assert "nothing of the kind was refused" in printed(capsys, "inspect", made, "--rejected", "--search", "qqq")


def test_inspect_as_json_has_all_of_each(made, capsys):
    found = json.loads(printed(capsys, "inspect", made, "--count", "200", "--json"))
    assert found["passages"] == len(found["shown"]) == 120
    assert found["shown"][0].keys() >= {"id", "text", "source", "record", "mixture", "url", "language", "split"}
    found = json.loads(printed(capsys, "inspect", made, "--rejected", "--rule", "near_duplicates", "--json"))
    assert found["shown"] == [
        {
            "source": "web", "file": "web/b.warc.gz", "record": 3, "step": "near_duplicates", "rule": "near_duplicate",
            "value": None, "text": "Twice told.", "documents": 1,
            "recipe": {"corpus.dedup.near.threshold": 0.7, "corpus.dedup.near.ngram": 5},
        }
    ]  # fmt: skip


def test_stats_shows_the_figures(made, capsys):
    shown = printed(capsys, "stats", made)
    for title in ("Funnel", "Sources", "Changed and kept", "Length of passages", "Passages by source", "Largest files"):
        assert f"\n{title} " in f"\n{shown}"
    assert re.search(r"\n de +70 +24\.8 kB +4,970 +56\.5 % +█+", shown)
    assert re.search(r"\n 0\.30 to 0\.40 +70 +58\.3 % +█+", shown)
    assert re.search(r"\n lines +0 +0 B +5 documents shortened, 9 lines removed", shown)


def test_stats_as_json(made, capsys):
    found = json.loads(printed(capsys, "stats", made, "--json"))
    assert found["funnel"]["total"]["steps"]["kept"]["documents"] == 118
    assert found["splits"]["train"]["passages"] == 118
    assert found["licences"]["MIT"]["passages"] == 48
    assert found["repeated"]["near_duplicates"]["documents"] == 1


def test_a_bar_is_shown_when_it_takes_long(made, capsys, monkeypatch):
    seen = []

    class Shown:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def update(self, done):
            seen.append(done)

    monkeypatch.setattr("groundup.corpus.stats.progress", lambda *about: Shown())
    printed(capsys, "stats", made)
    assert seen == []
    monkeypatch.setattr("groundup.corpus.stats.PATIENCE", -1.0)
    printed(capsys, "stats", made)
    assert seen == [1, 2, 3]
