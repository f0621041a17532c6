"""The estimators under contract and the data they are tested on; a new estimator adds a line."""

from dataclasses import dataclass, field

import pytest

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor


@dataclass(frozen=True)
class Contract:
    """An estimator and how it is tested.

    `tiny` settings train in a fraction of a second; `learning` ones, added to them, in seconds
    and well enough to beat a median; `expected_failed_checks` names the checks of scikit-learn's
    suite that may fail, with the reason. `history_columns` are what it adds to ``history_``,
    `bytes_per_row` what a pickle keeps of a training row, and `predicts_with` the packages beside
    torch that prediction imports.
    """

    estimator_class: type
    tiny: dict
    learning: dict
    expected_failed_checks: dict[str, str] = field(default_factory=dict)
    history_columns: tuple[str, ...] = ()
    bytes_per_row: int = 0
    predicts_with: frozenset[str] = frozenset()

    def make(self, **params):
        """Return an unfitted estimator that trains in a fraction of a second."""
        return self.estimator_class(**{"random_state": 0, **self.tiny, **params})


CONTRACTS = [
    Contract(
        SAMoERegressor,
        tiny={
            "max_epochs": 3,
            "first_stage_epochs": 2,
            "n_factors": 3,
            "embedding_dim": 4,
            "tower_dim": 8,
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
    ),
    Contract(
        SharpQoSRegressor,
        tiny={
            "max_epochs": 3,
            "n_factors": 3,
            "context_dim": 4,
            "autoencoder_epochs": 2,
            "hidden_dim": 4,
            "n_blocks": 2,
            "n_cross_blocks": 2,
            "routed_dim": 8,
            "output_dim": 8,
        },
        learning={
            "max_epochs": 30,
            "newcomer_share": 0.1,
            "learning_rate": 0.02,
            "batch_size": 256,
            "n_factors": 8,
            "context_dim": 8,
            "hidden_dim": 16,
            "routed_dim": 16,
            "output_dim": 16,
        },
        history_columns=("train_loss_0", "task_weight_0"),
        # An edge, from either end.
        bytes_per_row=32,
        predicts_with=frozenset({"geoopt"}),
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
    ),
]

all_estimators = pytest.mark.parametrize(
    "contract", CONTRACTS, ids=lambda contract: contract.estimator_class.__name__
)
