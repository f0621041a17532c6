"""Training steps as CUDA graphs: the GPU repeats a recorded step with one launch.

The networks are small. On a GPU, a step consists of hundreds of kernels that take less time to run
than Python takes to start them. A CUDA graph is a recording of all kernels of a step, on memory of
its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock

import torch
from torch import Tensor, nn

from skqos._progress import LOGGER

Batch = tuple[dict[str, Tensor], Tensor]
Step = dict[str, Tensor]
# Shapes of the tensors of a batch, and which parameters are trained.
Kind = tuple[tuple[torch.Size, ...], tuple[bool, ...]]

# Steps of each kind that run as usual before one is recorded, so that libraries are initialised
# and caches are filled.
N_FIRST_STEPS = 3
# Maximum number of recordings of a training. Each has its own memory.
MAX_RECORDINGS = 32

# While one thread records, no other may draw random numbers on the GPU.
_TURN = RLock()


@dataclass
class Recording:
    """A recorded step: the memory it reads and writes, and the graph of its kernels.

    Attributes
    ----------
    graph : torch.cuda.CUDAGraph
        The kernels.
    batch : tuple of dict and Tensor
        Inputs and target, which are overwritten before each repetition.
    step : dict of Tensor
        Loss and prediction, which each repetition overwrites.
    gradients : list of Tensor or None
        Gradients of the parameters, which each repetition overwrites.
    """

    graph: torch.cuda.CUDAGraph
    batch: Batch
    step: Step
    gradients: list[Tensor | None]

    def repeat(self, batch: Batch, parameters: Sequence[nn.Parameter]) -> Step:
        """Run the step on another batch of the same shape."""
        for own, values in zip(_tensors(self.batch), _tensors(batch), strict=True):
            own.copy_(values)
        self.graph.replay()
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return {name: value.clone() for name, value in self.step.items()}


class RecordedSteps:
    """Runs training steps; records one for each kind, and repeats it.

    Steps are of one kind if their batches have the same shapes and the same parameters are trained.

    It must be called on a stream of `recording_stream`. If a step cannot be recorded, for example
    because it waits for the device, all steps run as usual.

    Parameters
    ----------
    run : callable
        Computes loss and prediction of a batch, and the gradients of the trained parameters. It may
        depend only on its batch and on the contents of tensors.
    parameters : sequence of Parameter
        Parameters with gradients, which are None when a step begins.
    """

    def __init__(self, run: Callable[[Batch], Step], parameters: Sequence[nn.Parameter]) -> None:
        self.run = run
        self.parameters = list(parameters)
        self.recordings: dict[Kind, Recording] = {}
        self.n_steps: Counter[Kind] = Counter()
        self.is_possible = True

    def __call__(self, batch: Batch) -> Step:
        """Run a step on a batch."""
        # Callbacks may freeze parameters.
        kind = (
            tuple(values.shape for values in _tensors(batch)),
            tuple(parameter.requires_grad for parameter in self.parameters),
        )
        with _TURN:
            if kind not in self.recordings and self._is_due(kind):
                self._record(kind, batch)
            if kind in self.recordings:
                return self.recordings[kind].repeat(batch, self.parameters)
            return self.run(batch)

    def _is_due(self, kind: Kind) -> bool:
        """Count the steps of a kind; return whether this one is to be recorded."""
        self.n_steps[kind] += 1
        has_room = len(self.recordings) < MAX_RECORDINGS
        return self.is_possible and has_room and self.n_steps[kind] > N_FIRST_STEPS

    def _record(self, kind: Kind, batch: Batch) -> None:
        """Record a step without running it."""
        inputs, target = batch
        own = {name: values.clone() for name, values in inputs.items()}, target.clone()
        try:
            graph, step = capture(self.run, own)
        except RuntimeError as error:
            self.is_possible = False
            LOGGER.info("Training without CUDA graphs, because a step was not recorded: %s", error)
            for parameter in self.parameters:
                parameter.grad = None
            return
        gradients = [parameter.grad for parameter in self.parameters]
        self.recordings[kind] = Recording(graph, own, step, gradients)


def _tensors(batch: Batch) -> list[Tensor]:
    """Return the tensors of a batch, in a fixed order."""
    inputs, target = batch
    return [*(inputs[name] for name in sorted(inputs)), target]


def capture(run: Callable[[Batch], Step], batch: Batch) -> tuple[torch.cuda.CUDAGraph, Step]:
    """Record a step on a batch; return the graph, and what it overwrites.

    Raises
    ------
    RuntimeError
        If the step cannot be recorded.
    """
    device = batch[1].device
    graph = torch.cuda.CUDAGraph()
    recorder = torch.cuda.graph(
        graph,
        stream=torch.cuda.current_stream(device),
        # Other threads may continue to use the device.
        capture_error_mode="thread_local",
    )
    with _random_numbers_usable_after_error(device), recorder:
        step = run(batch)
    return graph, {name: value.detach() for name, value in step.items()}


@contextmanager
def _random_numbers_usable_after_error(device: torch.device) -> Iterator[None]:
    """Replace the state of the random generator if a recording fails, which would lock it."""
    generator = torch.cuda.default_generators[device.index]
    before = generator.get_state()
    try:
        yield
    except RuntimeError:
        fresh = torch.Generator(device)
        fresh.set_state(before)
        generator.graphsafe_set_state(fresh.graphsafe_get_state())
        raise


def can_record(device: torch.device) -> bool:
    """Return whether steps on a device can be recorded."""
    return device.type == "cuda"


@contextmanager
def recording_stream(device: torch.device) -> Iterator[None]:
    """Use a separate stream inside the block, because the default one cannot record."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
