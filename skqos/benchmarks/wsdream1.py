"""Splits of WS-DREAM data set 1: densities, and users or services without training rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from skqos.benchmarks._split import Split
from skqos.datasets import load_wsdream
from skqos.model_selection import DensitySplit

GIVEN_DENSITY = 0.025
# The margin is used for choices near the best.
QOS = {
    "rt": {"direction": "minimize", "margin": 0.05},
    "tp": {"direction": "maximize", "margin": 0.0},
}


def read_split(folder: Path, qos: str, density: float = GIVEN_DENSITY) -> Split:
    """Read or draw the training and test rows of a density.

    Test rows are the same at all densities, and the training rows of a lower density are among
    those of a higher one.

    Parameters
    ----------
    folder : Path
        Folder with the files of data set 1, or with a part of them. If it contains
        ``splits/{rt,tp}_{train,test}_0.025.txt``, the rows for a density of 2.5 % are read from
        these files. Otherwise they are drawn, and half of the other rows are test rows.

    qos : {"rt", "tp"}
        Response time in seconds, or throughput in kbps.

    density : float
        Share of all cells to train on, in (0, 1).

    Raises
    ------
    ValueError
        If there are too few cells.
    """
    data = load_wsdream(folder, qos=qos)
    split, others = _read_base(folder, qos, data)
    if density == GIVEN_DENSITY:
        return split
    return _resize(split, data, others, round(density * len(data.users) * len(data.services)))


def read_measured_split(folder: Path, density: float, n_measured: int) -> Split:
    """Read or draw the rows of a density that is a share of `n_measured` response times."""
    data = load_wsdream(folder, qos="rt")
    split, others = _read_base(folder, "rt", data)
    return _resize(split, data, others, round(density * n_measured))


def _read_base(folder: Path, qos: str, data: Bunch) -> tuple[Split, NDArray[np.int64]]:
    """Read or draw the rows of 2.5 %; return the rows that are left, too."""
    if (folder / "splits").is_dir():
        split = read_given_split(folder, qos)
        others = find_others(data, split)
    else:
        split, others = draw_split(data)
    context = {"users": data.users, "services": data.services}
    return replace(split, qos=qos, **context, **QOS[qos]), others


def read_given_split(folder: Path, qos: str) -> Split:
    """Read the rows of 2.5 %."""
    parts = []
    for part in ("train", "test"):
        rows = np.loadtxt(folder / "splits" / f"{qos}_{part}_{GIVEN_DENSITY}.txt")
        parts += [rows[:, :2].astype(np.int64), rows[:, 2]]
    return Split(*parts)


def draw_split(data: Bunch) -> tuple[Split, NDArray[np.int64]]:
    """Draw training rows and half of the others to test; return the rows that are left, too."""
    splitter = DensitySplit(
        1,
        density=GIVEN_DENSITY,
        test_size=0.5,
        n_users=len(data.users),
        n_services=len(data.services),
        random_state=0,
    )
    train, test = next(splitter.split(data.X))
    others = np.setdiff1d(np.arange(len(data.y)), np.concatenate([train, test]))
    return Split(data.X[train], data.y[train], data.X[test], data.y[test]), others


def find_others(data: Bunch, split: Split) -> NDArray[np.int64]:
    """Return the measured rows whose cells are neither in training nor in the test."""
    n_services = len(data.services)
    cells, *used = (X[:, 0] * n_services + X[:, 1] for X in (data.X, split.X, split.X_test))
    return np.flatnonzero(~np.isin(cells, np.concatenate(used)))


def _resize(split: Split, data: Bunch, others: NDArray[np.int64], n_train: int) -> Split:
    """Train on the first rows of a fixed order: those of the split, then the others."""
    n_given = len(split.y)
    if n_train > n_given + len(others):
        highest = (n_given + len(others)) / (len(data.users) * len(data.services))
        raise ValueError(
            f"density: there are {n_given + len(others):,} cells to train on beside the test, "
            f"{n_train:,} were asked for; the highest density is {highest:.4f}."
        )
    rng = np.random.default_rng(0)
    own, added = rng.permutation(n_given), rng.permutation(others)
    X = np.concatenate([split.X[own], data.X[added]])[:n_train]
    y = np.concatenate([split.y[own], data.y[added]])[:n_train]
    return replace(split, X=X, y=y)


def hold_out(split: Split, column: int, seed: int) -> Split:
    """Train on the rows of four fifths of the entities, test on all rows of the others.

    Parameters
    ----------
    split : Split
        Split whose training rows are used, unless their entity is held out.

    column : int
        0 holds out users, 1 services.

    seed : int
        Seed of the choice of the entities that are held out.
    """
    X, y = np.vstack([split.X, split.X_test]), np.concatenate([split.y, split.y_test])
    ids = np.random.default_rng(seed).permutation(np.unique(X[:, column]))
    unknown = np.isin(X[:, column], ids[: len(ids) // 5])
    is_train = np.arange(len(y)) < len(split.y)
    train = is_train & ~unknown
    return replace(split, X=X[train], y=y[train], X_test=X[unknown], y_test=y[unknown])
