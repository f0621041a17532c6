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

DENSITIES = (0.01, 0.025, 0.05, 0.07, 0.075, 0.1)
# The R2SL paper counts densities in measured cells; of response times there are so many.
MEASURED_DENSITIES = (0.02, 0.04, 0.06, 0.08, 0.1)
N_MEASURED = 1_873_838


@dataclass(frozen=True)
class Recipe:
    """How a split is made, and what it is.

    Parameters
    ----------
    data_set, qos : str
        As in `load_published_results`.

    task : str
        What is predicted.

    density : float
        Share of the cells that train.

    read : callable
        Makes the split from the folder of the data set.
    """

    data_set: str
    qos: str
    task: str
    density: float
    read: Callable[[Path], Split]


def list_splits() -> pd.DataFrame:
    """List the splits of WS-DREAM that `load_split` knows.

    Returns
    -------
    DataFrame
        The index holds the names. Columns:

        - ``data_set``: "wsdream1" (339 users, 5,825 services) or "wsdream2" (142 users, 4,500
          services, 64 time slots);
        - ``qos``: "rt" (response time, s) or "tp" (throughput, kbps);
        - ``task``: what is predicted;
        - ``density``: share of all cells that train, where the task does not say otherwise; NaN if
          all given cells train.

    Examples
    --------
    >>> from skqos.benchmarks import list_splits
    >>> list_splits().loc["wsdream1-rt-0.025", ["task", "density"]].to_list()
    ['other cells', 0.025]
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
        One of `list_splits`.

    folder : str or path-like
        The folder with the files of the data set, complete or in part, as
        `skqos.datasets.load_wsdream` reads them, or one with a folder ``wsdream1`` or
        ``wsdream2`` in it. Its folder ``splits`` may hold the rows of 2.5 %,
        ``{rt,tp}_{train,test}_0.025.txt`` with lines ``user service value``. Without it, 2.5 % of
        the cells are drawn to train and half of the others to test.

    Returns
    -------
    Split
        The rows, and the context of users and services.

    Raises
    ------
    FileNotFoundError
        If the folder lacks the files of the data set.
    ValueError
        If there is no split of this name, or the files hold too few cells for its density.

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
        # The test cells are those that imputation at 10 % leaves.
        read = partial(wsdream2.read_split, protocol=protocol, density=0.1)
        recipes[f"wsdream2-rt-{name}"] = Recipe("wsdream2", "rt", task, density, read)
    return recipes


RECIPES = _list_recipes()
