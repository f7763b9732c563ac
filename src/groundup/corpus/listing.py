"""Finds the files that a path names: a file, a folder, a glob or an address, here or in a remote store.

The same files give the same list in the same order on every machine: sorted by the bytes of their paths, whatever
order a file system lists them in. Hidden files and folders are left out. Links to folders are followed; each real
folder is visited once, so that loops of links end.
"""

from __future__ import annotations

import glob
import heapq
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from groundup.corpus.readers import FORMATS
from groundup.recipe import nearest
from groundup.run import UserError

READABLE = f"files of {' '.join(FORMATS)}, each plain or .gz .zst .bz2 .xz"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# What gives access to a store, by the scheme of its addresses.
_ACCESS = {
    "file": "give read permission to the path",
    "http": "check the network",
    "https": "check the network",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth login; FSSPEC_GS_TOKEN=anon for a public bucket",
    "hf": "set HF_TOKEN, for a gated or private dataset",
    "memory": "write the file into the memory of this process first",
}
# What an fsspec file system calls the mark of a file's content, in order of preference; and when it was written.
_CHECKSUMS = ("ETag", "etag", "md5Hash", "crc32c", "blob_id", "Content-MD5", "Digest", "checksum")
_TIMES = ("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that was found.

    Args:
        path: where it is, as the recipe's path leads to it.
        bytes: its size as stored; 0 where a server doesn't say.
        real: its real path, where a link leads to it; else "".
        identity: of a remote file, what tells its content from another: {"path", "bytes", "etag", …}.
    """

    path: str
    bytes: int
    real: str = ""
    identity: dict[str, Any] | None = None


@dataclass(frozen=True)
class Listing:
    """The files that a path names, sorted.

    Args:
        root: the folder that they stand below; "" for the working directory.
        named: the path names one file itself, so it is read whatever its name says.
        skipped: kinds of things that are no readable file, as "(broken link)", one entry each.
    """

    root: str
    files: tuple[Listed, ...]
    named: bool = False
    skipped: tuple[str, ...] = ()

    def relative(self, file: Listed) -> str:
        """The path of one of the files below the root."""
        return file.path[len(self.root) :].lstrip("/")


def scheme_of(path: str) -> str:
    """The scheme of an address as `s3://…` in lower case; "" for a local path."""
    found = _SCHEME.match(path)
    return found[1].lower() if found else ""


def name_of(path: str) -> str:
    """The last part of a path or address, without an address's query."""
    return os.path.basename(urlsplit(path).path if scheme_of(path) in ("http", "https") else path)


def by_bytes(path: str) -> bytes:
    """The key by which paths are sorted."""
    return os.fsencode(path)


def bad_source(path: str, where: str, what: str, *, expected: str | None = READABLE, mend: str = "") -> UserError:
    """The error for a path of the recipe that can't be used."""
    mend = mend or "correct the path in the recipe; a relative one starts at the folder the command runs in"
    return UserError(f"corpus source {path!r}: {what}", where=where, expected=expected, mend=mend)


def list_files(path: str, where: str) -> Listing:
    """The files that `path` names; `where` is the key of the recipe that names it, for errors.

    Raises UserError for a path that isn't there, an unknown scheme, a store that can't be reached or refuses access.
    An empty folder or glob gives an empty listing.
    """
    scheme = scheme_of(path)
    if scheme == "file":
        return _list_local(path[len("file://") :], where)
    if not scheme:
        return _list_local(path, where)
    if scheme not in _ACCESS:
        known = [f"{name}://" for name in _ACCESS]
        hint = nearest(f"{scheme}://", known) or ""
        raise bad_source(
            path, where, f"unknown scheme {scheme}://", expected=f"a path, or {', '.join(known)}", mend=hint
        )
    return _list_remote(scheme + path[len(scheme) :], where)


def read_head(path: str, limit: int) -> bytes:
    """The first bytes of a local or remote file, at most `limit`. Raises what opening it raises."""
    if scheme_of(path):
        from fsspec.core import url_to_fs

        fs, name = url_to_fs(path)
        head: bytes = fs.cat_file(name, 0, limit)
        return head[:limit]  # some web servers give the whole whatever they are asked for
    with open(path, "rb") as file:
        return file.read(limit)


def each_once(listing: Listing, files: list[Listed]) -> list[Listed]:
    """The files without those links that lead to a file which is there anyway, or to the same one as another link."""
    if not any(file.real for file in files):
        return files
    top = os.path.realpath(listing.root or ".")
    seen = {os.path.join(top, listing.relative(file)) for file in files if not file.real}
    kept = []
    for file in files:
        if file.real and file.real in seen:
            continue
        seen.add(file.real)
        kept.append(file)
    return kept


def _list_local(pattern: str, where: str) -> Listing:
    path = str(Path(os.path.expanduser(pattern)))
    if os.path.isfile(path):
        return Listing(os.path.dirname(path), (Listed(path, os.path.getsize(path)),), named=True)
    skipped: list[str] = []
    if os.path.isdir(path):
        root = path
        found = {os.path.join(folder, name) for folder, names in _walk(path, skipped) for name in names}
    elif glob.has_magic(path) and "\0" not in path:
        root = _literal(path)
        found = {name for name in _glob(path, skipped) if os.path.isfile(name)}
    else:
        raise bad_source(pattern, where, f"no file or folder at {os.path.abspath(path)}")
    root = "" if root == "." else root
    names = sorted((name.removeprefix("./") for name in found), key=by_bytes)
    return Listing(root, tuple(_listed(names, root, skipped)), skipped=tuple(skipped))


def _listed(names: list[str], root: str, skipped: list[str]) -> Iterator[Listed]:
    """The files with their sizes, and the real path of those that a link leads to."""
    top = os.path.realpath(root or ".")
    folders: dict[str, str] = {}
    for path in names:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder or ".")
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(folders[folder], name)
        direct = os.path.join(top, path[len(root) :].lstrip("/"))
        try:
            yield Listed(path, os.path.getsize(path), "" if real == direct else real)
        except OSError:  # gone since it was listed
            skipped.append("(broken link)")


def _walk(root: str, skipped: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) of a folder and those below it: each real folder once, hidden ones left out.

    Real folders come before those that links lead to, and these in the order of their paths, so that which of
    several ways to a folder is taken doesn't depend on the order of listing. A link to a folder that it stands in
    isn't followed.
    """
    top = os.path.realpath(root)
    pending, linked = [(root, top)], list[tuple[bytes, str, str]]()
    seen: set[str] = set()
    while pending or linked:
        folder, real = pending.pop() if pending else heapq.heappop(linked)[1:]
        if real in seen:
            continue
        seen.add(real)
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    kind = _kind(entry)
                    if kind == "file":
                        names.append(entry.name)
                    elif kind == "folder":
                        pending.append((entry.path, os.path.join(real, entry.name)))
                    elif kind == "link":
                        target = os.path.realpath(entry.path)
                        if _within(real, target) or _within(top, target):
                            skipped.append("(symlink loop)")
                        else:
                            heapq.heappush(linked, (by_bytes(entry.path), entry.path, target))
                    else:
                        skipped.append(kind)
        except OSError:
            skipped.append("(unreadable folder)")
        yield folder, names


def _kind(entry: os.DirEntry[str]) -> str:
    """ "file", "folder", "link" (to a folder), or what else it is."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "link"
    except OSError:
        return "(broken link)"
    return "(broken link)" if entry.is_symlink() else "(special file)"


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _glob(pattern: str, skipped: list[str]) -> Iterator[str]:
    """The paths that match. `**` stands for a folder and all below it; unlike `glob`'s own it survives link loops."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    head = "/".join(parts[:place]) or ("/" if place else ".")
    while parts[place + 1 : place + 2] == ["**"]:
        del parts[place + 1]
    tail = "/".join(parts[place + 1 :])
    for start in glob.glob(head) if glob.has_magic(head) else [head]:
        if os.path.isdir(start):
            for folder, names in _walk(start, skipped):
                if tail:
                    yield from _glob(os.path.join(glob.escape(folder), tail), skipped)
                else:
                    yield from (os.path.join(folder, name) for name in names)


def _literal(pattern: str) -> str:
    """The folder before the first part of a glob that has a wildcard."""
    parts = pattern.split("/")
    place = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:place]) or ("/" if place else ".")


def _list_remote(url: str, where: str) -> Listing:
    scheme = scheme_of(url)
    with explained(url, where):
        from fsspec.core import url_to_fs

        fs, name = url_to_fs(url)
        fs.invalidate_cache()
        try:
            info = fs.info(name)
        except FileNotFoundError as error:
            if scheme in ("http", "https") or not glob.has_magic(name):
                reason = f" ({error.__cause__})" if error.__cause__ else ""
                what, mend = f"nothing is at this address{reason}", f"correct the address; or {_ACCESS[scheme]}"
                raise bad_source(url, where, what, expected=None, mend=mend) from error
            root = _literal(name)
            infos = fs.glob(name, detail=True).values()
        else:
            if info["type"] == "file":
                file = _remote(url, info)
                return Listing(os.path.dirname(file.path), (file,), named=True)
            root = name.rstrip("/")
            infos = fs.find(name, detail=True).values()
        hidden = "/." in name[len(root) :]  # asked for by name
        files, skipped = [], []
        for info in infos:
            relative = info["name"][len(root) :].lstrip("/")
            if info["type"] != "file" or relative.endswith("/") or (not hidden and "/." in f"/{relative}"):
                continue
            if scheme == "hf" and relative == "README.md" and re.fullmatch(r"datasets/[^/]+/[^/]+", root):
                skipped.append("(dataset card)")
                continue
            files.append(_remote(fs.unstrip_protocol(info["name"]), info))
        files.sort(key=lambda file: by_bytes(file.path))
        return Listing(fs.unstrip_protocol(root).rstrip("/"), tuple(files), skipped=tuple(skipped))


@contextmanager
def explained(path: str, where: str) -> Iterator[None]:
    """Turns whatever a remote store raises into a UserError that says what to do about it."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise bad_source(
            path,
            where,
            f"a package that reads it is not installed ({_first_line(error)})",
            expected=None,
            mend="pip install 'groundup[remote]'",
        ) from error
    except Exception as error:  # each store has its own kinds, and all come from what the user named
        raise bad_source(
            path,
            where,
            f"can't be listed: {type(error).__name__}: {_first_line(error)}",
            expected="an address that can be reached, and access to it",
            mend=_ACCESS.get(scheme_of(path), "check the path"),
        ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no more is known")[:300]


def _remote(path: str, info: dict[str, Any]) -> Listed:
    """A remote file from what fsspec tells of it."""
    size = info.get("size")
    identity: dict[str, Any] = {"path": path, "bytes": size}
    checksum = next((info[key] for key in _CHECKSUMS if info.get(key)), None)
    if checksum is None and isinstance(info.get("lfs"), dict):
        checksum = info["lfs"].get("sha256")
    changed = next((info[key] for key in _TIMES if info.get(key)), None)
    if checksum is not None:
        identity["etag"] = str(checksum).strip('"')
    elif changed is not None:
        identity["last_modified"] = changed.isoformat() if hasattr(changed, "isoformat") else str(changed)
    return Listed(path, size or 0, identity=identity)
