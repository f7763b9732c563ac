"""The run directory: whatever a build writes, and the errors, progress and statistics every room shares.

In come the bytes a stage makes; out go files and directories that are whole or absent, each stage with a
manifest that says what it was made from and lists the checksum of every file. This room promises:

* a file or staged directory appears by one rename, after its content is on the disk (``atomic``);
* equal values have equal fingerprints, and ``verify_directory`` finds any changed byte (``manifest``);
* one process at a time writes to a run, and a killed one leaves no lock (``lock``);
* an error says what, where, what was expected and how to mend it, and carries its exit code (``errors``);
* progress is on stderr only; every score has its interval (``progress``, ``statistics``).
"""

from groundup.run.atomic import (
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
from groundup.run.errors import ExpectationMissed, GroundupError, Interrupted, UserError
from groundup.run.lock import run_lock
from groundup.run.manifest import Manifest, now, read_manifest, verify_directory, write_manifest
from groundup.run.progress import Bar, human, log, progress
from groundup.run.provenance import git_state, machine, memory_bytes, processor_name, versions
from groundup.run.statistics import Interval, bootstrap_ratio, paired_bootstrap, wilson

__all__ = [
    "Bar",
    "ExpectationMissed",
    "GroundupError",
    "Interrupted",
    "Interval",
    "Manifest",
    "UserError",
    "atomic_path",
    "bootstrap_ratio",
    "fingerprint",
    "git_state",
    "human",
    "log",
    "machine",
    "memory_bytes",
    "now",
    "paired_bootstrap",
    "processor_name",
    "progress",
    "read_json",
    "read_manifest",
    "remove_leftovers",
    "run_lock",
    "sha256_file",
    "staged_directory",
    "verify_directory",
    "versions",
    "wilson",
    "write_bytes",
    "write_json",
    "write_manifest",
    "write_text",
]
