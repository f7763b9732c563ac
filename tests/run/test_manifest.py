"""Manifests find every changed byte; the lock keeps a second process out; errors explain themselves."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.run import (
    ExpectationMissed,
    GroundupError,
    Interrupted,
    UserError,
    git_state,
    machine,
    now,
    read_manifest,
    run_lock,
    verify_directory,
    versions,
    write_manifest,
)

FILES = st.dictionaries(
    st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5})?\.bin", fullmatch=True), st.binary(max_size=64), max_size=5
)


def _write(directory: Path, **changes):
    values = {
        "stage": "corpus",
        "kind": "corpus",
        "fingerprint": "f" * 64,
        "inputs": {},
        "metrics": {"documents": 3},
        "started": now(),
    }
    return write_manifest(directory, **(values | changes))


@settings(max_examples=30, deadline=None)
@given(FILES)
def test_manifest_round_trip_and_verification(files):
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for name, content in files.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(content)
        manifest = _write(directory, inputs={"a": "1"})
        assert read_manifest(directory) == manifest
        assert {name: entry["bytes"] for name, entry in manifest.files.items()} == {
            name: len(content) for name, content in files.items()
        }
        assert verify_directory(directory) == []
        for name, content in files.items():
            (directory / name).write_bytes(content + b"x")
            assert len(verify_directory(directory)) == 1
            (directory / name).write_bytes(content)


def test_verification_names_the_problem(tmp_path):
    directory = tmp_path / "corpus"
    directory.mkdir()
    for name in "abc":
        (directory / name).write_bytes(b"1234")
    _write(directory)
    (directory / "a").write_bytes(b"1235")
    (directory / "b").write_bytes(b"12345")
    (directory / "c").unlink()
    assert verify_directory(directory) == [
        "corpus/a: content differs from its checksum",
        "corpus/b: 5 bytes, the manifest says 4",
        "corpus/c: missing",
    ]


def test_excluded_files_are_no_part(tmp_path):
    (tmp_path / "checkpoints" / "step-1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-1" / "w").write_bytes(b"1")
    (tmp_path / "final").write_bytes(b"2")
    assert list(_write(tmp_path, exclude=("checkpoints/*",)).files) == ["final"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "corpus"}'])
def test_what_is_no_manifest_is_none(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    assert read_manifest(tmp_path) is None
    assert verify_directory(tmp_path) == [f"{tmp_path.name}: no readable manifest.json"]


def test_no_directory_has_no_manifest(tmp_path):
    assert read_manifest(tmp_path / "nowhere") is None


def test_lock_keeps_a_second_process_out_and_ends_with_its_holder(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom groundup.run import UserError, run_lock\n"
        "try:\n    with run_lock(Path(sys.argv[1])):\n        print('got it')\n"
        "except UserError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    with run_lock(tmp_path / "run"):
        refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert refused.startswith("another process is building in")
    assert "build elsewhere with --out" in refused
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "got it\n"


def test_errors_say_what_where_and_how_and_carry_their_exit_code():
    error = UserError("no file 'a'", where="corpus.sources[0]", expected="a path", mend="check it")
    assert str(error) == "no file 'a'\n  where: corpus.sources[0]\n  expected: a path\n  try: check it"
    codes = [kind.exit_code for kind in (GroundupError, UserError, ExpectationMissed, Interrupted)]
    assert codes == [1, 2, 3, 130]
    assert str(UserError("only this")) == "only this"


def test_provenance(tmp_path):
    assert versions()["python"].split(".")[0] == "3"
    assert {"groundup", "torch"} <= versions().keys()
    assert machine()["logical_cores"] >= 1
    assert machine()["memory_bytes"] > 2**28
    assert git_state(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a").write_text("1")
    for rest in (["init", "-q"], ["add", "a"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *rest], check=True)
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["changed"] is False
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["changed"] is True
