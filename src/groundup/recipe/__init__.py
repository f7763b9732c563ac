"""The recipe: the typed configuration of a build, one file a section.

In comes a TOML file or a built-in name, with ``--set`` overrides; out comes an immutable ``Recipe`` whose
every value is checked. This room promises:

* a field is declared once, in its section's class, with its meaning, unit and default;
* a misspelt key is refused with file, key, line and the nearest valid name (``RecipeError``);
* ``dump_toml`` writes a recipe whole, and reading that gives the equal recipe;
* ``Recipe.ordered_stages`` puts each stage after all it reads (``Recipe.inputs``);
* docs/recipe.md is made from the classes: ``python -m groundup.recipe``.

It imports no other room; every room may import its own section from here.
"""

from groundup.recipe.book import BookSection
from groundup.recipe.classifier import ClassifierSection
from groundup.recipe.corpus import CorpusSection, SourceTable
from groundup.recipe.dedup import DecontaminateSection, DedupSection, NearSection
from groundup.recipe.dpo import DpoSection
from groundup.recipe.errors import RecipeError, nearest
from groundup.recipe.evaluate import EvaluateSection
from groundup.recipe.expect import Expectation, parse_expectation
from groundup.recipe.export import ExportSection
from groundup.recipe.hardware import HardwareSection
from groundup.recipe.importing import ImportSection
from groundup.recipe.ladder import LadderSection, Rung, rung_model
from groundup.recipe.load import builtin_recipes, dump_toml, load_recipe, parse_recipe
from groundup.recipe.model import ModelSection
from groundup.recipe.personal import PersonalDataSection
from groundup.recipe.pretrain import PretrainSection
from groundup.recipe.recipe import DECODER_KINDS, KINDS, TRAINING_KINDS, Recipe, Stage
from groundup.recipe.run import RunSection, TrackerName, TrackingTable
from groundup.recipe.seq2seq import EncoderDecoderShape, PairsTable, Seq2SeqSection
from groundup.recipe.sft import DataTable, SftSection
from groundup.recipe.tokenizer import TokenizerSection
from groundup.recipe.training import EngineSection, OptimizerTable, ScheduleTable, TokenBatches, TrainSection

__all__ = [
    "DECODER_KINDS",
    "KINDS",
    "TRAINING_KINDS",
    "BookSection",
    "ClassifierSection",
    "CorpusSection",
    "DecontaminateSection",
    "DedupSection",
    "NearSection",
    "PersonalDataSection",
    "DataTable",
    "DpoSection",
    "EncoderDecoderShape",
    "EngineSection",
    "EvaluateSection",
    "Expectation",
    "ExportSection",
    "HardwareSection",
    "ImportSection",
    "LadderSection",
    "ModelSection",
    "OptimizerTable",
    "PairsTable",
    "PretrainSection",
    "Recipe",
    "RecipeError",
    "RunSection",
    "Rung",
    "ScheduleTable",
    "Seq2SeqSection",
    "SftSection",
    "SourceTable",
    "Stage",
    "TokenBatches",
    "TokenizerSection",
    "TrackerName",
    "TrackingTable",
    "TrainSection",
    "builtin_recipes",
    "dump_toml",
    "load_recipe",
    "nearest",
    "parse_expectation",
    "parse_recipe",
    "rung_model",
]
