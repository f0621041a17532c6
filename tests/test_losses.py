"""Losses against NumPy, and blind to what was not observed."""

import numpy as np
import pytest
import torch

from skqos.losses import LOSSES, ObservedLoss

FORMULAS = {
    "absolute_error": lambda e: abs(e),
    "squared_error": lambda e: e * e / 2,
    "huber": lambda e: e * e / 2 if abs(e) <= 1 else abs(e) - 1 / 2,
    "e_huber": lambda e: e * e / 2 if abs(e) < 0.5 else 0.125 + 0.025 * (abs(e) - 0.5),
    "e_huber_printed": lambda e: e * e / 2 if abs(e) < 0.5 else 0.05 * (0.5 * abs(e) - 0.125),
}
SLOPES = {
    "absolute_error": np.sign,
    "squared_error": lambda e: e,
    "huber": lambda e: np.clip(e, -1, 1),
    "e_huber": lambda e: np.where(abs(e) < 0.5, e, 0.025 * np.sign(e)),
    "e_huber_printed": lambda e: np.where(abs(e) < 0.5, e, 0.025 * np.sign(e)),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def some_errors(shape, missing=0.4):
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, *shape)) * 2
    target[rng.random(shape) < missing] = np.nan
    return prediction, target


def test_every_loss_has_a_formula_here():
    assert LOSSES.keys() == FORMULAS.keys()


@every_loss
@pytest.mark.parametrize("shape", [(50,), (20, 3)])
def test_mean_over_observed_entries(name, shape):
    prediction, target = some_errors(shape)
    losses = [
        FORMULAS[name](p - t)
        for p, t in zip(prediction.ravel(), target.ravel(), strict=True)
        if not np.isnan(t)
    ]
    assert 0 < len(losses) < prediction.size
    loss = ObservedLoss(name)(torch.tensor(prediction), torch.tensor(target))
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)


@every_loss
def test_gradient_is_the_slope_at_observed_entries_and_exactly_0_elsewhere(name):
    prediction, target = some_errors((40, 2))
    z = torch.tensor(prediction, requires_grad=True)
    ObservedLoss(name)(z, torch.tensor(target)).backward()
    observed = ~np.isnan(target)
    gradient = z.grad.numpy()
    assert (gradient[~observed] == 0).all()
    expected = SLOPES[name](prediction - target)[observed] / observed.sum()
    np.testing.assert_allclose(gradient[observed], expected, rtol=1e-12)


@every_loss
def test_nothing_observed_gives_0_and_no_gradient(name):
    z = torch.tensor([1.0, -2.0], requires_grad=True)
    loss = ObservedLoss(name)(z, torch.full((2,), torch.nan))
    loss.backward()
    assert loss.item() == 0.0
    assert z.grad.tolist() == [0.0, 0.0]


@every_loss
def test_a_perfect_prediction_costs_nothing(name):
    z = torch.tensor([1.0, -2.0], requires_grad=True)
    loss = ObservedLoss(name)(z, z.detach().clone())
    loss.backward()
    assert loss.item() == 0.0
    assert z.grad.tolist() == [0.0, 0.0]


@every_loss
def test_targets_get_no_gradient_through_the_prediction_in_their_place(name):
    """Shifting all predictions must not move the loss of entries that nobody observed."""
    target = torch.tensor([torch.nan, 0.5])
    losses = [ObservedLoss(name)(torch.tensor([p, 1.0]), target).item() for p in (-9.0, 9.0)]
    assert losses[0] == losses[1]


def value(name, error, **constants):
    return LOSSES[name](torch.tensor([error], dtype=torch.float64), **constants).item()


def test_the_printed_e_huber_falls_at_its_threshold():
    """With the paper's constants, 0.5 and 0.05."""
    assert value("e_huber_printed", 0.5 - 1e-12) == pytest.approx(0.125)
    assert value("e_huber_printed", 0.5) == pytest.approx(0.00625)
    assert value("e_huber_printed", 5.25) == pytest.approx(0.125)


@pytest.mark.parametrize("constants", [{}, {"threshold": 0.2, "tail_weight": 3.0}])
def test_e_huber_is_continuous(constants):
    threshold, weight = constants.get("threshold", 0.5), constants.get("tail_weight", 0.05)
    below, above = (value("e_huber", threshold + step, **constants) for step in (-1e-9, 1e-9))
    assert below == pytest.approx(above, rel=1e-6)
    expected = threshold**2 / 2 + weight * threshold * (2 - threshold)
    assert value("e_huber", -2.0, **constants) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["e_huber", "e_huber_printed"])
@pytest.mark.parametrize("error", [-2.0, 0.1, 0.3, 0.31])
def test_e_huber_with_weight_1_is_huber(name, error):
    expected = value("huber", error, threshold=0.3)
    assert value(name, error, threshold=0.3, tail_weight=1.0) == pytest.approx(expected)
