"""What processes of tests/test_processes.py run: fits that they share, or one that fails.

``python -m tests.fit_together FOLDER`` shares fits, and writes what was found to files named by the
rank.
"""

import datetime
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import torch
from skorch.callbacks import Callback

from skqos import SAMoERegressor
from skqos._processes import Processes, checksum
from skqos.datasets import make_qos
from tests.common import CONTRACTS

SMALL = {"max_epochs": 2, "first_stage_epochs": 2, "tower_dim": 8, "device": "cpu"}
# Without any draw in a step, the processes find what one finds.
PLAIN = {"input_dropout": 0.0, "batch_size": 33, "partial_fit_epochs": 2, **SMALL}


def fits():
    """Yield names, fitted models and data; some fits in a row, as a program may have them."""
    for contract in CONTRACTS:
        data = contract.make_data(20, 30, density=0.5)
        model = contract.make(max_epochs=2, early_stopping=True, n_iter_no_change=1)
        yield contract.estimator_class.__name__, model.fit(data.X, data.y), data
    data = make_rows()
    model = SAMoERegressor(batch_norm=True, random_state=0, **PLAIN)
    yield "batch_norm", model.fit(data.X, data.y), data
    model = SAMoERegressor(random_state=0, verbose=1, **PLAIN)
    yield "plain", model.fit(data.X, data.y, sample_weight=1.0 + data.X[:, 0] % 3), data
    yield "updated", model.partial_fit(data.X[:50], 2 * data.y[:50]), data


def summarise(model, data):
    return {
        "weights": checksum(model.module_.state_dict().values()),
        "predictions": model.predict(data.X).tolist(),
        "losses": model.history_[["train_loss", "valid_loss"]].fillna(-1).to_numpy().tolist(),
    }


class Dies(Callback):
    """Kill the second process after an epoch."""

    def on_epoch_end(self, net, **_):
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)


def make_rows():
    return make_qos(20, 30, density=0.5, random_state=0)


def share_fits(folder):
    found = {name: summarise(model, data) for name, model, data in fits()}
    found["another seed"] = disagree()
    Path(folder, os.environ["RANK"]).write_text(json.dumps(found))


def disagree():
    """Return what is said of processes whose seeds differ."""
    data = make_rows()
    try:
        SAMoERegressor(random_state=int(os.environ["RANK"]), **SMALL).fit(data.X, data.y)
    except ValueError as error:
        return str(error)


def as_launched(function):
    """Call a function in a forked process, which is no worker of the process that forked it."""
    multiprocessing.process._parent_process = None
    function()


def lose():
    """Lose the second process in the middle of a fit."""
    data = make_rows()
    SAMoERegressor(random_state=0, callbacks=[Dies()], **SMALL).fit(data.X, data.y)


def be_silent():
    """Let a short time-out pass in the second process."""
    torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=2))
    processes = Processes.launched()
    processes.add(torch.ones(1))
    if processes.rank == 1:
        time.sleep(100)
    processes.add(torch.ones(1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    share_fits(sys.argv[1])
