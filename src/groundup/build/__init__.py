"""The build: the stages in order, and which are already done.

In come a recipe and a run directory; out come the stage directories with their manifests. This room promises:

* a stage whose manifest has the fingerprint it would get now is skipped; change one section and only what
  depends on it runs again (``fingerprints``);
* a stage is written beside its place and renamed, or, where it trains, in place with the manifest last; a
  training directory of another fingerprint is set aside, never resumed (``driver``);
* whatever ``auto`` settles is in run.json before anything depends on it (``record``);
* one process at a time, and after any signal or kill the same command carries on (``signals``);
* it is the only room that knows all others, through one small adapter a kind (``stages``).
"""

from groundup.build.chat import Speaker, built_model, open_speaker, sample_conversation
from groundup.build.driver import BuildReport, build, choose_stages, duration
from groundup.build.expectations import Outcome, check_expectations, load_comparisons, load_results
from groundup.build.exporting import EXPORTED, export_model
from groundup.build.importing import facts as import_facts
from groundup.build.importing import imported_architecture
from groundup.build.record import RunRecord
from groundup.build.show import (
    changes_table,
    expectations_table,
    result_paths,
    results_table,
    show_conversation,
    show_translations,
    stdout_console,
)
from groundup.build.stages import measure
from groundup.build.translate import open_translator, sample_translations, translators
from groundup.build.verify import VerifyReport, find_stage, list_runs, open_run, origin_of, verify

__all__ = [
    "EXPORTED",
    "BuildReport",
    "Outcome",
    "RunRecord",
    "Speaker",
    "VerifyReport",
    "build",
    "built_model",
    "check_expectations",
    "choose_stages",
    "duration",
    "expectations_table",
    "export_model",
    "find_stage",
    "import_facts",
    "imported_architecture",
    "list_runs",
    "load_comparisons",
    "load_results",
    "measure",
    "open_run",
    "open_speaker",
    "open_translator",
    "origin_of",
    "result_paths",
    "changes_table",
    "results_table",
    "sample_conversation",
    "sample_translations",
    "show_conversation",
    "show_translations",
    "stdout_console",
    "translators",
    "verify",
]
