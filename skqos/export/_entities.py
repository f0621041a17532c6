"""Users and services of an exported file: those of `fit`, then those of the tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from skqos._ids import append_ids, find_ids, id_kind
from skqos.entities import EntityEncoder, EntityTable

# Kinds of ids that JSON represents exactly.
KINDS = ("number", "string")


@dataclass(frozen=True)
class ExportedEntities:
    """Users or services of an exported file.

    Attributes
    ----------
    ids : ndarray of shape (n,)
        Ids of all entities: the known ones in the order of their codes, then the new ones.
    newcomers : EntityTable
        Context of the entities that training did not see; the last row is an unknown id without
        context.
    """

    ids: np.ndarray
    newcomers: EntityTable

    @classmethod
    def of(cls, encoder: EntityEncoder, table: pd.DataFrame | None) -> ExportedEntities:
        """Collect the entities of an encoder, and those that are only in a context table.

        Parameters
        ----------
        encoder : EntityEncoder
            Encoder of the fitted estimator.
        table : DataFrame or None
            Table of a fitted `ContextJoiner`, indexed by id.

        Raises
        ------
        TypeError
            If ids are neither numbers nor strings, or the two have ids of different kinds.
        """
        table = pd.DataFrame() if table is None else table
        listed = table.index.to_numpy()
        _check_kind(encoder, listed)
        new = np.flatnonzero(find_ids(encoder.ids_, listed) < 0)
        # An id that is missing in the table has a row of NaN: the unknown id.
        context = table.reset_index(drop=True).reindex(
            index=[*new, len(table)], columns=[*encoder.categorical_, *encoder.numeric_]
        )
        ids = append_ids(encoder.ids_, listed[new]) if len(new) else encoder.ids_
        return cls(ids.to_numpy(), encoder.tabulate(context))


def _check_kind(encoder: EntityEncoder, listed: np.ndarray) -> None:
    if encoder.kind_ not in KINDS:
        raise TypeError(
            f"The {encoder.side} ids of the model are of kind {encoder.kind_} (for example "
            f"{encoder.ids_[0]!r}); to_onnx supports ids that are numbers or strings. Fit "
            "with such ids."
        )
    if len(listed) and id_kind(listed) != encoder.kind_:
        raise TypeError(
            f"The table of {encoder.side}s in the ContextJoiner has ids of kind {id_kind(listed)}, "
            f"the model of kind {encoder.kind_}. Fit the pipeline as a whole."
        )
