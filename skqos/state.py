"""What a fitted estimator has learnt: one object, stored by one assignment and never changed.

Whoever interrupts `fit` or `partial_fit`, or predicts in another thread meanwhile, sees the old
state or the new one, and no mixture.
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
    """What every estimator over pairs has learnt. A pickle and a model file hold the fields alone.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of object, or None
        Names of the columns of X, if they were all strings.
    layout : ContextLayout
        Where the context columns are.
    users_, services_ : EntityEncoder
        Ids and context.
    attributes : dict of str to object
        What a method adds, by the name of the estimator's attribute.
    time_scale : TimeScale or None
        How times count in steps; None without time.
    """

    n_features_in_: int
    feature_names_in_: np.ndarray | None
    layout: ContextLayout
    users_: EntityEncoder
    services_: EntityEncoder
    attributes: Mapping[str, Any]
    time_scale: TimeScale | None = None

    def with_attributes(self, **attributes: Any) -> Self:
        """Return a state in which some of the added attributes are others."""
        return replace(self, attributes={**self.attributes, **attributes})

    def __getstate__(self) -> dict[str, Any]:
        """Hand out the fields: what is computed from them is computed again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NetworkState(FittedState):
    """What an estimator with a network has learnt.

    Attributes
    ----------
    target_transform : TargetTransform
        From the unit of y to that of the network.
    target_shape : tuple of int
        Shape of a row of y.
    module_ : Module
        The network, in evaluation mode. No method of the estimator moves or changes it.
    history_ : DataFrame
        Losses and durations, one row an epoch.
    n_iter_ : int
        Epochs of the final stage.
    """

    target_transform: TargetTransform
    target_shape: tuple[int, ...]
    module_: nn.Module
    history_: pd.DataFrame
    n_iter_: int

    @property
    def predictor(self) -> Predictor:
        """The network with its copies on other devices and its encodings, which it keeps."""
        from skqos.prediction import Predictor

        return self._kept("predictor") or self._keep("predictor", Predictor(self.module_))

    @property
    def nets(self) -> dict[str, QoSNet]:
        """The skorch net of each stage; after unpickling, of the final stage only."""
        from skqos.training import restore_net

        return self._kept("nets") or self._keep("nets", restore_net(self.module_, self.history_))

    def with_intervals(self, intervals: Intervals) -> Self:
        """Return a state that knows how far measurements lie from predictions."""
        return self.with_attributes(_intervals=intervals).with_nets(self.nets)

    def with_nets(self, nets: dict[str, QoSNet]) -> Self:
        """Keep the nets that were trained beside the fields."""
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
        """Keep a value beside the fields; of two threads the first one's, for both."""
        return vars(self).setdefault(f"_{name}", value)


class FittedAttribute(Generic[T]):
    """A read-only attribute of an estimator, which it has once it is fitted.

    Its value, of type T, is the field of that name of the estimator's state, or of the attributes
    added to it.
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
                f"{owner.__name__} has no {self.name}: it is not fitted."
                if state is None
                else f"This {owner.__name__} has no {self.name}."
            )
        return value

    def __set__(self, estimator: object, value: Never) -> None:
        raise AttributeError(
            f"{self.name} is what {type(estimator).__name__} has learnt, and cannot be set."
        )
