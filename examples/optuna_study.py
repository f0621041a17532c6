"""Tune a pipeline with Optuna: several workers, a common storage, pruned trials, resumable.

python examples/optuna_study.py --workers 2                 synthetic data, a journal file
python examples/optuna_study.py --data DIR --storage URL    WS-DREAM data set 1, an RDB server

Further runs of the command join the same study, also on other machines. After a run was killed,
`--resume` repeats its unfinished trials. On a relational database (RDB), they are detected by a
heartbeat and repeated automatically.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from sklearn.model_selection import KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Bunch

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor
from skqos.datasets import load_wsdream, make_qos
from skqos.metrics import nan_mean_absolute_error
from skqos.model_selection import DensitySplit
from skqos.preprocessing import ContextJoiner
from skqos.tuning import OptunaPruning, suggest_params

ESTIMATORS = {kind.__name__: kind for kind in (SAMoERegressor, R2SLRegressor, SharpQoSRegressor)}
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# A lock that is older belongs to a process that was killed while it wrote.
LOCK_SECONDS = 10
# Limits the number of workers that a trial can kill, for example by its memory.
MAX_RETRY = 3


# --- Data, model and objective ------------------------------------------------------------------


def load(args: argparse.Namespace) -> Bunch:
    """Load rows for tuning and rows for testing."""
    if args.data:
        data, density = load_wsdream(args.data, qos="rt"), 0.025
    else:
        data = make_qos(args.n_users, args.n_services, density=0.4, random_state=0)
        density = 0.3
    splitter = DensitySplit(
        1,
        density=density,
        n_users=len(data.users),
        n_services=len(data.services),
        random_state=0,
    )
    train, test = next(splitter.split(data.X))
    return Bunch(
        X=data.X[train],
        y=data.y[train],
        X_test=data.X[test],
        y_test=data.y[test],
        users=data.users,
        services=data.services,
    )


def make_model(args: argparse.Namespace, data: Bunch) -> Pipeline:
    """Build the pipeline whose parameters a trial sets."""
    estimator = ESTIMATORS[args.estimator](random_state=0, early_stopping="monitor")
    if args.epochs:
        stages = {"max_epochs", "first_stage_epochs"} & set(estimator.get_params())
        estimator.set_params(**dict.fromkeys(stages, args.epochs))
    return make_pipeline(ContextJoiner(data.users, data.services), estimator)


class Objective:
    """Mean absolute error of cross-validation, in the unit of y."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.data = load(args)

    def __call__(self, trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", os.getpid())
        model = make_model(self.args, self.data)
        model.set_params(**suggest_params(model, trial))
        model[-1].set_params(callbacks=[OptunaPruning(trial)])
        scores = cross_validate(
            model,
            self.data.X,
            self.data.y,
            scoring="neg_mean_absolute_error",
            cv=KFold(2, shuffle=True, random_state=0),
            # Otherwise a pruned trial is treated as a failed fit.
            error_score="raise",
        )
        return -scores["test_score"].mean()


# --- Storage of trials --------------------------------------------------------------------------


def has_heartbeat(args: argparse.Namespace) -> bool:
    """Return whether the storage is an RDB, which detects lost workers."""
    return "://" in args.storage


def open_storage(args: argparse.Namespace) -> optuna.storages.BaseStorage:
    """Open the storage: an RDB by its URL, or a journal file."""
    if not has_heartbeat(args):
        path = str(Path(args.storage).resolve())
        lock = JournalFileOpenLock(path, grace_period=LOCK_SECONDS)
        return optuna.storages.JournalStorage(JournalFileBackend(path, lock))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.storages.RDBStorage(
            args.storage,
            heartbeat_interval=args.heartbeat,
            grace_period=3 * args.heartbeat,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(
                MAX_RETRY
            ),
            # A restarted server has closed the connections of the pool.
            engine_kwargs={"pool_pre_ping": True},
        )


def open_study(args: argparse.Namespace) -> optuna.Study:
    """Load the study, or create it."""
    return optuna.create_study(
        study_name=args.study,
        storage=open_storage(args),
        load_if_exists=True,
        # Without a seed, so that workers draw different parameters.
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    )


def rerun_open_trials(study: optuna.Study) -> int:
    """Fail all trials that are still running, and queue their parameters.

    A journal file has no heartbeat, so a trial of a killed worker would stay open. Use this only if
    no worker is running.
    """
    stale = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    for trial in stale:
        # In this order, an interruption queues the trial twice instead of losing it.
        study.enqueue_trial(trial.params, user_attrs={"rerun_of": trial.number})
        study.tell(trial.number, state=TrialState.FAIL)
    return len(stale)


# --- Workers ------------------------------------------------------------------------------------


def work(args: argparse.Namespace) -> None:
    """Run trials until enough are finished and none is waiting."""
    import torch

    # Several processes with several threads each would slow each other down.
    torch.set_num_threads(1)
    study, objective = open_study(args), Objective(args)
    while True:
        states = count_states(study)
        if states[TrialState.WAITING] or sum(states[state] for state in FINISHED) < args.trials:
            study.optimize(objective, n_trials=1)
        elif states[TrialState.RUNNING] and has_heartbeat(args):
            # Trials of other workers; if one is lost, its trial is repeated here.
            time.sleep(args.heartbeat)
        else:
            return


def count_states(study: optuna.Study) -> Counter[TrialState]:
    """Count trials by state, after queueing trials without heartbeat again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    return Counter(trial.state for trial in study.get_trials(deepcopy=False))


def run_workers(args: argparse.Namespace) -> int:
    """Run the workers; return the number of lost ones."""
    if args.workers == 1:
        work(args)
        return 0
    # A forked process would hang in torch if its parent has used torch.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(args,)) for _ in range(args.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(process.exitcode != 0 for process in processes)


def report(args: argparse.Namespace, study: optuna.Study) -> dict[str, float]:
    """Compare the best trial with the defaults on the test rows."""
    data = load(args)
    errors = {}
    for name, params in (("defaults", {}), ("best trial", study.best_params)):
        model = make_model(args, data).set_params(**params)
        model[-1].set_params(early_stopping=False)
        prediction = model.fit(data.X, data.y).predict(data.X_test)
        errors[name] = nan_mean_absolute_error(data.y_test, prediction)
        print(f"{name:10s}  MAE {errors[name]:.4f} s on test rows")
    return errors


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of WS-DREAM data set 1; default: synthetic data")
    parser.add_argument("--storage", default="study.journal", help="journal file, or URL of an RDB")
    parser.add_argument("--study", default="skqos", help="name of the study")
    parser.add_argument("--estimator", choices=ESTIMATORS, default="SAMoERegressor")
    parser.add_argument(
        "--trials", type=int, default=32, help="total number of trials of the study"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes to start")
    parser.add_argument("--resume", action="store_true", help="repeat unfinished trials")
    parser.add_argument("--heartbeat", type=int, default=10, help="seconds; RDB only")
    parser.add_argument(
        "--epochs", type=int, help="epochs of each stage; default: that of the estimator"
    )
    parser.add_argument("--n-users", type=int, default=100, help="users of synthetic data")
    parser.add_argument("--n-services", type=int, default=200, help="services of synthetic data")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict[str, float]:
    args = parse(argv)
    # Before the workers start, because numpy and torch read it at import.
    os.environ["OMP_NUM_THREADS"] = "1"
    study = open_study(args)
    if args.resume:
        print(f"{rerun_open_trials(study)} unfinished trial(s) of an earlier run are repeated")
    if n_lost := run_workers(args):
        sys.exit(
            f"{n_lost} worker(s) were lost; run the command again, with --resume for a journal"
        )
    counts = {state.name: n for state, n in count_states(study).items()}
    print(f"trials: {counts}; best {study.best_value:.4f} s with {study.best_params}")
    return report(args, study)


if __name__ == "__main__":
    main()
