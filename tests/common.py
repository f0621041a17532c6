"""The estimators under contract and the data they are tested on; a new estimator adds a line."""

import copy
import functools
import sys
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pytest
import sklearn
import torch
from sklearn.utils.fixes import parse_version

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
from skqos._ids import ID_COLUMNS
from skqos.baselines import EmbeddingMLPRegressor
from skqos.datasets import make_qos
from skqos.members import PairLinear

N_TIME_STEPS = 5
_make_once = functools.cache(make_qos)
# Mended in scikit-learn 1.7.1.
FAULTS_OF_OLD_CHECKS = (
    {"check_positive_only_tag_during_fit": "subtracts a mean from integers in place"}
    if parse_version(sklearn.__version__) < parse_version("1.7.1")
    else {}
)
# Rows that are there twice lie in other batches, under other dropout, than one of weight 2. What
# depends on neither is compared in tests/test_sample_weight.py.
WEIGHTS_IN_BATCHES = {
    "check_sample_weight_equivalence_on_dense_data": "mini-batches are drawn from rows, not weights"
}


class Cost:
    """Count the calls of functions, and the peak of memory in bytes, of the block.

    What loops over rows in Python calls the more the more rows there are; array functions do not.
    Unlike seconds, both are the same on a busy machine.
    """

    def __enter__(self):
        self.calls, self.peak = 0, 0
        tracemalloc.start()
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_):
        sys.setprofile(self._before)
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    def _count(self, frame, event, argument):
        self.calls += event in ("call", "c_call")


@dataclass(frozen=True)
class Contract:
    """An estimator and how it is tested.

    `tiny` settings train in a fraction of a second; `learning` ones, added to them, in seconds
    and well enough to beat a median; `expected_failed_checks` names the checks of scikit-learn's
    suite that may fail, with the reason. `temporal` says that a third column of X is the time step,
    `history_columns` are what it adds to ``history_``, and `bytes_per_row` what a pickle keeps of a
    training row.
    """

    estimator_class: type
    tiny: dict
    learning: dict
    expected_failed_checks: dict[str, str] = field(default_factory=WEIGHTS_IN_BATCHES.copy)
    temporal: bool = False
    history_columns: tuple[str, ...] = ()
    bytes_per_row: int = 0

    def make(self, **params):
        """Return an unfitted estimator that trains in a fraction of a second.

        On the processor: a GPU adds up in another order every time.
        """
        common = {"random_state": 0, "device": "cpu"}
        return self.estimator_class(**{**common, **self.tiny, **params})

    @property
    def id_columns(self):
        """Names of the first columns of X: user, service and perhaps time."""
        return list(ID_COLUMNS[: 2 + self.temporal])

    def make_data(self, *args, density, **params):
        """Return what `make_qos` makes, spread over time steps where there are some."""
        if self.temporal:
            params["n_time_steps"] = N_TIME_STEPS
            density /= N_TIME_STEPS
        # A copy, which the test may change.
        return copy.deepcopy(_make_once(*args, density=density, random_state=0, **params))

    def rows(self, pairs):
        """Return rows of X for users and services, all at one time step."""
        return np.pad(pairs, ((0, 0), (0, self.temporal)), constant_values=2)


CONTRACTS = [
    Contract(
        SAMoERegressor,
        tiny={
            "max_epochs": 3,
            "first_stage_epochs": 1,
            "batch_size": 512,
            "n_factors": 3,
            "embedding_dim": 4,
            "tower_dim": 8,
            "attention_dim": 8,
            "mlp_hidden_sizes": (8, 8),
        },
        learning={
            "max_epochs": 20,
            "learning_rate": 0.01,
            "batch_size": 64,
            "refill_ratio": 0,
            "pseudo_label_ratio": 0,
            "embedding_dim": 8,
            "tower_dim": 16,
            "mlp_hidden_sizes": (32, 16),
        },
        # A row of the replay buffer.
        bytes_per_row=20,
    ),
    Contract(
        EmbeddingMLPRegressor,
        tiny={
            "max_epochs": 3,
            "batch_size": 256,
            "embedding_dim": 4,
            "hidden_sizes": (8, 4),
            "n_members": 2,
        },
        learning={
            "max_epochs": 20,
            "learning_rate": 0.01,
            "batch_size": 64,
            "embedding_dim": 8,
            "hidden_sizes": (32, 16),
        },
        bytes_per_row=20,
    ),
    Contract(
        SharpQoSRegressor,
        tiny={
            "max_epochs": 3,
            "batch_size": 512,
            "n_factors": 3,
            "context_dim": 4,
            "autoencoder_epochs": 2,
            "n_members": 1,
            "convolution": "hhgcn",
            "hidden_dim": 4,
            "n_blocks": 2,
            "n_cross_blocks": 2,
            "routed_dim": 8,
            "output_dim": 8,
        },
        learning={
            "max_epochs": 30,
            "partial_fit_epochs": 6,
            "newcomer_share": 0.1,
            "learning_rate": 0.01,
            "batch_size": 256,
            "n_factors": 8,
            "context_dim": 8,
            "hidden_dim": 16,
            "routed_dim": 16,
            "output_dim": 16,
        },
        history_columns=("train_loss_0", "task_weight_0"),
        # An edge, from either end, and a row of the replay buffer.
        bytes_per_row=52,
    ),
    Contract(
        R2SLRegressor,
        tiny={
            "max_epochs": 3,
            "n_states": 2,
            "embedding_dim": 4,
            "n_filters": 2,
            "hidden_size": 16,
        },
        learning={
            "max_epochs": 20,
            "learning_rate": 0.01,
            "batch_size": 64,
            "embedding_dim": 8,
            "n_filters": 2,
            "hidden_size": 64,
        },
        bytes_per_row=20,
    ),
    Contract(
        TPMCFRegressor,
        tiny={
            "max_epochs": 3,
            "modules": "both",
            "gcmf_epochs": 2,
            "features": ("statistics", "factors", "similarity"),
            "n_factors": 3,
            "similarity_dim": 3,
            "n_folds": 2,
            "gcmf_dim": 4,
            "entity_dim": 4,
            "window": 3,
            "token_dim": 8,
            "head_dim": 4,
            "n_filters": 8,
            "hidden_sizes": (8,),
            "partial_fit_epochs": 3,
        },
        learning={
            "max_epochs": 20,
            "batch_size": 128,
            "entity_dim": 8,
            "token_dim": 16,
            "n_filters": 16,
            "hidden_sizes": (32, 16),
        },
        expected_failed_checks=dict.fromkeys(
            (
                "check_estimators_overwrite_params",
                "check_estimators_fit_returns_self",
                "check_estimators_partial_fit_n_features",
                "check_readonly_memmap_input",
                "check_fit_idempotent",
                "check_fit_check_is_fitted",
                "check_n_features_in",
                "check_sample_weights_pandas_series",
                "check_sample_weights_not_an_array",
                "check_sample_weights_shape",
                "check_sample_weights_not_overwritten",
                "check_sample_weight_equivalence_on_dense_data",
            ),
            "generates 2-column X, or times that are no steps; time is a required third column",
        )
        | FAULTS_OF_OLD_CHECKS,
        temporal=True,
        # A cell of the last steps.
        bytes_per_row=48,
    ),
]


def _each(contracts):
    return pytest.mark.parametrize(
        "contract", contracts, ids=lambda contract: contract.estimator_class.__name__
    )


all_estimators = _each(CONTRACTS)
temporal_estimators = _each([contract for contract in CONTRACTS if contract.temporal])
INCREMENTAL = [c for c in CONTRACTS if hasattr(c.estimator_class, "partial_fit")]
incremental_estimators = _each(INCREMENTAL)
# Those that keep a sample of all rows.
sampling_estimators = _each([contract for contract in INCREMENTAL if not contract.temporal])


def weight_of(layer):
    """Return the weights (n_members, in_dim, out_dim) of a MemberLinear or a PairLinear."""
    if isinstance(layer, PairLinear):
        return torch.cat([layer.user_weight, layer.service_weight], dim=1)
    return layer.weight


def part_of_member(values, like, member):
    """Return a member's part of a tensor, of the shape of its like in a module of one member.

    Wherever members have their place, theirs is the one axis whose size differs. A tensor that
    all members share is its own part.
    """
    for axis, (size, of_one) in enumerate(zip(values.shape, like.shape, strict=True)):
        if size != of_one:
            return values.narrow(axis, member * of_one, of_one)
    return values


def copy_member(module, single, member):
    """Give a module of one member the weights and statistics of a member of another module."""
    weights = module.state_dict()
    with torch.no_grad():
        for name, values in single.state_dict().items():
            values.copy_(part_of_member(weights.pop(name), values, member))
    assert not weights
