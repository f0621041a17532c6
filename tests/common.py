"""The estimators under contract and the data they are tested on; a new estimator adds a line."""

from dataclasses import dataclass, field

import pytest

from skqos import R2SLRegressor, SAMoERegressor


@dataclass(frozen=True)
class Contract:
    """An estimator and how it is tested.

    `tiny` settings train in a fraction of a second; `learning` ones, added to them, in seconds
    and well enough to beat a median; `expected_failed_checks` names the checks of scikit-learn's
    suite that may fail, with the reason.
    """

    estimator_class: type
    tiny: dict
    learning: dict
    expected_failed_checks: dict[str, str] = field(default_factory=dict)

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
