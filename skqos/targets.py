"""Transforms of targets between the unit of y and the scale of the network."""

from __future__ import annotations

from typing import get_args

import numpy as np

from skqos._types import TargetTransformName
from skqos._weighted import weighted_median

TRANSFORMS = get_args(TargetTransformName)
# "auto": largest distance of the median from the minimum, in mean absolute deviations from the
# median. For exponential values the distance is 1. If the minimum is far from all other values, the
# roots of the distances from it would have almost no spread.
MAX_DISTANCE = 2.0
# Relative to the deviations: the rounding error of a mean of 0 with an offset that is a million
# times larger.
ROUNDING = 1e-6
# Networks use float32, and losses may square: larger or smaller values would be infinite or 0.
MAX_TRANSFORMED = 1e18
MIN_TRANSFORMED = 1e-18
# exp(700) is near the largest float64, so that extreme predictions stay finite.
MAX_EXPONENT = 700.0


class TargetTransform:
    """One invertible, increasing map per target, learnt from the training targets alone.

    Parameters
    ----------
    kind : {"auto", "sqrt", "log", "max", "standard"} or None
        - "sqrt": ``sign(y) sqrt(abs(y) / m)``, where m is the mean of abs(y). Differences between
          large values have less weight than between small ones, but more than with "log".
        - "log": ``log(1 + y / m)``, where m is the mean of y, for non-negative targets. The
          division by the mean makes the result independent of the unit of y.
        - "max": y divided by the largest absolute value.
        - "standard": y minus its mean, divided by its standard deviation.
        - None: y as it is.
        - "auto": "sqrt" of y minus its minimum for a target with a heavy right tail, and "standard"
          otherwise. A tail is heavy if the mean is above the median, and the distance of the median
          from the minimum is at most twice the mean absolute deviation from the median. The choice
          depends neither on the unit nor on an offset of y.

    Attributes
    ----------
    kinds_ : list
        Chosen transform of each target.
    shift_, scale_ : ndarray of shape (n_targets,)
        Shift, which is subtracted from y, and scale, by which the result is divided.
    """

    def __init__(self, kind: str | None) -> None:
        self.kind = kind

    def fit(self, y: np.ndarray, weights: np.ndarray | None = None) -> TargetTransform:
        """Learn the transform from measured targets.

        Parameters
        ----------
        y : ndarray of float64 of shape (n,) or (n, n_targets)
            Targets; NaN where not observed.
        weights : ndarray of float64 of shape (n,), default=None
            Positive weights of the rows; None is 1 for all.

        Raises
        ------
        ValueError
            If the kind is "log" and a target has a negative value, or transformed values are too
            large or too small for the network.
        """
        columns = y.reshape(len(y), -1)
        weights = np.ones(len(y)) if weights is None else weights
        seen = ~np.isnan(columns.T)
        observed = [
            (column[rows], weights[rows]) for column, rows in zip(columns.T, seen, strict=True)
        ]
        self.kinds_ = [self._choose(*target) for target in observed]
        pairs = [
            self._shift_and_scale(kind, *target)
            for kind, target in zip(self.kinds_, observed, strict=True)
        ]
        self.shift_, self.scale_ = np.array(pairs, dtype=np.float64).T
        self._is_log = np.array([kind == "log" for kind in self.kinds_])
        self._is_sqrt = np.array([kind == "sqrt" for kind in self.kinds_])
        self._check_size(columns)
        self._check_not_lost(columns)
        return self

    def check(self, y: np.ndarray) -> None:
        """Raise ValueError if further values of y cannot be transformed."""
        columns = y.reshape(len(y), -1)
        negative = (columns < 0) & self._is_log
        if negative.any():
            row, target = np.argwhere(negative)[0]
            raise ValueError(
                f"y holds {columns[row, target]} (row {row}, target {target}), but the transform "
                f"'log', which fit used with target_transform={self.kind!r}, needs y >= 0. Fit "
                "again with target_transform='auto' or 'standard'."
            )
        self._check_size(columns)

    def transform(self, y: np.ndarray) -> np.ndarray:
        """Map y to the scale of the network; NaN stays NaN."""
        # Later values may have another order of magnitude than those of training.
        with np.errstate(over="ignore"):
            z = (y.reshape(len(y), -1) - self.shift_) / self.scale_
        # Validation targets may be below the training minimum; log1p needs values above -1.
        z[:, self._is_log] = np.log1p(np.maximum(z[:, self._is_log], 0.0))
        roots = z[:, self._is_sqrt]
        z[:, self._is_sqrt] = np.copysign(np.sqrt(np.abs(roots)), roots)
        return z.reshape(y.shape)

    def inverse_transform(self, z: np.ndarray) -> np.ndarray:
        """Map predictions back to the unit of y; always finite for finite z."""
        y = z.reshape(len(z), -1).astype(np.float64)
        y[:, self._is_log] = np.expm1(np.minimum(y[:, self._is_log], MAX_EXPONENT))
        limit = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            y[:, self._is_sqrt] *= np.abs(y[:, self._is_sqrt])
            y = np.clip(y * self.scale_ + self.shift_, -limit, limit)
        return y.reshape(z.shape)

    def _check_size(self, columns: np.ndarray) -> None:
        """Raise ValueError if the square of a transformed value exceeds float32."""
        too_large = np.abs(self.transform(columns)) > MAX_TRANSFORMED
        if too_large.any():
            row, target = np.argwhere(too_large)[0]
            raise ValueError(
                f"y holds {columns[row, target]} (row {row}, target {target}), which "
                f"target_transform={self.kind!r} leaves too large for the network. Fit with "
                "target_transform='auto' or 'standard', or leave such values out."
            )

    def _check_not_lost(self, columns: np.ndarray) -> None:
        """Raise ValueError if a target that is not 0 would be 0 for the network."""
        largest = np.nanmax(np.abs(self.transform(columns)), axis=0)
        lost = (largest < MIN_TRANSFORMED) & (np.nanmax(np.abs(columns), axis=0) > 0)
        # Constants are shifted to 0.
        lost &= self.shift_ == 0
        if lost.any():
            raise ValueError(
                f"y, target {lost.argmax()}, holds values of at most {largest[lost.argmax()]}, "
                f"which target_transform={self.kind!r} leaves too small for the network. Fit with "
                "target_transform='auto' or 'standard', or give y in another unit."
            )

    def _choose(self, values: np.ndarray, weights: np.ndarray) -> str | None:
        if self.kind == "log" and values.min() < 0:
            raise ValueError(
                f"target_transform='log' needs y >= 0; found {values.min()}. Use 'auto' or "
                "'standard'."
            )
        if self.kind != "auto":
            return self.kind
        return "sqrt" if _has_heavy_right_tail(values, weights) else "standard"

    def _shift_and_scale(
        self, kind: str | None, values: np.ndarray, weights: np.ndarray
    ) -> tuple[float, float]:
        if kind is None:
            return 0.0, 1.0
        # Sums and squares of unscaled values may overflow or underflow.
        largest = np.abs(values).max() or 1.0
        if kind == "max":
            return 0.0, largest
        if kind == "standard":
            return _mean(values, weights), _positive(_deviation(values, weights), largest)
        shift = values.min() if self.kind == "auto" else 0.0
        return shift, _positive(_mean(np.abs(values - shift), weights), largest)


def _has_heavy_right_tail(values: np.ndarray, weights: np.ndarray) -> bool:
    """Decide by statistics that do not depend on the unit or an offset of the values."""
    above = values - values.min()
    median = weighted_median(above, weights)
    deviation = above - median
    spread = _mean(np.abs(deviation), weights)
    is_skewed = _mean(deviation, weights) > ROUNDING * spread
    return bool(is_skewed and median <= MAX_DISTANCE * spread)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    largest = np.abs(values).max() or 1.0
    return largest * np.average(values / largest, weights=weights)


def _deviation(values: np.ndarray, weights: np.ndarray) -> float:
    largest = np.abs(values).max() or 1.0
    scaled = values / largest
    distance = scaled - np.average(scaled, weights=weights)
    return largest * np.sqrt(np.average(distance * distance, weights=weights))


def _positive(scale: float, largest: float) -> float:
    """Return a positive scale; for a constant target it is its magnitude, but at most 1."""
    return scale or min(largest, 1.0)
