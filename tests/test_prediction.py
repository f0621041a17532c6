"""Devices, encodings that are kept, and predicting with any module of pairs."""

import copy
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from skqos.entities import EntityTable, Interactions
from skqos.prediction import (
    Encoded,
    Predictor,
    copy_module,
    encode,
    predict_interactions,
    resolve_device,
)

CPU = torch.device("cpu")
N_USERS, N_SERVICES = 5, 7
UNUSABLE = ["toaster", "", "cuda:99", "cpu:x", "meta", "hpu", "privateuseone", "xla", 0, None]


def table(n):
    return EntityTable(np.empty((n, 0), dtype=np.int64), np.empty((n, 0), dtype=np.float32))


def pairs(n, times=False, n_new=(0, 0)):
    rng = np.random.default_rng(0)
    return Interactions(
        users=rng.integers(N_USERS + n_new[0], size=n),
        services=rng.integers(N_SERVICES + n_new[1], size=n),
        times=rng.integers(3, size=n) if times else None,
        new_users=table(n_new[0]),
        new_services=table(n_new[1]),
    )


class Recorder(nn.Module):
    """Score 100 user + 10 service + time, and write down how it is asked.

    Users are encoded as a tensor, services as a list of tuples with one axis more.
    """

    def __init__(self, dropout=0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.batches, self.encoded, self.modes = [], [], []

    def encode_known(self):
        self.encoded.append("known")
        return self._sides(range(N_USERS), range(N_SERVICES), "averages")

    def encode_new(self, known, new_users, new_services):
        assert known.averages == "averages"
        self.encoded.append((len(new_users), len(new_services)))
        users = range(N_USERS, N_USERS + len(new_users))
        return self._sides(users, range(N_SERVICES, N_SERVICES + len(new_services)))

    def score(self, encoded, users, services, *times):
        self.batches.append(len(users))
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        ((tens,),) = encoded.services
        score = encoded.users[users, 0] + tens[1, services, 0] + sum(times)
        return self.dropout(score)

    def score_twice(self, encoded, users, services):
        return torch.stack([encoded.users[users, 0], encoded.services[0][0][0, services, 0]], dim=1)

    def _sides(self, users, services, averages=None):
        users, services = (self.factor.new_tensor(list(codes)) for codes in (users, services))
        ones = services[None, :, None]
        users = 100 * self.factor * users[:, None]
        return Encoded(users, [(torch.cat([ones, 10 * ones]),)], averages)


def expected_scores(interactions):
    return 100 * interactions.users + 10 * interactions.services


# --- resolve_device -----------------------------------------------------------------------------


@pytest.mark.parametrize("available", [True, False])
def test_auto_is_a_gpu_where_there_is_one(monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr("skqos.prediction._try_device", torch.device)
    assert resolve_device("auto") == torch.device("cuda" if available else "cpu")


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_device_is_taken_by_name(device):
    assert resolve_device(device) == CPU


@pytest.mark.parametrize("device", UNUSABLE)
def test_devices_that_torch_cannot_use_raise_value_error(device):
    with pytest.raises(ValueError, match=f"device={device!r} cannot be used here") as caught:
        resolve_device(device)
    assert "Use 'auto', 'cpu'" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_gpu_that_cannot_compute_is_not_taken_by_auto(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="device='auto' cannot be used here"):
        resolve_device("auto")


# --- score_pairs --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_new", [(0, 0), (2, 0), (0, 3), (2, 3)])
@pytest.mark.parametrize("times", [False, True])
def test_scores_of_all_pairs_in_order(monkeypatch, times, n_new):
    monkeypatch.setattr("skqos.prediction.PAIRS_PER_BATCH", 4)
    module, interactions = Recorder(), pairs(10, times, n_new)
    result = predict_interactions(module, interactions, CPU)
    expected = expected_scores(interactions)
    np.testing.assert_array_equal(result, expected + interactions.times if times else expected)
    assert result.dtype == np.float64
    assert len(module.batches) >= 3
    assert max(module.batches) <= 4


def test_entities_are_encoded_once_however_many_batches(monkeypatch):
    monkeypatch.setattr("skqos.prediction.PAIRS_PER_BATCH", 2)
    module = Recorder()
    predict_interactions(module, pairs(10, n_new=(2, 3)), CPU)
    assert module.encoded == ["known", (2, 3)]


@pytest.mark.parametrize("times", [False, True])
def test_pairs_of_known_entities_need_no_copy_of_what_is_encoded(times):
    class Watched(Recorder):
        def encode_known(self):
            self.known = super().encode_known()
            return self.known

        def score(self, encoded, users, services, *times):
            self.scored.append((encoded is self.known, len(services)))
            return super().score(encoded, users, services, *times)

    module, interactions = Watched(), pairs(30, times, n_new=(2, 3))
    module.scored = []
    predict_interactions(module, interactions, CPU)
    known = (interactions.users < N_USERS) & (interactions.services < N_SERVICES)
    assert module.scored == [(True, known.sum()), (False, (~known).sum())]


def test_encode_puts_newcomers_behind_the_known_ones():
    encoded = encode(Recorder(), table(1), table(2))
    assert encoded.users.squeeze(1).tolist() == [100.0 * k for k in range(N_USERS + 1)]
    assert encoded.services[0][0].shape == (2, N_SERVICES + 2, 1)


def test_another_method_may_score_and_results_keep_their_shape():
    module, interactions = Recorder(), pairs(10)
    result = predict_interactions(module, interactions, CPU, method="score_twice")
    expected = np.column_stack([100 * interactions.users, interactions.services])
    np.testing.assert_array_equal(result, expected)
    assert module.batches == []


def test_no_pairs_give_an_empty_result_of_the_right_shape():
    module = Recorder()
    assert predict_interactions(module, pairs(0), CPU).shape == (0,)
    assert predict_interactions(module, pairs(0), CPU, method="score_twice").shape == (0, 2)


def test_results_of_batches_are_not_kept_apart(monkeypatch):
    """What is kept of a batch would pin the memory of its intermediates."""
    monkeypatch.setattr("skqos.prediction.PAIRS_PER_BATCH", 2)
    alive = []

    class Watched(Recorder):
        def score(self, encoded, users, services):
            alive.append(sum(part() is not None for part in self.results))
            result = super().score(encoded, users, services)
            self.results.append(weakref.ref(result))
            return result

    module = Watched()
    module.results = []
    predict_interactions(module, pairs(20), CPU)
    assert alive == [0] * 10


# --- Predictor ----------------------------------------------------------------------------------


def test_known_entities_are_encoded_once_and_newcomers_alone():
    module = Recorder().eval()
    predictor = Predictor(module)
    for n_new in ((0, 0), (2, 1), (0, 0), (0, 3)):
        interactions = pairs(20, n_new=n_new)
        found = predictor.predict(interactions, CPU)
        np.testing.assert_array_equal(found, expected_scores(interactions))
    assert module.encoded == ["known", (2, 1), (0, 3)]


def test_threads_share_the_encodings():
    started, module = threading.Barrier(8), Recorder().eval()
    predictor, found = Predictor(module), []

    def read():
        started.wait()
        found.append(predictor.predict(pairs(20), CPU))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert module.encoded == ["known"]
    assert len(found) == 8
    assert all((scores == expected_scores(pairs(20))).all() for scores in found)


def double_in_place(module):
    with torch.no_grad():
        module.factor.mul_(2)


def double_by_another_parameter(module):
    module.factor = nn.Parameter(2 * module.factor.detach())


def double_by_a_state(module):
    module.load_state_dict({"factor": torch.tensor(2.0)})


def double_in_inference_mode(module):
    with torch.inference_mode():
        module.factor.mul_(2)


@pytest.mark.parametrize(
    "double",
    [
        double_in_place,
        double_by_another_parameter,
        double_by_a_state,
        double_in_inference_mode,
    ],
)
def test_encodings_are_made_anew_when_weights_have_changed(double):
    module = Recorder().eval()
    predictor, interactions = Predictor(module), pairs(20)
    predictor.predict(interactions, CPU)
    double(module)
    for _ in range(2):
        found = predictor.predict(interactions, CPU)
        np.testing.assert_array_equal(found, 200 * interactions.users + 10 * interactions.services)
    assert module.encoded == ["known"] * 2


@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_as_it_was_and_predicts_in_evaluation_mode(training):
    module = Recorder(dropout=0.9).train(training)
    before = copy.deepcopy(module.state_dict())
    result = Predictor(module).predict(pairs(50), CPU)
    np.testing.assert_array_equal(result, expected_scores(pairs(50)))
    assert module.training == module.dropout.training == training
    # One that trains is not touched: a copy predicts.
    assert module.modes == ([] if training else [(False, True)])
    assert module.state_dict() == before


def test_a_device_that_cannot_compute_the_network_is_named():
    module = Recorder().eval()
    predictor = Predictor(module)
    with pytest.raises(ValueError, match="device='meta' cannot compute this network"):
        predictor.predict(pairs(5), torch.device("meta"))
    assert module.factor.device == CPU
    np.testing.assert_array_equal(predictor.predict(pairs(5), CPU), expected_scores(pairs(5)))


def test_predicting_draws_no_random_numbers():
    state = torch.get_rng_state()
    Predictor(Recorder(dropout=0.5)).predict(pairs(10), CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_copies_keep_the_marks_of_parameters():
    module = Recorder()
    module.factor.no_weight_decay = True
    twin = copy_module(module)
    assert twin.factor is not module.factor
    assert twin.factor.no_weight_decay


@pytest.mark.parametrize("times", [False, True])
def test_services_of_one_user_share_its_row(times):
    module = Recorder().eval()
    one_user = replace(pairs(6, times), users=np.full(6, 3))
    prediction = predict_interactions(module, one_user, CPU)
    assert module.batches == [6 if times else 1]
    time = one_user.times if times else 0
    np.testing.assert_array_equal(prediction, 300 + 10 * one_user.services + time)
