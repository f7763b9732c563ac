"""Which files a path names: folders, links, globs, remote stores."""

import contextlib
import os
import random
import sys
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus import listing
from groundup.corpus.listing import Listing, each_once, list_files
from groundup.run import UserError


def paths(found: Listing) -> list[str]:
    return [found.relative(file) for file in each_once(found, list(found.files))]


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_folder_is_listed_by_the_bytes_of_its_paths(tmp_path: Path) -> None:
    make(tmp_path, "b.txt", "a/z.txt", "a.txt", "B.txt", "ä.txt", ".hidden", ".git/config", "a/.deep/x.txt", "a b.txt")
    assert paths(list_files(str(tmp_path), "")) == ["B.txt", "a b.txt", "a.txt", "a/z.txt", "b.txt", "ä.txt"]


def test_names_that_are_no_utf8_have_their_place(tmp_path: Path) -> None:
    strange = os.fsdecode(b"\xff.txt")
    make(tmp_path, "\U0001f600.txt", "a.txt")
    try:
        (tmp_path / strange).touch()
    except OSError:
        pytest.skip("a file system that takes UTF-8 names only")
    assert paths(list_files(str(tmp_path), "")) == ["a.txt", "\U0001f600.txt", strange]


def test_sizes_and_paths_are_as_the_recipe_leads_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/one.txt", "data/more/two.txt")
    monkeypatch.chdir(tmp_path)
    assert [(f.path, f.bytes) for f in list_files("data", "").files] == [
        ("data/more/two.txt", 17),
        ("data/one.txt", 12),
    ]
    assert [f.path for f in list_files("./data/one.txt", "").files] == ["data/one.txt"]
    assert [f.path for f in list_files(".", "").files] == ["data/more/two.txt", "data/one.txt"]
    assert [f.path for f in list_files("**/*.txt", "").files] == ["data/more/two.txt", "data/one.txt"]
    assert [f.path for f in list_files("data/*.txt", "").files] == ["data/one.txt"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [f.path for f in list_files("~/data/one.txt", "").files] == [f"{tmp_path}/data/one.txt"]
    assert [f.path for f in list_files(f"file://{tmp_path}/data/one.txt", "").files] == [f"{tmp_path}/data/one.txt"]


def test_loops_of_links_end_with_each_real_file_once(tmp_path: Path) -> None:
    make(tmp_path, "root/a/f.txt", "root/b/g.txt", "outside/h.txt", "outside/deep/i.txt")
    root = tmp_path / "root"
    (root / "self").symlink_to("self")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "all").symlink_to("/")
    (root / "a" / "other").symlink_to("../b")
    (root / "b" / "other").symlink_to("../a")
    (root / "out").symlink_to("../outside")
    (root / "out2").symlink_to("../outside/deep")
    (tmp_path / "outside" / "back").symlink_to("../root")
    (tmp_path / "outside" / "here").symlink_to(".")
    (root / "gone.txt").symlink_to("nowhere.txt")
    (root / "0.txt").symlink_to("a/f.txt")
    (root / "p.txt").symlink_to("../outside/h.txt")
    found = list_files(str(root), "")
    assert paths(found) == ["a/f.txt", "b/g.txt", "out/deep/i.txt", "out/h.txt"]
    assert sorted(found.skipped) == ["(broken link)"] * 2 + ["(symlink loop)"] * 4
    globbed = list_files(f"{root}/**/*.txt", "")
    assert paths(globbed) == paths(found)
    assert paths(list_files(f"{root}/**/other/*.txt", "")) == ["a/other/g.txt", "b/other/f.txt"]


def test_links_into_a_cache_keep_their_names(tmp_path: Path) -> None:
    """Where only the links have names that say what the files are, the links are what is read."""
    make(tmp_path, "blobs/0123", "blobs/4567")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "a.txt").symlink_to("../blobs/0123")
    (tmp_path / "snapshot" / "b.txt").symlink_to("../blobs/0123")
    found = list_files(str(tmp_path), "")
    named = [file for file in found.files if file.path.endswith(".txt")]
    assert [found.relative(file) for file in each_once(found, named)] == ["snapshot/a.txt"]
    assert paths(found) == ["blobs/0123", "blobs/4567"]


def test_unreadable_folders_and_special_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/x.txt", "closed/y.txt", "b/z.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    scandir = os.scandir

    def closed(path: Any = ".") -> Any:
        if str(path).endswith("closed"):  # the tests may run as root, to whom nothing is closed
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = list_files(str(tmp_path), "")
    assert paths(found) == ["a/x.txt", "b/z.txt"]
    assert sorted(found.skipped) == ["(special file)", "(unreadable folder)"]


NAMES = st.sampled_from(["a", "b", "c.txt", "d", ".h", "ö"])
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4), min_size=1, max_size=12)
LINKS = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, max_size=3)), max_size=5)


@settings(max_examples=40)
@given(TREES, LINKS, st.integers(0, 2**32))
def test_the_order_of_directories_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, tree: list[list[str]], links: list[Any], seed: int
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for parts in tree:
        with contextlib.suppress(OSError):  # a file where a folder is wanted
            make(root, "/".join(parts))
    for name, target in links:
        with contextlib.suppress(OSError):
            root.joinpath(*name).parent.mkdir(parents=True, exist_ok=True)
            root.joinpath(*name).symlink_to(root.joinpath(*target))
    order = random.Random(seed)
    scandir = os.scandir

    @contextlib.contextmanager
    def shuffled(path: Any = ".") -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            found = list(entries)
        order.shuffle(found)
        yield iter(found)

    lists = []
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "scandir", shuffled)
            found, globbed = list_files(str(root), ""), list_files(f"{root}/**", "")
        lists.append((found.files, sorted(found.skipped)))
        assert globbed.files == found.files
    assert lists[0] == lists[1] == lists[2]
    chosen = each_once(found, list(found.files))
    real = [os.path.realpath(file.path) for file in chosen]
    assert len(set(real)) == len(real)
    assert {os.path.realpath(root / path) for path in _reachable(root)} == set(real)


def _reachable(root: Path) -> Iterator[str]:
    """Every file that visible names lead to, by a walk that keeps a whole path's real folders to end its loops."""

    def visit(folder: str, above: frozenset[str]) -> Iterator[str]:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name.startswith("."):
                continue
            if os.path.isfile(path):
                yield path
            elif os.path.isdir(path) and (real := os.path.realpath(path)) not in above:
                yield from visit(path, above | {real})

    yield from visit(str(root), frozenset([os.path.realpath(root)]))


def test_globs(tmp_path: Path) -> None:
    make(tmp_path, "a/1.txt", "a/b/2.txt", "a/b/c/3.txt", "a/b/c/3.md", "[x]/4.txt", "a/.h/5.txt", "y/.6.txt")
    (tmp_path / "a.txt").mkdir()

    def found(pattern: str) -> list[str]:
        return [os.path.relpath(file.path, tmp_path) for file in list_files(f"{tmp_path}/{pattern}", "").files]

    assert found("**/*.txt") == ["[x]/4.txt", "a/1.txt", "a/b/2.txt", "a/b/c/3.txt"]
    assert found("**") == ["[x]/4.txt", "a/1.txt", "a/b/2.txt", "a/b/c/3.md", "a/b/c/3.txt"]
    assert found("a/**/c/**/**/*.txt") == ["a/b/c/3.txt"]
    assert found("**/b/**/*.md") == ["a/b/c/3.md"]
    assert found("?/[bx]/*") == ["a/b/2.txt"]
    assert found("[[]x]/*.txt") == ["[x]/4.txt"]
    assert found("*") == []
    assert found("a/.h/*") == ["a/.h/5.txt"]
    assert found("y/.*") == ["y/.6.txt"]
    assert found("[x]/4.txt") == ["[x]/4.txt"]  # a file of this very name


@pytest.mark.parametrize(
    ("path", "what", "mend"),
    [
        ("nowhere/at/all", "no file or folder at /", "correct the path"),
        ("nothing\0/*.txt", "no file or folder at /", "correct the path"),
        ("~nobody-of-this-name/x", "no file or folder at /", "correct the path"),
        ("s4://bucket/key", "unknown scheme s4://", "did you mean 's3://'?"),
        ("ftp://host/file", "unknown scheme ftp://", ""),
        ("memory://nothing-there", "nothing is at this address", "write the file"),
        ("s3://bucket/key", "a package that reads it is not installed", "pip install 'groundup[remote]'"),
        ("gs://bucket/key", "a package that reads it is not installed", "pip install 'groundup[remote]'"),
        ("hf://datasets/a/b", "a package that reads it is not installed", "pip install 'groundup[remote]'"),
        ("https://example.org/a.txt", "a package that reads it is not installed", "pip install 'groundup[remote]'"),
    ],
)
def test_errors_say_what_to_do(path: str, what: str, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs", "huggingface_hub", "aiohttp", "fsspec.implementations.http"):
        monkeypatch.setitem(sys.modules, package, None)
    for scheme in ("s3", "gs", "hf", "https"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(UserError) as caught:
        list_files(path, "corpus.sources[3]")
    assert f"{path!r}: {what}" in caught.value.what
    assert mend in (caught.value.mend or "")
    assert caught.value.where == "corpus.sources[3]"


class _Refusing(MemoryFileSystem):
    """A store that refuses access as real ones do, by errors of their own."""

    cachable = False

    def info(self, path: str, **options: Any) -> Any:
        raise RuntimeError("Unable to locate credentials\nand much more")


def test_a_store_that_refuses_access_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (_Refusing(), url))
    with pytest.raises(UserError) as caught:
        list_files("s3://bucket/key", "corpus.sources[0]")
    assert "RuntimeError: Unable to locate credentials" in caught.value.what
    assert "much more" not in caught.value.what
    assert "AWS_ACCESS_KEY_ID" in (caught.value.mend or "")


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def test_a_remote_store_is_listed_like_a_folder(memory: Any) -> None:
    for name in ("set/b.txt", "set/a/z.txt", "set/.hidden/x.txt", "set/.y.txt", "set/a.txt", "settle/c.txt"):
        memory.pipe(f"/{name}", name.encode())
    found = list_files("memory://set", "")
    assert [file.path for file in found.files] == [
        "memory:///set/a.txt",
        "memory:///set/a/z.txt",
        "memory:///set/b.txt",
    ]
    assert paths(found) == ["a.txt", "a/z.txt", "b.txt"]
    assert [file.bytes for file in found.files] == [9, 11, 9]
    assert list_files("memory://set/", "").files == found.files
    assert paths(list_files("memory://set/**/*.txt", "")) == ["a.txt", "a/z.txt", "b.txt"]
    assert paths(list_files("memory://set/*.txt", "")) == ["a.txt", "b.txt"]
    assert paths(list_files("memory://set/.hidden/*", "")) == ["x.txt"]
    single = list_files("memory://set/b.txt", "")
    assert single.named
    assert [(file.path, file.bytes) for file in single.files] == [("memory://set/b.txt", 9)]
    assert not list_files("memory://set/*.pdf", "").files


def test_what_identifies_a_remote_file_changes_with_it(memory: Any) -> None:
    memory.pipe("/set/b.txt", b"one")
    [first] = list_files("memory://set/b.txt", "").files
    assert first.identity is not None
    assert first.identity["path"] == "memory://set/b.txt"
    assert first.identity["bytes"] == 3
    datetime.fromisoformat(first.identity["last_modified"])
    assert list_files("memory://set/b.txt", "").files == (first,)
    memory.pipe("/set/b.txt", b"two")
    assert list_files("memory://set/b.txt", "").files != (first,)


@pytest.mark.parametrize(
    ("info", "mark"),
    [
        ({"ETag": '"ab"', "LastModified": datetime(2026, 1, 2)}, {"etag": "ab"}),
        ({"LastModified": datetime(2026, 1, 2)}, {"last_modified": "2026-01-02T00:00:00"}),
        ({"md5Hash": "q==", "updated": "2026-01-02"}, {"etag": "q=="}),
        ({"blob_id": "f00", "lfs": {"sha256": "ba"}}, {"etag": "f00"}),
        ({"blob_id": None, "lfs": {"sha256": "ba"}}, {"etag": "ba"}),
        ({"Last-Modified": "Fri, 02 Jan 2026 00:00:00 GMT"}, {"last_modified": "Fri, 02 Jan 2026 00:00:00 GMT"}),
        ({}, {}),
    ],
)
def test_marks_of_the_stores(info: dict[str, Any], mark: dict[str, str]) -> None:
    """As s3fs, gcsfs, huggingface_hub and plain servers give them."""
    file = listing._remote("s3://b/k", info | {"size": 7})
    assert file.identity == {"path": "s3://b/k", "bytes": 7} | mark


def test_a_dataset_card_is_no_text(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    for name in ("README.md", "data/README.md", ".gitattributes"):
        memory.pipe(f"/datasets/a/b/{name}", b"x")

    class Hub(MemoryFileSystem):
        protocol = "hf"
        root_marker = ""
        cachable = False

        def find(self, path: str, **options: Any) -> Any:
            return {key.lstrip("/"): _without_slash(value) for key, value in memory.find(f"/{path}", **options).items()}

    def _without_slash(info: dict[str, Any]) -> dict[str, Any]:
        return info | {"name": info["name"].lstrip("/")}

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Hub(), url.removeprefix("hf://")))
    found = list_files("hf://datasets/a/b", "")
    assert [file.path for file in found.files] == ["hf://datasets/a/b/data/README.md"]
    assert found.skipped == ("(dataset card)",)


@pytest.mark.slow
def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:02d}").mkdir()
        for each in range(1000):
            (tmp_path / f"{number:02d}" / f"{each:03d}.txt").touch()
    tracemalloc.start()
    found = list_files(str(tmp_path), "")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.files) == 100_000
    assert peak < 100_000 * 600
