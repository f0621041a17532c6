"""Devices, and predicting with any module of pairs."""

import numpy as np
import pytest
import torch
from torch import nn

from skqos.entities import EntityTable, Interactions
from skqos.prediction import predict_interactions, resolve_device

CPU = torch.device("cpu")


def table(n):
    return EntityTable(np.empty((n, 0), dtype=np.int64), np.empty((n, 0), dtype=np.float32))


def pairs(n, times=False):
    rng = np.random.default_rng(0)
    return Interactions(
        users=rng.integers(5, size=n),
        services=rng.integers(7, size=n),
        times=rng.integers(3, size=n) if times else None,
        new_users=table(2),
        new_services=table(3),
    )


class Recorder(nn.Module):
    """Score 100 user + 10 service + time, and write down how it is asked."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.batches, self.encoded, self.modes = [], [], []

    def encode(self, new_users, new_services):
        self.encoded.append((len(new_users), len(new_services)))
        return "encoded"

    def score(self, encoded, users, services, *times):
        assert encoded == "encoded"
        self.batches.append(len(users))
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        score = 100.0 * users + 10.0 * services + sum(times)
        return self.dropout(score)

    def score_twice(self, encoded, users, services):
        return torch.stack([users, services], dim=1).float()


# --- resolve_device -----------------------------------------------------------------------------


@pytest.mark.parametrize("available", [True, False])
def test_auto_is_a_gpu_where_there_is_one(monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("auto") == torch.device("cuda" if available else "cpu")


def test_a_device_is_taken_by_name():
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("device", ["toaster", "", "cuda:99", "cpu:x"])
def test_devices_that_torch_cannot_use_raise_value_error(device):
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used here") as caught:
        resolve_device(device)
    assert "Use 'auto', 'cpu'" in str(caught.value)
    assert caught.value.__cause__ is not None


# --- predict_interactions -----------------------------------------------------------------------


@pytest.mark.parametrize("times", [False, True])
def test_scores_of_all_pairs_in_order(monkeypatch, times):
    monkeypatch.setattr("skqos.prediction.PAIRS_PER_BATCH", 4)
    module, interactions = Recorder(), pairs(10, times)
    result = predict_interactions(module, interactions, CPU)
    expected = 100 * interactions.users + 10 * interactions.services
    np.testing.assert_array_equal(result, expected + interactions.times if times else expected)
    assert result.dtype == np.float64
    assert module.batches == [4, 4, 2]


def test_entities_are_encoded_once_however_many_batches(monkeypatch):
    monkeypatch.setattr("skqos.prediction.PAIRS_PER_BATCH", 2)
    module = Recorder()
    predict_interactions(module, pairs(10), CPU)
    assert module.encoded == [(2, 3)]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_without_gradients_and_the_training_flag_is_restored(training):
    module = Recorder(dropout=0.9).train(training)
    result = predict_interactions(module, pairs(50), CPU)
    assert module.modes == [(False, True)]
    np.testing.assert_array_equal(result, predict_interactions(Recorder(), pairs(50), CPU))
    assert module.training == module.dropout.training == training


def test_another_method_may_score_and_results_keep_their_shape():
    module, interactions = Recorder(), pairs(10)
    result = predict_interactions(module, interactions, CPU, score=module.score_twice)
    np.testing.assert_array_equal(
        result, np.column_stack([interactions.users, interactions.services])
    )
    assert module.batches == []


def test_no_pairs_give_an_empty_result_of_the_right_shape():
    module = Recorder()
    assert predict_interactions(module, pairs(0), CPU).shape == (0,)
    assert predict_interactions(module, pairs(0), CPU, score=module.score_twice).shape == (0, 2)


def test_predicting_draws_no_random_numbers():
    state = torch.get_rng_state()
    predict_interactions(Recorder(dropout=0.5), pairs(10), CPU)
    assert torch.equal(torch.get_rng_state(), state)
