"""Join the context of users and services to rows of ids."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pandas.api.extensions import take
from pandas.api.types import (
    is_bool_dtype,
    is_complex_dtype,
    is_datetime64_any_dtype,
    is_numeric_dtype,
    is_object_dtype,
    is_string_dtype,
    is_timedelta64_dtype,
)
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skqos._errors import about
from skqos._frames import to_frame
from skqos._ids import ID_COLUMNS, find_ids, id_kind, make_index, read_ids
from skqos.inputs import (
    as_columns,
    check_names,
    is_numeric,
    named_columns,
    read_numbers,
    role_of,
    stack_rows,
    unmasked,
)

__all__ = ["ContextJoiner"]

# Tests for types whose values are labels, as estimators read them.
LABELS = (
    is_bool_dtype,
    is_object_dtype,
    is_string_dtype,
    is_datetime64_any_dtype,
    is_timedelta64_dtype,
)


class ContextJoiner(TransformerMixin, BaseEstimator):
    """Append context columns of users and services to rows of ids.

    The transformer has two tables, one for users and one for services, with the ids as index. For
    each row of X, it looks up the user (column 0) and the service (column 1) and appends their
    context. As the first step of a Pipeline, it allows X to be an array of ids, so that splits and
    searches do not copy the context.

    Parameters
    ----------
    users : DataFrame or None, default=None
        Context of the users, with the user ids as index. Columns of dtype category, string, bool,
        datetime or timedelta, and of objects other than numbers, are categorical; other columns
        must be numeric. In a frame without index, such as those of polars, the ids are in the
        column that is named for them, for example ``user`` or ``user_id``, or otherwise in the
        first column.

    services : DataFrame or None, default=None
        Context of the services, in the same form.

    Attributes
    ----------
    users_ : DataFrame or None
        Table of the users that is joined, with prefixed column names and columns of dtype category
        or float64.

    services_ : DataFrame or None
        Table of the services that is joined.

    n_features_in_ : int
        Number of columns of X seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,), dtype object
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    Notes
    -----
    Context columns are named ``user_<name>`` and ``service_<name>``; a name that already starts
    with the prefix is kept. Categorical columns have the categories of the table, so that they are
    the same in all splits. The context of an id that is not in the table is NaN. Without tables, X
    is returned unchanged.

    Ids are compared as labels: 17, 17.0 and ``np.int64(17)`` are the same id, ``"17"`` is a
    different one. Large integers are compared exactly. The output is a pandas DataFrame for any
    kind of frame X, unless `set_output` changes this. Categorical columns are joined as codes,
    without copying objects.

    The tables are not modified; `fit` keeps a converted copy of each. It learns nothing from X.

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
        """Check the tables, and that they contain ids of X.

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
            If a table has repeated or missing ids, repeated columns, a column that is also in X, a
            column named for ids, or no id in common with X, or if the name of a column of X belongs
            to another position.
        """
        # An error leaves an earlier fit as it was.
        fitted = copy(self)
        X = fitted._validate(X, reset=True)
        fitted.users_, fitted.services_ = (
            prepare_table(getattr(self, parameter), parameter, parameter.removesuffix("s"))
            for parameter in ("users", "services")
        )
        if fitted._has_tables():
            fitted._check_tables_fit(fitted._with_names(X))
        self.__dict__ = fitted.__dict__
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
            The columns of X, of `users_` and of `services_`, with the index of X. A DataFrame keeps
            its column names; the columns of an array are named user, service, time, x3, x4, ...
            Without tables, X is returned, as an array unless it is a DataFrame.

        Raises
        ------
        ValueError
            If the ids are of another kind than those of the table, for example "17" for 17.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        if not self._has_tables():
            return X
        frame = self._with_names(X)
        context: dict[str, Any] = {}
        for position, table in enumerate((self.users_, self.services_)):
            if table is not None:
                ids = _read_ids(frame, position)
                _check_kind(ids, table.index, ID_COLUMNS[position])
                context.update(_rows_of(table, _positions(ids, table.index)))
        return pd.concat([frame, pd.DataFrame(context, index=frame.index, copy=False)], axis=1)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[Any]:
        """Return the names of the columns of the output.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X. If None, they are `feature_names_in_` or, without names in
            `fit`, user, service, time, x3, x4, ...

        Returns
        -------
        names : ndarray of shape (n_features_out,), dtype object
            Names of the columns of X, followed by those of the context.
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
        with about("X"):
            return self._read(X, reset=reset)

    def _read(self, X: ArrayLike, *, reset: bool) -> pd.DataFrame | NDArray[Any]:
        frame = named_columns(X)
        if frame is None:
            X = stack_rows(X) if isinstance(X, list | tuple) else unmasked(X)
            return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        # check_array would convert columns of several dtypes to one slow array of objects.
        validate_data(self, frame, reset=reset, skip_check_array=True)
        check_names(frame.columns, len(ID_COLUMNS) - 1)
        if reset and not len(frame):
            raise ValueError("X has 0 rows; at least one is needed to check the tables.")
        # set_output(transform="pandas") renames in place, which must not change the caller's frame.
        return frame.copy(deep=False)

    def _with_names(self, X: pd.DataFrame | NDArray[Any]) -> pd.DataFrame:
        X = X if isinstance(X, pd.DataFrame) else as_columns(X)
        X.columns = getattr(self, "feature_names_in_", _default_names(self.n_features_in_))
        return X

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
                _check_any_match(_read_ids(X, position), table.index, parameter)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        return tags


def _default_names(n_columns: int) -> list[str]:
    return [*ID_COLUMNS, *(f"x{i}" for i in range(len(ID_COLUMNS), n_columns))][:n_columns]


def prepare_table(table: Any, parameter: str, entity: str) -> pd.DataFrame | None:
    """Check a table, and return it with prefixed names and categorical or float64 columns."""
    if table is None:
        return None
    with about(parameter):
        return _read_table(table, parameter, entity)


def _read_table(table: Any, parameter: str, entity: str) -> pd.DataFrame:
    frame = to_frame(table, parameter)
    if frame is None:
        raise TypeError(
            f"{parameter} must be a pandas DataFrame (or another frame) with the {entity} ids as "
            f"index, or None; got {type(table).__name__}."
        )
    if frame is not table:
        frame = _set_index(frame, parameter, entity)
    index = _prepare_index(frame.index, parameter, entity)
    names = [_prefixed(str(name), entity) for name in frame.columns]
    _check_no_repeats(names, parameter)
    _check_no_ids(frame.columns, names, parameter, entity)
    columns = {
        name: _prepare_column(frame.iloc[:, position], parameter).array
        for position, name in enumerate(names)
    }
    return pd.DataFrame(columns, index=index)


def _set_index(frame: pd.DataFrame, parameter: str, entity: str) -> pd.DataFrame:
    """Set the column of ids as the index of a frame without index."""
    named = [k for k, name in enumerate(frame.columns) if role_of(name) == entity]
    if len(named) > 1:
        raise ValueError(
            f"{parameter}: the columns {[frame.columns[k] for k in named]} are both named for "
            f"{entity} ids; drop one."
        )
    if not frame.shape[1]:
        raise ValueError(f"{parameter} has no columns; one must hold the {entity} ids.")
    position = named[0] if named else 0
    ids = frame.iloc[:, position]
    others = frame.iloc[:, [k for k in range(frame.shape[1]) if k != position]]
    return others.set_axis(pd.Index(ids, tupleize_cols=False), axis=0)


def _prefixed(name: str, entity: str) -> str:
    return name if name.startswith(f"{entity}_") else f"{entity}_{name}"


def _prepare_index(index: pd.Index, parameter: str, entity: str) -> pd.Index:
    """Check the ids of a table, and return them without conversion."""
    if isinstance(index, pd.MultiIndex):
        raise ValueError(
            f"{parameter}: the index must contain only the {entity} ids; got a MultiIndex."
        )
    if index.hasnans:
        raise ValueError(f"{parameter}: the index must hold a {entity} id in every row; got NaN.")
    if len(index) == 0:
        return index
    ids = make_index(read_ids(pd.Series(index), f"{parameter}, the index"), index.name)
    if not ids.is_unique:
        repeated = ids[ids.duplicated()][0]
        raise ValueError(
            f"{parameter}: the index must name each {entity} once, but the id {_show(repeated)} is "
            "repeated."
        )
    return ids


def _check_no_ids(columns: pd.Index, names: list[str], parameter: str, entity: str) -> None:
    """Raise ValueError if a column is named for ids, which must be the index."""
    for column, name in zip(columns, names, strict=True):
        if entity in (role_of(column), role_of(name)):
            raise ValueError(
                f"{parameter}: the column {column!r} is named for {entity} ids, which must be the "
                f"index: give {parameter}.set_index({column!r}), or drop the column."
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
    if is_object_dtype(dtype) and is_numeric(column):
        return pd.Series(read_numbers(column), index=column.index)
    if any(is_label(dtype) for is_label in LABELS):
        return _as_category(column, f"{parameter}: the column {column.name!r}")
    if is_numeric_dtype(dtype) and not is_complex_dtype(dtype):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)
    raise TypeError(
        f"{parameter}: the column {column.name!r} must be numeric or of dtype category, string, "
        f"object, bool, datetime or timedelta; got {dtype}."
    )


def _as_category(column: pd.Series, label: str) -> pd.Series:
    try:
        return column.astype("category")
    except Exception as error:  # calls methods of the values
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{label} contains values that are not labels ({error}); they must be strings, "
            "numbers, or other values that can be hashed."
        ) from error


def _check_names_free(table: pd.DataFrame, taken: pd.Index, parameter: str) -> None:
    clashes = table.columns[table.columns.isin(taken)]
    if len(clashes):
        raise ValueError(
            f"{parameter}: X already has a column named {clashes[0]!r}, which the table would add; "
            "rename one or drop it."
        )


@dataclass(frozen=True)
class _Ids:
    """Ids of a column of X that are not missing, the rows they are in, and the number of rows."""

    values: NDArray[Any]
    rows: NDArray[np.intp]
    n_rows: int


def _read_ids(X: pd.DataFrame, position: int) -> _Ids:
    column = X.iloc[:, position]
    present = column.notna().to_numpy()
    label = f"X, column {position} ({ID_COLUMNS[position]})"
    if not present.all():
        column = column[present]
    ids = read_ids(column, label) if len(column) else np.empty(0, dtype=np.int64)
    return _Ids(ids, np.flatnonzero(present), len(present))


def _check_kind(ids: _Ids, index: pd.Index, entity: str) -> None:
    """Raise ValueError if ids cannot match those of the table, such as "17" and 17."""
    if not len(ids.values) or not len(index):
        return
    kind, known = id_kind(ids.values), id_kind(index[:1].to_numpy())
    if kind != known:
        raise ValueError(
            f"{entity} ids of X are of kind {kind} (for example {_show(ids.values[0])}); those of "
            f"the table are of kind {known} (for example {_show(index[0])}). Give the same kind."
        )


def _check_any_match(ids: _Ids, index: pd.Index, parameter: str) -> None:
    if (_positions(ids, index) >= 0).any():
        return
    entity = parameter.removesuffix("s")
    known = f"the table, e.g. {_show(index[0])}" if len(index) else "the table, which is empty"
    example = f", e.g. {_show(ids.values[0])}," if len(ids.values) else ""
    raise ValueError(
        f"{parameter}: none of the {len(set(ids.values.tolist()))} {entity} ids of X{example} "
        f"is in the index of {known}. The index must hold the ids that "
        f"column {ID_COLUMNS.index(entity)} of X uses, as the same kind of label."
    )


def _show(label: Any) -> str:
    """Return a label as a user would type it: 17, not np.int64(17)."""
    return repr(label.item() if isinstance(label, np.generic) else label)


def _positions(ids: _Ids, index: pd.Index) -> NDArray[np.int64]:
    """Return the row of the table for each row of X, or -1."""
    found = find_ids(index, ids.values) if len(index) else np.full(len(ids.values), -1)
    if len(found) == ids.n_rows:
        return found
    positions = np.full(ids.n_rows, -1)
    positions[ids.rows] = found
    return positions


def _rows_of(table: pd.DataFrame, positions: NDArray[np.int64]) -> dict[str, Any]:
    """Return the columns of the table at each position, NaN at -1.

    Only the codes of categories are copied.
    """
    rows = {}
    for name, column in table.items():
        values = column.array
        if not isinstance(values, pd.Categorical):
            rows[name] = take(column.to_numpy(), positions, allow_fill=True)
            continue
        codes = take(values.codes, positions, allow_fill=True, fill_value=-1)
        rows[name] = pd.Categorical.from_codes(codes, dtype=values.dtype, validate=False)
    return rows
