"""Transforming targets: from the unit of y to the scale on which a network learns."""

from __future__ import annotations

import numpy as np

TRANSFORMS = ("auto", "sqrt", "log", "max", "standard")


class TargetTransform:
    """One invertible, increasing map per target, learnt from the training targets alone.

    Parameters
    ----------
    kind : {"auto", "sqrt", "log", "max", "standard"} or None
        - "sqrt": ``sign(y) sqrt(abs(y) / m)`` with m the mean of abs(y). Differences between large
          values count for less than between small ones, but for more than under "log".
        - "log": ``log(1 + y / m)`` with m the mean of y; for targets that are never negative.
          Dividing by the mean makes the result independent of the unit: seconds and
          milliseconds are learnt alike.
        - "max": y divided by the largest absolute value.
        - "standard": y minus its mean, divided by its standard deviation.
        - None: y as it is.
        - "auto": "sqrt" for a target that is never negative and has a heavy right tail (its mean
          is above its median), else "standard".

    Attributes
    ----------
    kinds_ : list
        What was chosen for each target.
    shift_, scale_ : ndarray of shape (n_targets,)
        Subtracted from y, then divided by.
    """

    def __init__(self, kind: str | None) -> None:
        self.kind = kind

    def fit(self, y: np.ndarray) -> TargetTransform:
        """Learn from y of shape (n,) or (n, n_targets); NaN is not observed.

        Raises
        ------
        ValueError
            If "log" was asked for and a target has a negative value.
        """
        columns = y.reshape(len(y), -1)
        observed = [column[~np.isnan(column)] for column in columns.T]
        self.kinds_ = [self._choose(values) for values in observed]
        pairs = [
            _shift_and_scale(kind, values)
            for kind, values in zip(self.kinds_, observed, strict=True)
        ]
        self.shift_, self.scale_ = np.array(pairs, dtype=np.float64).T
        self._is_log = np.array([kind == "log" for kind in self.kinds_])
        self._is_sqrt = np.array([kind == "sqrt" for kind in self.kinds_])
        return self

    def check(self, y: np.ndarray) -> None:
        """Raise ValueError if further values of y cannot be transformed as the first were."""
        columns = y.reshape(len(y), -1)
        negative = (columns < 0) & self._is_log
        if negative.any():
            row, target = np.argwhere(negative)[0]
            raise ValueError(
                f"y holds {columns[row, target]} (row {row}, target {target}), but the transform "
                f"'log', that fit took by target_transform={self.kind!r}, needs y >= 0. Fit again "
                "with target_transform='standard'."
            )

    def transform(self, y: np.ndarray) -> np.ndarray:
        """Map y to the scale of the network; the shape stays, NaN stays NaN."""
        z = (y.reshape(len(y), -1) - self.shift_) / self.scale_
        # Validation targets may lie below what training has seen; log1p needs more than -1.
        z[:, self._is_log] = np.log1p(np.maximum(z[:, self._is_log], 0.0))
        roots = z[:, self._is_sqrt]
        z[:, self._is_sqrt] = np.copysign(np.sqrt(np.abs(roots)), roots)
        return z.reshape(y.shape)

    def inverse_transform(self, z: np.ndarray) -> np.ndarray:
        """Map predictions back to the unit of y; always finite for finite z."""
        y = z.reshape(len(z), -1).copy()
        # exp(700) is near the largest float64: a wild prediction stays finite.
        y[:, self._is_log] = np.expm1(np.minimum(y[:, self._is_log], 700.0))
        limit = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            y[:, self._is_sqrt] *= np.abs(y[:, self._is_sqrt])
            y = np.clip(y * self.scale_ + self.shift_, -limit, limit)
        return y.reshape(z.shape)

    def _choose(self, values: np.ndarray) -> str | None:
        if self.kind == "log" and values.min() < 0:
            raise ValueError(
                f"target_transform='log' needs y >= 0; found {values.min()}. Use 'auto' or "
                "'standard'."
            )
        if self.kind != "auto":
            return self.kind
        heavy_tail = values.min() >= 0 and _mean(values) > np.median(values)
        return "sqrt" if heavy_tail else "standard"


def _shift_and_scale(kind: str | None, values: np.ndarray) -> tuple[float, float]:
    if kind is None:
        return 0.0, 1.0
    largest = np.abs(values).max() or 1.0
    if kind == "max":
        return 0.0, largest
    # Sums and squares of the values themselves may overflow or underflow.
    small = values / largest
    if kind == "standard":
        return largest * small.mean(), (largest * small.std()) or 1.0
    return 0.0, (largest * np.abs(small).mean()) or 1.0


def _mean(values: np.ndarray) -> float:
    largest = np.abs(values).max() or 1.0
    return largest * (values / largest).mean()
