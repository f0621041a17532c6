"""Splits of WS-DREAM data set 2: one time slot, imputed or forecast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skqos.benchmarks._split import Split

SlotProtocol = Literal["imputation", "forecast", "forecast_all"]
SLOT, WINDOW = 63, 8
# A file with fewer rows is the uniform fifth of the 30 million measured cells.
COMPLETE = 15_000_000


@dataclass(frozen=True)
class SlotCells:
    """The measured cells, in the order of the file."""

    X: NDArray[np.int64]
    y: NDArray[np.float64]

    @property
    def given_share(self) -> float:
        """Return the share of the measured cells: the file has all of them, or a uniform fifth."""
        return 1.0 if len(self.y) > COMPLETE else 0.2

    def slots(self, last: int, n: int) -> NDArray[np.int64]:
        """Return the rows of the last `n` slots up to `last`."""
        slot = self.X[:, 2]
        return np.flatnonzero((slot > last - n) & (slot <= last))


def read_cells(folder: Path) -> SlotCells:
    """Read the response times; their order decides which cells are drawn.

    Raises
    ------
    FileNotFoundError
        If the folder has neither ``rtdata.txt`` nor ``rtdata.txt.gz``.
    """
    paths = [folder / name for name in ("rtdata.txt", "rtdata.txt.gz")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} holds neither rtdata.txt nor rtdata.txt.gz.")
    types = {0: np.int64, 1: np.int64, 2: np.int64, 3: np.float64}
    table = pd.read_csv(path, sep=" ", header=None, usecols=range(4), dtype=types)
    table = table[table[3] > 0]
    return SlotCells(table[[0, 1, 2]].to_numpy(), table[3].to_numpy())


def draw(n: int, share: float) -> NDArray[np.bool_]:
    """Draw a share of `n` rows."""
    return np.random.default_rng(0).random(n) < share


def make_split(
    cells: SlotCells,
    protocol: SlotProtocol,
    density: float,
    given_share: float | None = None,
    slot: int = SLOT,
    window: int = WINDOW,
) -> Split:
    """Draw training rows by the protocol; all protocols have the same test rows.

    Parameters
    ----------
    cells : SlotCells
        The given cells: all that were measured, or a uniform share of them.

    protocol : {"imputation", "forecast", "forecast_all"}
        Imputation trains on a share of the cells of the `window` slots that end with `slot`, a
        forecast on as large a share of the `window` slots before it, "forecast_all" on all given
        cells of those.

    density : float
        Share of the measured cells to train on.

    given_share : float, optional
        Share of the measured cells that is given, above `density`. By default, it follows from the
        number of cells.

    slot : int
        Slot of the test cells. Cells on which imputation trains are not test cells.

    window : int
        Number of slots to train on.

    Raises
    ------
    ValueError
        If the density leaves no test cells.
    """
    rows = cells.slots(slot, window)
    share = density / (given_share or cells.given_share)
    if share >= 1:
        raise ValueError(
            f"density must be below the share of the cells that is given; got {density:g} and "
            f"{density / share:g}."
        )
    drawn = draw(len(rows), share)
    test = rows[~drawn & (cells.X[rows, 2] == slot)]
    train = rows[drawn]
    if protocol != "imputation":
        train = cells.slots(slot - 1, window)
    if protocol == "forecast":
        train = train[draw(len(train), share)]
    return Split(
        cells.X[train], cells.y[train], cells.X[test], cells.y[test], qos="rt", margin=0.05
    )


def read_split(folder: Path, protocol: SlotProtocol, density: float) -> Split:
    """Read the cells and draw the rows of slot 63.

    Raises
    ------
    FileNotFoundError
        If the folder does not contain the response times.
    ValueError
        If they leave no training rows or no test rows.
    """
    cells = read_cells(folder)
    split = make_split(cells, protocol, density)
    for rows, kind in ((split.X, "training"), (split.X_test, "test")):
        if not len(rows):
            raise ValueError(
                f"The {len(cells.y):,} response times in {folder} leave no {kind} rows. The split "
                f"needs cells of slot {SLOT} and of the {WINDOW} slots before it; give the "
                "complete rtdata.txt."
            )
    return split
