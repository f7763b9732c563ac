"""``RUN/run.json``: versions, machine, command, git state, resolved hardware, and the times of each stage."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import groundup
from groundup.hardware import Hardware, Peak, device_name, find_peak, resolve
from groundup.recipe import HardwareSection
from groundup.run import UserError, git_state, machine, now, read_json, versions, write_json

RUN_JSON = "run.json"


class RunRecord:
    """The run's record, written through to the disk at every change."""

    def __init__(self, run: Path) -> None:
        self._path = run / RUN_JSON
        try:
            content = read_json(self._path)
        except FileNotFoundError:
            content = {}
        except ValueError as error:
            raise UserError(
                f"{self._path} is not valid JSON: {error}",
                mend="remove that file; the stages are checked by their manifests",
            ) from None
        self._content: dict[str, Any] = content if isinstance(content, dict) else {}
        self._content.setdefault("created", now())
        self._content.setdefault("stages", {})

    def begin(self, name: str) -> None:
        """Note which code, machine and command build now."""
        self._content |= {
            "name": name,
            "versions": versions(),
            "machine": machine(),
            "command": ["groundup", *sys.argv[1:]],
            "git": git_state(Path(groundup.__file__).parent),
            "updated": now(),
        }
        self._save()

    def settle_hardware(self, section: HardwareSection) -> Hardware:
        """Resolve ``[hardware]`` once for this run: what was settled before stands, and is synced to disk."""
        stored = self._content.get("hardware")
        try:
            hardware = resolve(
                device=section.device,
                precision=section.precision,
                compile=section.compile,
                threads=section.threads,
                stored=stored,
            )
        except ValueError as error:
            raise UserError(str(error), where="[hardware]", mend='set device, or precision, to "auto"') from None
        if hardware.as_dict() != stored:
            self._content["hardware"] = hardware.as_dict()
            self._save()
        return hardware

    def settle_peak(self, hardware: Hardware) -> Hardware:
        """The hardware with the peak that utilisation is a share of: found once for this run, and synced to disk.

        It is found anew where the run goes on elsewhere, or otherwise: it changes no bit of a result.
        """
        asked = {
            "device": device_name(hardware.device),
            "processor": machine()["processor"],
            "precision": hardware.precision,
            "threads": hardware.threads,
        }
        stored = self._content.get("peak")
        if isinstance(stored, dict) and all(stored.get(key) == value for key, value in asked.items()):
            return dataclasses.replace(hardware, peak=Peak(stored["gflops"], stored["source"], stored["device"]))
        peak = find_peak(hardware.device, hardware.precision, threads=hardware.threads)
        if peak is not None:
            self._content["peak"] = {**peak.as_dict(), **asked}
            self._save()
        return dataclasses.replace(hardware, peak=peak)

    def stage(self, name: str) -> dict[str, Any]:
        """What is known of a stage: fingerprint, started, finished, seconds."""
        return dict(self._content["stages"].get(name, {}))

    def stage_begins(self, name: str, fingerprint: str) -> None:
        """Note that a stage of this fingerprint is being made; seconds of an interrupted one are kept."""
        before = self.stage(name)
        spent = before.get("seconds", 0.0) if before.get("fingerprint") == fingerprint else 0.0
        self._content["stages"][name] = {"fingerprint": fingerprint, "started": now(), "seconds": spent}
        self._save()

    def stage_ends(self, name: str, seconds: float, *, done: bool) -> None:
        """Add the seconds just spent on a stage, and when it was done."""
        entry = self._content["stages"][name]
        entry["seconds"] = round(entry["seconds"] + seconds, 3)
        if done:
            entry["finished"] = now()
        self._save()

    def _save(self) -> None:
        self._content["updated"] = now()
        write_json(self._path, self._content)
