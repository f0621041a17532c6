"""Encoding of ids as codes, and of context columns as one row per user or service."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd

from skqos._errors import about
from skqos._ids import append_ids, find_ids, id_kind, make_index
from skqos.inputs import is_numeric, read_numbers

UNKNOWN = -1
# Networks extrapolate far values without a bound, until float32 overflows.
MAX_DEVIATIONS = 10.0


@dataclass(frozen=True)
class EntityTable:
    """Context of users or services, with one row per entity.

    Attributes
    ----------
    categories : ndarray of int64 of shape (n_entities, n_categorical)
        Code of each categorical context column; -1 if unknown.
    numerics : ndarray of float32 of shape (n_entities, n_numeric)
        Numeric context, standardised over the training entities and at most `MAX_DEVIATIONS` from
        0; NaN if unknown.
    """

    categories: np.ndarray
    numerics: np.ndarray

    def __len__(self) -> int:
        return len(self.categories)

    def take(self, rows: np.ndarray) -> EntityTable:
        """Return a table of the given rows."""
        return EntityTable(self.categories[rows], self.numerics[rows])


@dataclass(frozen=True)
class Interactions:
    """Pairs as positions of entities: first the known ones, then the new ones.

    Attributes
    ----------
    users, services : ndarray of int64 of shape (n,)
        Codes of known entities, or the number of known entities plus a row of `new_users` or
        `new_services`.
    times : ndarray of int64 of shape (n,) or None
        Time steps.
    new_users, new_services : EntityTable
        Entities that training did not see, with one row per distinct context.
    """

    users: np.ndarray
    services: np.ndarray
    times: np.ndarray | None
    new_users: EntityTable
    new_services: EntityTable

    @classmethod
    def of_known(
        cls,
        users: np.ndarray,
        services: np.ndarray,
        user_table: EntityTable,
        service_table: EntityTable,
    ) -> Interactions:
        """Create pairs of known entities from codes; the tables are those of `fit`."""
        nobody = np.arange(0)
        return cls(users, services, None, user_table.take(nobody), service_table.take(nobody))

    def __len__(self) -> int:
        return len(self.users)


class EntityEncoder:
    """Encoder of the users or of the services: codes of ids, and context of entities.

    Codes are positions in the sorted ids, so that they do not depend on the order of rows. Ids that
    `extend` adds follow, sorted among themselves. A category that neither has seen is unknown. A
    missing value (NaN) is a separate category if it occurs in `fit`, and unknown otherwise. If it
    first occurs in `extend`, it is a separate category of the added entities. Known entities with
    missing values remain unknown, because a few added entities do not describe all others.

    Parameters
    ----------
    side : {"user", "service"}
        Side that is named in errors.

    Attributes
    ----------
    ids_ : Index of shape (n_entities,)
        Id of each code.
    table_ : EntityTable
        Context of the known entities.
    categorical_, numeric_ : list
        Names of the context columns.
    categories_ : list of Index
        Categories of each categorical column; codes are positions in it.
    saw_missing_ : list of bool
        Whether `fit` saw missing values in each categorical column.
    mean_, scale_ : ndarray of shape (n_numeric,)
        Mean and standard deviation of the numeric columns over entities.
    """

    def __init__(self, side: str) -> None:
        self.side = side

    def __repr__(self) -> str:
        known = "no" if not hasattr(self, "ids_") else f"{self.n_entities:,}"
        return f"<{known} {self.side}s>"

    @property
    def n_entities(self) -> int:
        """Number of known entities."""
        return len(self.ids_)

    @property
    def n_categories(self) -> list[int]:
        """Number of codes of each categorical context column."""
        return [len(categories) for categories in self.categories_]

    @property
    def shared_names(self) -> dict[str, int]:
        """Positions of the categorical columns with the prefix of the side, by name without prefix.

        For example, ``user_as`` and ``service_as`` are both "as".
        """
        prefix = f"{self.side}_"
        return {
            name.removeprefix(prefix): position
            for position, name in enumerate(self.categorical_)
            if isinstance(name, str) and name.startswith(prefix)
        }

    def fit(self, ids: np.ndarray, context: pd.DataFrame) -> np.ndarray:
        """Learn ids, categories and scales; return the code of each row.

        Raises
        ------
        ValueError
            If an id has two contexts, or a numeric context value is infinite.
        TypeError
            If context contains neither numbers nor labels.
        """
        self.kind_ = id_kind(ids)
        codes, distinct = pd.factorize(ids, sort=True)
        self.ids_ = make_index(distinct)
        _, first_rows = np.unique(codes, return_index=True)
        self.numeric_ = [name for name in context if is_numeric(context[name])]
        self.categorical_ = [name for name in context if name not in self.numeric_]
        self._check_one_context(context, codes, first_rows, self.ids_)
        entities = context.iloc[first_rows]
        self.categories_ = [_categories(entities[name]) for name in self.categorical_]
        self.saw_missing_ = [labels.hasnans for labels in self.categories_]
        numbers = self._numbers(entities)
        self.mean_, self.scale_ = _mean_and_scale(numbers)
        self.table_ = self.tabulate(entities)
        return codes.astype(np.int64)

    def transform(
        self, ids: np.ndarray, context: pd.DataFrame | Callable[[], pd.DataFrame]
    ) -> tuple[np.ndarray, EntityTable]:
        """Return the positions of ids, and the table of the ids that `fit` did not see.

        Known ids keep the context with which they were fitted. The context is computed by the given
        function only if there are unknown ids. Unknown ids with equal context are equal to a model
        and share a row of the table.

        Raises
        ------
        ValueError
            If ids or context values are of another kind than in `fit`, for example "17" for 17.
        TypeError
            If context of an unknown id is not a label.
        """
        positions = self._positions(ids)
        new = np.flatnonzero(positions < 0)
        if len(new) == 0:
            return positions, self.table_.take(new)
        context = context() if callable(context) else context
        groups, first_rows = self._distinct_contexts(context, new)
        positions[new] = self.n_entities + groups
        return positions, self.tabulate(context.iloc[new[first_rows]])

    def extend(self, ids: np.ndarray, context: pd.DataFrame) -> tuple[EntityEncoder, np.ndarray]:
        """Return an encoder that also knows the given ids, and the code of each row.

        Known codes, contexts, categories and scales do not change. New ids and categories get the
        following codes.

        Raises
        ------
        ValueError
            If ids are of another kind than in `fit`, a new id has two contexts or context of
            another kind, or a numeric context value is infinite.
        TypeError
            If context of a new id is not a label.
        """
        codes = self._positions(ids)
        rows = np.flatnonzero(codes < 0)
        context = context.iloc[rows]
        new_codes, new_ids = pd.factorize(ids[rows], sort=True)
        _, first_rows = np.unique(new_codes, return_index=True)
        self._check_one_context(context, new_codes, first_rows, new_ids)
        codes[rows] = self.n_entities + new_codes
        entities = context.iloc[first_rows]
        # Refuses labels of another kind, which would be categories of their own below.
        self.tabulate(entities)
        extended = copy.copy(self)
        extended.ids_ = append_ids(self.ids_, new_ids)
        extended.categories_ = [
            known.append(labels[known.get_indexer(labels) < 0])
            for known, labels in (
                (known, _categories(entities[name]))
                for name, known in zip(self.categorical_, self.categories_, strict=True)
            )
        ]
        table = extended._tabulate(entities)
        extended.table_ = EntityTable(
            np.concatenate([self.table_.categories, table.categories]),
            np.concatenate([self.table_.numerics, table.numerics]),
        )
        return extended, codes

    def tabulate(self, entities: pd.DataFrame) -> EntityTable:
        """Return the table of entities from context with one row each and the names of `fit`.

        Raises
        ------
        ValueError
            If context is of another kind than in `fit`, or a number is infinite.
        TypeError
            If context is not a label.
        """
        table = self._tabulate(entities)
        for position, name in enumerate(self.categorical_):
            if not self.saw_missing_[position]:
                table.categories[entities[name].isna().to_numpy(), position] = UNKNOWN
        return table

    def _tabulate(self, entities: pd.DataFrame) -> EntityTable:
        """Return the table with every category, also those of missing values."""
        codes = [
            _find_labels(known, entities[name])
            for name, known in zip(self.categorical_, self.categories_, strict=True)
        ]
        categories = np.column_stack(codes) if codes else np.empty((len(entities), 0))
        with np.errstate(over="ignore"):
            numerics = (self._numbers(entities) - self.mean_) / self.scale_
        numerics = np.clip(numerics, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return EntityTable(categories.astype(np.int64), numerics.astype(np.float32))

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        """Return the code of each id, -1 if unknown; raise ValueError for another kind of ids."""
        kind = id_kind(ids)
        if kind != self.kind_:
            raise ValueError(
                f"{self.side} ids are of kind {kind} (for example {ids[0]}); fit saw ids of "
                f"kind {self.kind_} (for example {self.ids_[0]}). Give the same kind."
            )
        return find_ids(self.ids_, ids)

    def _distinct_contexts(
        self, context: pd.DataFrame, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Group rows by context; return the group of each row and the first row of each group."""
        columns = [*self.categorical_, *self.numeric_]
        if not columns:
            return np.zeros(len(rows), dtype=np.int64), np.arange(1)
        keys = np.column_stack([_factorize(context[name].iloc[rows]) for name in columns])
        frame = pd.DataFrame(keys)
        groups = frame.groupby(list(frame.columns), sort=False).ngroup().to_numpy()
        _, first_rows = np.unique(groups, return_index=True)
        return groups.astype(np.int64), first_rows

    def _check_one_context(
        self,
        context: pd.DataFrame,
        codes: np.ndarray,
        first_rows: np.ndarray,
        ids: pd.Index | np.ndarray,
    ) -> None:
        for name in context:
            values = _factorize(context[name])
            differs = values != values[first_rows][codes]
            if differs.any():
                row = int(np.flatnonzero(differs)[0])
                first = int(first_rows[codes[row]])
                raise ValueError(
                    f"{self.side} {ids[codes[row]]} has two contexts: column {name!r} is "
                    f"{context[name].iloc[first]} in one row and {context[name].iloc[row]} in "
                    "another. An id has one context."
                )

    def _numbers(self, entities: pd.DataFrame) -> np.ndarray:
        numbers = [read_numbers(entities[name]) for name in self.numeric_]
        return np.column_stack(numbers) if numbers else np.empty((len(entities), 0))


def _factorize(column: pd.Series) -> np.ndarray:
    """Return the code of each value of a context column, -1 if it is missing."""
    label = f"Context column {column.name!r}"
    with about(label):
        try:
            return pd.factorize(column)[0]
        except TypeError as error:
            raise TypeError(
                f"{label} holds {_first_unhashable(column)}; a context value must be a number, a "
                "string or another label that can be hashed."
            ) from error


def _first_unhashable(column: pd.Series) -> str:
    for row, value in enumerate(column):
        try:
            hash(value)
        except TypeError:
            return f"a {type(value).__name__} in row {row}"
    return "values that cannot be compared"


def _find_labels(known: pd.Index, column: pd.Series) -> np.ndarray:
    """Return the code of each label, -1 if unknown; raise for labels of another kind."""
    with about(f"Context column {column.name!r}"):
        labels = plain_labels(column)
        codes = known.get_indexer(labels)
    new, seen = (
        {_label_kind(kind) for kind in set(map(type, values[values.notna()]))}
        for values in (labels[codes < 0], known)
    )
    if new and seen and not new & seen:
        raise ValueError(
            f"Context column {column.name!r} holds {' and '.join(sorted(new))}s such as "
            f"{labels[codes < 0].dropna()[0]!r}; fit saw {' and '.join(sorted(seen))}s such as "
            f"{known.dropna()[0]!r}. Give the same kind, or NaN where it is unknown."
        )
    return codes


def _label_kind(kind: type) -> str:
    if issubclass(kind, str):
        return "string"
    if issubclass(kind, Real | np.bool_):
        return "number"
    return kind.__name__


def plain_labels(column: pd.Series) -> pd.Index:
    """Return labels as objects, with NaN for every kind of missing value."""
    labels = column.astype(object).where(column.notna(), np.nan)
    return pd.Index(labels, dtype=object, tupleize_cols=False)


def _categories(column: pd.Series) -> pd.Index:
    with about(f"Context column {column.name!r}"):
        return plain_labels(column).unique()


def _mean_and_scale(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation of the known values, or 0 and 1 without values."""
    known = ~np.isnan(numbers)
    count = np.maximum(known.sum(axis=0), 1)
    # Sums and squares of large values would be infinite, and those of small ones 0.
    unit = np.abs(np.where(known, numbers, 0.0)).max(axis=0, initial=0.0)
    unit[unit == 0] = 1.0
    scaled = numbers / unit
    mean = np.where(known, scaled, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, scaled - mean, 0.0) ** 2).sum(axis=0) / count)
    is_constant = deviation <= 1e-12 * np.abs(mean)
    return unit * mean, np.where(is_constant, 1.0, unit * deviation)
