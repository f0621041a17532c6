"""The ONNX graph of a fitted network, with known entities as constants and pairs as input."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from skqos._ids import ID_COLUMNS
from skqos.export._contents import OUTPUT
from skqos.prediction import Encoded, PairModule
from skqos.targets import MAX_EXPONENT, TargetTransform

# Supported by onnxruntime 1.14 and later.
OPSET_VERSION = 18
# Protocol buffers are limited to 2 GiB, which also contain the weights, the graph and the ids.
MAX_CONSTANT_BYTES = 2**31 - 2**27
# The exporter would specialise the graph for zero or one pair.
N_EXAMPLE_PAIRS = 3


class PairGraph(nn.Module):
    """Map positions of encoded entities to QoS in the unit of y.

    Parameters
    ----------
    module : PairModule
        Trained network in evaluation mode.
    encoded : Encoded
        Entities encoded by the network.
    transform : TargetTransform
        Transform of the targets.
    """

    def __init__(self, module: PairModule, encoded: Encoded, transform: TargetTransform) -> None:
        super().__init__()
        self.module = module
        self.encoded = encoded
        self.inverse = InverseTransform(transform)

    def forward(self, users: Tensor, services: Tensor, times: Tensor | None = None) -> Tensor:
        """Predict pairs; (n, n_targets), of dtype float64."""
        times = () if times is None else (times,)
        return self.inverse(self.module.score(self.encoded, users, services, *times))


class InverseTransform(nn.Module):
    """`TargetTransform.inverse_transform` as a torch module.

    Parameters
    ----------
    transform : TargetTransform
        Fitted transform.
    """

    def __init__(self, transform: TargetTransform) -> None:
        super().__init__()
        self.register_buffer("is_log", torch.tensor([kind == "log" for kind in transform.kinds_]))
        self.register_buffer("is_sqrt", torch.tensor([kind == "sqrt" for kind in transform.kinds_]))
        self.register_buffer("scale", torch.tensor(transform.scale_))
        self.register_buffer("shift", torch.tensor(transform.shift_))

    def forward(self, z: Tensor) -> Tensor:
        """Map predictions (n,) or (n, n_targets) to the unit of y; (n, n_targets)."""
        y = z.reshape(z.shape[0], len(self.scale)).double()
        y = torch.where(self.is_log, torch.expm1(y.clamp(max=MAX_EXPONENT)), y)
        y = torch.where(self.is_sqrt, y * y.abs(), y)
        limit = torch.finfo(torch.float64).max
        return (y * self.scale + self.shift).clamp(-limit, limit)


def trace(graph: PairGraph, n_id_columns: int) -> Any:
    """Return the ONNX model of a graph, for any number of pairs.

    Parameters
    ----------
    graph : PairGraph
        On the CPU.
    n_id_columns : {2, 3}
        Number of inputs.

    Returns
    -------
    onnx.ModelProto
        Model with inputs named as in `ID_COLUMNS`, and an output named `OUTPUT`.

    Raises
    ------
    ValueError
        If the constants exceed the size limit of a file.
    """
    n_bytes = sum(part.nbytes for part in _tensors([graph.encoded.users, graph.encoded.services]))
    if n_bytes > MAX_CONSTANT_BYTES:
        raise ValueError(
            f"The network's vectors of all known users and services take {n_bytes / 2**30:.1f} GiB,"
            " but an ONNX file is limited to 2 GiB. Export a model with fewer entities or time "
            "steps, or with smaller layers."
        )
    any_number = torch.export.Dim("n_pairs")
    with _without_notes():
        program = torch.onnx.export(
            graph.eval(),
            # The exporter would merge inputs that are the same tensor.
            tuple(torch.arange(N_EXAMPLE_PAIRS) % 2 for _ in range(n_id_columns)),
            dynamo=True,
            dynamic_shapes=({0: any_number},) * n_id_columns,
            input_names=ID_COLUMNS[:n_id_columns],
            output_names=[OUTPUT],
            opset_version=OPSET_VERSION,
            verbose=False,
        )
    return program.model_proto


def _tensors(parts: Any) -> Iterator[Tensor]:
    """Yield all tensors of nested lists and tuples."""
    if isinstance(parts, Tensor):
        yield parts
        return
    for part in parts:
        yield from _tensors(part)


@contextmanager
def _without_notes() -> Iterator[None]:
    """Suppress messages of the exporter about its own code and about optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
