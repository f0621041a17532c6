"""What the package costs beside the network: training loop, prediction, memory.

    python examples/benchmark_speed.py [--data DIR]

Three questions, each a ratio measured in one run, at the size of WS-DREAM data set 1 (made-up
measurements without ``--data``):

- `fit`'s training loop against a bare torch loop over the same module, batches and epochs;
- `predict` of all user-service pairs through a pipeline against the module run on the same pairs
  in the same batches, without encoding each entity once;
- resident memory after `fit` and that `predict`.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Bunch

from skqos import SAMoERegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.losses import ObservedLoss
from skqos.prediction import PAIRS_PER_BATCH
from skqos.preprocessing import ContextJoiner
from skqos.training import InteractionDataset, Trainer


def load(path: str | None) -> Bunch:
    if path is None:
        return make_qos(339, 5825, density=0.025, n_regions=30, n_as=150, random_state=0)
    data = load_wsdream(path, qos="rt")
    rows = np.sort(np.random.default_rng(0).permutation(len(data.y))[:49_367])
    data.X, data.y = data.X[rows], data.y[rows]
    return data


def seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def bare_loop(
    module: torch.nn.Module, rows: InteractionDataset, epochs: int, batch_size: int
) -> None:
    """Train as a plain script would, with the settings of the estimator."""
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3, weight_decay=0.05, fused=True)
    n_steps = epochs * -(-len(rows) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    users, services = rows.inputs["users"], rows.inputs["services"]
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(batch_size):
            optimizer.zero_grad()
            error = module(users[batch], services[batch]) - rows.target[batch]
            error.abs().mean().backward()
            optimizer.step()
            schedule.step()


def compare_training(
    model: SAMoERegressor, data: Bunch, batch_size: int, epochs: int, repeats: int
) -> float:
    """Return the median over repeats of the loops' time ratio, each pair taken in turn."""
    trainer = Trainer(
        learning_rate=3e-3,
        weight_decay=0.05,
        batch_size=batch_size,
        optimizer="adamw",
        learning_rate_schedule="one_cycle",
        early_stopping=False,
        n_iter_no_change=10,
        device=torch.device("cpu"),
        callbacks=(),
        verbose=0,
    )
    rows = InteractionDataset(
        {
            "users": model.users_.ids_.get_indexer(data.X[:, 0]),
            "services": model.services_.ids_.get_indexer(data.X[:, 1]),
        },
        data.y,
    )
    ratios = []
    for _ in range(repeats):
        modules = [copy.deepcopy(model.module_) for _ in range(2)]
        loss = ObservedLoss("absolute_error")
        ours = seconds(
            lambda m=modules[0], c=loss: trainer.fit(m, c, rows, None, stage="x", max_epochs=epochs)
        )
        bare = seconds(lambda m=modules[1]: bare_loop(m, rows, epochs, batch_size))
        ratios.append(ours / bare)
        print(f"  batch {batch_size}: fit {ours:.2f} s, bare loop {bare:.2f} s", flush=True)
    return float(np.median(ratios))


def compare_prediction(pipeline: Pipeline, data: Bunch, repeats: int) -> float:
    """Return the median ratio of the module's time to the pipeline's over all pairs."""
    users, services = data.users.index.to_numpy(), data.services.index.to_numpy()
    pairs = np.column_stack([np.repeat(users, len(services)), np.tile(services, len(users))])
    model = pipeline[-1]
    known = [
        torch.as_tensor(np.maximum(encoder.ids_.get_indexer(column), 0))
        for encoder, column in ((model.users_, pairs[:, 0]), (model.services_, pairs[:, 1]))
    ]

    def module_alone() -> None:
        with torch.inference_mode():
            for batch in zip(*(codes.split(PAIRS_PER_BATCH) for codes in known), strict=True):
                model.module_(*batch)

    ratios = []
    for _ in range(repeats):
        ours, plain = seconds(lambda: pipeline.predict(pairs)), seconds(module_alone)
        ratios.append(plain / ours)
        print(
            f"  {len(pairs):,} pairs: predict {ours:.1f} s, module alone {plain:.1f} s", flush=True
        )
    return float(np.median(ratios))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of WS-DREAM data set 1; made-up data without it")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = load(args.data)
    pipeline = make_pipeline(
        ContextJoiner(data.users, data.services),
        SAMoERegressor(random_state=0, device="cpu", first_stage_epochs=1, max_epochs=1),
    )
    pipeline.fit(data.X, data.y)
    ratio = compare_prediction(pipeline, data, args.repeats)
    resident = psutil.Process().memory_info().rss / 2**30
    print(f"module alone / predict: {ratio:.2f}; resident after it: {resident:.2f} GiB")
    for batch_size in (256, 2000):
        ratio = compare_training(pipeline[-1], data, batch_size, args.epochs, args.repeats)
        print(f"fit / bare loop at batch {batch_size}: {ratio:.2f}")


if __name__ == "__main__":
    main()
