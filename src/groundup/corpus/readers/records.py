"""JSON to documents: one object a line (JSON Lines), or objects and arrays of objects in any layout."""

from __future__ import annotations

from typing import Any

from groundup.corpus.documents import Found, Part, Raw, ReaderOptions
from groundup.corpus.readers.common import Readable, refused
from groundup.corpus.readers.formats import is_json_file
from groundup.corpus.readers.json_values import Parsed, Values, holds_lines, parse, read_values
from groundup.corpus.readers.lines import BrokenOffError, read_lines
from groundup.corpus.readers.streams import Utf8Stream, open_stream
from groundup.corpus.text import is_wide, looks_binary

_PEEK = 2**20  # bytes of a .json file that tell its layout


def read_json(part: Part, options: ReaderOptions) -> Found:
    """The objects of a .jsonl (one a line) or .json file (objects and arrays of objects in any layout).

    An object's text is its `text_field`, or it is a chat, with "messages" of "role" and "content". A stretch of a
    plain file gives the objects on the lines that begin in it. Where a file turns out to be
    compressed or in UTF-16, and for .json, the stretch that begins at 0 stands for all of it.
    """
    with open_stream(part.path, options.unpacked_limit) as file:
        at, stop = 0, part.stop
        if file.compressed or is_wide(file.head) or is_json_file(part.path):
            if part.start:
                return
            stop = None
        elif part.start:
            at = part.start - 1  # a line begins at `start` where the byte before it is a newline
            file.seek(at)
        stream = Utf8Stream(file)
        values = _read_lines(stream, part.start > 0, at, stop, part.behind)
        if is_json_file(part.path):
            head = stream.peek(_PEEK)
            if looks_binary(head):
                yield refused("binary_file", part.path, 0, repr(head[:64]))
                return
            if not holds_lines(head):
                values = read_values(stream)
        for number, data, parsed in values:
            if parsed.reason:
                yield refused(parsed.reason, part.path, number, data)
                continue
            found = document(parsed.value, options, part.path, number, stream.encoding or parsed.encoding)
            yield found if isinstance(found, Raw) else refused(found, part.path, number, data)


def _read_lines(stream: Readable, torn: bool, at: int, stop: int | None, behind: int) -> Values:
    """The value on each line that isn't blank. After damage it goes on with the next member of an archive."""
    while True:
        try:
            for number, line in read_lines(stream, number=behind, torn=torn, at=at, stop=stop):
                if line is None:
                    yield number, b"", Parsed(None, "", "line_too_long")
                elif line and not line.isspace():
                    yield number, line, parse(line)
            return
        except BrokenOffError as error:
            behind = error.number
            parsed = parse(error.line)
            if not parsed.reason:
                yield behind, error.line, parsed
            yield behind, str(error).encode(), Parsed(None, "", error.cause.reason)
            if not stream.resume():
                return


def document(value: Any, options: ReaderOptions, file: str, number: int, encoding: str) -> Raw | str:
    """The document in a record, or the reason why it holds none."""
    if not isinstance(value, dict):
        return "no_json_object"
    messages = value.get("messages")
    chat = chat_of(messages) if messages else None
    text = value.get(options.text_field)
    if chat is not None:
        text = "\n".join(message["content"] for message in chat)
    elif not isinstance(text, str):
        if messages:
            return "broken_messages"
        return "text_field_is_no_string" if options.text_field in value else "no_text_field"
    url, language, licence = (
        value.get(options.url_field),
        value.get("language"),
        value.get("licence", value.get("license")),
    )
    return Raw(
        text,
        file,
        number,
        url if isinstance(url, str) else None,
        language if isinstance(language, str) else None,
        licence if isinstance(licence, str) else None,
        chat,
        encoding=encoding,
    )


def chat_of(messages: Any) -> list[dict[str, str]] | None:
    """{"role", "content"} of each message, given as a list or as JSON; None where one of them isn't so made."""
    if isinstance(messages, str):
        messages = parse(messages.encode("utf-8", "surrogatepass")).value
    if not isinstance(messages, list) or not messages:
        return None
    chat = []
    for message in messages:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            return None
        chat.append({"role": role, "content": content})
    return chat
