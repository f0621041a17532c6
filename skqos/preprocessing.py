"""Join what is known about users and services to the rows that name them."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pandas.api.extensions import take
from pandas.api.types import (
    is_bool_dtype,
    is_complex_dtype,
    is_numeric_dtype,
    is_object_dtype,
    is_string_dtype,
)
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["ContextJoiner"]

_ID_NAMES = ("user", "service", "time")


class ContextJoiner(TransformerMixin, BaseEstimator):
    """Append context columns of users and services to rows of ids.

    Holds two tables, one row per entity with its id as index, and looks up the user (column 0 of X)
    and the service (column 1) of each row. As a first step of a pipeline it keeps X a plain index
    array, so that splits and searches never handle the context.

    Parameters
    ----------
    users : DataFrame or None, default=None
        Context of the users; the index is the user id, each column one context. Columns of dtype
        category, string, object or bool are categorical, other columns must be numeric.

    services : DataFrame or None, default=None
        Context of the services, likewise.

    Attributes
    ----------
    users_ : DataFrame or None
        The users table as it is joined: prefixed names, columns of dtype category or float64.

    services_ : DataFrame or None
        The services table as it is joined.

    n_features_in_ : int
        Number of columns of X in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,), dtype object
        Names of the columns of X in `fit`; only if X is a DataFrame whose names are all strings.

    Notes
    -----
    Context columns are named ``user_<name>`` and ``service_<name>``; a name that already starts
    with that prefix is kept. Categorical columns have the categories of the table, so that all
    splits agree on them. An id that is not in the table gets NaN throughout. Without tables, X is
    passed on as it is.

    Ids match as labels: 17, 17.0 and ``np.int64(17)`` are one id, ``"17"`` is another.

    The tables are not changed. `fit` keeps a converted copy of each; it does not learn from X.

    Examples
    --------
    >>> import pandas as pd
    >>> from skqos.preprocessing import ContextJoiner
    >>> users = pd.DataFrame({"country": ["Japan", "Italy"]}, index=[17, 23])
    >>> services = pd.DataFrame({"latitude": [48.1]}, index=[4032])
    >>> ContextJoiner(users, services).fit_transform([[17, 4032], [23, 5]])
       user  service user_country  service_latitude
    0    17     4032        Japan              48.1
    1    23        5        Italy               NaN
    """

    def __init__(
        self, users: pd.DataFrame | None = None, services: pd.DataFrame | None = None
    ) -> None:
        self.users = users
        self.services = services

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: ARG002  (transformer interface)
        """Check the tables and that they belong to the ids of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_columns)
            User ids in column 0, service ids in column 1; further columns are passed through.

        y : object, default=None
            Ignored, exists for API compatibility.

        Returns
        -------
        self : ContextJoiner
            The fitted transformer.

        Raises
        ------
        TypeError
            If a table is not a DataFrame, or one of its columns is neither categorical nor numeric.
        ValueError
            If a table has repeated or missing ids, repeated columns, a column that X has too, or no
            id in common with X.
        """
        X = self._validate(X, reset=True)
        self.users_ = _prepare_table(self.users, "users", "user")
        self.services_ = _prepare_table(self.services, "services", "service")
        if self._has_tables():
            self._check_tables_fit(self._with_names(X))
        return self

    def transform(self, X: ArrayLike) -> pd.DataFrame | NDArray[Any]:
        """Append the context of each row's user and service.

        Parameters
        ----------
        X : array-like of shape (n_samples, `n_features_in_`)
            User ids in column 0, service ids in column 1; further columns are passed through.

        Returns
        -------
        X_out : DataFrame of shape (n_samples, n_features_out)
            The columns of X, then those of `users_`, then those of `services_`, with the index of
            X. A DataFrame keeps its column names; the columns of an array are named user, service,
            time, x3, x4, ... Without tables: X, as an array unless it is a DataFrame.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        if not self._has_tables():
            return X
        X = self._with_names(X)
        return pd.concat(
            [
                X,
                *_context_of(X.iloc[:, 0], self.users_),
                *_context_of(X.iloc[:, 1], self.services_),
            ],
            axis=1,
        )

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[Any]:
        """Name the columns of the output.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X. None takes `feature_names_in_`, or user, service, time, x3,
            x4, ... where X came without names.

        Returns
        -------
        names : ndarray of shape (n_features_out,), dtype object
            Names of the columns of X, then of the context.
        """
        check_is_fitted(self)
        if input_features is None and not hasattr(self, "feature_names_in_"):
            names = _default_names(self.n_features_in_)
        else:
            names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        tables = [table.columns for table in (self.users_, self.services_) if table is not None]
        return np.concatenate([np.asarray(part, dtype=object) for part in (names, *tables)])

    def _has_tables(self) -> bool:
        return self.users_ is not None or self.services_ is not None

    def _validate(self, X: ArrayLike, *, reset: bool) -> pd.DataFrame | NDArray[Any]:
        if not isinstance(X, pd.DataFrame):
            return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        # check_array would turn columns of several dtypes into one slow array of objects.
        validate_data(self, X, reset=reset, skip_check_array=True)
        if reset and not len(X):
            raise ValueError("X has 0 rows; at least one is needed to check the tables against.")
        # set_output(transform="pandas") renames in place, which must not reach the caller's frame.
        return X.copy(deep=False)

    def _with_names(self, X: pd.DataFrame | NDArray[Any]) -> pd.DataFrame:
        names = getattr(self, "feature_names_in_", _default_names(self.n_features_in_))
        if isinstance(X, pd.DataFrame):
            return X.set_axis(names, axis=1)
        return pd.DataFrame(X, columns=names)

    def _check_tables_fit(self, X: pd.DataFrame) -> None:
        if X.shape[1] < 2:
            raise ValueError(
                f"X must hold user ids in column 0 and service ids in column 1; "
                f"got {X.shape[1]} column(s)."
            )
        for parameter, position in (("users", 0), ("services", 1)):
            table = getattr(self, f"{parameter}_")
            if table is not None:
                _check_names_free(table, X.columns, parameter)
                _check_any_match(X.iloc[:, position], table.index, parameter)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        return tags


def _default_names(n_columns: int) -> list[str]:
    return [*_ID_NAMES, *(f"x{i}" for i in range(len(_ID_NAMES), n_columns))][:n_columns]


def _prepare_table(table: pd.DataFrame | None, parameter: str, entity: str) -> pd.DataFrame | None:
    """Check a table and return it with prefixed names, categorical or float64 columns."""
    if table is None:
        return None
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"{parameter} must be a pandas DataFrame with the {entity} ids as index, or None; "
            f"got {type(table).__name__}."
        )
    _check_index(table.index, parameter, entity)
    names = [_prefixed(str(name), entity) for name in table.columns]
    _check_no_repeats(names, parameter)
    columns = {
        name: _prepare_column(table.iloc[:, position], parameter)
        for position, name in enumerate(names)
    }
    return pd.DataFrame(columns, index=table.index)


def _prefixed(name: str, entity: str) -> str:
    return name if name.startswith(f"{entity}_") else f"{entity}_{name}"


def _check_index(index: pd.Index, parameter: str, entity: str) -> None:
    if isinstance(index, pd.MultiIndex):
        raise ValueError(
            f"{parameter}: the index must hold the {entity} ids alone; got a MultiIndex."
        )
    if index.hasnans:
        raise ValueError(f"{parameter}: the index must hold a {entity} id in every row; got NaN.")
    if not index.is_unique:
        repeated = index[index.duplicated()][0]
        raise ValueError(
            f"{parameter}: the index must name each {entity} once, but the id {_show(repeated)} is "
            "repeated."
        )


def _check_no_repeats(names: list[str], parameter: str) -> None:
    index = pd.Index(names)
    if not index.is_unique:
        repeated = index[index.duplicated()][0]
        raise ValueError(
            f"{parameter}: two columns of the table would be named {repeated!r} in the output; "
            "rename one."
        )


def _prepare_column(column: pd.Series, parameter: str) -> pd.Series:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return column
    if is_bool_dtype(dtype) or is_object_dtype(dtype) or is_string_dtype(dtype):
        return column.astype("category")
    if is_numeric_dtype(dtype) and not is_complex_dtype(dtype):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)
    raise TypeError(
        f"{parameter}: the column {column.name!r} must be numeric or of dtype category, string, "
        f"object or bool; got {dtype}."
    )


def _check_names_free(table: pd.DataFrame, taken: pd.Index, parameter: str) -> None:
    clashes = table.columns[table.columns.isin(taken)]
    if len(clashes):
        raise ValueError(
            f"{parameter}: X already has a column named {clashes[0]!r}, which the table would add; "
            "rename one or drop it."
        )


def _check_any_match(ids: pd.Series, index: pd.Index, parameter: str) -> None:
    if (_positions(ids, index) >= 0).any():
        return
    entity = parameter.removesuffix("s")
    known = f"the table, e.g. {_show(index[0])}" if len(index) else "the table, which is empty"
    raise ValueError(
        f"{parameter}: none of the {ids.nunique(dropna=False)} {entity} ids of X, e.g. "
        f"{_show(ids.iloc[0])}, is in the index of {known}. The index must hold the ids that "
        f"column {_ID_NAMES.index(entity)} of X uses, as the same kind of label."
    )


def _show(label: Any) -> str:
    """Show a label as a user would type it: 17, not np.int64(17)."""
    return repr(label.item() if isinstance(label, np.generic) else label)


def _positions(ids: pd.Series, index: pd.Index) -> NDArray[np.intp]:
    return index.get_indexer(pd.Index(ids))


def _context_of(ids: pd.Series, table: pd.DataFrame | None) -> list[pd.Series]:
    """Return the columns of the table for each id, NaN where the table does not have it."""
    if table is None:
        return []
    positions = _positions(ids, table.index)
    return [pd.Series(_take(table[name], positions), index=ids.index, name=name) for name in table]


def _take(column: pd.Series, positions: NDArray[np.intp]) -> pd.Categorical | NDArray[np.float64]:
    """Take by position, -1 being missing; of a category only its small codes are copied."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return take(column.to_numpy(), positions, allow_fill=True)
    codes = take(column.cat.codes.to_numpy(), positions, allow_fill=True, fill_value=-1)
    return pd.Categorical.from_codes(codes, dtype=column.dtype, validate=False)
