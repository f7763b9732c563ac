"""Files and directories are whole or absent."""

import hashlib
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.run import (
    atomic_path,
    fingerprint,
    read_json,
    remove_leftovers,
    sha256_file,
    staged_directory,
    write_bytes,
    write_json,
    write_text,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_writes_replace_and_leave_nothing_behind(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one\r\n")
    write_text(path, "zwei ü\n")
    assert path.read_bytes() == "zwei ü\n".encode()
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert sha256_file(path) == hashlib.sha256(b"\x00\xff").hexdigest()
    assert os.listdir(path.parent) == ["a.txt"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def die_midway():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        die_midway()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


@given(json_values)
def test_fingerprint_is_that_of_the_value(value):
    assert len(fingerprint(value)) == 64
    assert fingerprint(value) == fingerprint(value)
    assert fingerprint([value]) != fingerprint(value)


def test_fingerprint_ignores_key_order_and_knows_values():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})


def test_staged_directory_replaces_the_old_one_whole(tmp_path):
    final = tmp_path / "stage"
    final.mkdir()
    (final / "old").write_text("old")
    with staged_directory(final) as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "new").write_text("new")
        assert (final / "old").read_text() == "old"
    assert (final / "sub" / "new").read_text() == "new"
    assert not (final / "old").exists()
    assert os.listdir(tmp_path) == ["stage"]


def test_staged_directory_leaves_the_old_one_on_an_error(tmp_path):
    final = tmp_path / "stage"
    final.mkdir()
    (final / "old").write_text("old")

    def stop_midway():
        with staged_directory(final) as staged:
            (staged / "new").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_midway()
    assert os.listdir(tmp_path) == ["stage"]
    assert os.listdir(final) == ["old"]


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom groundup.run import staged_directory\n"
        "with staged_directory(Path(sys.argv[1])) as staged:\n"
        "    (staged / 'half').write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    final = tmp_path / "stage"
    assert subprocess.run([sys.executable, "-c", program, str(final)], check=False).returncode == -9
    assert os.listdir(tmp_path) == [".stage.partial"]
    (tmp_path / ".run.json.partial").write_text("{")
    removed = remove_leftovers(tmp_path)
    assert [path.name for path in removed] == [".run.json.partial", ".stage.partial"]
    assert os.listdir(tmp_path) == []


def test_read_json_round_trip(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, 2.5, None]}
