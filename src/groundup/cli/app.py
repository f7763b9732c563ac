"""The application, its errors and its exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cyclopts

from groundup import __version__
from groundup.cli import build, corpus, importing, inspect, show, tokenizer, use
from groundup.hardware.waiting import wait_briefly
from groundup.run.errors import GroundupError, Interrupted

app = cyclopts.App(
    name="groundup",
    help="Build a large language model from the ground up.\n\nExample: groundup build",
    version=f"groundup {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=cyclopts.Parameter(negative=()),
    result_action="return_value",
)
for _command in (
    build.build,
    importing.import_,
    use.chat,
    use.translate,
    use.evaluate,
    use.book,
    inspect.verify,
    use.export,
    show.show,
    inspect.runs,
    inspect.recipes,
    inspect.doctor,
    tokenizer.tokenize,
):
    app.command(_command)
app.command(corpus.corpus)
app.command(tokenizer.tokenizer)


def command_line(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Errors are printed to stderr."""
    try:
        app(list(arguments), exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        return _fail(f"{error}\n  try: groundup {_command_name(arguments)}--help", 2)
    except ValueError as error:
        # Imported only now: the recipe's classes take longer to load than --help may.
        from groundup.recipe import RecipeError

        if not isinstance(error, RecipeError):
            raise
        return _fail(str(error), 2)
    except Interrupted as error:
        return _fail(f"{error}; the same command carries on from here", error.exit_code)
    except GroundupError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", Interrupted.exit_code)
    except BrokenPipeError:
        # The reader of our output left, as `head` does; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"the system refused: {error}", 1)
    return 0


def main() -> None:
    """The ``groundup`` command."""
    wait_briefly()
    code = command_line(sys.argv[1:])
    if code == Interrupted.exit_code:
        # A library's thread may be at work still (the corpus engine's): coming back to an interpreter that is ending,
        # it would abort the process. Nothing is lost: what counts is on disk already.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    print(f"groundup: {message}", file=sys.stderr)
    return code


def _command_name(arguments: Sequence[str]) -> str:
    """The command that was meant, with a space, as "corpus stats "; empty where it is none of ours."""
    meant, commands = "", app
    for name in arguments:
        if name.startswith("-") or name not in commands:
            break
        meant, commands = f"{meant}{name} ", commands[name]
    return meant
