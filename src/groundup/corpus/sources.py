"""What `corpus.sources` names, resolved to a fixed list of files; and all else that the corpus is made from.

The parts: `listing` finds files here and in remote stores, `crawl` those of Common Crawl, `repositories` chooses
programs, `builtin` holds the texts that come along. `units` divides the outcome into work.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.corpus import listing
from groundup.corpus.builtin import BUILTIN, BUILTINS
from groundup.corpus.crawl import COMMONCRAWL, list_crawl
from groundup.corpus.documents import Part
from groundup.corpus.listing import Listed, Listing, bad_source
from groundup.corpus.python_docs import library_files
from groundup.corpus.readers import format_of
from groundup.corpus.repositories import Licences, kind_of, left_out, local_licences
from groundup.recipe import CorpusSection, SourceTable, nearest
from groundup.run import UserError

_FILE_FIELDS = ("format", "extensions", "files", "text_field", "url_field")  # options that only files have


@dataclass(frozen=True)
class Source:
    """One item of `corpus.sources`, checked.

    Args:
        name: in every report; no two sources have the same.
        table: its options.
        index: its number in the recipe from 0.
        parts: its files in their order; none where it is built in.
        skipped: kinds of files that were found and aren't read, as ".pdf" or "(vendored)", one entry each.
        identities: what tells the content of its remote files, see `external_identities`.
        licences: the local files in which the licences of its programs stand.
    """

    name: str
    table: SourceTable
    index: int
    parts: tuple[Part, ...] = ()
    skipped: tuple[str, ...] = ()
    identities: tuple[dict[str, Any], ...] = ()
    licences: tuple[str, ...] = ()

    @property
    def builtin(self) -> str | None:
        """The name of the built-in text that it is, as "builtin:storyworld"; else None."""
        return self.table.path if self.table.path.startswith(BUILTIN) else None


def resolve_sources(section: CorpusSection) -> list[Source]:
    """Every source of the recipe with its files, in the order of the recipe.

    Raises UserError for an unknown built-in, crawl or scheme, a path that isn't there, a store that can't be read, and
    a folder or glob with nothing to read.
    """
    sources: list[Source] = []
    names: set[str] = set()
    for index, item in enumerate(section.sources):
        table = SourceTable(path=item) if isinstance(item, str) else item
        name = table.path if table.path not in names else f"{table.path} #{index + 1}"
        names.add(name)
        where = f"corpus.sources[{index}]"
        if table.path.startswith(BUILTIN):
            _check_builtin(table, where)
            sources.append(Source(name, table, index))
        elif table.path.startswith(COMMONCRAWL):
            sources.append(_crawl(Source(name, table, index), where))
        else:
            sources.append(_files(Source(name, table, index), where))
    return sources


def external_files(section: CorpusSection, sources: list[Source] | None = None) -> list[Path]:
    """The local files whose content the corpus is made from, for the stage's fingerprint; sorted, each once.

    Besides the sources' own and the licences of their programs: the manifests of the runs in `dedup.against`, the
    tests in `decontaminate.files`, the examples of the quality classifier and the lists of bad words.

    Args:
        sources: what `resolve_sources` gave for the section, where it is at hand.

    Raises UserError for a file that isn't there.
    """
    files: set[str] = set()
    for source in resolve_sources(section) if sources is None else sources:
        if not source.identities:
            files.update(part.path for part in source.parts)
            files.update(source.licences)
        if source.builtin == BUILTIN + "python-docs":
            files.update(map(str, library_files()))
    for where, path in _named(section.dedup, "against", "corpus.dedup"):
        files.add(_manifest(path, where))
    for where, path in _named(section.decontaminate, "files", "corpus.decontaminate"):
        files.add(_file(path, where))
    for where, path in _named(getattr(section.filters, "bad_words", None), "files", "corpus.filters.bad_words"):
        files.add(_file(path, where))
    classifier = getattr(section.filters, "classifier", None)
    for side in ("positive", "negative"):
        for where, path in _named(classifier, side, "corpus.filters.classifier"):
            files.update(_examples(path, where))
    return [Path(file) for file in sorted(files, key=listing.by_bytes)]


def external_identities(section: CorpusSection, sources: list[Source] | None = None) -> list[dict[str, Any]]:
    """What tells the content of the remote files, for the stage's fingerprint; in the order of the sources.

    Each is {"path", "bytes", and "etag" (the store's own mark of the content) or "last_modified"}, as far as the store
    says. A file of Common Crawl never changes: its "path" within the crawl is all.
    """
    found = resolve_sources(section) if sources is None else sources
    return [identity for source in found for identity in source.identities]


def _check_builtin(table: SourceTable, where: str) -> None:
    if table.path not in BUILTINS:
        hint = nearest(table.path, BUILTINS) or ""
        raise bad_source(table.path, where, "no such built-in text", expected=", ".join(BUILTINS), mend=hint)
    _refuse_fields(table, _FILE_FIELDS, where, "a built-in text has no files")


def _refuse_fields(table: SourceTable, fields: Iterable[str], where: str, why: str) -> None:
    """Raises UserError where the table sets an option that could have no effect."""
    for field in fields:
        if getattr(table, field) != SourceTable.model_fields[field].default:
            raise bad_source(
                table.path,
                f"{where}.{field}",
                f"{field} has no effect: {why}",
                expected=None,
                mend=f"leave out {field}",
            )


def _crawl(source: Source, where: str) -> Source:
    """The source with its parts."""
    table = source.table
    kind, files = list_crawl(table.path, table.files, where)
    if table.format not in ("auto", kind):
        raise bad_source(
            table.path,
            f"{where}.format",
            f"these archives are of format {kind!r}, not {table.format!r}",
            expected=None,
            mend=f"leave out format; {COMMONCRAWL}NAME/wet is a crawl's texts, {COMMONCRAWL}NAME its pages",
        )
    _refuse_fields(table, ("extensions",), where, "all archives of a crawl end alike")
    parts = tuple(Part(file.path, kind, file.bytes) for file in files)
    return replace(source, parts=parts, identities=_identities(files))


def _files(source: Source, where: str) -> Source:
    """The source with its parts. Raises UserError where there is none."""
    table = source.table
    found = listing.list_files(table.path, where)
    skipped = list(found.skipped)
    formats: dict[str, str] = {}
    for file in found.files:
        kind, reason = _judge(file, found, table)
        if kind is None:
            skipped.append(reason)
        else:
            formats[file.path] = kind
    chosen = listing.each_once(found, [file for file in found.files if file.path in formats])[: table.files]
    if not chosen:
        raise _nothing(table, found, skipped, where)
    parts = tuple(Part(file.path, formats[file.path], file.bytes) for file in chosen)
    source = replace(source, parts=parts, skipped=tuple(sorted(skipped)), identities=_identities(chosen))
    return _with_licences(source, found, where) if table.format == "code" else source


def _with_licences(source: Source, found: Listing, where: str) -> Source:
    """The source with the licence of each program, and the files that say so among those that make the corpus."""
    remote = bool(source.identities)
    with listing.explained(source.table.path, where):
        if remote:
            folders: dict[str, list[str]] = {}
            for file in found.files:
                folder, name = os.path.split(file.path)
                folders.setdefault(folder, []).append(name)
            licences = Licences(found.root, lambda folder: folders.get(folder, []), listing.read_head)
        else:
            licences = local_licences(found.root)
        parts = tuple(
            replace(part, licence=licences.of(part.path if remote else os.path.abspath(part.path)))
            for part in source.parts
        )
    if remote:
        said = _identities([file for file in found.files if file.path in licences.files])
        return replace(source, parts=parts, identities=source.identities + said)
    return replace(source, parts=parts, licences=tuple(sorted(licences.files)))


def _identities(files: Iterable[Listed]) -> tuple[dict[str, Any], ...]:
    return tuple(file.identity for file in files if file.identity)


def _judge(file: Listed, found: Listing, table: SourceTable) -> tuple[str | None, str]:
    """(the format in which a file is read, "") or (None, the kind as which it is skipped)."""
    name = listing.name_of(file.path)
    if table.format == "code" and not found.named:
        reason = left_out(found.relative(file), file.bytes, table.extensions)
        return ("code", "") if reason is None else (None, reason)
    if table.extensions and not name.lower().endswith(tuple(suffix.lower() for suffix in table.extensions)):
        return None, kind_of(name)
    kind = format_of(name) if table.format == "auto" else table.format
    return (kind, "") if kind else (None, kind_of(name))


def _nothing(table: SourceTable, found: Listing, skipped: list[str], where: str) -> UserError:
    """The error for a source without a file to read."""
    what = "a file of a kind not read here" if found.named else "nothing to read there"
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(skipped).most_common(5))
    return bad_source(
        table.path,
        where,
        f"{what} ({kinds or 'it is empty'})",
        mend='correct the path; format = "text" takes files of any name as text' if table.format == "auto" else "",
    )


def _named(section: Any, field: str, where: str) -> Iterator[tuple[str, str]]:
    """(key, path) of each path in a list of the recipe; none where the section is absent."""
    for number, path in enumerate(getattr(section, field, ())):
        yield f"{where}.{field}[{number}]", path


def _file(path: str, where: str) -> str:
    found = str(Path(os.path.expanduser(path)))
    if not os.path.isfile(found):
        raise UserError(f"no file {path!r}", where=where, expected="a file", mend="correct the path in the recipe")
    return found


def _manifest(path: str, where: str) -> str:
    """The manifest of a run's finished corpus: it lists the checksum of every file, so it stands for all of them."""
    found = _manifest_path(path)
    if not found.is_file():
        raise UserError(
            f"no finished corpus in {path!r}",
            where=where,
            expected=f"the folder of a run, with {found}",
            mend="build that run's corpus first, or correct the path",
        )
    return str(found)


def _manifest_path(path: str) -> Path:
    return Path(os.path.expanduser(path), "corpus", "manifest.json")


def _examples(path: str, where: str) -> list[str]:
    """The files of examples that a path, glob or run names."""
    if _manifest_path(path).is_file():
        return [_manifest(path, where)]
    files = [file.path for file in listing.list_files(path, where).files]
    if not files:
        raise UserError(f"no files at {path!r}", where=where, expected="files, or a run", mend="correct the path")
    return files
