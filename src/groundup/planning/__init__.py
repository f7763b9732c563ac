"""Planning: what a model will cost and reach, said before it is trained.

In come token shards and a recipe's ladder; out come small trained models, a law of their losses, and predictions that
were on the disk before what they foretell. The room promises:

- a law is a pure function of compute and losses (``scaling.py``): no random numbers, nothing that may fail to converge;
- every prediction has its 95 % interval, or says that nothing measures one;
- a prediction is never changed once its rung has begun, and what came of it lies beside it;
- rungs train by the one loop, so a killed ladder, run again, reaches the same bits (``ladder.py``).
"""

from groundup.planning.ladder import LADDER, Climb, ladder, run_directory, rung_seed, size_of, training_section
from groundup.planning.scaling import Estimate, Law, LawFit, fit_huber, fit_law, student

__all__ = [
    "LADDER",
    "Climb",
    "Estimate",
    "Law",
    "LawFit",
    "fit_huber",
    "fit_law",
    "ladder",
    "run_directory",
    "rung_seed",
    "size_of",
    "student",
    "training_section",
]
