"""Training a network through skorch: tensor batches, early stopping, history, progress.

Only this file imports skorch, and only `fit` imports this file, because importing skorch takes
seconds and, through torch-geometric, a hundred megabytes that prediction does not need.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, LRScheduler
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import Dataset

from skqos._arrays import power_of_two
from skqos._cuda_graphs import Batch, RecordedSteps, Step, can_record, recording_stream
from skqos._errors import about
from skqos._processes import Processes, checksum
from skqos._progress import end_report, report
from skqos.entities import EntityTable, Interactions
from skqos.prediction import predict_interactions

if TYPE_CHECKING:
    from skqos.base import TrainingRows

# Number of rows whose predictions are checked after training.
MAX_CHECKED_ROWS = 20_000
# Maximum ratio of a prediction to the largest target.
MAX_GROWTH = 1e12

# Name of the batch input with the weights of rows, which is not passed to the module.
WEIGHT = "sample_weight"
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class InteractionDataset(Dataset):
    """Training rows as tensors: codes of known users and services, and their targets.

    Parameters
    ----------
    inputs : dict of str to ndarray of shape (n,)
        Arguments of the module's ``forward``.
    target : ndarray of shape (n,) or (n, n_targets)
        Transformed targets; NaN where not observed.
    weights : ndarray of shape (n,), default=None
        Positive weights of the rows in the loss; None is the same for all.
    one_per_batch : str, default=None
        Name of an input that has a single value in each batch.
    """

    def __init__(
        self,
        inputs: dict[str, np.ndarray],
        target: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        one_per_batch: str | None = None,
    ) -> None:
        self.one_per_batch = one_per_batch
        self.inputs = {name: torch.as_tensor(values) for name, values in inputs.items()}
        self.inputs |= _weight_input(weights)
        self.target = torch.as_tensor(target, dtype=torch.float32)

    @classmethod
    def of_rows(cls, rows: TrainingRows) -> InteractionDataset:
        """Create the dataset of a network whose inputs are users and services."""
        inputs = {"users": rows.user_codes, "services": rows.service_codes}
        return cls(inputs, rows.target, rows.weights)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: Any) -> tuple[dict[str, Tensor], Tensor]:
        return {name: values[rows] for name, values in self.inputs.items()}, self.target[rows]

    def to(self, device: torch.device) -> InteractionDataset:
        """Move all rows at once instead of each batch."""
        self.inputs = {name: values.to(device) for name, values in self.inputs.items()}
        self.target = self.target.to(device)
        return self


class ValidationDataset(Dataset):
    """Held-out interactions, which may contain unknown users and services.

    Parameters
    ----------
    interactions : Interactions
        The rows.
    target : ndarray of shape (n,) or (n, n_targets)
        Transformed targets; NaN where not observed.
    weights : ndarray of shape (n,), default=None
        Positive weights of the rows in the loss; None is the same for all.
    """

    def __init__(
        self, interactions: Interactions, target: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        self.interactions = interactions
        self.target = torch.as_tensor(target, dtype=torch.float32)
        self.weights = _weight_input(weights)

    def __len__(self) -> int:
        return len(self.target)


def _weight_input(weights: np.ndarray | None) -> dict[str, Tensor]:
    """Return the input with the weights of rows; equal weights need none."""
    if weights is None or (weights == weights[:1]).all():
        return {}
    # Losses are weighted means, so only ratios matter, and small numbers would underflow in
    # float32.
    scaled = 2 * weights / power_of_two(weights)
    return {WEIGHT: torch.as_tensor(scaled, dtype=torch.float32)}


class ShuffledBatches:
    """Batches of equal size, cut from one permutation of the rows per epoch.

    An epoch has as few batches as `batch_size` allows. Their sizes differ by one at most; a smaller
    batch is filled with a row whose target is set to NaN, so that the loss ignores it. If an input
    must have a single value in a batch, the rows of each value are split separately.

    Parameters
    ----------
    dataset : InteractionDataset
        The rows.
    batch_size : int
        Maximum number of rows of a batch.
    generator : Generator, default=None
        Generator of the permutations. If None, the default generator of torch is used.
    """

    def __init__(
        self,
        dataset: InteractionDataset,
        batch_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.dataset = dataset
        self.generator = generator
        self.groups = _rows_by_value(dataset)
        self.bounds = [batch_bounds(len(rows), batch_size) for rows in self.groups]

    def __len__(self) -> int:
        return sum(len(bounds) - 1 for bounds in self.bounds)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for rows, bounds in zip(self.groups, self.bounds, strict=True):
            order = torch.randperm(len(rows), generator=self.generator).to(rows.device)
            shuffled = rows[order]
            # The last batch is never a smaller one.
            size = bounds[-1] - bounds[-2]
            for start, stop in pairwise(bounds):
                inputs, target = self.dataset[shuffled[start : start + size]]
                target[stop - start :] = torch.nan
                yield inputs, target


def _rows_by_value(dataset: InteractionDataset) -> list[Tensor]:
    """Return groups of rows that may share a batch."""
    if dataset.one_per_batch is None:
        return [torch.arange(len(dataset), device=dataset.target.device)]
    values = dataset.inputs[dataset.one_per_batch]
    return [torch.nonzero(values == value).squeeze(1) for value in values.unique()]


class WholeDataset:
    """All validation rows as one batch, which `predict_interactions` splits."""

    def __init__(self, dataset: ValidationDataset, **_: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[tuple[ValidationDataset, Tensor]]:
        yield self.dataset, self.dataset.target


def batch_bounds(n_rows: int, batch_size: int) -> list[int]:
    """Return the bounds of the batches of an epoch, whose sizes differ by one at most."""
    n_batches = -(-n_rows // batch_size)
    return [k * n_rows // n_batches for k in range(n_batches + 1)]


class QoSNet(NeuralNet):
    """A skorch net whose losses count observed entries and whose fit can be interrupted.

    Parameters
    ----------
    module, criterion, **kwargs
        As for ``skorch.NeuralNet``.
    stage : str
        The stage of training this net belongs to; callbacks may read it.
    processes : Processes
        Processes that share the rows of each batch.
    """

    def __init__(
        self,
        *args: Any,
        stage: str = "final",
        processes: Processes = Processes(),  # noqa: B008 - it cannot be changed
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.stage = stage
        self.processes = processes

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("divergence", StopOnDivergence()),
            ("criterion", CriterionRecord()),
        ]

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run an epoch, and record the loss per observed entry instead of per batch."""
        if iterator is None:
            return
        total, n_observed = 0.0, 0
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            observed = _observed_weight(*batch)
            total = total + step["loss"].detach().double() * observed
            n_observed = n_observed + observed
            self.notify("on_batch_end", batch=batch, training=training, **step)
        if training:
            self.processes.average_statistics(self.module_)
        loss = self.processes.agree((total / n_observed).item())
        self.history.record(f"{prefix}_loss", loss)

    def train_step_single(self, batch: Batch, **_: Any) -> Step:
        """Compute the gradients of a batch."""
        return self.run_step_(batch)

    def _compute_gradients(self, batch: Batch) -> Step:
        """Compute the gradients of a batch, whose rows the processes share."""
        inputs, target = batch
        self._set_training(True)
        own = self.infer(self.processes.take(inputs))
        # Members have the first axis, which targets lack.
        prediction = self.processes.gather(own, len(target), own.ndim - target.ndim)
        loss = self.get_loss(prediction, target, inputs, training=True)
        loss.backward()
        self.processes.average_gradients(values for _, values in self.get_all_learnable_params())
        return {"loss": loss, "y_pred": prediction}

    def infer(self, x: dict[str, Tensor], **fit_params: Any) -> Tensor:
        """Run the module without the weights of rows, which only the loss uses."""
        return super().infer({k: v for k, v in x.items() if k != WEIGHT}, **fit_params)

    def get_loss(
        self,
        y_pred: Tensor,
        y_true: Tensor,
        X: dict[str, Tensor] | None = None,
        *,
        training: bool = False,
    ) -> Tensor:
        """Return the loss, plus the penalty of the module in training, if it has one."""
        weights = [X[WEIGHT]] if X is not None and WEIGHT in X else []
        loss = self.criterion_(y_pred, y_true, *weights)
        if training and hasattr(self.module_, "penalty"):
            loss = loss + self.module_.penalty()
        return loss

    def validation_step(
        self, batch: tuple[ValidationDataset, Tensor], **_: Any
    ) -> dict[str, Tensor]:
        """Predict held-out rows as `predict` does."""
        rows, target = batch
        self._set_training(False)
        device = torch.device(self.device)
        prediction = predict_interactions(self.module_, rows.interactions, device)
        prediction = torch.as_tensor(prediction, dtype=torch.float32)
        return {"loss": self.get_loss(prediction, target, rows.weights), "y_pred": prediction}

    def partial_fit(self, X: Dataset, y: None = None, **fit_params: Any) -> QoSNet:
        """Train; unlike in skorch, Ctrl-C raises KeyboardInterrupt."""
        if not self.initialized_:
            self.initialize()
        self.is_finished_ = False
        self.notify("on_train_begin", X=X, y=y)
        fit_params.pop("_routing_method", None)
        with self._running_steps(), suppress(StoppedEarly):
            self.fit_loop(X, y, **fit_params)
        self.notify("on_train_end", X=X, y=y)
        return self

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Notify all callbacks, and then stop if early stopping has ended the training."""
        super().notify(method_name, **cb_kwargs)
        if method_name == "on_epoch_end" and self.is_finished_:
            raise StoppedEarly

    @contextmanager
    def _running_steps(self) -> Iterator[None]:
        """Set how steps are run inside the block: a single process on a GPU records them."""
        device = torch.device(self.device)
        self.run_step_ = self._compute_gradients
        try:
            if not can_record(device) or self.processes.size > 1:
                yield
                return
            parameters = [parameter for _, parameter in self.get_all_learnable_params()]
            self.run_step_ = RecordedSteps(self._compute_gradients, parameters)
            with recording_stream(device):
                yield
        finally:
            # Recordings hold memory of the GPU, and cannot be copied.
            del self.run_step_

    def initialize_callbacks(self) -> QoSNet:
        """Make early stopping end the training only after all callbacks have seen the epoch."""
        super().initialize_callbacks()
        for _, callback in self.callbacks_:
            if isinstance(callback, EarlyStopping):
                callback.on_epoch_end = partial(_end_epoch, callback)
        return self


def _observed_weight(inputs: Any, target: Tensor) -> Tensor:
    """Return the total weight of the observed entries of a batch."""
    observed = ~target.isnan()
    if isinstance(inputs, dict) and WEIGHT in inputs:
        observed = observed * inputs[WEIGHT].view(-1, *[1] * (observed.ndim - 1))
    return observed.sum()


class StoppedEarly(Exception):
    """Raised by early stopping, to distinguish it from KeyboardInterrupt."""


def _end_epoch(stopping: EarlyStopping, net: QoSNet, **kwargs: Any) -> None:
    """End an epoch as `EarlyStopping` does, but let the net stop."""
    patience, stopping.patience = stopping.patience, math.inf
    try:
        type(stopping).on_epoch_end(stopping, net, **kwargs)
    finally:
        stopping.patience = patience
    net.is_finished_ = net.is_finished_ or stopping.misses_ >= patience


class StopOnDivergence(Callback):
    """Raise as soon as an epoch's training loss is not finite."""

    def on_epoch_end(self, net: QoSNet, **_: Any) -> None:
        """Check the training loss."""
        loss = net.history[-1, "train_loss"]
        if not np.isfinite(loss):
            raise diverged(net, f"the training loss is {loss}")


def diverged(net: QoSNet, what: str) -> FloatingPointError:
    """Return an error that states where training diverged and what to try."""
    return FloatingPointError(
        f"Training diverged in stage {net.stage!r}, epoch {len(net.history)}: {what}. Try a "
        "smaller learning_rate, a larger batch_size, or another target_transform."
    )


def check_trained(net: QoSNet, rows: InteractionDataset) -> None:
    """Check the trained network, because no loss was computed after the last step.

    Raises
    ------
    FloatingPointError
        If a weight or statistic of the network or a prediction of training rows is not finite, or a
        prediction is far too large.
    """
    module = net.module_
    for kind, values in (("weight", module.parameters()), ("statistic", module.buffers())):
        if not all(bool(part.isfinite().all()) for part in values if part.is_floating_point()):
            raise diverged(net, f"a {kind} of the network is not finite")
    predictions = predict_interactions(module, _some_pairs(module, rows), rows.target.device)
    largest = float(rows.target.abs().nan_to_num().max())
    # The comparison is also False for NaN.
    if not (np.abs(predictions) <= MAX_GROWTH * max(largest, 1.0)).all():
        raise diverged(net, "the network's predictions of its training rows are not finite")


def _some_pairs(module: nn.Module, rows: InteractionDataset) -> Interactions:
    """Return a regular sample of the training rows."""
    step = -(-len(rows) // MAX_CHECKED_ROWS)
    codes = {name: values[::step].cpu() for name, values in rows.inputs.items()}
    times = module.times.cpu()[codes["steps"]].numpy() if "steps" in codes else None
    nobody = EntityTable(np.empty((0, 0), dtype=np.int64), np.empty((0, 0), dtype=np.float32))
    return Interactions(codes["users"].numpy(), codes["services"].numpy(), times, nobody, nobody)


class CriterionRecord(Callback):
    """Callback that records values of the criterion, such as the weights of tasks."""

    def on_epoch_end(self, net: QoSNet, **_: Any) -> None:
        """Record the values of the criterion, if it has any."""
        if hasattr(net.criterion_, "end_epoch"):
            net.history.record("criterion", net.criterion_.end_epoch())


class ProgressLine(Callback):
    """Reports each epoch: stage, epoch, losses, time left."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Store the start time."""
        self.start_ = time.perf_counter()

    def on_epoch_end(self, net: QoSNet, **_: Any) -> None:
        """Report the epoch."""
        last, n_done = net.history[-1], len(net.history)
        losses = [
            f"{name} {last[name]:.4f}" for name in ("train_loss", "valid_loss") if name in last
        ]
        left = (time.perf_counter() - self.start_) / n_done * (net.max_epochs - n_done)
        report(
            f"{net.stage}: epoch {n_done}/{net.max_epochs}  {'  '.join(losses)}  {left:.0f} s left"
        )

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """End the line of a terminal."""
        end_report()


@dataclass(frozen=True)
class Trainer:
    """Training of the networks of an estimator, with one `fit` per stage.

    The attributes are the training parameters of the estimators.
    """

    learning_rate: float
    weight_decay: float
    batch_size: int
    optimizer: str
    learning_rate_schedule: str
    early_stopping: bool | str
    n_iter_no_change: int
    device: torch.device
    callbacks: Sequence[Any]
    verbose: int

    def __post_init__(self) -> None:
        """Check the callbacks before training."""
        for position, callback in enumerate(self.callbacks):
            _check_callback(callback, f"callbacks[{position}]")
        names = [callback[0] for callback in self.callbacks if isinstance(callback, tuple)]
        if len(set(names)) < len(names):
            raise ValueError(f"callbacks must have different names; got {names}.")

    def fit(
        self,
        module: nn.Module,
        criterion: nn.Module,
        rows: InteractionDataset,
        validation: ValidationDataset | None,
        *,
        stage: str,
        max_epochs: int,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        optimizer: type[torch.optim.Optimizer] | None = None,
        warm_up: float = 0.3,
    ) -> QoSNet:
        """Train a module on encoded rows; afterwards it is on the CPU, in evaluation mode.

        Processes that were launched together share the rows of each batch.

        Parameters
        ----------
        module : Module
            Network, which is trained in place.
        criterion : Module
            Loss.
        rows : InteractionDataset
            Training rows.
        validation : ValidationDataset or None
            Validation rows.
        stage : str
            Name of the stage, for reports and errors.
        max_epochs : int
            Maximum number of epochs.
        batch_size : int, default=None
            Rows per step. If None, the attribute of this name is used.
        learning_rate : float, default=None
            Learning rate. If None, the attribute of this name is used.
        optimizer : class, default=None
            Optimiser that receives the one of the attribute as ``euclidean``. If None, the one of
            the attribute is used.
        warm_up : float, default=0.3
            Share of the steps in which the learning rate of the "one_cycle" schedule increases.

        Returns
        -------
        QoSNet
            Net of the trained module.

        Raises
        ------
        FloatingPointError
            If training diverges.
        ValueError
            If processes were given different rows or parameters.
        RuntimeError
            If a process no longer answers.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        learning_rate = self.learning_rate if learning_rate is None else learning_rate
        n_steps = self.count_steps(rows, max_epochs, batch_size)
        processes = _join_processes(module, rows, n_steps=n_steps, learning_rate=learning_rate)
        callbacks = self._callbacks(n_steps, learning_rate, warm_up, validation is not None)
        if self.verbose and processes.rank == 0:
            callbacks.append(ProgressLine())
        net = QoSNet(
            module,
            stage=stage,
            processes=processes,
            criterion=criterion,
            **self._optimizer(optimizer, module),
            optimizer__weight_decay=self.weight_decay,
            # A fused optimiser takes less than half the time of the default.
            optimizer__fused=True,
            lr=learning_rate,
            max_epochs=max_epochs,
            batch_size=batch_size,
            iterator_train=ShuffledBatches,
            iterator_valid=WholeDataset,
            train_split=None if validation is None else predefined_split(validation),
            callbacks=callbacks,
            device=self.device,
            verbose=0,
        )
        with _apart(processes, self.device) as generator:
            net.set_params(iterator_train__generator=generator)
            net.fit(rows.to(self.device))
        net.module_.eval()
        check_trained(net, rows)
        net.module_.to("cpu")
        return net

    def count_steps(
        self, rows: InteractionDataset, max_epochs: int, batch_size: int | None = None
    ) -> int:
        """Return the number of steps that `fit` takes without early stopping."""
        batch_size = self.batch_size if batch_size is None else batch_size
        return max_epochs * len(ShuffledBatches(rows, batch_size))

    def _optimizer(
        self, optimizer: type[torch.optim.Optimizer] | None, module: nn.Module
    ) -> dict[str, Any]:
        if optimizer is not None:
            return {"optimizer": optimizer, "optimizer__euclidean": OPTIMIZERS[self.optimizer]}
        undecayed = [
            (name, {"weight_decay": 0.0})
            for name, parameter in module.named_parameters()
            if hasattr(parameter, "no_weight_decay")
        ]
        # skorch puts all other parameters into one more group.
        groups = {"optimizer__param_groups": undecayed} if undecayed else {}
        return {"optimizer": OPTIMIZERS[self.optimizer], **groups}

    def _callbacks(
        self, n_steps: int, learning_rate: float, warm_up: float, has_validation: bool
    ) -> list[Any]:
        callbacks: list[Any] = []
        # The schedule would give a single step the rate of the last one, which is almost 0.
        if self.learning_rate_schedule == "one_cycle" and n_steps > 1:
            callbacks.append(
                LRScheduler(
                    torch.optim.lr_scheduler.OneCycleLR,
                    max_lr=learning_rate,
                    # OneCycleLR divides by 0 for a warm-up of exactly one step.
                    pct_start=0.0 if warm_up * n_steps == 1 else warm_up,
                    total_steps=n_steps,
                    step_every="batch",
                    event_name=None,
                )
            )
        if has_validation and self.early_stopping is True:
            callbacks.append(EarlyStopping(patience=self.n_iter_no_change, load_best=True))
        for position, callback in enumerate(self.callbacks):
            if not has_validation and monitors_validation(callback):
                raise ValueError(
                    f"callbacks[{position}] monitors a loss of validation rows, but there are no "
                    "such rows. Set early_stopping='monitor' or True, or pass X_val and y_val, or "
                    "let it monitor 'train_loss'."
                )
        # Clones, because fitting must not change parameters.
        callbacks.extend(clone(callback, safe=False) for callback in self.callbacks)
        return callbacks


def monitors_validation(callback: Any) -> bool:
    """Return whether a callback, its class, or a pair with its name reads a validation loss."""
    if isinstance(callback, tuple):
        callback = callback[1]
    if isinstance(callback, type):
        callback = callback()
    if isinstance(callback, LRScheduler):
        policy = getattr(callback.policy, "__name__", callback.policy)
        if policy != "ReduceLROnPlateau":
            return False
    monitor = getattr(callback, "monitor", None)
    return isinstance(monitor, str) and monitor.startswith("valid_")


def _check_callback(callback: Any, label: str) -> None:
    """Raise TypeError unless it is a callback, its class, or a pair of a name and one of them."""
    if isinstance(callback, tuple) and len(callback) == 2 and isinstance(callback[0], str):
        callback = callback[1]
    kind = callback if isinstance(callback, type) else type(callback)
    if not issubclass(kind, Callback):
        raise TypeError(
            f"{label} must be a skorch callback, a callback class, or a pair of a name and one of "
            f"them; got {callback!r}."
        )
    if kind is callback:
        with about(label):
            inspect.signature(kind).bind()


def _join_processes(module: nn.Module, rows: InteractionDataset, **settings: Any) -> Processes:
    """Connect processes that train together, check that they agree, and share initial weights."""
    processes = Processes.launched()
    if processes.size > 1:
        codes = checksum(rows.inputs.values())
        processes.check_same(seed=torch.initial_seed(), rows=codes, **settings)
        processes.start_equal(module)
    return processes


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block, and restore the random state afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _apart(processes: Processes, device: torch.device) -> Iterator[torch.Generator | None]:
    """Use different random numbers in each of several processes inside the block.

    Yields a generator that draws the same numbers in all of them, or None for a single process,
    which uses the generator of torch.
    """
    if processes.size == 1:
        yield None
        return
    seeds, shared = torch.Generator(), torch.Generator()
    for generator in (seeds, shared):
        generator.set_state(torch.get_rng_state())
    seed = int(torch.randint(2**31, (), generator=seeds))
    with seeded(seed + processes.rank, device):
        yield shared
    torch.set_rng_state(shared.get_state())


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Switch off the dropout of a network inside the block, also in training."""
    layers = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    shares = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, share in zip(layers, shares, strict=True):
            layer.p = share


def history_frame(nets: dict[str, QoSNet]) -> pd.DataFrame:
    """Return losses and durations of all stages, with one row per epoch."""
    return pd.DataFrame(
        [
            {
                "stage": stage,
                "epoch": row["epoch"],
                "train_loss": row["train_loss"],
                "valid_loss": row.get("valid_loss", np.nan),
                "duration": row["dur"],
                **row.get("criterion", {}),
            }
            for stage, net in nets.items()
            for row in net.history
        ]
    )


def restore_net(module: nn.Module, history: pd.DataFrame) -> dict[str, QoSNet]:
    """Create the net of the last stage from an unpickled module and its history."""
    stage = history["stage"].iloc[-1]
    net = QoSNet(module, stage=stage, criterion=nn.L1Loss, train_split=None, verbose=0).initialize()
    # A stage may occur several times; the rows of the net begin with the last first epoch.
    first = np.flatnonzero(history["epoch"] == 1)[-1]
    rows = history.iloc[first:].rename(columns={"duration": "dur"})
    for row in rows.drop(columns="stage").to_dict("records"):
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(name, value)
    return {stage: net}
