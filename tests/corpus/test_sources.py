"""What the recipe names becomes a fixed list of files, or an error that says what is wrong."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from groundup.corpus.documents import Part
from groundup.corpus.sources import external_files, external_identities, resolve_sources
from groundup.recipe import CorpusSection
from groundup.run import UserError

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software [...]
The above copyright notice and this permission notice shall be included in all copies"""


def section(*sources: Any, **fields: Any) -> CorpusSection:
    return CorpusSection.model_validate({"sources": list(sources), **fields})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("b.txt", "a.jsonl.gz", "deep/c.MD", "deep/d.html", "e.pdf", "f.tar.gz", "noname", ".hidden.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(source: Any, folder: Path) -> list[str]:
    return [str(Path(part.path).relative_to(folder)) for part in source.parts]


def test_the_files_of_a_folder(folder: Path) -> None:
    [source] = resolve_sources(section(str(folder)))
    assert source.parts == (
        Part(f"{folder}/a.jsonl.gz", "jsonl", 10),
        Part(f"{folder}/b.txt", "text", 5),
        Part(f"{folder}/deep/c.MD", "text", 9),
        Part(f"{folder}/deep/d.html", "html", 11),
    )
    assert (source.name, source.index, source.builtin) == (str(folder), 0, None)
    assert Counter(source.skipped) == {".pdf": 1, ".gz": 1, "(no suffix)": 1}


def test_options_choose_files(folder: Path) -> None:
    path = str(folder)
    everything = ["a.jsonl.gz", "b.txt", "deep/c.MD", "deep/d.html", "e.pdf", "f.tar.gz", "noname"]
    by_format, by_end, both, first = resolve_sources(
        section(
            {"path": path, "format": "text"},
            {"path": path, "extensions": [".md", ".TXT", ".pdf"]},
            {"path": path, "extensions": [".pdf"], "format": "html"},
            {"path": path, "files": 2},
        )
    )
    assert names(by_format, folder) == everything
    assert {part.format for part in by_format.parts} == {"text"}
    assert names(by_end, folder) == ["b.txt", "deep/c.MD"]
    assert Counter(by_end.skipped) == {".gz": 2, ".html": 1, ".pdf": 1, "(no suffix)": 1}
    assert [(part.path, part.format) for part in both.parts] == [(f"{path}/e.pdf", "html")]
    assert names(first, folder) == ["a.jsonl.gz", "b.txt"]
    assert [source.name for source in (by_format, by_end, both)] == [path, f"{path} #2", f"{path} #3"]
    [single] = resolve_sources(section({"path": f"{path}/noname", "format": "jsonl"}))
    assert [part.format for part in single.parts] == ["jsonl"]


def test_a_file_is_read_once_whatever_links_lead_to_it(folder: Path) -> None:
    (folder / "again.txt").symlink_to("b.txt")
    (folder / "loop").symlink_to(".")
    (folder / "readable.txt").symlink_to("noname")
    [source] = resolve_sources(section(str(folder)))
    assert names(source, folder) == ["a.jsonl.gz", "b.txt", "deep/c.MD", "deep/d.html", "readable.txt"]
    assert "(symlink loop)" in source.skipped


def test_programs_of_a_repository(tmp_path: Path) -> None:
    for name, text in {
        ".git/HEAD": "x", "LICENSE": MIT, "src/a.py": "a", "src/deep/b.rs": "b", "src/lib/COPYING": "All mine.",
        "src/lib/c.c": "c", "node_modules/d/index.js": "d", "e.min.js": "e", "uv.lock": "f", "README.md": "g",
        "src/big.py": "#" * (10**6 + 1), "src/h_pb2.py": "h", "Makefile": "i", ".github/j.py": "j",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    whole, part, typ, single = resolve_sources(
        section(
            {"path": str(tmp_path), "format": "code"},
            {"path": f"{tmp_path}/src/**", "format": "code"},
            {"path": str(tmp_path), "format": "code", "extensions": [".md"]},
            {"path": f"{tmp_path}/src/h_pb2.py", "format": "code"},
        )
    )
    assert [(Path(each.path).name, each.licence) for each in whole.parts] == [
        ("Makefile", "MIT (LICENSE)"),
        ("a.py", "MIT (LICENSE)"),
        ("b.rs", "MIT (LICENSE)"),
        ("c.c", "unknown (COPYING)"),
    ]
    assert {each.format for each in whole.parts} == {"code"}
    assert Counter(whole.skipped) == {
        "(vendored)": 1, "(minified)": 1, "(lock file)": 1, ".md": 1, "(over 1 MB)": 1, "(generated)": 1,
        "(no suffix)": 2,
    }  # fmt: skip
    assert whole.licences == (f"{tmp_path}/LICENSE", f"{tmp_path}/src/lib/COPYING")
    assert tmp_path / "LICENSE" in external_files(section({"path": str(tmp_path), "format": "code"}))
    assert part.parts == whole.parts[1:]
    assert [Path(each.path).name for each in typ.parts] == ["README.md"]
    assert [(Path(each.path).name, each.licence) for each in single.parts] == [("h_pb2.py", "MIT (LICENSE)")]


def test_every_file_is_a_part_or_counted(real_data: Path) -> None:
    [source] = resolve_sources(section(str(real_data)))
    [code] = resolve_sources(section({"path": str(Path(__file__).parents[2] / "src"), "format": "code"}))
    for found, root in ((source, real_data), (code, Path(__file__).parents[2] / "src")):
        visible = [
            path
            for path in root.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
        ]
        assert len(found.parts) + len(found.skipped) == len(visible)
        assert len(found.parts) > 100
        assert sum(part.bytes for part in found.parts) <= sum(path.stat().st_size for path in visible)
    assert {"text", "jsonl", "warc", "wet", "arc", "html"} <= {part.format for part in source.parts}
    assert {Path(part.path).suffix for part in code.parts} == {".py", ".toml"}


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def test_remote_files_and_programs(memory: Any, folder: Path) -> None:
    files = {"x/a.py": "a", "x/LICENSE": MIT, "x/sub/b.py": "b", "x/sub/COPYING": "Mine.", "y.txt": "y"}
    for name, text in files.items():
        memory.pipe(f"/set/{name}", text.encode())
    chosen = section("memory://set", {"path": "memory://set", "format": "code"}, str(folder / "b.txt"))
    texts, code, local = resolve_sources(chosen)
    assert texts.parts == (Part("memory:///set/y.txt", "text", 1),)
    assert Counter(texts.skipped) == {".py": 2, "(no suffix)": 2}
    assert [(part.path, part.licence) for part in code.parts] == [
        ("memory:///set/x/a.py", "MIT (LICENSE)"),
        ("memory:///set/x/sub/b.py", "unknown (COPYING)"),
    ]
    assert external_files(chosen) == [folder / "b.txt"]
    identities = external_identities(chosen, [texts, code, local])
    assert [(each["path"], each["bytes"]) for each in identities] == [
        ("memory:///set/y.txt", 1), ("memory:///set/x/a.py", 1), ("memory:///set/x/sub/b.py", 1),
        ("memory:///set/x/LICENSE", len(MIT)), ("memory:///set/x/sub/COPYING", 5),
    ]  # fmt: skip
    assert all("last_modified" in each for each in identities)
    assert json.loads(json.dumps(identities)) == identities == external_identities(chosen)
    memory.pipe("/set/y.txt", b"z")
    assert external_identities(chosen) != identities


@pytest.mark.parametrize(
    ("path", "options", "what", "mend"),
    [
        ("nowhere/at/all", {}, "no file or folder at ", "correct the path"),
        ("nothing/*.txt", {}, "nothing to read there (it is empty)", "correct the path"),
        ("empty", {}, "nothing to read there (it is empty)", ""),
        ("pdfs", {}, "nothing to read there (2 .pdf, 1 (no suffix))", 'format = "text"'),
        ("pdfs/1.pdf", {}, "a file of a kind not read here (1 .pdf)", 'format = "text"'),
        ("pdfs", {"format": "code"}, "nothing to read there", "correct the path"),
        ("pdfs", {"format": "text", "extensions": [".txt"]}, "nothing to read there", ""),
        ("builtin:storywrld", {}, "no such built-in text", "did you mean 'builtin:storyworld'?"),
        ("builtin:storyworld", {"files": 3}, "files has no effect: a built-in text has no files", "leave out files"),
        ("builtin:python-docs", {"format": "text"}, "format has no effect", "leave out format"),
        ("s9://bucket", {}, "unknown scheme s9://", ""),
        ("memory://nothing", {}, "nothing is at this address", ""),
    ],
)
def test_errors_name_the_source(tmp_path: Path, path: str, options: dict[str, Any], what: str, mend: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pdfs").mkdir()
    for name in ("1.pdf", "2.PDF", "x"):
        (tmp_path / "pdfs" / name).touch()
    path = path if ":" in path else str(tmp_path / path)
    with pytest.raises(UserError) as caught:
        resolve_sources(section("builtin:storyworld", {"path": path, **options}))
    assert f"{path!r}: {what}" in caught.value.what
    assert mend in (caught.value.mend or "")
    assert (caught.value.where or "").startswith("corpus.sources[1]")


def test_files_outside_the_sources(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "corpus").mkdir(parents=True)
    (run / "corpus" / "manifest.json").write_text("{}")
    for name in ("test.jsonl", "bad.txt", "good/1.txt", "good/2.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    chosen = section(
        str(folder), dedup={"against": [str(run)]}, decontaminate={"files": [str(tmp_path / "test.jsonl")]}
    )  # fmt: skip
    filters = SimpleNamespace(
        bad_words=SimpleNamespace(files=(str(tmp_path / "bad.txt"),)),
        classifier=SimpleNamespace(positive=(f"{tmp_path}/good/*.txt",), negative=(str(run),)),
    )
    chosen = chosen.model_copy(update={"filters": filters})
    own = {folder / name for name in ("a.jsonl.gz", "b.txt", "deep/c.MD", "deep/d.html")}
    others = {tmp_path / name for name in ("test.jsonl", "bad.txt", "good/1.txt", "good/2.txt")}
    files = external_files(chosen)
    assert set(files) == own | others | {run / "corpus" / "manifest.json"}
    assert files == sorted(files, key=bytes)
    assert "argparse.py" in {path.name for path in external_files(section("builtin:python-docs"))}
    assert external_files(section("builtin:storyworld")) == []


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"dedup": {"against": ["nowhere"]}}, "corpus.dedup.against[0]"),
        ({"decontaminate": {"files": ["nowhere"]}}, "corpus.decontaminate.files[0]"),
    ],
)
def test_what_is_missing_outside_the_sources_is_named(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError, match="nowhere") as caught:
        external_files(section("builtin:storyworld", **fields))
    assert caught.value.where == where
