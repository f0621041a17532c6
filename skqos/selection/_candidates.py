"""Candidate pairs of a ranking as input rows of a fitted model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like

from skqos._errors import about
from skqos._frames import to_frame
from skqos._ids import make_index, read_ids
from skqos._pipelines import last_step, regressor_of, transform_input
from skqos.inputs import role_of, unmasked
from skqos.preprocessing import prepare_table

# Approximate number of pairs in a block of users.
PAIRS_PER_BLOCK = 2**18
# Smaller integers are exact as floats.
MAX_EXACT_INTEGER = 2**53


@dataclass(frozen=True)
class CandidateSide:
    """Users or services of a ranking.

    Attributes
    ----------
    name : {"user", "service"}
        Kind of entity.
    ids : ndarray of shape (n,)
        Distinct ids.
    context : DataFrame of n rows
        Given context, in addition to what the model knows; without columns if there is none.
    """

    name: str
    ids: np.ndarray
    context: pd.DataFrame

    def __len__(self) -> int:
        return len(self.ids)


def read_side(given: Any, name: str) -> CandidateSide:
    """Read ids, or a table with the ids as index.

    Parameters
    ----------
    given : id, array-like of ids, or DataFrame
        Argument of `rank_services`.
    name : {"user", "service"}
        Kind of entity; the parameter is named by its plural.

    Raises
    ------
    ValueError
        If there are no ids, an id is repeated or missing, or ids are of several kinds.
    TypeError
        If ids cannot be hashed and sorted.
    """
    parameter = f"{name}s"
    with about(parameter):
        frame = to_frame(given, parameter)
        if frame is None:
            ids = _read_ids(given, parameter)
            context = pd.DataFrame(index=range(len(ids)))
        else:
            context = prepare_table(given, parameter, name)
            ids = context.index.to_numpy()
        if not len(ids):
            raise ValueError(f"{parameter} is empty; give at least one {name} id.")
    index = make_index(ids)
    if not index.is_unique:
        repeated = index[index.duplicated()].tolist()[0]
        raise ValueError(
            f"{parameter} contains the id {repeated!r} more than once; give each id once."
        )
    return CandidateSide(name, ids, context)


def _read_ids(given: Any, parameter: str) -> np.ndarray:
    if isinstance(given, np.ndarray):
        given = np.atleast_1d(unmasked(given))
        if given.ndim > 1:
            raise ValueError(f"{parameter} must be one id or 1-D; got a {given.ndim}-D array.")
    elif not isinstance(given, pd.Series | pd.Index):
        labels = given if is_list_like(given, allow_sets=False) else [given]
        given = np.fromiter(labels, dtype=object)
    if not len(given):
        return np.empty(0)
    column = pd.Series(given, dtype=None if given.dtype.kind in "iuf" else object)
    return read_ids(column, parameter)


@dataclass(frozen=True)
class Column:
    """A column of X, with a value for each user, for each service, or a single value.

    Attributes
    ----------
    name : object
        Name in the model.
    values : array
        Values with a method ``take``.
    side : {"user", "service"} or None
        Side to which the values belong; None for a single value.
    """

    name: Any
    values: Any
    side: str | None = None


class Candidates:
    """All pairs of given users and services, in blocks, as input of the last step of a model.

    Parameters
    ----------
    model : estimator or Pipeline
        Fitted.
    users, services : CandidateSide
        Users and their candidate services.
    time : object, default=None
        Time of all rows; None if the model uses no time.

    Raises
    ------
    ValueError
        If `time` is missing or not expected, or a context column is unknown to the model.
    """

    def __init__(
        self, model: Any, users: CandidateSide, services: CandidateSide, time: Any = None
    ) -> None:
        self.model, self.users, self.services = model, users, services
        final = last_step(model)
        self.has_names, names = _input_names(model)
        n_places = 3 if _takes_time(final, names, self.has_names, time) else 2
        joined = [] if final is model else list(getattr(final, "feature_names_in_", ()))
        others = _context_of_other_side(final)
        context = _name_context([users, services], [*names[n_places:], *joined], others)
        places = [
            Column(names[0], users.ids, "user"),
            Column(names[1], services.ids, "service"),
            *(Column(name, pd.Series([time]).array) for name in names[2:n_places]),
        ]
        missing = np.array([np.nan])
        columns = [context.pop(name, Column(name, missing)) for name in names[n_places:]]
        self._input = places + columns
        # Given context replaces the context that the previous steps join.
        self._replaced = list(context.values())

    def blocks(self) -> Iterator[range]:
        """Yield users in blocks."""
        step = max(1, PAIRS_PER_BLOCK // len(self.services))
        for start in range(0, len(self.users), step):
            yield range(start, min(start + step, len(self.users)))

    def rows(self, block: range) -> pd.DataFrame | np.ndarray:
        """Return the rows of a block of users with all services, sorted by user."""
        n_services = len(self.services)
        positions = {
            "user": np.repeat(np.arange(block.start, block.stop), n_services),
            "service": np.tile(np.arange(n_services), len(block)),
            None: np.zeros(len(block) * n_services, dtype=np.int64),
        }
        X = _frame_of(self._input, positions)
        X = transform_input(self.model, X if self.has_names else _as_array(X))
        frame = to_frame(X, "X")
        if frame is None:
            return X
        if not self._replaced:
            return frame
        replaced = _frame_of(self._replaced, positions).set_axis(frame.index)
        return frame.assign(**dict(replaced.items()))


def _as_array(X: pd.DataFrame) -> np.ndarray:
    """Return a frame as an array; integers that a float cannot represent remain integers."""
    array = X.to_numpy()
    if array.dtype.kind != "f":
        return array
    integers = X.select_dtypes("integer").to_numpy()
    is_exact = (np.abs(integers.astype(np.float64)) < MAX_EXACT_INTEGER).all()
    return array if is_exact else X.to_numpy(dtype=object)


def take_rows(X: pd.DataFrame | np.ndarray, rows: np.ndarray) -> pd.DataFrame | np.ndarray:
    """Return rows of the result of `Candidates.rows`."""
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


def _input_names(model: Any) -> tuple[bool, list[Any]]:
    """Return the input names of the model; they are numbers if it was fitted without names."""
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        return True, list(names)
    return False, list(range(getattr(model, "n_features_in_", 2)))


def _takes_time(final: Any, names: list[Any], has_names: bool, time: Any) -> bool:
    """Return whether the model needs a time; raise if `time` does not match."""
    # Whether an `IntervalRegressor` reads times depends on its regressor.
    regressor = regressor_of(final)
    n_places = getattr(regressor, "_n_id_columns", None)
    if n_places is None:
        takes_time = len(names) > 2 and (not has_names or role_of(names[2]) == "time")
    else:
        takes_time = n_places > 2
    kind = type(final).__name__
    if takes_time and time is None:
        raise ValueError(f"time is None, but {kind} was fitted with times; give a time.")
    if time is not None and not takes_time:
        raise ValueError(f"time={time!r}, but this {kind} does not use times; leave time out.")
    if takes_time and is_list_like(time):
        raise ValueError(f"time must be a single time for all rows; got {time!r}.")
    return takes_time


def _context_of_other_side(final: Any) -> dict[str, set[Any]]:
    """Return the names that a fitted estimator reads as context of the services, or the users."""
    regressor = regressor_of(final)
    layout = getattr(getattr(regressor, "_state", None), "layout", None)
    if layout is None:
        return {"user": set(), "service": set()}
    names = list(getattr(regressor, "feature_names_in_", range(regressor.n_features_in_)))
    return {
        "user": {names[position] for position in layout.service_columns},
        "service": {names[position] for position in layout.user_columns},
    }


def _name_context(
    sides: list[CandidateSide], names: list[Any], others: dict[str, set[Any]]
) -> dict[Any, Column]:
    """Return context with the column names of the model, with or without prefix.

    `others` has the names that belong to the other side, by side.
    """
    found = {}
    for side in sides:
        known = [name for name in names if name not in others[side.name]]
        for column, values in side.context.items():
            spelt = [column, column.removeprefix(f"{side.name}_")]
            name = next((name for name in spelt if name in known), None)
            if name is None:
                raise ValueError(
                    f"{side.name}s has a column {column!r}, which is not context of the model; the "
                    f"model has {known or 'none'}. Drop the column, or give only the ids."
                )
            found[name] = Column(name, values.array, side.name)
    return found


def _frame_of(columns: list[Column], positions: dict[str | None, np.ndarray]) -> pd.DataFrame:
    taken = [column.values.take(positions[column.side]) for column in columns]
    # Keeps the dtype of each column; pandas would convert objects to strings one by one.
    series = {k: pd.Series(values, dtype=values.dtype) for k, values in enumerate(taken)}
    return pd.DataFrame(series).set_axis([column.name for column in columns], axis=1)
