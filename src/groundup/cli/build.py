"""``groundup build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from groundup.cli.output import print_json

if TYPE_CHECKING:
    from groundup.build import BuildReport, Outcome


def build(
    recipe: str = "laptop",
    /,
    *,
    out: Path | None = None,
    only: tuple[str, ...] = (),
    until: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    fresh: bool = False,
    json: bool = False,
) -> None:
    """Build a recipe: every stage that isn't done yet. Stop it at will; the same command carries on.

    Example: groundup build laptop --set pretrain.minutes=2 --until evaluate

    Parameters
    ----------
    recipe
        A built-in name (see groundup recipes) or a TOML file.
    out
        The run directory; runs/NAME where not given.
    only
        Build just this stage; may be given several times.
    until
        Build the stages up to and with this one.
    set_
        Change a value of the recipe, as pretrain.steps=200; may be given several times.
    fresh
        Remove the stages first and build them anew.
    json
        Print the result as one JSON object.
    """
    from groundup.build import build as build_recipe
    from groundup.build import check_expectations, choose_stages
    from groundup.recipe import load_recipe
    from groundup.run import ExpectationMissed

    loaded = load_recipe(recipe, set_)
    run = out if out is not None else Path("runs") / loaded.run.name
    report = build_recipe(loaded, run, only=only, until=until, fresh=fresh)
    chosen = choose_stages(loaded, only, until)
    evaluated = any(stage.kind == "evaluate" for stage in chosen)
    translated = [stage.name for stage in chosen if stage.kind == "seq2seq"]
    outcomes = [each for each in check_expectations(loaded, run) if evaluated or each.expectation.model in translated]
    missed = [outcome for outcome in outcomes if not outcome.met]
    if json:
        print_json(_as_json(report, outcomes))
    else:
        _show(report, outcomes, evaluated=evaluated, translated=bool(translated))
    if missed:
        raise ExpectationMissed(
            "the build is whole, but misses what [expect] asks:\n" + "\n".join(f"  {each}" for each in missed)
        )


def _as_json(report: BuildReport, outcomes: list[Outcome]) -> dict[str, Any]:
    from groundup.build import load_results, result_paths

    return {
        "run": str(report.run),
        "built": list(report.built),
        "skipped": list(report.skipped),
        "seconds": round(report.seconds, 3),
        "results": load_results(report.recipe, report.run),
        "expectations": [
            {"score": outcome.expectation.key, "value": outcome.value, "met": outcome.met} for outcome in outcomes
        ],
        "paths": result_paths(report.recipe, report.run),
    }


def _show(report: BuildReport, outcomes: list[Outcome], *, evaluated: bool, translated: bool) -> None:
    """Scores, a conversation or translations, and where things are, for a reader."""
    from groundup.build import (
        changes_table,
        duration,
        expectations_table,
        load_comparisons,
        load_results,
        result_paths,
        results_table,
        sample_conversation,
        sample_translations,
        show_conversation,
        show_translations,
        stdout_console,
    )

    console = stdout_console()
    results = load_results(report.recipe, report.run) if evaluated or translated else {}
    if results:
        console.print(results_table(results))
        if comparisons := load_comparisons(report.recipe, report.run):
            console.print(changes_table(comparisons))
        if outcomes:
            console.print(expectations_table(outcomes))
    if translated:
        show_translations(console, sample_translations(report.recipe, report.run))
    if evaluated:
        show_conversation(console, sample_conversation(report.run, seed=report.recipe.run.seed))
    made = f"{len(report.built)} stages built, {len(report.skipped)} done before"
    console.print(f"{made}, {duration(report.seconds)}")
    for name, path in result_paths(report.recipe, report.run).items():
        console.print(f"{name}: {path}", soft_wrap=True, markup=False)
