"""A seeded world of small stories: the embedded corpus, and the truth to test a model against.

In comes a seed. Out go pretraining texts, conversations, preference pairs, requests, and test questions whose true
answers are read from the simulator's state, never from its text. The room promises:

- the same seed gives the same bytes on any platform, and item ``i`` of a stream needs no other item;
- the test splits are disjoint from training by construction: their stories, their held-out names and (colour, object)
  pairs, their greater length and their phrasings appear in no training stream;
- sentence pairs to translate (``translation``), whose test sentences share their set of words with none to train on
  or validate with;
- a judge that reads the whole of an answer and accepts exactly one claim.
"""

from groundup.storyworld.judge import (
    AnswerVerdict,
    copy_last,
    judge_answer,
    majority_answer,
    parse_claim,
    random_answer,
)
from groundup.storyworld.lexicon import UNSEEN_NAMES, is_unseen_combination
from groundup.storyworld.questions import KINDS, UNKNOWN, Question, questions, unknown_questions
from groundup.storyworld.requests import Request, RequestVerdict, judge_request, requests
from groundup.storyworld.streams import Preference, conversations, documents, preferences
from groundup.storyworld.tales import TaleRequest, make_tale_request, tale_reward
from groundup.storyworld.translation import (
    TRANSLATION_SPLITS,
    SentencePair,
    bag_of_words,
    translation_tests,
    translation_validation,
    translations,
)
from groundup.storyworld.world import SPLITS, TRAINING_EVENTS

__all__ = [
    "KINDS",
    "SPLITS",
    "TRAINING_EVENTS",
    "TRANSLATION_SPLITS",
    "UNKNOWN",
    "UNSEEN_NAMES",
    "AnswerVerdict",
    "Preference",
    "Question",
    "Request",
    "RequestVerdict",
    "SentencePair",
    "TaleRequest",
    "bag_of_words",
    "conversations",
    "copy_last",
    "documents",
    "is_unseen_combination",
    "judge_answer",
    "judge_request",
    "majority_answer",
    "make_tale_request",
    "parse_claim",
    "preferences",
    "questions",
    "random_answer",
    "requests",
    "tale_reward",
    "translation_tests",
    "translation_validation",
    "translations",
    "unknown_questions",
]
