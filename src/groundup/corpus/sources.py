"""What `corpus.sources` names: built-in texts, files, folders and globs, resolved to their readers."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from groundup import storyworld
from groundup.corpus.funnel import SourceFunnel
from groundup.corpus.python_docs import library_files, read_python_docs
from groundup.corpus.readers import FORMATS, Raw, file_format, read_file
from groundup.recipe import CorpusSection, SourceTable
from groundup.run import UserError

BUILTIN = "builtin:"
STORYWORLD_DOCUMENTS = 20_000  # where the recipe sets no number: the simulator itself never ends
FIRST_CHAT = 10**9  # far behind the conversations that fine-tuning counts from 0
CARELESS = 0.5  # share of the corpus's chats that over-claim or take the wrong tone, where they could
BUILTINS = tuple(BUILTIN + name for name in ("storyworld", "storyworld-chats", "python-docs"))
_EXPECTED = "files of " + ", ".join(f"{name}[.gz]" for name in FORMATS)


@dataclass(frozen=True)
class Source:
    """One item of `corpus.sources`, checked: its table, its name in every report, and its files in order."""

    name: str
    table: SourceTable
    files: tuple[Path, ...] = ()
    skipped: tuple[str, ...] = ()  # suffixes of the files in a folder that this room does not read

    def funnel(self) -> SourceFunnel:
        """An empty funnel for this source."""
        funnel = SourceFunnel(self.name, self.table.weight, self.table.epochs)
        funnel.skipped_files.update(self.skipped)
        return funnel

    def read(self, seed: int, funnel: SourceFunnel) -> Iterator[Raw]:
        """The source's raw documents in their fixed order, at most `documents` of them."""
        return islice(self._read(seed, funnel), self.table.documents)

    def _read(self, seed: int, funnel: SourceFunnel) -> Iterator[Raw]:
        if self.table.path == BUILTIN + "storyworld":
            count = self.table.documents or STORYWORLD_DOCUMENTS
            for number, text in enumerate(storyworld.documents(seed, count)):
                yield Raw(text, line=number + 1, language="en")
        elif self.table.path == BUILTIN + "storyworld-chats":
            count = self.table.documents or STORYWORLD_DOCUMENTS
            chats = storyworld.conversations(seed, count, first=FIRST_CHAT, overclaiming=CARELESS, wrong_tone=CARELESS)
            for number, chat in enumerate(chats):
                text = "\n".join(message["content"] for message in chat)
                yield Raw(text, line=number + 1, language="en", messages=chat)
        elif self.table.path == BUILTIN + "python-docs":
            yield from read_python_docs(funnel)
        for path in self.files:
            yield from read_file(path, funnel, self.table.text_field)


def resolve_sources(section: CorpusSection) -> list[Source]:
    """Every source of the recipe with its files.

    Raises UserError for an unknown built-in, a path that isn't there, a folder or glob with nothing to read.
    """
    sources: list[Source] = []
    names: set[str] = set()
    for number, item in enumerate(section.sources):
        table = SourceTable(path=item) if isinstance(item, str) else item
        name = table.path if table.path not in names else f"{table.path} #{number + 1}"
        names.add(name)
        if table.path.startswith(BUILTIN):
            if table.path not in BUILTINS:
                raise _missing(table.path, number, "no such built-in text", ", ".join(BUILTINS))
            sources.append(Source(name, table))
        else:
            files, skipped = _find(table.path, number)
            sources.append(Source(name, table, files, skipped))
    return sources


def external_files(section: CorpusSection) -> list[Path]:
    """The files whose content the corpus is made from, for the stage's fingerprint; sorted, each once."""
    files: set[Path] = set()
    for source in resolve_sources(section):
        files.update(source.files)
        if source.table.path == BUILTIN + "python-docs":
            files.update(library_files())
    return sorted(files)


def _find(pattern: str, number: int) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The readable files of a path or glob in sorted order, and the suffixes of the others."""
    path = Path(pattern).expanduser()
    if path.is_file():
        if file_format(path) is None:
            raise _missing(pattern, number, f"{path} is a file of a kind not read here", _EXPECTED)
        return (path,), ()
    if path.is_dir():
        found = [file for file in path.rglob("*") if not _hidden(file.relative_to(path)) and file.is_file()]
        looked = f"the folder {path.resolve()} and those below it"
    else:
        if not glob.has_magic(pattern):
            raise _missing(pattern, number, f"no file or folder at {path.absolute()}", _EXPECTED)
        found = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]
        looked = f"the pattern {path.absolute()}"
    files = tuple(sorted(file for file in found if file_format(file)))
    if not files:
        raise _missing(pattern, number, f"nothing to read in {looked} ({len(found)} files of other kinds)", _EXPECTED)
    return files, tuple(sorted(file.suffix.lower() or "(none)" for file in found if not file_format(file)))


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _missing(path: str, number: int, what: str, expected: str) -> UserError:
    return UserError(
        f"corpus source {path!r}: {what}",
        where=f"corpus.sources[{number}]",
        expected=expected,
        mend="correct the path in the recipe; a relative one starts at the folder the command runs in",
    )
