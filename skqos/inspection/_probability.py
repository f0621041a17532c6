"""Calibration of predicted probabilities of meeting a limit."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skqos._errors import check_same_length
from skqos._pipelines import last_step, target_names_of, transform_input
from skqos._target_checks import check_target_names
from skqos.inspection._common import (
    COLORS,
    binomial_range,
    check_option,
    style,
    take_target,
)
from skqos.inspection._display import Display, drawing
from skqos.metrics._intervals import band_rows

STRATEGIES = ("uniform", "quantile")


class ProbabilityCalibrationDisplay(Display):
    """Calibration of the predicted probability of meeting a limit.

    There is a point for each bin of the probability P(y <= limit), and the diagonal of perfect
    calibration. The bar behind a point is the range that contains 95 % of the shares expected for
    this number of rows if the probabilities are calibrated. Use `from_estimator` or
    `from_predictions` to create the plot.

    Parameters
    ----------
    calibration : DataFrame of shape (n_bins, 3)
        The columns are ``probability``, the mean predicted probability, ``share``, the share of
        rows that met the limit, and ``n_rows``, the number of observed rows.

    limit : float
        Limit in the unit of y.

    Attributes
    ----------
    calibration : DataFrame
        As passed to the constructor.

    limit : float
        As passed to the constructor.

    ax_ : Axes
        Axes of the plot.

    figure_ : Figure
        Figure of the plot.

    line_ : Line2D
        Points of the bins.

    diagonal_ : Line2D
        Line of perfect calibration.

    bars_ : BarContainer
        Ranges of the expected shares.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : Calibration of classifiers.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skqos.inspection import ProbabilityCalibrationDisplay
    >>> display = ProbabilityCalibrationDisplay.from_predictions(
    ...     [0.1, 0.3, 0.7, 0.9], [0.9, 0.8, 0.8, 0.1], limit=0.5, n_bins=2
    ... )
    >>> display.calibration.round(3).to_numpy().tolist()
    [[0.1, 0.0, 1.0], [0.833, 0.667, 3.0]]
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, calibration: pd.DataFrame, limit: float) -> None:
        self.calibration = calibration
        self.limit = limit

    @classmethod
    @drawing
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        limit: float,
        n_bins: int = 10,
        strategy: Literal["uniform", "quantile"] = "uniform",
        target: int | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the calibration of a fitted regressor on given rows.

        Parameters
        ----------
        estimator : regressor, Pipeline or search
            Fitted regressor with a method ``predict_probability(X, limit)``.
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Rows with columns as in the estimator's `fit`. They should not be training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS of these rows; NaN where nothing was observed.
        limit, n_bins, strategy, target
            As in `from_predictions`.
        ax, line_kw, bar_kw
            As in `plot`.

        Returns
        -------
        ProbabilityCalibrationDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            If matplotlib is not installed, or the estimator is not fitted or does not predict
            probabilities.
        ValueError
            As in `from_predictions`.
        """
        caller = f"{cls.__name__}.from_estimator"
        final = last_step(estimator)
        if not hasattr(final, "predict_probability"):
            raise TypeError(
                f"{caller} needs a fitted regressor with a method predict_probability; got "
                f"{type(final).__name__}."
            )
        check_target_names(y, target_names_of(final))
        return cls.from_predictions(
            y,
            final.predict_probability(transform_input(estimator, X), limit),
            limit=limit,
            n_bins=n_bins,
            strategy=strategy,
            target=target,
            ax=ax,
            line_kw=line_kw,
            bar_kw=bar_kw,
        )

    @classmethod
    @drawing
    def from_predictions(
        cls,
        y_true: ArrayLike,
        probability: ArrayLike,
        *,
        limit: float,
        n_bins: int = 10,
        strategy: Literal["uniform", "quantile"] = "uniform",
        target: int | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the calibration of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
            Observed values in any unit; NaN where nothing was observed.
        probability : array-like of the shape of `y_true`
            Predicted probabilities, in [0, 1], that y is at most `limit`.
        limit : float
            Limit in the unit of `y_true`.
        n_bins : int, default=10
            Number of bins of the probability. Bins without an observed row are omitted.
        strategy : {"uniform", "quantile"}, default="uniform"
            "uniform" bins have the same width; "quantile" bins have about the same number of rows.
        target : int, default=None
            Column of `y_true` and `probability`. Required if they have several.
        ax, line_kw, bar_kw
            As in `plot`.

        Returns
        -------
        ProbabilityCalibrationDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a probability is outside [0, 1], lengths differ, there is no observation, there are
            several targets and `target` is None, a parameter is out of range, or `ax` is not an
            Axes.
        """
        check_option("strategy", strategy, STRATEGIES)
        y = take_target(y_true, "y_true", target)
        probability = _take_probability(probability, target)
        check_same_length(y_true=y, probability=probability)
        calibration = _calibrate(y, probability, limit, n_bins, strategy)
        display = cls(calibration=calibration, limit=limit)
        return display.plot(ax, line_kw=line_kw, bar_kw=bar_kw)

    @drawing
    def plot(
        self,
        ax: Any = None,
        *,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Plot the share of rows that met the limit over the predicted probability.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on. If None, a new figure is created.
        line_kw, bar_kw : dict, default=None
            Keyword arguments for the points (``Axes.plot``) and the ranges (``Axes.bar``).

        Returns
        -------
        self : ProbabilityCalibrationDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` is not an Axes.
        """
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle

        self._take_axes(ax, (4.5, 4.5))
        predicted = self.calibration["probability"].to_numpy()
        low, high = binomial_range(predicted, self.calibration["n_rows"].to_numpy())
        options = {"color": "0.88", "label": "expected range (95 %)", "width": 0.04}
        self.bars_ = self.ax_.bar(
            predicted, high - low, bottom=low, **style(Rectangle, options, bar_kw)
        )
        (self.diagonal_,) = self.ax_.plot(
            [0, 1], [0, 1], color="0.3", linestyle="--", label="perfectly calibrated"
        )
        options = {"color": COLORS[0], "marker": "o", "label": "observed"}
        (self.line_,) = self.ax_.plot(
            predicted, self.calibration["share"], **style(Line2D, options, line_kw)
        )
        self.ax_.set(
            xlabel=f"predicted probability of y ≤ {self.limit:g}",
            ylabel=f"observed share of y ≤ {self.limit:g}",
        )
        self.ax_.legend(frameon=False)
        return self


def _take_probability(probability: Any, target: int | None) -> np.ndarray:
    values = take_target(probability, "probability", target)
    outside = (values < 0) | (values > 1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"probability: row {row} is {values[row]}; give values from 0 to 1.")
    return values


def _calibrate(
    y: np.ndarray, probability: np.ndarray, limit: float, n_bins: int, strategy: str
) -> pd.DataFrame:
    """Return the mean probability, the share that met the limit, and the rows of each bin."""
    observed = ~np.isnan(y)
    if not observed.any():
        raise ValueError("y_true is NaN in every row; at least one observed value is needed.")
    y, probability = y[observed], probability[observed]
    if strategy == "uniform":
        codes = np.minimum((probability * n_bins).astype(np.int64), n_bins - 1)
    else:
        codes, _ = band_rows(probability, n_bins)
    rows = pd.DataFrame({"probability": probability, "share": y <= limit})
    table = rows.groupby(codes).mean()
    table["n_rows"] = np.bincount(codes)[table.index]
    return table.reset_index(drop=True)
