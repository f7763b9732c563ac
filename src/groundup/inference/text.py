"""Tokens to text as it comes: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of tokens into text that will not have to be taken back.

    A character whose bytes are not all there, and an ending that may be the start of a stop string, are held
    back until the next tokens decide. ``text`` is all that was given out.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        self.stopped = False

    def feed(self, content: bytes, *, last: bool = False) -> str:
        """Add a token's bytes and give the text that is now certain; ``last`` gives all that is held back.

        After a stop string nothing more comes, and ``stopped`` is true.
        """
        if self.stopped:
            return ""
        pending = self._held + self._decoder.decode(content, final=last)
        # The stop string that is complete first wins, so that the size of the pieces makes no difference.
        found = [(pending.find(text) + len(text), pending.find(text)) for text in self._stop if text in pending]
        if found:
            self.stopped = True
            given, self._held = pending[: min(found)[1]], ""
        else:
            cut = len(pending) - (0 if last else self._possible_start(pending))
            given, self._held = pending[:cut], pending[cut:]
        self.text += given
        return given

    def _possible_start(self, pending: str) -> int:
        """Length of the longest ending of ``pending`` that a stop string begins with."""
        longest = 0
        for text in self._stop:
            for size in range(min(len(text) - 1, len(pending)), longest, -1):
                if pending.endswith(text[:size]):
                    longest = size
                    break
        return longest
