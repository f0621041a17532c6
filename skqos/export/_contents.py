"""Ids and shapes of an exported file, as JSON in the metadata of the ONNX model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skqos._ids import read_ids
from skqos._times import TimeScale

# Version of the metadata.
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
        Number of columns, from the first, that the graph reads.
    n_features : int
        Number of columns that X had in `fit`.
    target_shape : tuple of int
        Shape of a row of y.
    time_scale : TimeScale or None
        Conversion of times to steps, if the graph reads times.
    first_step : int or None
        First measured step, if the graph reads times.
    users, services : ndarray
        Ids, as returned by `read_ids`. The position of an id is its row in the graph. The last row
        of the graph is for unknown ids.
    """

    estimator: str
    n_id_columns: int
    n_features: int
    target_shape: tuple[int, ...]
    time_scale: TimeScale | None
    first_step: int | None
    users: np.ndarray
    services: np.ndarray

    def to_json(self) -> str:
        """Return the contents as JSON."""
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "estimator": self.estimator,
                "n_id_columns": self.n_id_columns,
                "n_features": self.n_features,
                "target_shape": self.target_shape,
                "time_scale": _spell_scale(self.time_scale),
                "first_step": self.first_step,
                "users": self.users.tolist(),
                "services": self.services.tolist(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Contents:
        """Return the contents of a JSON text.

        Raises
        ------
        ValueError
            If it was not written by `to_json`, or has another format.
        """
        try:
            found = json.loads(text)
            version = found["format_version"]
            if version == FORMAT_VERSION:
                return cls._of(found)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"its ids and shapes cannot be read ({error!r})") from error
        raise ValueError(
            f"it has format {version} of another version of skqos; this version reads "
            f"format {FORMAT_VERSION}"
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
            time_scale=_read_scale(found["time_scale"]),
            first_step=found["first_step"],
            users=users,
            services=services,
        )


def _spell_scale(scale: TimeScale | None) -> list[Any] | None:
    """Return the origin in ISO form and the step in nanoseconds, or None for integer times."""
    if scale is None or scale.origin is None:
        return None if scale is None else [None, None]
    return [scale.origin.isoformat(), scale.step.value]


def _read_scale(spelt: list[Any] | None) -> TimeScale | None:
    if spelt is None:
        return None
    origin, step = spelt
    if origin is None:
        return TimeScale()
    return TimeScale(pd.Timestamp(origin), pd.Timedelta(step, unit="ns"))
