"""The splits of WS-DREAM by their names."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from skqos.benchmarks import wsdream1, wsdream2
from skqos.benchmarks._names import check_known
from skqos.benchmarks._split import Split

DENSITIES = (0.005, 0.01, 0.025, 0.05, 0.07, 0.075, 0.1)
MEASURED_DENSITIES = (0.02, 0.04, 0.06, 0.08, 0.1)
# Number of measured response times, of which the densities of the R2SL paper are shares.
N_MEASURED = 1_873_838


@dataclass(frozen=True)
class Recipe:
    """Description of a split, and function that reads it.

    Parameters
    ----------
    data_set, qos : str
        As in `load_published_results`.

    task : str
        Task: the cells that are predicted.

    density : float
        Fraction of training cells.

    read : callable
        Function that reads the split from the folder of the data set.
    """

    data_set: str
    qos: str
    task: str
    density: float
    read: Callable[[Path], Split]


def list_splits() -> pd.DataFrame:
    """List the splits of WS-DREAM for `load_split`.

    Returns
    -------
    DataFrame
        The index holds the names. The columns are:

        - ``data_set``: "wsdream1" (339 users, 5,825 services) or "wsdream2" (142 users, 4,500
          services, 64 time slots);
        - ``qos``: "rt" (response time, s) or "tp" (throughput, kbps);
        - ``task``: the cells that are predicted;
        - ``density``: fraction of all cells of data set 1, or of the measured cells of data set 2,
          that are training cells, unless the task states otherwise; NaN if all given cells are
          training cells.

    Examples
    --------
    >>> from skqos.benchmarks import list_splits
    >>> list_splits().loc["wsdream2-rt-imputation-0.1", "task"]
    'other cells of slot 63; slots 56 to 63 train'
    """
    rows = {
        name: (recipe.data_set, recipe.qos, recipe.task, recipe.density)
        for name, recipe in RECIPES.items()
    }
    columns = ["data_set", "qos", "task", "density"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("split")


def load_split(name: str, folder: str | os.PathLike[str]) -> Split:
    """Load the training and test rows of a split of WS-DREAM.

    Parameters
    ----------
    name : str
        Name of a split in `list_splits`.

    folder : str or path-like
        Folder with the files of the data set, complete or in part, as for
        `skqos.datasets.load_wsdream`, or a folder that contains it as ``wsdream1`` or ``wsdream2``.
        Its folder ``splits`` may contain the rows of the 2.5 % split,
        ``{rt,tp}_{train,test}_0.025.txt`` with lines of ``user service value``. Without them, 2.5 %
        of the cells are drawn for training and half of the others for testing.

    Returns
    -------
    Split
        Rows, and context of users and services.

    Raises
    ------
    FileNotFoundError
        If the folder does not contain the files of the data set.
    ValueError
        If the split does not exist, or the files contain too few cells for its density.

    Examples
    --------
    >>> from skqos.benchmarks import load_split
    >>> split = load_split("wsdream1-rt-0.025", "wsdream1")  # doctest: +SKIP
    """
    check_known("split", name, RECIPES)
    recipe = RECIPES[name]
    folder = Path(folder)
    if (folder / recipe.data_set).is_dir():
        folder /= recipe.data_set
    return replace(recipe.read(folder), name=name)


def _read_of_measured(folder: Path, density: float) -> Split:
    return wsdream1.read_measured_split(folder, density, N_MEASURED)


def _read_new_entities(folder: Path, qos: str, column: int) -> Split:
    return wsdream1.hold_out(wsdream1.read_split(folder, qos), column, seed=0)


def _list_recipes() -> dict[str, Recipe]:
    recipes = {}
    for qos in ("rt", "tp"):
        for density in DENSITIES:
            read = partial(wsdream1.read_split, qos=qos, density=density)
            recipe = Recipe("wsdream1", qos, "other cells", density, read)
            recipes[f"wsdream1-{qos}-{density:g}"] = recipe
    for density in MEASURED_DENSITIES:
        task = "other cells; density of the measured cells"
        read = partial(_read_of_measured, density=density)
        recipes[f"wsdream1-rt-measured-{density:g}"] = Recipe("wsdream1", "rt", task, density, read)
    for qos in ("rt", "tp"):
        for column, entities in enumerate(("users", "services")):
            task = f"cells of {entities} without training rows"
            read = partial(_read_new_entities, qos=qos, column=column)
            recipes[f"wsdream1-{qos}-new-{entities}"] = Recipe("wsdream1", qos, task, 0.025, read)
    for name, protocol, density, task in (
        ("imputation-0.1", "imputation", 0.1, "other cells of slot 63; slots 56 to 63 train"),
        ("forecast-0.1", "forecast", 0.1, "cells of slot 63; slots 55 to 62 train"),
        ("forecast-all", "forecast_all", math.nan, "cells of slot 63; all of 55 to 62 train"),
    ):
        # The test cells are those that are not training cells for imputation at 10 %.
        read = partial(wsdream2.read_split, protocol=protocol, density=0.1)
        recipes[f"wsdream2-rt-{name}"] = Recipe("wsdream2", "rt", task, density, read)
    return recipes


RECIPES = _list_recipes()
