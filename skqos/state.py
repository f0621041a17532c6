"""State of a fitted estimator: one object, stored by one assignment and never changed.

After an interruption of `fit` or `partial_fit`, and in other threads, an estimator has either the
old state or the new one, but never a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar, overload

import numpy as np
import pandas as pd

from skqos._times import TimeScale
from skqos.entities import EntityEncoder
from skqos.inputs import ContextLayout
from skqos.targets import TargetTransform

if TYPE_CHECKING:
    from torch import nn

    from skqos.distribution.model import Intervals
    from skqos.prediction import Predictor
    from skqos.training import QoSNet

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FittedState:
    """State of any estimator over pairs. Pickles and model files contain only the fields.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of object, or None
        Names of the columns of X, or None if not all are strings.
    layout : ContextLayout
        Positions of the context columns.
    users_, services_ : EntityEncoder
        Ids and context.
    attributes : dict of str to object
        Further fitted attributes of the estimator, by name.
    time_scale : TimeScale or None
        Conversion of times to steps; None without time.
    """

    n_features_in_: int
    feature_names_in_: np.ndarray | None
    layout: ContextLayout
    users_: EntityEncoder
    services_: EntityEncoder
    attributes: Mapping[str, Any]
    time_scale: TimeScale | None = None

    def with_attributes(self, **attributes: Any) -> Self:
        """Return a state in which some of the further attributes are replaced."""
        return replace(self, attributes={**self.attributes, **attributes})

    def __getstate__(self) -> dict[str, Any]:
        """Return only the fields; cached values are computed again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NetworkState(FittedState):
    """State of an estimator with a network.

    Attributes
    ----------
    target_transform : TargetTransform
        Transform from the unit of y to that of the network.
    target_shape : tuple of int
        Shape of a row of y.
    module_ : Module
        Network in evaluation mode, which no method of the estimator moves or changes.
    history_ : DataFrame
        Losses and durations, with one row per epoch.
    n_iter_ : int
        Number of epochs of the final stage.
    """

    target_transform: TargetTransform
    target_shape: tuple[int, ...]
    module_: nn.Module
    history_: pd.DataFrame
    n_iter_: int

    @property
    def predictor(self) -> Predictor:
        """Predictor with the network, cached copies on other devices, and cached encodings."""
        from skqos.prediction import Predictor

        return self._kept("predictor") or self._keep("predictor", Predictor(self.module_))

    @property
    def nets(self) -> dict[str, QoSNet]:
        """Nets (skorch) by training stage; after unpickling, of the last stage only."""
        from skqos.training import restore_net

        return self._kept("nets") or self._keep("nets", restore_net(self.module_, self.history_))

    def with_target_names(self, names: np.ndarray | None) -> Self:
        """Return a state that knows the names of the columns of y, if there are any."""
        if names is None:
            return self
        return self.with_attributes(target_names_in_=names).with_nets(self.nets)

    def with_intervals(self, intervals: Intervals) -> Self:
        """Return a state with the distribution of measurements around predictions."""
        return self.with_attributes(_intervals=intervals).with_nets(self.nets)

    def with_nets(self, nets: dict[str, QoSNet]) -> Self:
        """Keep the trained nets in addition to the fields."""
        self._keep("nets", nets)
        return self

    def on_cpu(self) -> Self:
        """Return the state with its network on the CPU."""
        if all(part.device.type == "cpu" for part in self.module_.state_dict().values()):
            return self
        from skqos.prediction import copy_module

        return replace(self, module_=copy_module(self.module_))

    def _kept(self, name: str) -> Any:
        return vars(self).get(f"_{name}")

    def _keep(self, name: str, value: Any) -> Any:
        """Cache a value outside the fields; the first of several threads determines it."""
        return vars(self).setdefault(f"_{name}", value)


class FittedAttribute(Generic[T]):
    """Read-only attribute of a fitted estimator.

    Its value, of type T, is the field of the estimator's state with this name, or one of the
    further attributes.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, estimator: None, owner: type) -> Self: ...

    @overload
    def __get__(self, estimator: object, owner: type) -> T: ...

    def __get__(self, estimator: Any, owner: type) -> Any:
        if estimator is None:
            return self
        state = estimator._state
        value = None
        if state is not None:
            value = getattr(state, self.name, None)
            if value is None:
                value = state.attributes.get(self.name)
        if value is None:
            raise AttributeError(
                f"{owner.__name__} is not fitted and has no {self.name}."
                if state is None
                else f"This {owner.__name__} has no {self.name}."
            )
        return value

    def __set__(self, estimator: object, value: Never) -> None:
        raise AttributeError(
            f"{self.name} is a fitted attribute of {type(estimator).__name__} and cannot be set."
        )
