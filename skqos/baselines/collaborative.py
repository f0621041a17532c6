"""The usual baselines of QoS papers, without torch: neighbourhoods (UIPCC) and PMF.

Z. Zheng, H. Ma, M. R. Lyu, I. King, "QoS-Aware Web Service Recommendation by Collaborative
Filtering", IEEE Transactions on Services Computing 4(2), 2011. R. Salakhutdinov, A. Mnih,
"Probabilistic Matrix Factorization", NIPS 2008.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state

from skqos._progress import end_report, report
from skqos._sklearn_compat import Interval
from skqos.base import TrainingRows
from skqos.baselines._common import BaselineRegressor
from skqos.factorization import interaction_matrix
from skqos.state import FittedAttribute

__all__ = ["PMFRegressor", "UIPCCRegressor"]

# Numbers in a block of similarities: 16 MB.
SIMILARITIES_PER_BLOCK = 2**21
PAIRS_PER_BATCH = 2**16
# Below this share of its mean, the deviation of a value is rounding.
ROUNDING = 1e-12


class _MatrixRegressor(BaselineRegressor):
    """Base class with the matrix of measured cells, means, and predictions for unknown ids.

    A subclass defines ``_fit_matrix`` and ``_predict_known``.
    """

    user_means_ = FittedAttribute[np.ndarray]()
    service_means_ = FittedAttribute[np.ndarray]()
    mean_ = FittedAttribute[float]()

    def predict(self, X: Any) -> np.ndarray:
        """Predict the QoS of pairs, measured or not, known or not.

        If only the service is known, the prediction is the mean of the service. If only the user is
        known, it is the mean of the user. If neither is known, it is the mean of all cells.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of float64 of shape (n_samples,)
            Predictions in the unit of y.

        Raises
        ------
        ValueError
            If X is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        pairs = fitted._interactions(X)
        known_users, known_services = fitted._known_ids(pairs).T
        prediction = np.full(len(pairs), fitted.mean_)
        alone = known_users & ~known_services
        prediction[alone] = fitted.user_means_[pairs.users[alone]]
        alone = ~known_users & known_services
        prediction[alone] = fitted.service_means_[pairs.services[alone]]
        both = known_users & known_services
        prediction[both] = fitted._predict_known(pairs.users[both], pairs.services[both])
        return prediction

    def _fit_rows(self, rows: TrainingRows) -> dict[str, Any]:
        matrix = interaction_matrix(
            rows.user_codes, rows.service_codes, rows.target, rows.shape, rows.weights
        )
        return {
            "user_means_": _row_means(matrix),
            "service_means_": _row_means(matrix.T.tocsr()),
            "mean_": float(matrix.data.mean()),
            **self._fit_matrix(matrix),
        }

    def _fit_matrix(self, matrix: sparse.csr_array) -> dict[str, Any]:
        """Return the fitted attributes of the method; unobserved cells are not stored."""
        raise NotImplementedError

    def _predict_known(self, users: np.ndarray, services: np.ndarray) -> np.ndarray:
        """Predict pairs of codes that `fit` saw."""
        raise NotImplementedError


class UIPCCRegressor(_MatrixRegressor):
    """Collaborative filtering by similar users and services (UIPCC, WSRec).

    The user-based part (UPCC) predicts the mean of a user plus the weighted mean deviation of
    similar users on the service. The service-based part (IPCC) does the same with services. UIPCC
    is a weighted mean of both.

    Context columns of X, for example from a `ContextJoiner`, are accepted but not used.

    Parameters
    ----------
    n_neighbors : int, default=10
        Maximum number of neighbours of a prediction: those with the largest positive correlation
        among the users that were measured on the service (or the services that were measured for
        the user). Ties for the last place share its weight.

    user_weight : float, default=0.1
        Weight of the user-based part (lambda in the article), in [0, 1]. 1 is UPCC and 0 is IPCC.
        The published figures use 0.1 for response time and 0.9 for throughput.

    significance_weighting : bool, default=False
        Whether to shrink correlations that are computed from few common measurements, by the factor
        ``2 |A and B| / (|A| + |B|)``, where A and B are the services of two users (or the users of
        two services).

    confidence_weighting : bool, default=False
        Whether the weights of the two parts also depend on the similarity of their neighbours; a
        part without neighbours then has weight 0. If False, the weights are fixed, and the mean of
        the user (service) replaces a part without neighbours.

    Attributes
    ----------
    user_neighborhood_, service_neighborhood_ : Neighborhood
        Measured cells by user and by service.
    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.
    user_means_, service_means_ : ndarray of shape (n_users,), (n_services,)
        Mean of the measured cells of each user and of each service, in the order of
        ``users_.ids_`` and ``services_.ids_``.
    mean_ : float
        Mean of all measured cells.
    n_features_in_ : int
        Number of columns of X seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    See Also
    --------
    PMFRegressor : Matrix factorisation.

    Notes
    -----
    The article uses significance and confidence weights (`PAPER_PARAMS`). The published figures
    come from the authors' later benchmark, WSRec, which uses neither; this is the default. As in
    WSRec, a correlation needs two common measurements, and deviations are taken from the mean of
    *all* measurements of a user. If all of y is positive, a part with a prediction of zero or less
    is replaced by the mean.

    Repeated measurements of a cell are replaced by their mean, weighted by `sample_weight`, and
    every cell counts once. The prediction of a measured cell does not use its own value as that of
    a neighbour, but the means and correlations contain it.

    Like other neighbour methods, it learns nothing in `fit` but keeps the measured cells, which are
    part of a pickle. Correlations are computed in blocks in `predict` and not stored. For the
    user-based part, the cost of `predict` is the number of pairs of measurements of the same
    service, plus the number of candidate neighbours of each predicted pair; the service-based part
    is analogous.

    References
    ----------
    .. [1] Z. Zheng, H. Ma, M. R. Lyu, I. King, "QoS-Aware Web Service Recommendation by
       Collaborative Filtering", IEEE Transactions on Services Computing 4(2), 2011.

    Examples
    --------
    >>> from skqos.baselines import UIPCCRegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.5, random_state=0)
    >>> model = UIPCCRegressor().fit(data.X, data.y)
    >>> model.predict([[3, 7], [3, 1000]]).shape
    (2,)
    """

    user_neighborhood_ = FittedAttribute["Neighborhood"]()
    service_neighborhood_ = FittedAttribute["Neighborhood"]()

    PAPER_PARAMS: dict[str, Any] = {"significance_weighting": True, "confidence_weighting": True}

    _parameter_constraints: dict = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "user_weight": [Interval(Real, 0, 1, closed="both")],
        "significance_weighting": ["boolean"],
        "confidence_weighting": ["boolean"],
    }

    def __init__(
        self,
        *,
        n_neighbors: int = 10,
        user_weight: float = 0.1,
        significance_weighting: bool = False,
        confidence_weighting: bool = False,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.user_weight = user_weight
        self.significance_weighting = significance_weighting
        self.confidence_weighting = confidence_weighting

    def _fit_matrix(self, matrix: sparse.csr_array) -> dict[str, Any]:
        return {
            "user_neighborhood_": Neighborhood.of(matrix),
            "service_neighborhood_": Neighborhood.of(matrix.T.tocsr()),
        }

    def _predict_known(self, users: np.ndarray, services: np.ndarray) -> np.ndarray:
        # These parameters act in predictions, too.
        self._validate_params()
        options = self.n_neighbors, self.significance_weighting
        if self.user_weight == 1:
            return self.user_neighborhood_.predict(users, services, *options)[0]
        if self.user_weight == 0:
            return self.service_neighborhood_.predict(services, users, *options)[0]
        by_users, user_confidence = self.user_neighborhood_.predict(users, services, *options)
        by_services, service_confidence = self.service_neighborhood_.predict(
            services, users, *options
        )
        weight = np.full(len(users), float(self.user_weight))
        if self.confidence_weighting:
            share = self.user_weight * user_confidence
            total = share + (1 - self.user_weight) * service_confidence
            np.divide(share, total, out=weight, where=total > 0)
        return weight * by_users + (1 - weight) * by_services


@dataclass(frozen=True)
class SparseRows:
    """Rows of a sparse matrix as plain arrays, which a model file can hold.

    Attributes
    ----------
    starts : ndarray of shape (n_rows + 1,)
        Position of the first cell of each row.
    columns, values : ndarray of shape (n_cells,)
        The stored cells.
    n_columns : int
        Width of the matrix.
    """

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    n_columns: int

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> SparseRows:
        """Take the cells from a matrix."""
        return cls(matrix.indptr, matrix.indices, matrix.data, matrix.shape[1])

    def check_loaded(self) -> None:
        """Raise ValueError if the cells of a file are outside of the matrix."""
        self.matrix(1).check_format(full_check=True)

    @property
    def counts(self) -> np.ndarray:
        """Number of cells in each row."""
        return np.diff(self.starts)

    def matrix(self, power: int) -> sparse.csr_array:
        """Return the matrix with its stored cells raised to a power; 0 marks the stored cells."""
        shape = len(self.starts) - 1, self.n_columns
        return sparse.csr_array((self.values**power, self.columns, self.starts), shape=shape)


@dataclass(frozen=True)
class Neighborhood:
    """One part of UIPCC: entities and their similarities.

    Entities are users and others are services, or vice versa.

    Attributes
    ----------
    means : ndarray of shape (n_entities,)
        Mean of the values of each entity.
    deviations : SparseRows
        Values minus the mean of the entity, in units of `scale`, with one row per entity.
    transposed : SparseRows
        The same with one row per other: the candidate neighbours.
    scale : float
        The largest deviation.
    positive : bool
        Whether all values are positive.
    """

    means: np.ndarray
    deviations: SparseRows
    transposed: SparseRows
    scale: float
    positive: bool

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> Neighborhood:
        """Compute it from a sparse matrix of values with one row per entity."""
        means = _row_means(matrix)
        mean_of_cell = np.repeat(means, np.diff(matrix.indptr))
        deviations = matrix.data - mean_of_cell
        # Equal values have no correlation; rounding errors must not create one.
        deviations[np.abs(deviations) <= ROUNDING * np.abs(mean_of_cell)] = 0.0
        scale = float(np.abs(deviations).max()) or 1.0
        scaled = sparse.csr_array(
            (deviations / scale, matrix.indices, matrix.indptr), shape=matrix.shape
        )
        return cls(
            means=means,
            deviations=SparseRows.of(scaled),
            transposed=SparseRows.of(scaled.T.tocsr()),
            scale=scale,
            positive=bool(matrix.data.min() > 0),
        )

    def predict(
        self, entities: np.ndarray, others: np.ndarray, n_neighbors: int, significance: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict pairs from the neighbours of their entities.

        Parameters
        ----------
        entities, others : ndarray of int of shape (n_pairs,)
            Codes.
        n_neighbors : int
            Maximum number of neighbours.
        significance : bool
            Whether similarities are significance-weighted.

        Returns
        -------
        prediction : ndarray of float64 of shape (n_pairs,)
            The entity's mean plus the similarity-weighted mean of the neighbours' deviations.
        confidence : ndarray of float64 of shape (n_pairs,)
            The neighbours' mean similarity, weighted by itself; 0 without neighbours.
        """
        steps, confidence = np.zeros(len(entities)), np.zeros(len(entities))
        cells = self.transposed
        for block, similarities, position in self._blocks(entities, significance):
            # All pairs with the same other have the same candidates.
            for pairs in _split_by(others, block):
                other = others[pairs[0]]
                met = slice(cells.starts[other], cells.starts[other + 1])
                rows = position[entities[pairs]]
                # Several times as fast as an index per axis.
                places = rows[:, None] * similarities.shape[1] + cells.columns[met]
                near = similarities.ravel().take(places)
                weights = share_of_nearest(near, n_neighbors)
                total = weights.sum(axis=1)
                total[total == 0] = 1.0
                steps[pairs] = np.einsum("pc,c->p", weights, cells.values[met]) / total
                confidence[pairs] = np.einsum("pc,pc->p", weights, near) / total
        prediction = self.means[entities] + self.scale * steps
        if self.positive:
            prediction = np.where(prediction > 0, prediction, self.means[entities])
        return prediction, confidence

    def similarities(self, entities: np.ndarray, significance: bool) -> np.ndarray:
        """Return the Pearson correlations of some entities with all, 0 if negative or undefined.

        A correlation is computed over the common others of two entities, at least two. The
        similarity of an entity to itself is 0.

        Parameters
        ----------
        entities : ndarray of int of shape (n,)
            Codes.
        significance : bool
            Whether to multiply by ``2 |A and B| / (|A| + |B|)``.

        Returns
        -------
        ndarray of float64 of shape (n, n_entities)
        """

        def products(left: int, right: int) -> np.ndarray:
            rows = self.deviations.matrix(left)[entities]
            return (rows @ self.transposed.matrix(right)).toarray()

        n_common, norms = products(0, 0), products(2, 0)
        norms *= products(0, 2)
        norms[n_common < 2] = 0.0
        np.sqrt(norms, out=norms)
        result = products(1, 1)
        np.divide(result, norms, out=result, where=norms > 0)
        result[norms == 0] = 0.0
        np.maximum(result, 0.0, out=result)
        result[np.arange(len(entities)), entities] = 0.0
        if significance:
            counts = self.deviations.counts
            result *= 2 * n_common / (counts[entities][:, None] + counts)
        return result

    def _blocks(
        self, entities: np.ndarray, significance: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield pairs in blocks, with the similarities of their entities and the rows of these."""
        distinct = np.unique(entities)
        n_entities = len(self.means)
        n_rows = max(1, SIMILARITIES_PER_BLOCK // n_entities)
        order = np.argsort(entities, kind="stable")
        position = np.zeros(n_entities, dtype=np.int64)
        for start in range(0, len(distinct), n_rows):
            rows = distinct[start : start + n_rows]
            position[rows] = np.arange(len(rows))
            ends = np.searchsorted(entities, [rows[0], rows[-1] + 1], sorter=order)
            yield order[slice(*ends)], self.similarities(rows, significance), position


def share_of_nearest(similarities: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Keep the largest similarities of each row; ties for the last place share its weight.

    With sharing, the result does not depend on the order of entities or pairs.

    Parameters
    ----------
    similarities : ndarray of shape (n_rows, n_candidates)
        Non-negative similarities; 0 means no neighbour.
    n_neighbors : int
        Number of similarities to keep.

    Returns
    -------
    ndarray of shape (n_rows, n_candidates)
        Similarities multiplied by the share, from 0 to 1, that is kept of each.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.baselines.collaborative import share_of_nearest
    >>> share_of_nearest(np.array([[0.2, 0.8, 0.4, 0.4]]), 2)
    array([[0. , 0.8, 0.2, 0.2]])
    """
    if similarities.shape[1] <= n_neighbors:
        return similarities
    # np.partition was eight times as slow on rows of mostly zeros.
    last = np.sort(similarities, axis=1)[:, [-n_neighbors]]
    above, tied = similarities > last, similarities == last
    room = n_neighbors - above.sum(axis=1, keepdims=True)
    return similarities * (above + tied * (room / tied.sum(axis=1, keepdims=True)))


def _split_by(labels: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Split pairs by label."""
    ordered = pairs[np.argsort(labels[pairs], kind="stable")]
    return np.split(ordered, np.flatnonzero(np.diff(labels[ordered])) + 1)


def _row_means(matrix: sparse.csr_array) -> np.ndarray:
    """Mean of the stored cells of each row; every row has one."""
    return np.add.reduceat(matrix.data, matrix.indptr[:-1]) / np.diff(matrix.indptr)


class PMFRegressor(_MatrixRegressor):
    """Probabilistic matrix factorisation (PMF).

    It minimises, over the measured cells (u, s) with values r in units of the mean of abs(r)::

        1/2 sum (r_us - U_u . S_s)^2 + regularization / 2 (|U|^2 + |S|^2)

    by alternating least squares. Each half of an iteration is the exact solution for all users (or
    services).

    Context columns of X, for example from a `ContextJoiner`, are accepted but not used.

    Parameters
    ----------
    n_factors : int, default=10
        Rank of the factorisation of the interaction matrix.

    regularization : float, default=20.0
        Weight of the squared factors.

        It must be above 0. Values are divided by the mean of abs(y), so that the result does not
        depend on the unit of y. The published figures use 40 s for response time and 800 kbps for
        throughput, which correspond to about 45 and 17 here.

    max_iter : int, default=100
        Maximum number of iterations.

    tol : float, default=1e-5
        Tolerance of the stopping criterion.

        The iterations stop when the relative decrease of the loss in one iteration is less than
        this value.

    random_state : int, RandomState instance or None, default=None
        Controls the random numbers that `fit` draws. Pass an int for reproducible results across
        several calls.

        It determines the initial factors.

    verbose : int, default=0
        If 1, `fit` reports its progress: as records of the logger "skqos" if logging is configured
        for their level, INFO, and otherwise on the standard error stream.

        There is one line per iteration.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_factors)
        Factors of the users, in the order of ``users_.ids_``.

        Their product with `service_factors_` is the prediction in the unit of y.
    service_factors_ : ndarray of shape (n_services, n_factors)
        Factors of the services, in the order of ``services_.ids_``.
    loss_curve_ : list of float
        Objective after each iteration, divided by the number of cells.
    n_iter_ : int
        Number of iterations that were run.
    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.
    user_means_, service_means_ : ndarray of shape (n_users,), (n_services,)
        Mean of the measured cells of each user and of each service, in the order of
        ``users_.ids_`` and ``services_.ids_``.
    mean_ : float
        Mean of all measured cells.
    n_features_in_ : int
        Number of columns of X seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    See Also
    --------
    UIPCCRegressor : Neighbourhoods of users and services.

    Notes
    -----
    The published figures for Web-service QoS come from full-batch gradient descent on the same
    linear objective, without biases and without centring. On WS-DREAM both reach the same loss; see
    the page "Baselines" of the documentation. If there are few measurements, predictions shrink
    towards 0, which is suitable for skewed values such as response times, but rarely for others.

    Repeated measurements of a cell are replaced by their mean, weighted by `sample_weight`, and
    every cell counts once. An iteration takes n_factors^2 operations per cell and n_factors^3 per
    user and service.

    References
    ----------
    .. [1] R. Salakhutdinov, A. Mnih, "Probabilistic Matrix Factorization", NIPS 2008.

    Examples
    --------
    >>> from skqos.baselines import PMFRegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.5, random_state=0)
    >>> model = PMFRegressor(regularization=1.0, random_state=0).fit(data.X, data.y)
    >>> model.predict([[3, 7], [3, 1000]]).shape
    (2,)
    """

    user_factors_ = FittedAttribute[np.ndarray]()
    service_factors_ = FittedAttribute[np.ndarray]()
    loss_curve_ = FittedAttribute[list[float]]()
    n_iter_ = FittedAttribute[int]()

    _parameter_constraints: dict = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "regularization": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        n_factors: int = 10,
        regularization: float = 20.0,
        max_iter: int = 100,
        tol: float = 1e-5,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.regularization = regularization
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def _fit_matrix(self, matrix: sparse.csr_array) -> dict[str, Any]:
        # The inverse of a number below the smallest normal one may be infinite.
        scale = max(float(np.abs(matrix.data).mean()), np.finfo(np.float64).tiny)
        matrix = matrix / scale
        transposed = matrix.T.tocsr()
        rng = check_random_state(self.random_state)
        services = rng.uniform(size=(matrix.shape[1], self.n_factors))
        start, losses = time.perf_counter(), list[float]()
        while len(losses) < self.max_iter:
            users = solve_factors(matrix, services, self.regularization)
            services = solve_factors(transposed, users, self.regularization)
            losses.append(pmf_loss(matrix, users, services, self.regularization) / matrix.nnz)
            if self.verbose:
                report(_describe(losses, self.max_iter, time.perf_counter() - start))
            if len(losses) > 1 and losses[-2] - losses[-1] <= self.tol * losses[-2]:
                break
        if self.verbose:
            end_report()
        return {
            "user_factors_": users * scale,
            "service_factors_": services,
            "loss_curve_": losses,
            "n_iter_": len(losses),
        }

    def _predict_known(self, users: np.ndarray, services: np.ndarray) -> np.ndarray:
        prediction = np.empty(len(users))
        # In batches, because rows of factors need much more memory than the predictions.
        for start in range(0, len(users), PAIRS_PER_BATCH):
            rows = slice(start, start + PAIRS_PER_BATCH)
            prediction[rows] = np.einsum(
                "nk,nk->n", self.user_factors_[users[rows]], self.service_factors_[services[rows]]
            )
        return prediction


def solve_factors(
    matrix: sparse.csr_array, factors: np.ndarray, regularization: float
) -> np.ndarray:
    """Minimise the PMF objective over the factors of one side, with fixed factors of the other.

    The factors of a row are (sum f f^T + regularization I)^-1 sum r f, over its measured cells.

    Parameters
    ----------
    matrix : csr_array of shape (n_rows, n_columns)
        Cells that are not stored were not measured.
    factors : ndarray of shape (n_columns, n_factors)
        Factors of the other side.
    regularization : float
        Above 0.

    Returns
    -------
    ndarray of shape (n_rows, n_factors)
    """
    n_factors = factors.shape[1]
    measured = sparse.csr_array(
        (np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape
    )
    first, second = np.tril_indices(n_factors)
    grams = np.empty((matrix.shape[0], n_factors, n_factors))
    grams[:, first, second] = measured @ (factors[:, first] * factors[:, second])
    grams[:, second, first] = grams[:, first, second]
    grams += regularization * np.eye(n_factors)
    return np.linalg.solve(grams, (matrix @ factors)[..., None])[..., 0]


def pmf_loss(
    matrix: sparse.csr_array, users: np.ndarray, services: np.ndarray, regularization: float
) -> float:
    """Return the PMF objective: half the squared error of the measured cells plus the penalty.

    Parameters
    ----------
    matrix : csr_array of shape (n_users, n_services)
        Cells that are not stored were not measured.
    users, services : ndarray of shape (n_users, n_factors), (n_services, n_factors)
        The factors.
    regularization : float
        Weight of the squared factors.

    Returns
    -------
    float
    """
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    error = matrix.data - np.einsum("nk,nk->n", users[rows], services[matrix.indices])
    penalty = regularization * (np.square(users).sum() + np.square(services).sum())
    return float(np.square(error).sum() + penalty) / 2


def _describe(losses: list[float], max_iter: int, seconds: float) -> str:
    return f"iteration {len(losses)}/{max_iter}  loss {losses[-1]:.6f}  {seconds:.1f} s"
