"""Common format of the data sets of loaders and generator."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from skqos._ids import ID_COLUMNS


def make_bunch(
    frame: pd.DataFrame,
    qos_names: tuple[str, ...],
    users: pd.DataFrame,
    services: pd.DataFrame,
    *,
    single: bool,
    descr: str,
    **extra: Any,
) -> Bunch:
    """Split a frame of measurements into X and y, and add context and description.

    Parameters
    ----------
    frame : DataFrame
        Integer columns ``user``, ``service`` and, optionally, ``time``, which may also contain time
        stamps, and one float column per name in `qos_names`.
    qos_names : tuple of str
        The QoS columns of `frame`.
    users, services : DataFrame
        Context tables, indexed by id.
    single : bool
        Whether ``y`` is the single QoS column as a 1-D array.
    descr : str
        Text of ``DESCR``.
    **extra : object
        Further fields.

    Returns
    -------
    Bunch
        Fields ``X``, ``y``, ``users``, ``services``, ``frame``, ``qos_names``, ``target_names`` and
        ``DESCR``. ``X`` is an array, or a frame if there are time stamps. X and y do not share
        memory with the frame.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos.datasets._common import make_bunch
    >>> frame = pd.DataFrame({"user": [0, 1], "service": [2, 0], "rt": [0.5, 1.5]})
    >>> tables = [pd.DataFrame(index=range(n)) for n in (2, 3)]
    >>> bunch = make_bunch(frame, ("rt",), *tables, single=True, descr="Two measurements.")
    >>> bunch.X
    array([[0, 2],
           [1, 0]])
    """
    ids = [name for name in ID_COLUMNS if name in frame]
    is_numbered = all(dtype.kind == "i" for dtype in frame.dtypes[ids])
    y = np.array(frame[list(qos_names)], dtype=np.float64, order="C")
    return Bunch(
        X=np.array(frame[ids], dtype=np.int64, order="C") if is_numbered else frame[ids].copy(),
        y=y.ravel() if single else y,
        users=users,
        services=services,
        frame=frame,
        qos_names=list(qos_names),
        target_names=list(qos_names),
        DESCR=descr,
        **extra,
    )
