"""The command line: thin commands over the rooms.

In come arguments; out go results on stdout, progress and errors on stderr, and an exit code: 0 done,
1 failed, 2 the user's mistake, 3 an expectation missed, 130 interrupted and resumable. A user's mistake gets
a sentence that says what, where and how to mend it, never a traceback. Rooms are imported inside the
commands, so that ``groundup --help`` answers at once.
"""

from groundup.cli.app import app, command_line, main

__all__ = ["app", "command_line", "main"]
