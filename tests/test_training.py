"""Training: batches, what an epoch records, schedules, stopping, seeds, history."""

import io
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from skqos.entities import EntityTable, Interactions
from skqos.losses import JointLoss, ObservedLoss
from skqos.prediction import Encoded, predict_interactions
from skqos.sharp_qos import module as sharp_qos_module
from skqos.training import (
    InteractionDataset,
    QoSNet,
    ShuffledBatches,
    Trainer,
    ValidationDataset,
    WholeDataset,
    batch_bounds,
    history_frame,
    restore_net,
    seeded,
)
from tests.common import all_estimators

CPU = torch.device("cpu")
NOBODY = EntityTable(np.empty((0, 0), dtype=np.int64), np.empty((0, 0), dtype=np.float32))
N_USERS, N_SERVICES = 6, 8


class Biases(nn.Module):
    """The smallest module of pairs: a bias per entity, dropout in training, n_targets outputs."""

    def __init__(self, n_targets=None, dropout=0.0):
        super().__init__()
        width = n_targets or 1
        self.users = nn.Embedding(N_USERS, width)
        self.services = nn.Embedding(N_SERVICES, width)
        self.dropout = nn.Dropout(dropout)
        self.squeeze = n_targets is None

    def forward(self, users, services):
        return self._add(self.users(users), self.services(services))

    def encode_known(self):
        return Encoded(self.users.weight, self.services.weight)

    def encode_new(self, known, new_users, new_services):
        return Encoded(
            *(
                side.mean(0, keepdim=True).repeat(len(new), 1)
                for side, new in ((known.users, new_users), (known.services, new_services))
            )
        )

    def score(self, encoded, users, services):
        return self._add(encoded.users[users], encoded.services[services])

    def _add(self, users, services):
        result = self.dropout(users + services)
        return result.squeeze(1) if self.squeeze else result


class Spy(Callback):
    """Write down the learning rate, mode and rows of each training batch."""

    seen: list = []

    def on_train_begin(self, net, **_):
        self.seen.clear()

    def on_batch_begin(self, net, batch=None, training=None, **_):
        if training:
            self.seen.append(
                {"lr": net.optimizer_.param_groups[0]["lr"], "rows": len(batch[1]), "net": net}
            )


@pytest.fixture
def spy(monkeypatch):
    monkeypatch.setattr(Spy, "seen", [])
    return Spy


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0, CPU):
        yield


TRAINER = Trainer(
    learning_rate=0.05,
    weight_decay=0.0,
    batch_size=16,
    optimizer="adamw",
    learning_rate_schedule="constant",
    early_stopping=False,
    n_iter_no_change=2,
    device=CPU,
    callbacks=(),
    verbose=0,
)


def some_rows(n=50, n_targets=None, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    users, services = rng.integers(N_USERS, size=n), rng.integers(N_SERVICES, size=n)
    target = rng.normal(size=n if n_targets is None else (n, n_targets))
    target[rng.random(target.shape) < missing] = np.nan
    return users, services, target


def dataset(users, services, target):
    return InteractionDataset({"users": users, "services": services}, target)


def validation(users, services, target, n_new=0):
    new = EntityTable(np.empty((n_new, 0), dtype=np.int64), np.empty((n_new, 0)))
    return ValidationDataset(Interactions(users, services, None, new, NOBODY), target)


def train(trainer=TRAINER, rows=None, valid=None, module=None, max_epochs=2, **options):
    return trainer.fit(
        module or Biases(),
        ObservedLoss("absolute_error"),
        dataset(*(some_rows() if rows is None else rows)),
        valid,
        **{"stage": "final", "max_epochs": max_epochs, **options},
    )


# --- Batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "bounds"),
    [
        (10, 5, [0, 5, 10]),
        (11, 5, [0, 3, 7, 11]),
        (12, 5, [0, 4, 8, 12]),
        (5, 5, [0, 5]),
        (6, 5, [0, 3, 6]),
        (3, 2, [0, 1, 3]),
        (1, 5, [0, 1]),
    ],
)
def test_batch_bounds(n_rows, batch_size, bounds):
    assert batch_bounds(n_rows, batch_size) == bounds


@pytest.mark.parametrize("n_rows", [2, 3, 16, 17, 33, 50, 257])
@pytest.mark.parametrize("batch_size", [2, 16])
def test_an_epoch_covers_each_row_once_in_batches_of_one_size(n_rows, batch_size):
    codes = np.arange(n_rows)
    batches = ShuffledBatches(dataset(codes, codes, codes), batch_size)
    sizes, seen = [], []
    for inputs, target in batches:
        assert torch.equal(inputs["users"], inputs["services"])
        observed = ~target.isnan()
        assert torch.equal(inputs["users"].float()[observed], target[observed])
        assert len(target) - 1 <= observed.sum() <= len(target)
        sizes.append(len(target))
        seen += inputs["users"][observed].tolist()
    assert sorted(seen) == list(range(n_rows))
    assert len(sizes) == len(batches) == -(-n_rows // batch_size)
    assert len(set(sizes)) == 1
    assert 2 <= sizes[0] <= batch_size


def test_a_borrowed_row_does_not_reach_the_loss_or_the_stored_targets(spy):
    """17 rows are two batches of 9 rows, one of them borrowed; at learning rate 0."""
    users, services, target = some_rows(17)
    module = Biases()
    rows = dataset(users, services, target)
    trainer = replace(TRAINER, learning_rate=0.0, callbacks=(spy(),))
    criterion = ObservedLoss("absolute_error")
    net = trainer.fit(module, criterion, rows, None, stage="final", max_epochs=3)
    with torch.no_grad():
        prediction = module(torch.tensor(users), torch.tensor(services)).numpy()
    expected = np.abs(prediction - target).mean()
    assert [batch["rows"] for batch in spy.seen] == [9] * 6
    assert net.history[:, "train_loss"] == pytest.approx([expected] * 3, rel=1e-6)
    assert not rows.target.isnan().any()


def test_each_epoch_has_its_own_order_and_the_seed_decides_it():
    codes = np.arange(50)
    batches = ShuffledBatches(dataset(codes, codes, codes), 16)
    orders = []
    for seed in (1, 1, 2):
        with seeded(seed, CPU):
            orders.append([torch.cat([x["users"] for x, _ in batches]) for _ in range(2)])
    assert not torch.equal(*orders[0])
    assert torch.equal(orders[0][0], orders[1][0])
    assert not torch.equal(orders[0][0], orders[2][0])


def grouped(tables):
    """Return rows that know their number, of which a batch may hold one table only."""
    codes = np.arange(len(tables))
    inputs = {"rows": codes, "tables": np.array(tables)}
    return InteractionDataset(inputs, codes.astype(float), one_per_batch="tables")


@pytest.mark.parametrize("batch_size", [2, 7, 50])
def test_batches_may_hold_one_value_of_an_input_only(batch_size):
    tables = np.random.default_rng(0).choice([0, 1, 4], p=[0.6, 0.3, 0.1], size=60)
    sizes = np.bincount(tables)[[0, 1, 4]]
    batches = ShuffledBatches(grouped(tables), batch_size)
    seen, found = [], []
    for inputs, target in batches:
        observed = ~target.isnan()
        assert len(inputs["tables"].unique()) == 1
        assert torch.equal(inputs["rows"].float()[observed], target[observed])
        assert (inputs["tables"].numpy() == tables[inputs["rows"]]).all()
        assert 2 <= len(target) <= batch_size
        seen += inputs["rows"][observed].tolist()
        found.append((int(inputs["tables"][0]), len(target)))
    assert sorted(seen) == list(range(60))
    assert seen != sorted(seen, key=lambda row: (tables[row], row))
    assert len(set(found)) == 3, "one size for each table"
    assert len(found) == len(batches) == sum(-(-n // batch_size) for n in sizes)


def test_without_a_value_to_a_batch_one_permutation_shuffles_all_rows():
    codes = np.arange(48)
    rows = InteractionDataset({"rows": codes, "tables": codes % 3}, codes)
    with seeded(3, CPU):
        found = torch.cat([inputs["rows"] for inputs, _ in ShuffledBatches(rows, 16)])
    with seeded(3, CPU):
        assert torch.equal(found, torch.randperm(48))


def test_datasets_hold_float32_targets_and_integer_codes():
    rows = dataset(*some_rows(5, n_targets=2)).to(CPU)
    inputs, target = rows[torch.tensor([4, 0])]
    assert len(rows) == 5
    assert target.shape == (2, 2)
    assert target.dtype == torch.float32
    assert inputs["users"].dtype == torch.int64


def test_validation_rows_come_in_one_piece():
    held_out = validation(*some_rows(40))
    batches = list(WholeDataset(held_out, batch_size=16, shuffle=True))
    assert len(held_out) == 40
    assert len(batches) == 1
    assert batches[0][0] is held_out
    assert batches[0][1] is held_out.target


# --- What an epoch records ----------------------------------------------------------------------


@pytest.mark.parametrize("n_targets", [None, 3])
def test_train_loss_is_the_mean_over_observed_entries_not_over_batches(n_targets, spy):
    """At learning rate 0 the loss is that of the first weights, whatever the batches."""
    users, services, target = some_rows(50, n_targets=n_targets, missing=0.5)
    module = Biases(n_targets)
    trainer = replace(TRAINER, learning_rate=0.0, callbacks=(spy(),))
    net = train(trainer, (users, services, target), module=module, max_epochs=3)
    with torch.no_grad():
        prediction = module(torch.tensor(users), torch.tensor(services)).numpy()
    expected = np.nanmean(np.abs(prediction - target))
    assert [batch["rows"] for batch in spy.seen[:4]] == [13] * 4
    assert net.history[:, "train_loss"] == pytest.approx([expected] * 3, rel=1e-6)


def test_train_loss_weighs_batches_by_observed_entries_while_the_weights_move():
    users, services, target = some_rows(34, missing=0.6)
    parts = []

    class Recorder(ObservedLoss):
        def forward(self, prediction, target):
            loss = super().forward(prediction, target)
            parts.append((loss.item(), int((~target.isnan()).sum())))
            return loss

    net = TRAINER.fit(
        Biases(),
        Recorder("absolute_error"),
        dataset(users, services, target),
        None,
        stage="final",
        max_epochs=1,
    )
    losses, counts = np.array(parts).T
    assert len(set(counts)) > 1
    expected = (losses * counts).sum() / np.isfinite(target).sum()
    assert net.history[-1, "train_loss"] == pytest.approx(expected, rel=1e-6)
    assert net.history[-1, "train_loss"] != pytest.approx(losses.mean(), rel=1e-6)


@pytest.mark.parametrize("n_targets", [None, 2])
def test_valid_loss_is_that_of_predict_interactions(n_targets):
    """Evaluation mode, newcomers, all rows at once."""
    rows = some_rows(50, n_targets=n_targets)
    users, services, target = some_rows(30, n_targets=n_targets, missing=0.3, seed=1)
    users[:5] = N_USERS
    held_out = validation(users, services, target, n_new=1)
    net = train(rows=rows, valid=held_out, module=Biases(n_targets, dropout=0.5))
    prediction = predict_interactions(net.module_, held_out.interactions, CPU)
    expected = np.nanmean(np.abs(prediction - target))
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-6)
    assert net.history[0, "valid_loss"] != net.history[1, "valid_loss"]


def test_validation_leaves_training_in_training_mode_and_its_randomness_alone():
    module = Biases(dropout=0.5)
    state = {name: values.clone() for name, values in module.state_dict().items()}
    weights = []
    for held_out in (None, validation(*some_rows(30, seed=1))):
        module.load_state_dict(state)
        with seeded(1, CPU):
            net = train(module=module, valid=held_out, max_epochs=3)
        weights.append(net.module_.users.weight.detach().clone())
    assert torch.equal(*weights)


def test_the_network_ends_in_evaluation_mode_on_the_cpu():
    module = Biases()
    net = train(module=module)
    assert net.module_ is module
    assert not any(part.training for part in module.modules())
    assert all(not values.is_cuda for values in module.parameters())


def test_training_lowers_the_loss():
    losses = train(max_epochs=30).history[:, "train_loss"]
    assert losses[-1] < 0.8 * losses[0]


# --- Weights of rows, and members ---------------------------------------------------------------


class MemberBiases(Biases):
    """Members whose biases lie side by side."""

    def __init__(self, n_members=3, n_targets=None):
        super().__init__(n_members * (n_targets or 1))
        self.n_members, self.n_targets = n_members, n_targets

    def forward(self, users, services):
        return self._of_members(super().forward(users, services))

    def score(self, encoded, users, services):
        return self._of_members(super().score(encoded, users, services)).mean(0)

    def _of_members(self, result):
        if self.n_targets is None:
            return result.T
        return result.unflatten(1, (self.n_members, -1)).transpose(0, 1)


MODULES = {
    "one target": (Biases, None),
    "three targets": (lambda: Biases(3), 3),
    "members": (MemberBiases, None),
    "members, three targets": (lambda: MemberBiases(2, 3), 3),
}
every_module = pytest.mark.parametrize(
    ("make_module", "n_targets"), MODULES.values(), ids=list(MODULES)
)


# Gradients of the absolute error cancel out to noise, which Adam scales up.
SMOOTH = ObservedLoss("squared_error")


def weighted(users, services, target, weights):
    return InteractionDataset({"users": users, "services": services}, target, weights)


def train_rows(module, rows, criterion=None, trainer=TRAINER, max_epochs=3):
    criterion = criterion or ObservedLoss("absolute_error")
    return trainer.fit(module, criterion, rows, None, stage="final", max_epochs=max_epochs)


def weighted_mean(errors, weights, axis=None):
    """Average absolute errors (..., n, n_targets) where a target was observed."""
    weights = weights[:, None] * ~np.isnan(errors)
    return (np.nan_to_num(np.abs(errors)) * weights).sum(axis) / weights.sum(axis)


@every_module
def test_train_loss_weighs_each_row(make_module, n_targets):
    """At learning rate 0 the loss is that of the first weights, whatever the batches."""
    rows = some_rows(50, n_targets=n_targets, missing=0.4)
    weights = np.random.default_rng(1).uniform(0, 2, size=50).astype(np.float32)
    module = make_module()
    with torch.no_grad():
        prediction = module(*map(torch.tensor, rows[:2])).numpy()
    net = train_rows(module, weighted(*rows, weights), trainer=replace(TRAINER, learning_rate=0.0))
    errors = (prediction - rows[2]).reshape(-1, 50, n_targets or 1)
    expected = weighted_mean(errors, weights)
    assert net.history[:, "train_loss"] == pytest.approx([expected] * 3, rel=1e-6)
    assert expected != pytest.approx(np.nanmean(np.abs(errors)), rel=1e-3)


@pytest.mark.parametrize("make_module", [lambda: Biases(3), lambda: MemberBiases(2, 3)])
def test_the_losses_of_tasks_weigh_each_row(make_module):
    rows = some_rows(50, n_targets=3, missing=0.4)
    weights = np.random.default_rng(1).uniform(0, 0.01, size=50).astype(np.float32)
    module = make_module()
    with torch.no_grad():
        prediction = module(*map(torch.tensor, rows[:2])).numpy()
    criterion = JointLoss("absolute_error", 3, "equal", 0.9)
    trainer = replace(TRAINER, learning_rate=0.0)
    net = train_rows(module, weighted(*rows, weights), criterion, trainer)
    errors = (prediction - rows[2]).reshape(-1, 50, 3)
    expected = weighted_mean(errors, weights, axis=(0, 1))
    record = net.history[-1, "criterion"]
    found = [record[f"train_loss_{task}"] for task in range(3)]
    assert found == pytest.approx(expected.tolist(), rel=1e-5)


@every_module
def test_a_row_of_weight_2_teaches_what_two_rows_do(make_module, n_targets):
    """And one of weight 0 nothing: whole batches of the same rows end in the same weights."""
    users, services, target = some_rows(40, n_targets=n_targets, missing=0.3)
    counts = np.arange(40) % 3
    trainer = replace(TRAINER, batch_size=100)
    module, twin, ignorant = make_module(), make_module(), make_module()
    for other in (twin, ignorant):
        other.load_state_dict(module.state_dict())
    rows = weighted(users, services, target, counts.astype(np.float32))
    repeated = [np.repeat(values, counts, axis=0) for values in (users, services, target)]
    net = train_rows(module, rows, SMOOTH, trainer)
    expected = train_rows(twin, dataset(*repeated), SMOOTH, trainer)
    train_rows(ignorant, dataset(users, services, target), SMOOTH, trainer)
    losses = expected.history[:, "train_loss"]
    assert net.history[:, "train_loss"] == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(module.users.weight, twin.users.weight, rtol=1e-4, atol=1e-5)
    assert (module.users.weight - ignorant.users.weight).abs().max() > 0.01


def test_weights_of_rows_travel_with_their_rows():
    codes = np.arange(50)
    rows = weighted(codes % N_USERS, codes % N_SERVICES, codes, codes.astype(np.float64))
    for inputs, target in ShuffledBatches(rows, 16):
        observed = ~target.isnan()
        assert torch.equal(32 * inputs["sample_weight"][observed], target[observed])


@pytest.mark.parametrize("unit", [1e-30, 0.1, 1e30])
def test_weights_know_no_unit_and_equal_ones_are_none(unit):
    codes = np.arange(4)
    rows = weighted(codes, codes, codes, unit * np.array([1.0, 2.0, 4.0, 3.0]))
    weights = rows.inputs["sample_weight"]
    assert 1 <= weights.max() < 2
    torch.testing.assert_close(weights / weights[0], torch.tensor([1.0, 2.0, 4.0, 3.0]))
    assert "sample_weight" not in weighted(codes, codes, codes, np.full(4, unit)).inputs


def test_members_train_as_networks_of_their_own_do():
    """One batch: members of a joint fit end where each ends alone, but for the loss's scale."""
    members = MemberBiases(3)
    singles = [Biases() for _ in range(3)]
    for member, single in enumerate(singles):
        with torch.no_grad():
            single.users.weight.copy_(members.users.weight[:, [member]])
            single.services.weight.copy_(members.services.weight[:, [member]])
    trainer = replace(TRAINER, batch_size=100)
    held_out = validation(*some_rows(20, seed=1))
    net, *nets = (
        trainer.fit(module, SMOOTH, dataset(*some_rows()), held_out, stage="final", max_epochs=5)
        for module in (members, *singles)
    )
    for member, single in enumerate(singles):
        # Adam does not see the scale of a loss.
        found = members.users.weight[:, [member]]
        torch.testing.assert_close(found, single.users.weight, rtol=1e-4, atol=1e-5)
    losses = np.mean([single.history[:, "train_loss"] for single in nets], axis=0)
    assert net.history[:, "train_loss"] == pytest.approx(losses.tolist(), rel=1e-5)
    # Validation sees the average of the members, as `predict` does.
    predictions = [predict_interactions(single, held_out.interactions, CPU) for single in singles]
    expected = 0.5 * np.square(np.mean(predictions, axis=0) - held_out.target.numpy()).mean()
    assert net.history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-4)


# --- Options of a trainer -----------------------------------------------------------------------


def test_one_cycle_climbs_to_its_peak_and_ends_low(spy):
    trainer = replace(TRAINER, learning_rate_schedule="one_cycle", callbacks=(spy(),))
    train(trainer, valid=validation(*some_rows(10)), max_epochs=10)
    rates = [batch["lr"] for batch in spy.seen]
    peak = int(np.argmax(rates))
    assert len(rates) == 10 * 4
    assert rates[0] == pytest.approx(0.05 / 25)
    assert rates[peak] == pytest.approx(0.05, rel=0.01)
    assert 0.2 < peak / len(rates) < 0.4
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[-1] < 0.05 / 1000


@pytest.mark.parametrize("n_rows", [2, 17, 33])
def test_one_cycle_counts_the_steps_of_any_number_of_rows(n_rows, spy):
    trainer = replace(TRAINER, learning_rate_schedule="one_cycle", callbacks=(spy(),))
    train(trainer, some_rows(n_rows), max_epochs=3)
    assert len(spy.seen) == 3 * -(-n_rows // 16)
    assert spy.seen[-1]["lr"] < 0.05 / 1000


@pytest.mark.parametrize("n_steps", [1, 2, 4, 5, 8, 10, 12])
@pytest.mark.parametrize("warm_up", [0.1, 0.25, 0.5])
def test_a_warm_up_may_be_of_any_length(n_steps, warm_up, spy):
    trainer = replace(TRAINER, learning_rate_schedule="one_cycle", callbacks=(spy(),))
    train(trainer, some_rows(16), max_epochs=n_steps, warm_up=warm_up)
    rates = [batch["lr"] for batch in spy.seen]
    assert len(rates) == n_steps
    assert np.isfinite(rates).all()
    assert np.argmax(rates) <= warm_up * n_steps


def test_a_single_step_has_the_full_rate(spy):
    trainer = replace(TRAINER, learning_rate_schedule="one_cycle", callbacks=(spy(),))
    train(trainer, some_rows(16), max_epochs=1)
    assert [batch["lr"] for batch in spy.seen] == [0.05]


class OfTable(Biases):
    """Takes what rows are grouped by, and wants one value of it."""

    def forward(self, users, services, tables):
        assert len(tables.unique()) == 1
        return super().forward(users, services)


def test_one_cycle_counts_the_batches_of_every_group(spy):
    users, services, target = some_rows(50)
    inputs = {"users": users, "services": services, "tables": np.arange(50) % 5 % 3}
    trainer = replace(TRAINER, learning_rate_schedule="one_cycle", callbacks=(spy(),))
    rows = InteractionDataset(inputs, target, one_per_batch="tables")
    criterion = ObservedLoss("absolute_error")
    trainer.fit(OfTable(), criterion, rows, None, stage="final", max_epochs=4)
    # Two groups of 20 rows and one of 10, at 16 rows a batch.
    assert [batch["rows"] for batch in spy.seen[:5]] == [10] * 5
    assert len(spy.seen) == 4 * 5
    assert spy.seen[-1]["lr"] < 0.05 / 1000


def test_a_constant_rate_stays(spy):
    train(replace(TRAINER, callbacks=(spy(),)))
    assert {batch["lr"] for batch in spy.seen} == {0.05}


@pytest.mark.parametrize(
    ("name", "optimizer"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_optimizer_and_its_weight_decay(name, optimizer):
    net = train(replace(TRAINER, optimizer=name, weight_decay=0.3))
    assert type(net.optimizer_) is optimizer
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.3


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_marked_parameters_have_no_weight_decay(schedule):
    module = Biases()
    marked, *others = module.parameters()
    marked.no_weight_decay = True
    trainer = replace(TRAINER, weight_decay=0.3, learning_rate_schedule=schedule)
    net = train(trainer, module=module)
    decays = {
        parameter: group["weight_decay"]
        for group in net.optimizer_.param_groups
        for parameter in group["params"]
    }
    assert decays == {marked: 0.0} | dict.fromkeys(others, 0.3)
    assert len({group["lr"] for group in net.optimizer_.param_groups}) == 1


def test_a_stage_may_have_its_own_batch_size_and_callbacks_read_its_name(spy):
    trainer = replace(TRAINER, callbacks=(spy(),))
    train(trainer, max_epochs=1, batch_size=25, stage="first")
    assert [batch["rows"] for batch in spy.seen] == [25, 25]
    assert spy.seen[0]["net"].stage == "first"


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_stage_may_have_its_own_learning_rate(schedule, spy):
    trainer = replace(TRAINER, learning_rate_schedule=schedule, callbacks=(spy(),))
    train(trainer, max_epochs=10, learning_rate=0.2)
    rates = [batch["lr"] for batch in spy.seen]
    assert max(rates) == pytest.approx(0.2, rel=0.01)
    assert (min(rates) < 0.2 / 1000) == (schedule == "one_cycle")


def test_early_stopping_restores_the_weights_of_the_best_epoch():
    """Training pulls biases down, validation wants them up: the first epoch is the best."""
    users, services, _ = some_rows(50)
    rows = (users, services, np.full(50, -100.0))
    held_out = validation(*some_rows(10)[:2], np.full(10, 100.0))
    trainer = replace(TRAINER, early_stopping=True, n_iter_no_change=3)
    net = train(trainer, rows, held_out, max_epochs=20)
    losses = net.history[:, "valid_loss"]
    assert len(losses) == 4
    assert losses == sorted(losses)
    prediction = predict_interactions(net.module_, held_out.interactions, CPU)
    assert np.abs(prediction - 100.0).mean() == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("early_stopping", [False, "monitor"])
def test_without_early_stopping_all_epochs_run_and_the_last_weights_stay(early_stopping):
    users, services, _ = some_rows(50)
    rows = (users, services, np.full(50, -100.0))
    held_out = validation(*some_rows(10)[:2], np.full(10, 100.0))
    net = train(replace(TRAINER, early_stopping=early_stopping), rows, held_out, max_epochs=8)
    prediction = predict_interactions(net.module_, held_out.interactions, CPU)
    assert len(net.history) == 8
    assert np.abs(prediction - 100.0).mean() == pytest.approx(
        net.history[-1, "valid_loss"], rel=1e-6
    )


class PressesCtrlC(EarlyStopping):
    """A Ctrl-C arrives while the patience is about to be, or has been, reached."""

    def _is_score_improved(self, score):
        if self.misses_ == 2:
            self.misses_ = 3
            raise KeyboardInterrupt
        return False


class AtTheEnd(Callback):
    def on_train_end(self, net, **_):
        raise KeyboardInterrupt


class AfterAnEpoch(Callback):
    def on_epoch_end(self, net, **_):
        if len(net.history) == 3:
            raise KeyboardInterrupt


def no_improvement(**params):
    return EarlyStopping("train_loss", threshold=100.0, threshold_mode="abs", **params)


@pytest.mark.parametrize(
    "callbacks",
    [
        (PressesCtrlC("train_loss", patience=3),),
        # The patience of the first is reached in the epoch of the Ctrl-C, ahead of it or after.
        (AfterAnEpoch(), no_improvement(patience=2)),
        (no_improvement(patience=2), AtTheEnd()),
    ],
    ids=["in early stopping", "beside it", "after it"],
)
def test_ctrl_c_is_told_from_early_stopping(callbacks):
    with pytest.raises(KeyboardInterrupt):
        train(replace(TRAINER, callbacks=callbacks), max_epochs=8)


@pytest.mark.parametrize("given", ["instance", "named", "class"])
def test_a_users_early_stopping_ends_training_however_it_is_given(given):
    stopping = no_improvement(patience=2)
    callback = {
        "instance": stopping,
        "named": ("stop", stopping),
        "class": EarlyStopping,
    }[given]
    rows, held_out = some_rows(50), validation(*some_rows(30, seed=1))
    trainer = replace(TRAINER, callbacks=(callback,), learning_rate=5.0)
    assert len(train(trainer, rows, held_out, max_epochs=60).history) < 60
    assert stopping.misses_ == 0


def test_early_stopping_without_validation_rows_does_nothing():
    assert len(train(replace(TRAINER, early_stopping=True), max_epochs=5).history) == 5


class SpoiltByItsLastStep(Biases):
    """The loss is finite, its gradient is not: |x| by way of a root, at 0."""

    def forward(self, users, services):
        return super().forward(users, services).mul(0).square().sqrt()


def test_a_weight_spoilt_by_the_very_last_step_raises():
    message = "stage 'first', epoch 1: a weight of the network is not finite.*smaller learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        train(module=SpoiltByItsLastStep(), rows=some_rows(10), max_epochs=1, stage="first")


class WeightsThatOverflow(Biases):
    """The weights stay finite; what they predict does not."""

    def score(self, encoded, users, services):
        return super().score(encoded, users, services) * torch.tensor(3e38) * 10


class WeightsOutOfProportion(Biases):
    def score(self, encoded, users, services):
        return super().score(encoded, users, services) * 1e20


@pytest.mark.parametrize("module", [WeightsThatOverflow, WeightsOutOfProportion])
def test_predictions_spoilt_by_the_very_last_step_raise(module):
    message = "stage 'first', epoch 2: the network's predictions.*not finite"
    with pytest.raises(FloatingPointError, match=message):
        train(module=module(), max_epochs=2, stage="first")


class StatisticThatOverflows(Biases):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, users, services):
        self.mean += torch.inf
        return super().forward(users, services)


def test_a_statistic_spoilt_in_training_raises():
    with pytest.raises(FloatingPointError, match="a statistic of the network is not finite"):
        train(module=StatisticThatOverflows())


def test_predictions_are_checked_with_the_weights_that_are_kept():
    """Early stopping restores weights from ahead of the step that spoilt them."""

    class Spoil(Callback):
        def on_batch_end(self, net, training=None, **_):
            if training and len(net.history) == 4:
                with torch.no_grad():
                    net.module_.users.weight.fill_(torch.inf)

    rows, held_out = some_rows(50), validation(*some_rows(30, seed=1))
    trainer = replace(TRAINER, batch_size=50, n_iter_no_change=4, callbacks=(Spoil(),))
    with pytest.raises(FloatingPointError):
        train(replace(trainer, early_stopping="monitor"), rows, held_out, max_epochs=4)
    net = train(replace(trainer, early_stopping=True), rows, held_out, max_epochs=4)
    assert net.module_.users.weight.isfinite().all()


def test_a_loss_that_is_not_finite_raises_after_its_epoch():
    users, services, target = some_rows(50)
    target[7] = np.inf
    with pytest.raises(FloatingPointError, match="epoch 1: the training loss is inf"):
        train(rows=(users, services, target), max_epochs=5)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_one_line_is_rewritten(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    train(replace(TRAINER, verbose=1), valid=validation(*some_rows(10)), max_epochs=3)
    text = terminal.getvalue()
    assert text.count("\r\x1b[K") == 3
    assert text.count("\n") == 1
    assert text.endswith("s left\n")
    assert "final: epoch 2/3  train_loss" in text
    assert "valid_loss" in text


def test_elsewhere_each_epoch_has_a_line(capsys):
    train(replace(TRAINER, verbose=1), max_epochs=3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("\r" not in line and "valid_loss" not in line for line in lines)


def test_where_logging_is_configured_each_epoch_is_a_record(caplog, capsys):
    with caplog.at_level(logging.INFO, logger="skqos"):
        train(replace(TRAINER, verbose=1), max_epochs=3)
    assert [record.name for record in caplog.records] == ["skqos"] * 3
    assert caplog.messages[1].startswith("final: epoch 2/3  train_loss")
    assert capsys.readouterr().err == ""


def test_a_level_above_info_does_not_silence_what_was_asked_for(caplog, capsys):
    with caplog.at_level(logging.WARNING, logger="skqos"):
        train(replace(TRAINER, verbose=1), max_epochs=3)
    assert caplog.records == []
    assert len(capsys.readouterr().err.splitlines()) == 3


# --- Seeds and history --------------------------------------------------------------------------


def test_seeded_draws_the_same_and_restores_the_callers_state():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    draws = []
    for _ in range(2):
        with seeded(1, CPU):
            draws.append(torch.rand(3))
    with seeded(2, CPU):
        other = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], other)


def test_seeded_restores_the_state_after_an_error_too():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with pytest.raises(RuntimeError), seeded(1, CPU):
        torch.rand(-1)
    assert torch.equal(torch.rand(3), expected)


def test_history_has_a_row_an_epoch_stage_after_stage():
    nets = {
        "first": train(max_epochs=2, stage="first"),
        "final": train(max_epochs=3, valid=validation(*some_rows(10))),
    }
    history = history_frame(nets)
    assert history["stage"].tolist() == ["first"] * 2 + ["final"] * 3
    assert history["epoch"].tolist() == [1, 2, 1, 2, 3]
    assert history["valid_loss"].isna().tolist() == [True] * 2 + [False] * 3
    assert history["train_loss"].tolist()[2:] == nets["final"].history[:, "train_loss"]
    assert (history["duration"] > 0).all()


def test_restore_net_brings_back_the_final_stage_and_its_history():
    module = Biases()
    first = train(max_epochs=2, stage="first")
    final = train(module=module, max_epochs=3, valid=validation(*some_rows(10)))
    history = history_frame({"first": first, "final": final})
    weights = module.users.weight.detach().clone()
    nets = restore_net(module, history)
    assert list(nets) == ["final"]
    net = nets["final"]
    assert net.initialized_
    assert net.stage == "final"
    assert net.module_ is module
    assert torch.equal(module.users.weight, weights)
    for name in ("epoch", "train_loss", "valid_loss", "dur"):
        assert net.history[:, name] == final.history[:, name]
    expected = history[history["stage"] == "final"].reset_index(drop=True)
    pd.testing.assert_frame_equal(history_frame(nets), expected)


# --- What a GPU would have to wait for ------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Write down the operations at which a program waits for its device, whatever device that is.

    They give a number to Python, or have a result whose size depends on values.
    """

    NAMES = (
        "_local_scalar_dense",
        "_unique2",
        "bincount",
        "equal",
        "is_nonzero",
        "masked_select",
        "nonzero",
        "repeat_interleave",
        "unique_consecutive",
        "unique_dim",
    )

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        is_mask = name == "index" and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        has_size = (kwargs or {}).get("output_size") is not None
        if (name in self.NAMES and not has_size) or is_mask:
            self.found.add(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def steps(monkeypatch):
    """Watch the steps of training: the operations waited for, and the shapes of the batches."""
    waits, shapes = Waits(), []
    take_step = QoSNet.train_step

    def watched(net, batch, **params):
        shapes.append((net.stage, tuple(batch[1].shape)))
        with waits:
            return take_step(net, batch, **params)

    monkeypatch.setattr(QoSNet, "train_step", watched)
    return waits, shapes


def test_waits_are_found(steps):
    class Reads(Biases):
        def forward(self, users, services):
            float(users[0])
            users[users > 2].unique()
            return super().forward(users, services)

    train(module=Reads())
    assert steps[0].found == {"_local_scalar_dense", "index", "_unique2"}


@all_estimators
def test_steps_wait_for_no_device_and_have_one_shape(steps, contract, monkeypatch):
    # As on a GPU.
    monkeypatch.setattr(
        sharp_qos_module, "_distinct", lambda codes: (codes, torch.arange(len(codes)))
    )
    waits, shapes = steps
    data = contract.make_data(20, 31, density=0.5)
    weights = 1.0 + data.X[:, 0] % 2
    model = contract.make(max_epochs=2, batch_size=64)
    model.fit(data.X, data.y, sample_weight=weights)
    assert waits.found == set()
    # Each fold of the graph convolution of TPMCF is a batch, of as many rows as it has.
    n_sizes = {"gcmf": model.n_folds} if contract.temporal else {}
    for stage in {stage for stage, _ in shapes}:
        found = {shape for of_stage, shape in shapes if of_stage == stage}
        assert len(found) <= n_sizes.get(stage, 1)
