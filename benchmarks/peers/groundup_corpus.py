"""Our side of benchmarks/corpus.py, run by the Python that has groundup: python groundup_corpus.py JOB.json

The job: {"section": the recipe's [corpus], "out": folder, "scratch": folder, "workers"}.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    from groundup.corpus import build_corpus
    from groundup.recipe import CorpusSection

    job = json.loads(Path(sys.argv[1]).read_text())
    section = CorpusSection.model_validate(job["section"])
    build_corpus(section, seed=1, out=Path(job["out"]), work=Path(job["scratch"]), workers=job["workers"])


if __name__ == "__main__":  # workers import this file again
    main()
