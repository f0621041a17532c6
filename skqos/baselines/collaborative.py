"""The two baselines that QoS papers compare with: neighbourhoods (UIPCC) and PMF, without torch.

Z. Zheng, H. Ma, M. R. Lyu, I. King, "QoS-Aware Web Service Recommendation by Collaborative
Filtering", IEEE Transactions on Services Computing 4(2), 2011. R. Salakhutdinov, A. Mnih,
"Probabilistic Matrix Factorization", NIPS 2008.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state

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
    """The matrix of measured cells, the means, and prediction for unknown ids.

    A subclass defines ``_fit_matrix`` and ``_predict_known``.
    """

    user_means_ = FittedAttribute[np.ndarray]()
    service_means_ = FittedAttribute[np.ndarray]()
    mean_ = FittedAttribute[float]()

    def predict(self, X: Any) -> np.ndarray:
        """Predict the QoS of pairs, measured or not, known or not.

        A pair of an unknown user gets the mean of the service, one of an unknown service the mean
        of the user, and one of neither the mean of all.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of float64 of shape (n_samples,)
            Predictions in the unit of y.
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
    """Neighbourhoods of users and of services by Pearson correlation (UIPCC, WSRec).

    The user side (UPCC) predicts that user u deviates from its mean on service s as the users do
    that correlate with u and were measured on s; the service side (IPCC) says the same of services.
    UIPCC is a mixture of the two.

    Context columns of X are accepted, as a `ContextJoiner` ahead appends them, and not used.

    Parameters
    ----------
    n_neighbors : int, default=10
        How many neighbours a prediction uses at most: those of the largest positive correlation
        among the users that were measured on the service (or the services that were measured for
        the user). Neighbours that tie for the last place share it.

    user_weight : float, default=0.1
        Weight of the user side, in [0, 1], the article's lambda. 1 is UPCC, 0 is IPCC. The
        published figures have 0.1 for response time and 0.9 for throughput.

    significance_weighting : bool, default=False
        Whether to shrink correlations that rest on few common measurements: times
        ``2 |A and B| / (|A| + |B|)``, A and B being what two users (services) were measured on.

    confidence_weighting : bool, default=False
        Whether the sides are weighted by how similar their neighbours are, too, and a side
        without neighbours does not count. Otherwise the weights are fixed, and the mean of the
        user (service) takes the place of a side without neighbours.

    Attributes
    ----------
    user_neighborhood_, service_neighborhood_ : Neighborhood
        What was measured, seen from either side.
    users_, services_ : EntityEncoder
        The ids of the training rows.
    user_means_ : ndarray of shape (n_users,)
        Mean over the measured services of each user, in the order of ``users_.ids_``.
    service_means_ : ndarray of shape (n_services,)
        Mean over the users of each service.
    mean_ : float
        Mean of all measured cells.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns of X, if they were all strings.

    See Also
    --------
    PMFRegressor : The other baseline.

    Notes
    -----
    The article has significance and confidence weights (`PAPER_PARAMS`). The figures that papers
    quote come from the authors' later benchmark, WSRec, which has neither; its form is the default.
    As there, two users need two common measurements for a correlation, deviations are taken from
    the mean of *all* measurements of a user, and where all of y is positive a side that predicts
    zero or less falls back to the mean.

    Repeated cells count as their mean, weighted by `sample_weight`, and every cell counts once. The
    prediction of a measured cell does not use its own
    value as a neighbour's, but the means and correlations contain it.

    Like other neighbour methods it learns nothing in `fit`, which keeps the measured cells: they
    are part of a pickle. Correlations are computed in blocks at prediction and never stored.
    `predict` costs, per side, the number of pairs of measurements that meet in an entity of the
    other side, and per predicted pair the number of candidate neighbours.

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
class Cells:
    """Rows of a sparse matrix as plain arrays, which a model file can hold.

    Attributes
    ----------
    starts : ndarray of shape (n_rows + 1,)
        Where each row begins in the others.
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
    def of(cls, matrix: sparse.csr_array) -> Cells:
        """Take them from a matrix."""
        return cls(matrix.indptr, matrix.indices, matrix.data, matrix.shape[1])

    def check_loaded(self) -> None:
        """Raise ValueError if the cells of a file are outside of the matrix."""
        self.matrix(1).check_format(full_check=True)

    @property
    def counts(self) -> np.ndarray:
        """Number of cells in each row."""
        return np.diff(self.starts)

    def matrix(self, power: int) -> sparse.csr_array:
        """Return the matrix, its stored cells to a power: 0 marks where they are."""
        shape = len(self.starts) - 1, self.n_columns
        return sparse.csr_array((self.values**power, self.columns, self.starts), shape=shape)


@dataclass(frozen=True)
class Neighborhood:
    """One side of UIPCC: entities that are alike where they met the same others.

    Entities are users and others services, or the other way round.

    Attributes
    ----------
    means : ndarray of shape (n_entities,)
        Mean of the values of each entity.
    deviations : Cells
        Values less the entity's mean, in units of `scale`; a row is an entity.
    transposed : Cells
        The same, a row for each of the others: who may be a neighbour there.
    scale : float
        The largest deviation.
    positive : bool
        Whether all values are.
    """

    means: np.ndarray
    deviations: Cells
    transposed: Cells
    scale: float
    positive: bool

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> Neighborhood:
        """Take it from a sparse matrix of values, one row per entity."""
        means = _row_means(matrix)
        mean_of_cell = np.repeat(means, np.diff(matrix.indptr))
        deviations = matrix.data - mean_of_cell
        # Values that are all equal do not correlate with anything; their rounding would.
        deviations[np.abs(deviations) <= ROUNDING * np.abs(mean_of_cell)] = 0.0
        scale = float(np.abs(deviations).max()) or 1.0
        scaled = sparse.csr_array(
            (deviations / scale, matrix.indices, matrix.indptr), shape=matrix.shape
        )
        return cls(
            means=means,
            deviations=Cells.of(scaled),
            transposed=Cells.of(scaled.T.tocsr()),
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
            How many neighbours to use at most.
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
            # All pairs with one of the others have the same candidates.
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
        """Pearson correlation of some entities with all, 0 where it is negative or undefined.

        It runs over what two entities have in common, two others at least. An entity is not
        similar to itself.

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
    """Keep the largest similarities of each row; those that tie for the last place share it.

    Sharing makes the choice unique: it depends neither on the order of entities nor on that of
    pairs.

    Parameters
    ----------
    similarities : ndarray of shape (n_rows, n_candidates)
        Not negative; 0 is no neighbour.
    n_neighbors : int
        How many to keep.

    Returns
    -------
    ndarray of shape (n_rows, n_candidates)
        Similarities times the share, from 0 to 1, in which each is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.baselines.collaborative import share_of_nearest
    >>> share_of_nearest(np.array([[0.2, 0.8, 0.4, 0.4]]), 2)
    array([[0. , 0.8, 0.2, 0.2]])
    """
    if similarities.shape[1] <= n_neighbors:
        return similarities
    # Not np.partition: where most are 0 it was eight times as slow.
    last = np.sort(similarities, axis=1)[:, [-n_neighbors]]
    above, tied = similarities > last, similarities == last
    room = n_neighbors - above.sum(axis=1, keepdims=True)
    return similarities * (above + tied * (room / tied.sum(axis=1, keepdims=True)))


def _split_by(labels: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Split pairs into those of each label."""
    ordered = pairs[np.argsort(labels[pairs], kind="stable")]
    return np.split(ordered, np.flatnonzero(np.diff(labels[ordered])) + 1)


def _row_means(matrix: sparse.csr_array) -> np.ndarray:
    """Mean of the stored cells of each row; every row has one."""
    return np.add.reduceat(matrix.data, matrix.indptr[:-1]) / np.diff(matrix.indptr)


class PMFRegressor(_MatrixRegressor):
    """Probabilistic matrix factorisation (PMF): a user-service product of factors.

    Minimises, over the measured cells (u, s) of values r, in units of the mean of abs(r)::

        1/2 sum (r_us - U_u . S_s)^2 + regularization / 2 (|U|^2 + |S|^2)

    by alternating least squares: each half of an iteration solves for all users (services) exactly.

    Context columns of X are accepted, as a `ContextJoiner` ahead appends them, and not used.

    Parameters
    ----------
    n_factors : int, default=10
        Length of the factors.

    regularization : float, default=20.0
        Weight of the squared factors, above 0. In units of the mean of abs(y), so that the unit of
        y does not matter. The published figures have 40 s for response time and 800 kbps for
        throughput, which is about 45 and 17.

    max_iter : int, default=100
        Iterations at most.

    tol : float, default=1e-5
        Stop when an iteration lowers the loss by less than this share of it.

    random_state : int, RandomState instance or None, default=None
        Draws the start. Pass an int for the same model at every call.

    verbose : int, default=0
        1 shows a line per iteration on stderr.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_factors)
        In the order of ``users_.ids_``; times `service_factors_` they predict in the unit of y.
    service_factors_ : ndarray of shape (n_services, n_factors)
        In the order of ``services_.ids_``.
    loss_curve_ : list of float
        The objective after each iteration, over the number of cells.
    n_iter_ : int
        Number of iterations.
    users_, services_ : EntityEncoder
        The ids of the training rows.
    user_means_, service_means_ : ndarray of shape (n_users,), (n_services,)
        Means of each user and service, for pairs in which the other id is unknown.
    mean_ : float
        Mean of all measured cells.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns of X, if they were all strings.

    See Also
    --------
    UIPCCRegressor : The other baseline.

    Notes
    -----
    The published figures of Web-service QoS come from full-batch gradient descent on the same
    objective, linear as here, without biases and without centring. On WS-DREAM both end at the
    same loss, see the documentation. Predictions shrink towards 0 where there are few measurements,
    which suits skewed values like response times and hardly any others.

    Repeated cells count as their mean, weighted by `sample_weight`, and every cell counts once. An
    iteration costs n_factors^2 operations per cell and
    n_factors^3 per entity.

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
        # The inverse of less than the smallest normal number may be infinite.
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
                _tell(losses, self.max_iter, time.perf_counter() - start)
            if len(losses) > 1 and losses[-2] - losses[-1] <= self.tol * losses[-2]:
                break
        return {
            "user_factors_": users * scale,
            "service_factors_": services,
            "loss_curve_": losses,
            "n_iter_": len(losses),
        }

    def _predict_known(self, users: np.ndarray, services: np.ndarray) -> np.ndarray:
        prediction = np.empty(len(users))
        # Rows of factors take many times the memory of what they predict.
        for start in range(0, len(users), PAIRS_PER_BATCH):
            rows = slice(start, start + PAIRS_PER_BATCH)
            prediction[rows] = np.einsum(
                "nk,nk->n", self.user_factors_[users[rows]], self.service_factors_[services[rows]]
            )
        return prediction


def solve_factors(
    matrix: sparse.csr_array, factors: np.ndarray, regularization: float
) -> np.ndarray:
    """Minimise the PMF objective over the factors of one side, those of the other being fixed.

    Row by row, (sum f f^T + regularization I)^-1 sum r f, over the measured cells of the row.

    Parameters
    ----------
    matrix : csr_array of shape (n_rows, n_columns)
        Cells that are not stored were not measured.
    factors : ndarray of shape (n_columns, n_factors)
        Of the other side.
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
    """Compute the PMF objective: half the squared error of the measured cells and the penalty.

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


def _tell(losses: list[float], max_iter: int, seconds: float) -> None:
    sys.stderr.write(
        f"iteration {len(losses)}/{max_iter}  loss {losses[-1]:.6f}  {seconds:.1f} s\n"
    )
    sys.stderr.flush()
