"""Rank all candidates of a block of users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skqos._errors import about
from skqos.selection._candidates import Candidates
from skqos.selection._criteria import Criteria
from skqos.selection._odds import Odds
from skqos.selection._order import NOBODY, cheapest_accepted, shared_ranks
from skqos.selection._pareto import is_on_front
from skqos.selection._predictions import Predictions, predict_rows


def has_intervals(estimator: Any) -> bool:
    """Return whether a fitted estimator predicts intervals."""
    return hasattr(estimator, "predict_interval") and getattr(estimator, "_has_intervals", True)


@dataclass(frozen=True)
class Scored:
    """Predictions and costs of all pairs of a block of users.

    Attributes
    ----------
    predictions : Predictions
        Predictions of all pairs, sorted by user.
    costs : ndarray of shape (n_users, n_services)
        Costs; low values are good.
    fronts : ndarray of bool of shape (n_users, n_services)
        Pareto front of each user; for one target, used only with `pareto_only`.
    odds : Odds
        Probabilities of meeting the limits.
    """

    predictions: Predictions
    costs: np.ndarray
    fronts: np.ndarray
    odds: Odds


@dataclass(frozen=True)
class Ranking:
    """Parameters of a ranking, and the ranking of blocks of users.

    Attributes
    ----------
    estimator : estimator
        Fitted estimator.
    criteria : Criteria
        Criteria of the targets.
    n : int
        Number of services for each user, at most the number of candidates.
    quantile : float or None
        Level of the quantile that determines the order if low values are good; None for the
        prediction.
    tie_tolerance : float
        Tolerance of shared ranks, in units of the cost.
    pareto_only : bool
        Whether only the Pareto front is ranked.
    confidence_level : float or None
        Confidence level of the intervals, or None for no intervals.
    target_names : sequence of str or None
        Names of several targets for the column names.
    """

    estimator: Any
    criteria: Criteria
    n: int
    quantile: float | None
    tie_tolerance: float
    pareto_only: bool
    confidence_level: float | None
    target_names: Sequence[str] | None

    def rank(self, candidates: Candidates, block: range) -> pd.DataFrame:
        """Rank all services for the users of a block.

        Returns
        -------
        DataFrame
            Result of `rank_services`, with the position of the user as index.
        """
        scored = self._score(candidates, block)
        chosen = self._choose(scored)
        ranks = shared_ranks(np.take_along_axis(scored.costs, chosen, axis=1), self.tie_tolerance)
        user, place = np.nonzero(chosen != NOBODY)
        service = chosen[user, place]
        position = user + block.start
        columns = {
            "user": candidates.users.ids[position],
            "rank": ranks[user, place],
            "service": candidates.services.ids[service],
        }
        return pd.DataFrame(columns | self._describe(scored, (user, service)), index=position)

    def _score(self, candidates: Candidates, block: range) -> Scored:
        predictions = predict_rows(self.estimator, candidates.rows(block))
        self._check_finite(predictions.values)
        criteria = self.criteria.for_targets(predictions.values.shape[1])
        compared = predictions.values
        if self.quantile is not None:
            compared = self._quantiles(predictions, criteria.signs)
        compared = compared.reshape(len(block), len(candidates.services), -1)
        costs = criteria.costs(compared)
        return Scored(
            predictions=predictions,
            costs=costs,
            fronts=self._fronts(criteria.points(compared)),
            odds=Odds(criteria, predictions, costs.shape),
        )

    def _check_finite(self, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise ValueError(
                f"The predictions of {type(self.estimator).__name__} contain NaN or infinity, "
                "which cannot be ranked."
            )

    def _quantiles(self, predictions: Predictions, signs: np.ndarray) -> np.ndarray:
        """Predict the quantile of each target that determines the order, (n, n_targets)."""
        both = predictions.quantiles([self.quantile, 1 - self.quantile])
        return np.where(signs > 0, both[:, :, 0], both[:, :, 1])

    def _fronts(self, points: np.ndarray) -> np.ndarray:
        """Return the Pareto front of each user; of one target only if needed."""
        if points.shape[2] == 1 and not self.pareto_only:
            return np.zeros(points.shape[:2], dtype=bool)
        return np.stack([is_on_front(of_user) for of_user in points])

    def _choose(self, scored: Scored) -> np.ndarray:
        """Return the positions of the services of each user, best first, followed by -1."""

        def accept(users: np.ndarray, services: np.ndarray) -> np.ndarray:
            if self.criteria.min_probability is None:
                return np.ones(len(users), dtype=bool)
            # NaN stands for no limit.
            missed = scored.odds(users, services) < self.criteria.min_probability
            return ~np.asarray(missed.any(axis=1))

        costs = scored.costs
        if self.pareto_only:
            costs = np.where(scored.fronts, costs, np.inf)
        return cheapest_accepted(costs, self.n, accept)

    def _describe(
        self, scored: Scored, pairs: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the columns of the result that describe pairs."""
        rows = np.ravel_multi_index(pairs, scored.costs.shape)
        predictions = scored.predictions.values[rows]
        by_target = {"prediction": predictions, **self._ends(scored.predictions, rows)}
        if self.criteria.has_limit:
            by_target["probability"] = scored.odds(*pairs)
        suffixes = self._suffixes(predictions.shape[1])
        columns = {
            f"{name}{suffix}": column
            for name, values in by_target.items()
            for suffix, column in zip(suffixes, values.T, strict=True)
        }
        if predictions.shape[1] > 1:
            # No negative zeros.
            columns = {"score": 0.0 - scored.costs[pairs], **columns}
            columns["pareto"] = scored.fronts[pairs]
        return columns | _known(scored.predictions, rows)

    def _ends(self, predictions: Predictions, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the ends of the intervals of rows, each of shape (n_rows, n_targets)."""
        if self.confidence_level is None:
            return {}
        intervals = predictions.intervals(rows, self.confidence_level)
        return {"lower": intervals[:, :, 0], "upper": intervals[:, :, 1]}

    def _suffixes(self, n_targets: int) -> list[str]:
        if self.target_names is None:
            return [f"_{k}" for k in range(n_targets)] if n_targets > 1 else [""]
        with about("target_names"):
            names = [f"_{name}" for name in self.target_names]
        is_text = isinstance(self.target_names, str)
        if is_text or len(names) != n_targets or len(set(names)) < n_targets:
            raise ValueError(
                f"target_names must contain {n_targets} different names, one for each target; got "
                f"{self.target_names!r}."
            )
        return names


def _known(predictions: Predictions, rows: np.ndarray) -> dict[str, np.ndarray]:
    known = predictions.known(rows)
    return {} if known is None else {"user_known": known[:, 0], "service_known": known[:, 1]}
