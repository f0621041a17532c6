"""Self-augmentation: cells that nobody measured, filled in by the model's own predictions."""

from __future__ import annotations

import warnings

import numpy as np

from skqos._arrays import draw_distinct, sorted_unique

MANY_CELLS = 10_000_000


def count_cells(ratio: float, unit: str, n_observed: int, n_cells: int) -> int:
    """Count the unobserved cells that a ratio asks for.

    Parameters
    ----------
    ratio : float
        Times the number of observed cells, or share of the missing ones.
    unit : {"observed", "missing"}
        Which of the two.
    n_observed, n_cells : int
        Observed cells, and all cells of the matrix.

    Returns
    -------
    int
        At most the number of missing cells.
    """
    n_missing = n_cells - n_observed
    n_asked = round(ratio * (n_observed if unit == "observed" else n_missing))
    n_wanted = min(n_asked, n_missing)
    if n_wanted > MANY_CELLS:
        warnings.warn(
            f"Refill or pseudo-labels ask for {n_wanted:,} cells, which takes time and memory "
            f"in proportion; ratio={ratio} counts in multiples of the {unit} cells.",
            UserWarning,
            stacklevel=2,
        )
    return n_wanted


def sample_unobserved(
    users: np.ndarray,
    services: np.ndarray,
    shape: tuple[int, int],
    n_cells: int,
    rng: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw distinct cells that were not observed, uniformly (eq. 8).

    Users and services are those of the training rows, so that each has a representation.
    The matrix is enumerated only where the draw takes in more than half of what is missing.

    Parameters
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes of the observed cells; repetitions are allowed.
    shape : tuple of int
        Number of users and of services.
    n_cells : int
        How many cells to draw, at most as many as are missing.
    rng : RandomState
        Source of randomness.

    Returns
    -------
    users, services : ndarray of int64 of shape (n_cells,)
        Codes of the drawn cells.
    """
    observed = sorted_unique(users * shape[1] + services)
    cells = draw_distinct(shape[0] * shape[1], n_cells, rng, excluded=observed)
    return np.divmod(cells, shape[1])
