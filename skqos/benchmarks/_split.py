"""Training and test rows, and the context of their users and services."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from skqos._types import Direction
from skqos.preprocessing import ContextJoiner


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows of one QoS, with the context of users and services.

    `load_split` returns the splits of WS-DREAM. Create a split of your own rows to evaluate models
    on them.

    Parameters
    ----------
    X : ndarray of shape (n_train, 2) or (n_train, 3)
        User, service and, optionally, time step of each training row.

    y : ndarray of shape (n_train,)
        QoS of the training rows.

    X_test : ndarray of shape (n_test, 2) or (n_test, 3)
        Test rows, in the same form.

    y_test : ndarray of shape (n_test,) or None
        QoS of the test rows. None in a split for models, which must not see it.

    name : str, default=""
        Name of the split in results.

    qos : str, default=""
        Name of the QoS; "rt" or "tp" in the splits of WS-DREAM.

    users, services : DataFrame, default=None
        Context with the ids as index, as in `skqos.preprocessing.ContextJoiner`. None means no
        context.

    direction : {"minimize", "maximize"}, default="minimize"
        Whether low or high values are good.

    margin : float, default=0.0
        Maximum difference from the best value, in the unit of y, for a choice to be near the best.

    See Also
    --------
    load_split : Load a split of WS-DREAM.
    evaluate : Fit a model to the training rows and score it on the test rows.

    Examples
    --------
    >>> from skqos.benchmarks import Split
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.5, random_state=0)
    >>> split = Split(data.X[:200], data.y[:200], data.X[200:], data.y[200:], name="made up")
    >>> split
    <Split 'made up': 200 training rows, 100 test rows>
    """

    X: NDArray[np.int64] | pd.DataFrame
    y: NDArray[np.float64]
    X_test: NDArray[np.int64] | pd.DataFrame
    y_test: NDArray[np.float64] | None
    name: str = ""
    qos: str = ""
    users: pd.DataFrame | None = field(default=None, repr=False)
    services: pd.DataFrame | None = field(default=None, repr=False)
    direction: Direction = "minimize"
    margin: float = 0.0

    def __repr__(self) -> str:
        rows = f"{len(self.X):,} training rows, {len(self.X_test):,} test rows"
        return f"<Split {self.name!r}: {rows}>"

    def with_context(self) -> Split:
        """Return the same rows as DataFrames with the columns of the context.

        Returns
        -------
        Split
            `X` and `X_test` are DataFrames with the columns ``user_*`` and ``service_*``, as
            `skqos.preprocessing.ContextJoiner` appends them.
        """
        joiner = ContextJoiner(self.users, self.services).fit(self.X)
        return replace(self, X=joiner.transform(self.X), X_test=joiner.transform(self.X_test))

    def blind(self) -> Split:
        """Return the split without the test values."""
        return replace(self, y_test=None)

    def permuted(self) -> Split:
        """Return the split with shuffled test values."""
        return replace(self, y_test=np.random.default_rng(0).permutation(self.y_test))
