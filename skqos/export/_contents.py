"""What an exported file holds beside its graph, as JSON in the metadata of the ONNX model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skqos._ids import read_ids

# Of the metadata.
KEY = "skqos"
FORMAT_VERSION = 1
OUTPUT = "qos"


@dataclass(frozen=True)
class Contents:
    """Ids and shapes.

    Attributes
    ----------
    estimator : str
        Name of the class of the estimator.
    n_id_columns : {2, 3}
        How many columns, from the first, the graph reads.
    n_features : int
        Number of columns that X had in `fit`.
    target_shape : tuple of int
        Shape of a row of y.
    users, services : ndarray
        Ids, as `read_ids` returns them. The position of an id is its row in the graph; the row
        that comes after those of all ids is that of unknown ids.
    """

    estimator: str
    n_id_columns: int
    n_features: int
    target_shape: tuple[int, ...]
    users: np.ndarray
    services: np.ndarray

    def to_json(self) -> str:
        """Return the contents as a text."""
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "estimator": self.estimator,
                "n_id_columns": self.n_id_columns,
                "n_features": self.n_features,
                "target_shape": self.target_shape,
                "users": self.users.tolist(),
                "services": self.services.tolist(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Contents:
        """Return what a text holds.

        Raises
        ------
        ValueError
            If `to_json` did not write it, or that of another format did.
        """
        try:
            found = json.loads(text)
            version = found["format_version"]
            if version == FORMAT_VERSION:
                return cls._of(found)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"its ids and shapes cannot be read ({error!r})") from error
        raise ValueError(
            f"it is of format {version}, which another skqos wrote; this one reads format "
            f"{FORMAT_VERSION}"
        )

    @classmethod
    def _of(cls, found: dict[str, Any]) -> Contents:
        users, services = (
            read_ids(pd.Series(found[side], dtype=object), side) for side in ("users", "services")
        )
        return cls(
            estimator=found["estimator"],
            n_id_columns=found["n_id_columns"],
            n_features=found["n_features"],
            target_shape=tuple(found["target_shape"]),
            users=users,
            services=services,
        )
