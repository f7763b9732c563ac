"""Builds a corpus in one of several places: python build_anywhere.py MODE SECTION.json OUT

MODE: native-1, native-2, ray-local, ray-two-nodes, or ray-node-killed (one of two nodes dies half-way).
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from groundup.corpus import build, build_corpus
from groundup.recipe import CorpusSection


def main() -> None:
    mode, section, out = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]).absolute()
    work = out.with_name(f".{out.name}.work")
    options: dict[str, Any] = {"workers": 1 if mode == "native-1" else 2}
    if mode == "ray-local":
        options["cluster"] = "local"
    elif mode.startswith("ray-"):
        options["cluster"] = _two_nodes(work, kill=mode == "ray-node-killed")
    build.LEAST_WORK = 1  # so that workers are used for so little
    chosen = CorpusSection.model_validate(section)
    print(json.dumps(build_corpus(chosen, seed=1, out=out, work=work, **options)))


def _two_nodes(work: Path, *, kill: bool) -> str:
    """Address of a Ray cluster of two nodes on this machine; the second dies when the first units are done."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def end() -> None:
        while len(list(work.glob("*/harvest/[0-9]*"))) < 2:
            time.sleep(0.05)
        print("one node dies now", file=sys.stderr, flush=True)
        cluster.remove_node(second, allow_graceful=False)

    if kill:
        threading.Thread(target=end, daemon=True).start()
    return str(cluster.address)


if __name__ == "__main__":
    main()
