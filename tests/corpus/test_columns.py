"""Arrow arrays made and read without pandas."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from groundup.corpus.columns import as_numpy, flags, numbers, strings


@pytest.mark.parametrize(
    "values", [[], ["a"], ["", "é", "長い\U0001f600"], ["a", None, "", "b"], [None], ["x"] * 9 + [None] * 9]
)
def test_strings_are_those_of_arrow(values):
    found = strings(values)
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.string()))
    assert found.null_count == values.count(None)


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("values", [[], [3], [1, None, 2], [None] * 10, list(range(17))])
def test_numbers_are_those_of_arrow(values, dtype):
    found = numbers(values, dtype)
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.from_numpy_dtype(np.dtype(dtype))))


def test_numbers_keep_the_kind_of_their_array_and_any_stride():
    assert numbers(np.arange(10, dtype=np.uint16)[::3]).equals(pa.array([0, 3, 6, 9], pa.uint16()))
    assert np.isnan(numbers(np.array([np.nan]))[0].as_py())  # NaN is a number, and no null


@pytest.mark.parametrize("count", [0, 1, 8, 19])
def test_flags_are_those_of_arrow(count):
    values = np.arange(count) % 3 == 0
    assert flags(values).equals(pa.array(values))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([], pa.int64()),
        pa.array([], pa.bool_()),
        pa.array([5, 6, 7], pa.uint8()),
        pa.array([True, False, None] * 7),
        pa.array([1.5, None, float("nan")], pa.float32()),
        pa.nulls(3, pa.float32()),
        pa.nulls(0, pa.float64()),
    ],
)
@pytest.mark.parametrize("start", [0, 2])
def test_values_come_back(column, start):
    column = column.slice(start)
    found = as_numpy(column)
    missing = False if column.type == pa.bool_() else np.nan
    expected = np.array([missing if value is None else value for value in column.to_pylist()], found.dtype)
    np.testing.assert_array_equal(found, expected)
    assert pa.from_numpy_dtype(found.dtype) == column.type


def test_integers_that_are_null_are_refused():
    with pytest.raises(ValueError, match="1 of 2 integers are null"):
        as_numpy(pa.array([1, None]))


BUILD = """
import sys
from pathlib import Path

from groundup.corpus import build_corpus
from groundup.recipe import CorpusSection

folder = Path(sys.argv[1])
(folder / "in").mkdir()
for number in range(40):
    said = f"The tale of the {number}th ship and of all that have sailed with it to the far end of the sea. " * 5
    page = f"<html><body><h1>Ship {number}</h1><p>{said}</body></html>"
    (folder / "in" / f"{number}.html").write_text(page)
section = {"sources": [str(folder / "in")], "filters": {"gopher_quality": {}, "symbols": {}}}
build_corpus(CorpusSection.model_validate(section), seed=1, out=folder / "corpus")
print("pandas" in sys.modules)
"""


def test_a_build_runs_without_pandas(tmp_path):
    done = subprocess.run([sys.executable, "-c", BUILD, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
