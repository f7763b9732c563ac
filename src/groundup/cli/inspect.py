"""Commands that look: verify, runs, recipes, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.cli.output import print_json


def verify(run: Path, /, *, json: bool = False) -> None:
    """Hash every file of a run again and compare with the manifests.

    Example: groundup verify runs/laptop

    Parameters
    ----------
    run
        A run directory.
    json
        Print the report as one JSON object.
    """
    from groundup.build import verify as verify_run
    from groundup.run import GroundupError

    report = verify_run(run)
    if json:
        print_json(
            {
                "ok": not report.problems,
                "stages": list(report.stages),
                "files": report.files,
                "bytes": report.bytes,
                "problems": list(report.problems),
            }
        )
    else:
        print(f"{len(report.stages)} stages, {report.files} files, {report.bytes:,} bytes hashed")
    if report.problems:
        raise GroundupError("the run is not as it was made:\n" + "\n".join(f"  {line}" for line in report.problems))
    if not json:
        print("all as it was made")


def runs(folder: Path = Path("runs"), /, *, json: bool = False) -> None:
    """List the runs in a folder, with the stages that are done.

    Example: groundup runs

    Parameters
    ----------
    folder
        Where to look.
    json
        Print the list as JSON.
    """
    from groundup.build import duration, list_runs
    from groundup.run import UserError

    if not folder.is_dir() and folder != Path("runs"):
        raise UserError(f"no folder {str(folder)!r}", mend="give the folder that holds the runs")
    found = list_runs(folder)
    if json:
        print_json(found)
        return
    if not found:
        print(f"no run in {folder}; groundup build makes one")
        return
    rows = [
        [
            each["path"],
            f"{len(each['done'])}/{len(each['stages'])}",
            duration(each["seconds"]),
            each["updated"][:16],
        ]
        for each in found
    ]
    _table(["run", "stages done", "built in", "last built (UTC)"], rows)


def recipes(*, json: bool = False) -> None:
    """List the built-in recipes.

    Example: groundup recipes

    Parameters
    ----------
    json
        Print names and descriptions as one JSON object.
    """
    from groundup.recipe import builtin_recipes

    found = builtin_recipes()
    if json:
        print_json(found)
    else:
        _table(["recipe", "what it builds"], [[name, about] for name, about in found.items()])


def doctor(*, json: bool = False) -> None:
    """Look at this machine: versions, memory, measured speed of matrix products, and what is usable.

    Example: groundup doctor

    Parameters
    ----------
    json
        Print the findings as one JSON object.
    """
    findings = _findings()
    if json:
        print_json(findings)
        return
    rates = {name: f"{rate:,.0f} GFLOP/s" for name, rate in findings["matrix_gflops"].items()}
    gib = 2**30
    rows = [
        ["system", f"{findings['machine']['system']} {findings['machine']['architecture']}"],
        ["processor", findings["machine"]["processor"]],
        ["cores", f"{findings['physical_cores']} physical, {findings['machine']['logical_cores']} logical"],
        ["memory", f"{findings['usable_memory_bytes'] / gib:.1f} GiB usable"],
        ["disk", f"{findings['free_disk_bytes'] / gib:.1f} GiB free here"],
        ["devices", ", ".join(findings["devices"])],
        ["matrix products", ", ".join(f"{name} {rate}" for name, rate in rates.items())],
        ["precision", f"{findings['chosen']['precision']} would be used"],
        [
            "torch.compile",
            "usable" if findings["chosen"]["compile"] else "not usable: no working C++ compiler",
        ],
        ["versions", ", ".join(f"{name} {number}" for name, number in findings["versions"].items())],
    ]
    _table(["what", "found"], rows)


def _findings() -> dict[str, Any]:
    import shutil

    from groundup import hardware
    from groundup.run import machine, versions

    chosen = hardware.resolve(device="auto", precision="auto", compile="auto", threads="auto")
    return {
        "versions": versions(),
        "machine": machine(),
        "physical_cores": hardware.physical_cores(),
        "usable_memory_bytes": hardware.usable_memory(),
        "free_disk_bytes": shutil.disk_usage(".").free,
        "devices": hardware.usable_devices(),
        "cpp_compiler": hardware.cpp_compiler(),
        "matrix_gflops": dict(chosen.matrix_gflops),
        "chosen": {
            "device": chosen.device,
            "precision": chosen.precision,
            "compile": chosen.compile,
            "threads": chosen.threads,
        },
    }


def _table(header: list[str], rows: list[list[str]]) -> None:
    """Print rows under a header on stdout; whole lines where it is no terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    console.print(table, markup=False)
