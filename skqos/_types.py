"""Types of parameters that several modules share."""

from typing import Literal, TypeAlias

TargetTransformName: TypeAlias = Literal["auto", "sqrt", "log", "max", "standard"]
OptimizerName: TypeAlias = Literal["adam", "adamw"]
LearningRateSchedule: TypeAlias = Literal["one_cycle", "constant"]
EarlyStoppingOption: TypeAlias = bool | Literal["monitor"]
LossName: TypeAlias = Literal["absolute_error", "squared_error", "huber"]
TaskWeighting: TypeAlias = Literal["ema", "dwa", "uncertainty", "equal"]
Direction: TypeAlias = Literal["minimize", "maximize"]
