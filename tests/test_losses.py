"""Losses against NumPy, and blind to what was not observed."""

from typing import get_args

import numpy as np
import pytest
import torch

from skqos._types import TaskWeighting
from skqos.losses import LOSSES, JointLoss, ObservedLoss

FORMULAS = {
    "absolute_error": lambda e: abs(e),
    "cauchy": lambda e: np.log(1 + e * e),
    "squared_error": lambda e: e * e / 2,
    "huber": lambda e: e * e / 2 if abs(e) <= 1 else abs(e) - 1 / 2,
    "e_huber": lambda e: e * e / 2 if abs(e) < 0.5 else 0.125 + 0.025 * (abs(e) - 0.5),
    "e_huber_printed": lambda e: e * e / 2 if abs(e) < 0.5 else 0.05 * (0.5 * abs(e) - 0.125),
}
SLOPES = {
    "absolute_error": np.sign,
    "cauchy": lambda e: 2 * e / (1 + e * e),
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


# --- Joint loss ---------------------------------------------------------------------------------

N_TASKS = 3
WEIGHTINGS = get_args(TaskWeighting)
every_weighting = pytest.mark.parametrize("weighting", WEIGHTINGS)


def make_joint(weighting, name="absolute_error", n_tasks=N_TASKS, ema_decay=0.9):
    return JointLoss(name, n_tasks, weighting, ema_decay).double()


def task_losses(name, prediction, target):
    """Mean over the observed entries of each task; 0 for a task without any."""
    losses = []
    for p, t in zip(prediction.T, target.T, strict=True):
        found = [FORMULAS[name](a - b) for a, b in zip(p, t, strict=True) if not np.isnan(b)]
        losses.append(sum(found) / max(len(found), 1))
    return np.array(losses)


def some_steps(n=6, missing_task=()):
    """Batches whose tasks have losses of different size; some lack the second task."""
    rng = np.random.default_rng(3)
    for step in range(n):
        prediction, target = rng.normal(size=(2, 20, N_TASKS)) * [1, 10, 0.1]
        target[rng.random(target.shape) < 0.3] = np.nan
        if step in missing_task:
            target[:, 1] = np.nan
        yield prediction, target


def run_step(criterion, prediction, target):
    return criterion(torch.tensor(prediction), torch.tensor(target)).item()


@every_loss
def test_equal_weights_average_the_means_of_the_tasks(name):
    prediction, target = some_errors((20, N_TASKS))
    expected = task_losses(name, prediction, target).mean()
    assert run_step(make_joint("equal", name), prediction, target) == pytest.approx(expected)


@pytest.mark.parametrize("ema_decay", [0.9, 0.99, 0.0])
@pytest.mark.parametrize("missing_task", [(), (0, 1), (2, 4)], ids=["none", "early", "late"])
def test_ema_weights_are_inverse_to_smoothed_losses(ema_decay, missing_task):
    criterion = make_joint("ema", ema_decay=ema_decay)
    smoothed = {}
    for prediction, target in some_steps(missing_task=missing_task):
        losses = task_losses("absolute_error", prediction, target)
        for task in range(N_TASKS):
            if np.isnan(target[:, task]).all():
                continue
            before = smoothed.get(task, losses[task])
            smoothed[task] = ema_decay * before + (1 - ema_decay) * losses[task]
        total = sum(1 / value for value in smoothed.values())
        weights = [
            len(smoothed) / smoothed[task] / total if task in smoothed else 1.0
            for task in range(N_TASKS)
        ]
        found = run_step(criterion, prediction, target)
        np.testing.assert_allclose(criterion.weights, weights, rtol=1e-10)
        assert criterion.weights.sum().item() == pytest.approx(N_TASKS)
        assert found == pytest.approx((weights * losses).sum() / N_TASKS)


def test_ema_weights_get_no_gradient_through_the_losses():
    prediction, target = next(some_steps())
    criterion = make_joint("ema")
    z = torch.tensor(prediction, requires_grad=True)
    criterion(z, torch.tensor(target)).backward()
    observed = ~np.isnan(target)
    slopes = np.where(observed, np.sign(prediction - target), 0) / observed.sum(0)
    np.testing.assert_allclose(z.grad, slopes * criterion.weights.numpy() / N_TASKS, rtol=1e-10)


def test_dwa_weights_follow_the_ratio_of_the_last_two_epochs():
    criterion = make_joint("dwa")
    epochs = []
    for epoch in range(4):
        sums, counts = np.zeros(N_TASKS), np.zeros(N_TASKS)
        weights = np.ones(N_TASKS)
        if epoch >= 2:
            ratios = epochs[-1] / epochs[-2]
            weights = N_TASKS * np.exp(ratios / 2) / np.exp(ratios / 2).sum()
        for step, (prediction, target) in enumerate(some_steps(3, missing_task=(1,))):
            # Tasks learn at different speeds.
            prediction = target.copy() + (1 + step) * np.array([0.5, 0.9, 1.1]) ** epoch
            prediction[np.isnan(target)] = 7.0
            losses = task_losses("absolute_error", prediction, target)
            observed = (~np.isnan(target)).sum(0)
            sums, counts = sums + losses * observed, counts + observed
            found = run_step(criterion, prediction, target)
            assert found == pytest.approx((weights * losses).sum() / N_TASKS)
            np.testing.assert_allclose(criterion.weights, weights, rtol=1e-10)
        criterion.end_epoch()
        epochs.append(sums / counts)
    assert np.ptp(weights) > 0.1
    assert weights.sum() == pytest.approx(N_TASKS)


def test_uncertainty_adds_a_learnt_scale():
    prediction, target = next(some_steps())
    criterion = make_joint("uncertainty")
    scale = np.array([0.5, -1.0, 0.2])
    with torch.no_grad():
        criterion.log_scale.copy_(torch.tensor(scale))
    losses = task_losses("absolute_error", prediction, target)
    loss = criterion(torch.tensor(prediction), torch.tensor(target))
    loss.backward()
    expected = np.mean(np.exp(-scale) * losses + scale)
    assert loss.item() == pytest.approx(expected)
    gradient = (1 - np.exp(-scale) * losses) / N_TASKS
    np.testing.assert_allclose(criterion.log_scale.grad, gradient, rtol=1e-10)
    np.testing.assert_allclose(criterion.weights, np.exp(-scale), rtol=1e-10)


def test_uncertainty_leaves_the_scale_of_a_task_alone_that_a_batch_lacks():
    prediction, target = next(some_steps(missing_task=(0,)))
    criterion = make_joint("uncertainty")
    criterion(torch.tensor(prediction), torch.tensor(target)).backward()
    assert ((criterion.log_scale.grad != 0).numpy() == [True, False, True]).all()


def test_only_uncertainty_has_something_to_learn():
    learnt = {name for name in WEIGHTINGS if list(make_joint(name).parameters())}
    assert learnt == {"uncertainty"}


@every_weighting
def test_in_evaluation_tasks_weigh_the_same(weighting):
    criterion = make_joint(weighting)
    for prediction, target in some_steps(3):
        run_step(criterion, prediction, target)
    prediction, target = some_errors((20, N_TASKS))
    expected = task_losses("absolute_error", prediction, target).mean()
    assert run_step(criterion.eval(), prediction, target) == pytest.approx(expected)


@every_weighting
def test_in_evaluation_a_task_without_observations_does_not_count(weighting):
    prediction, target = next(some_steps(missing_task=(0,)))
    losses = task_losses("absolute_error", prediction, target)
    found = run_step(make_joint(weighting).eval(), prediction, target)
    assert found == pytest.approx(losses[[0, 2]].mean())


@every_weighting
def test_evaluation_leaves_no_trace(weighting):
    criterion = make_joint(weighting)
    steps = list(some_steps(4))
    run_step(criterion, *steps[0])
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    run_step(criterion.eval(), *steps[1])
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())


@every_loss
@every_weighting
def test_a_single_task_costs_what_is_observed(weighting, name):
    criterion = make_joint(weighting, name, n_tasks=1)
    for prediction, target in some_steps(3):
        prediction, target = prediction[:, :1], target[:, :1]
        expected = ObservedLoss(name)(torch.tensor(prediction), torch.tensor(target)).item()
        assert run_step(criterion, prediction, target) == pytest.approx(expected)
    criterion.end_epoch()
    assert run_step(criterion.eval(), prediction, target) == pytest.approx(expected)


@every_weighting
def test_an_epoch_records_losses_per_observed_entry_and_weights(weighting):
    criterion = make_joint(weighting)
    sums, counts = np.zeros(N_TASKS), np.zeros(N_TASKS)
    for prediction, target in some_steps(4, missing_task=(2,)):
        run_step(criterion, prediction, target)
        observed = (~np.isnan(target)).sum(0)
        sums += task_losses("absolute_error", prediction, target) * observed
        counts += observed
    weights = criterion.weights.tolist()
    record = criterion.end_epoch()
    expected = {f"train_loss_{k}": loss for k, loss in enumerate(sums / counts)}
    expected |= {f"task_weight_{k}": weight for k, weight in enumerate(weights)}
    assert record == pytest.approx(expected)


def test_an_epoch_starts_its_record_anew():
    criterion = make_joint("equal")
    first, second = list(some_steps(2))
    run_step(criterion, *first)
    criterion.end_epoch()
    run_step(criterion, *second)
    losses = task_losses("absolute_error", *second)
    record = criterion.end_epoch()
    assert [record[f"train_loss_{k}"] for k in range(N_TASKS)] == pytest.approx(losses)


@every_loss
@every_weighting
def test_gradients_are_finite_and_exactly_0_where_nothing_was_observed(weighting, name):
    prediction, target = next(some_steps(missing_task=(0,)))
    z = torch.tensor(prediction, requires_grad=True)
    make_joint(weighting, name)(z, torch.tensor(target)).backward()
    observed = ~np.isnan(target)
    assert z.grad.isfinite().all()
    assert (z.grad.numpy()[~observed] == 0).all()
    assert (z.grad.numpy()[observed] != 0).all()


@every_weighting
def test_a_batch_without_observations_costs_nothing_and_changes_no_weight(weighting):
    criterion = make_joint(weighting)
    first, (prediction, _) = list(some_steps(2))
    run_step(criterion, *first)
    before = criterion.weights.clone()
    z = torch.tensor(prediction, requires_grad=True)
    loss = criterion(z, torch.full_like(z, torch.nan).detach())
    loss.backward()
    assert loss.item() == 0
    assert (z.grad == 0).all()
    assert torch.equal(criterion.weights, before)


@every_weighting
def test_perfect_tasks_keep_weights_finite(weighting):
    """Over epochs in which a task's loss is 0 and then is not."""
    criterion = make_joint(weighting)
    for epoch in range(4):
        for prediction, target in some_steps(2):
            if epoch % 2 == 0:
                prediction[:, 1] = np.nan_to_num(target[:, 1])
            assert np.isfinite(run_step(criterion, prediction, target))
        criterion.end_epoch()
        assert criterion.weights.isfinite().all()


def value(name, error, **constants):
    return LOSSES[name](torch.tensor([error], dtype=torch.float64), **constants).item()


@pytest.mark.parametrize("scale", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("error", [-20.0, -0.3, 0.0, 1e-9, 2.0])
def test_the_scale_of_the_cauchy_loss_divides_the_error(scale, error):
    expected = np.log1p((error / scale) ** 2)
    assert value("cauchy", error, scale=scale) == pytest.approx(expected, rel=1e-12, abs=0)


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


# --- Members and weights of rows ----------------------------------------------------------------

CRITERIA = [((20,), None), ((20, N_TASKS), None)]
CRITERIA += [((20, N_TASKS), weighting) for weighting in WEIGHTINGS]
every_criterion = pytest.mark.parametrize(("shape", "weighting"), CRITERIA, ids=str)


def make_criterion(weighting, name="absolute_error"):
    """Return the plain loss, or the joint one of a weighting."""
    return ObservedLoss(name) if weighting is None else make_joint(weighting, name)


def run_epoch(criterion, prediction, target, *weights, n_steps=2):
    """Return losses, gradients and records of the steps of an epoch, and what it ends with."""
    losses, gradients = [], []
    for _ in range(n_steps):
        z = torch.tensor(prediction, requires_grad=True)
        loss = criterion(z, torch.tensor(target), *map(torch.tensor, weights))
        loss.backward()
        losses.append(loss.item())
        gradients.append(z.grad.numpy())
    record = criterion.end_epoch() if isinstance(criterion, JointLoss) else {}
    return losses, np.array(gradients), record


def some_members(shape, n_members=4):
    """Return predictions of members and targets that they share."""
    _, target = some_errors(shape)
    return 2 * np.random.default_rng(1).normal(size=(n_members, *shape)), target


def close(values):
    return pytest.approx(values, rel=1e-6)


@every_loss
@every_criterion
def test_members_count_as_rows_of_their_own_do(name, shape, weighting):
    prediction, target = some_members(shape)
    flat = prediction.reshape(-1, *shape[1:]), np.concatenate([target] * 4)
    found, gradients, record = run_epoch(make_criterion(weighting, name), prediction, target)
    expected, of_rows, record_of_rows = run_epoch(make_criterion(weighting, name), *flat)
    assert found == close(expected)
    np.testing.assert_allclose(gradients, of_rows.reshape(gradients.shape), rtol=1e-6)
    # Losses of tasks are averaged over members, too.
    assert record == close(record_of_rows)


@every_loss
@pytest.mark.parametrize("shape", [(20,), (20, N_TASKS)])
def test_the_loss_is_the_average_of_those_of_the_members(name, shape):
    prediction, target = some_members(shape)
    found = ObservedLoss(name)(torch.tensor(prediction), torch.tensor(target)).item()
    of_each = [
        ObservedLoss(name)(torch.tensor(member), torch.tensor(target)).item()
        for member in prediction
    ]
    assert found == close(np.mean(of_each))
    assert np.ptp(of_each) > 1e-3


@every_criterion
@pytest.mark.parametrize("training", [True, False])
def test_one_member_costs_what_a_network_without_members_does(shape, weighting, training):
    prediction, target = some_errors(shape)
    criteria = [make_criterion(weighting).train(training) for _ in range(2)]
    found, expected = (
        run_epoch(criterion, z, target)
        for criterion, z in zip(criteria, (prediction[None], prediction), strict=True)
    )
    assert found[0] == close(expected[0])
    np.testing.assert_allclose(found[1][:, 0], expected[1], rtol=1e-6)


COUNTS = np.random.default_rng(2).integers(0, 4, size=20)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("has_members", [False, True])
@every_loss
@every_criterion
def test_a_row_of_an_integer_weight_counts_as_that_many_rows(
    name, shape, weighting, has_members, training
):
    """And a row of weight 0 as none."""
    prediction, target = some_members(shape)
    prediction = prediction if has_members else prediction[0]
    row_axis = int(has_members)
    assert {0, 1, 3} < set(COUNTS)
    criteria = [make_criterion(weighting, name).train(training) for _ in range(2)]
    found, gradients, record = run_epoch(criteria[0], prediction, target, COUNTS.astype(float))
    expected, of_rows, expected_record = run_epoch(
        criteria[1], np.repeat(prediction, COUNTS, row_axis), np.repeat(target, COUNTS, 0)
    )
    assert found == close(expected)
    assert record == close(expected_record)
    # The gradient of a row is the sum of those of its repetitions.
    ends = np.cumsum(COUNTS)
    for row, (start, end) in enumerate(zip(ends - COUNTS, ends, strict=True)):
        of_row = of_rows.take(range(start, end), axis=1 + row_axis).sum(1 + row_axis)
        np.testing.assert_allclose(gradients.take(row, axis=1 + row_axis), of_row, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 0.3, 1e4])
@every_criterion
def test_only_the_ratios_of_weights_matter(shape, weighting, scale):
    prediction, target = some_members(shape)
    weights = np.random.default_rng(2).uniform(0.1, 1.0, size=20)
    found = run_epoch(make_criterion(weighting), prediction, target, scale * weights)
    expected = run_epoch(make_criterion(weighting), prediction, target, weights)
    assert found[0] == close(expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    assert found[2] == close(expected[2])
    unweighted = run_epoch(make_criterion(weighting), prediction, target)
    assert found[0] != pytest.approx(unweighted[0], rel=1e-3)


@every_criterion
def test_equal_weights_are_no_weights(shape, weighting):
    prediction, target = some_members(shape)
    found = run_epoch(make_criterion(weighting), prediction, target, np.full(20, 0.7))
    expected = run_epoch(make_criterion(weighting), prediction, target)
    assert found[0] == close(expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


@every_criterion
def test_rows_without_weight_cost_nothing(shape, weighting):
    prediction, target = some_members(shape)
    found = run_epoch(make_criterion(weighting), prediction, target, np.zeros(20))
    assert found[0] == [0.0, 0.0]
    assert (found[1] == 0).all()
