"""Rank all candidates of a block of users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skqos._errors import about
from skqos.selection._candidates import Candidates, take_rows
from skqos.selection._criteria import Criteria
from skqos.selection._order import NOBODY, cheapest_accepted, shared_ranks
from skqos.selection._pareto import is_on_front


def has_intervals(estimator: Any) -> bool:
    """Whether a fitted estimator tells more than a point."""
    return hasattr(estimator, "predict_interval") and bool(getattr(estimator, "intervals", True))


@dataclass(frozen=True)
class Ranking:
    """How services are ranked, whoever asks.

    Attributes
    ----------
    estimator : estimator
        Fitted.
    criteria : Criteria
        What is wanted of each target.
    n : int
        Services for each user; at most as many as there are.
    tie_tolerance : float
        Of the cost.
    pareto_only : bool
        Whether the front alone is ranked.
    confidence_level : float or None
        Of the intervals.
    target_names : sequence of str or None
        For the columns of several targets.
    """

    estimator: Any
    criteria: Criteria
    n: int
    tie_tolerance: float
    pareto_only: bool
    confidence_level: float | None
    target_names: Sequence[str] | None

    def rank(self, candidates: Candidates, block: range) -> pd.DataFrame:
        """Rank all services for the users of a block.

        Returns
        -------
        DataFrame
            As `rank_services` returns it; its index is the position of the user.
        """
        X = candidates.rows(block)
        predictions = self._predict(X, len(block), len(candidates.services))
        n_targets = predictions.shape[2]
        criteria = self.criteria.for_targets(n_targets)
        costs = criteria.costs(predictions)
        fronts = self._fronts(criteria.points(predictions))
        eligible = np.where(fronts, costs, np.inf) if self.pareto_only else costs
        chosen = self._choose(eligible, criteria, X)
        ranks = shared_ranks(np.take_along_axis(costs, chosen, axis=1), self.tie_tolerance)
        user, place = np.nonzero(chosen != NOBODY)
        service = chosen[user, place]
        rows = take_rows(X, np.ravel_multi_index((user, service), costs.shape))
        # No negative zeros.
        score = {"score": 0.0 - costs[user, service]} if n_targets > 1 else {}
        pareto = {"pareto": fronts[user, service]} if n_targets > 1 else {}
        position = user + block.start
        return pd.DataFrame(
            {
                "user": candidates.users.ids[position],
                "rank": ranks[user, place],
                "service": candidates.services.ids[service],
                **score,
                **self._by_target(criteria, predictions[user, service], rows),
                **pareto,
                **self._known(rows),
            },
            index=position,
        )

    def _predict(self, X: Any, n_users: int, n_services: int) -> np.ndarray:
        """Predictions of shape (n_users, n_services, n_targets)."""
        predictions = np.asarray(self.estimator.predict(X), dtype=np.float64)
        if not np.isfinite(predictions).all():
            raise ValueError(
                f"The predictions of {type(self.estimator).__name__} hold NaN or infinity, which "
                "cannot be ranked."
            )
        return predictions.reshape(n_users, n_services, -1)

    def _fronts(self, points: np.ndarray) -> np.ndarray:
        """Each user's Pareto front, (n_users, n_services); of one target only if asked for."""
        if points.shape[2] == 1 and not self.pareto_only:
            return np.zeros(points.shape[:2], dtype=bool)
        return np.stack([is_on_front(of_user) for of_user in points])

    def _choose(self, costs: np.ndarray, criteria: Criteria, X: Any) -> np.ndarray:
        def accept(users: np.ndarray, services: np.ndarray) -> np.ndarray:
            if criteria.min_probability is None:
                return np.ones(len(users), dtype=bool)
            rows = take_rows(X, np.ravel_multi_index((users, services), costs.shape))
            return criteria.accept(self._probabilities(criteria, rows))

        return cheapest_accepted(costs, self.n, accept)

    def _by_target(
        self, criteria: Criteria, predictions: np.ndarray, rows: Any
    ) -> dict[str, np.ndarray]:
        """Predictions, ends of the intervals and probabilities, target by target."""
        values = {"prediction": predictions}
        if self.confidence_level is not None:
            shape = predictions.shape[1], 2
            intervals = self._ask("predict_interval", rows, shape, self.confidence_level)
            values |= {"lower": intervals[:, :, 0], "upper": intervals[:, :, 1]}
        if criteria.has_limit:
            values["probability"] = self._probabilities(criteria, rows)
        suffixes = self._suffixes(predictions.shape[1])
        return {
            f"{name}{suffix}": column
            for name, columns in values.items()
            for suffix, column in zip(suffixes, columns.T, strict=True)
        }

    def _probabilities(self, criteria: Criteria, rows: Any) -> np.ndarray:
        """Probability to meet each limit, (n, n_targets); NaN where there is none."""
        # Where there is no limit, any number does.
        limits = np.nan_to_num(criteria.limits)
        limit = limits if len(limits) > 1 else float(limits[0])
        return criteria.probabilities(self._ask("predict_probability", rows, (len(limits),), limit))

    def _known(self, rows: Any) -> dict[str, np.ndarray]:
        if not hasattr(self.estimator, "is_known"):
            return {}
        known = self._ask("is_known", rows, (2,)).astype(bool)
        return {"user_known": known[:, 0], "service_known": known[:, 1]}

    def _ask(self, method: str, rows: Any, shape: tuple[int, ...], *arguments: Any) -> np.ndarray:
        """Call a method of the estimator; none of them takes an X without rows."""
        if not len(rows):
            return np.empty((0, *shape))
        return getattr(self.estimator, method)(rows, *arguments).reshape(-1, *shape)

    def _suffixes(self, n_targets: int) -> list[str]:
        if self.target_names is None:
            return [f"_{k}" for k in range(n_targets)] if n_targets > 1 else [""]
        with about("target_names"):
            names = [f"_{name}" for name in self.target_names]
        if len(set(names)) != n_targets or len(names) != n_targets:
            raise ValueError(
                f"target_names must hold {n_targets} different names, one for each target; got "
                f"{list(self.target_names)}."
            )
        return names
