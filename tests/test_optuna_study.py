"""The example study: workers on one storage, killed in the middle of a trial, made up for."""

import contextlib
import importlib
import os
import signal
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests import forked

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# A trial takes about half a second: long enough to be killed in.
TINY = ["--epochs", "3", "--n-users", "30", "--n-services", "40"]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module("optuna_study")
    sys.modules.pop("optuna_study")


@contextlib.contextmanager
def worker(arguments, log):
    """Run the example as a process of its own; it does not outlive the test."""
    process = forked.start(forked.run_script, EXAMPLES / "optuna_study.py", arguments, log=log)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def kill_in_a_trial(process, study, lock=None):
    """Kill a worker once a trial of its own has reported an epoch; return the trial."""
    deadline = time.monotonic() + forked.PATIENCE
    while time.monotonic() < deadline and process.is_alive():
        if open_trial(process, study):
            # Stopped first, so that neither the trial ends nor a lock is taken ahead of the kill.
            os.kill(process.pid, signal.SIGSTOP)
            trial = open_trial(process, study)
            if trial and not (lock and lock.exists()):
                process.kill()
                process.join()
                return trial
            os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.02)
    raise AssertionError("the worker was never in the middle of a trial")


def open_trial(process, study):
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if trial.user_attrs.get("worker") == process.pid and trial.intermediate_values:
            return trial
    return None


def check_made_up_for(study, killed, n_trials):
    trials = study.get_trials()
    states = [trial.state for trial in trials]
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) >= n_trials
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert trials[killed.number].state == TrialState.FAIL
    again = [t for t in finished if t.params == killed.params]
    assert len(again) == 1
    assert len(killed.params) > 5


def test_on_postgresql_a_killed_trial_is_run_again(example, postgresql_url, tmp_path):
    arguments = [*TINY, "--storage", postgresql_url, "--study", "killed", "--trials", "6"]
    arguments += ["--heartbeat", "2"]
    study = example.open_study(example.parse(arguments))
    log = tmp_path / "log"
    with worker(arguments, log) as first, worker(arguments, log) as second:
        killed = kill_in_a_trial(second, study)
        assert forked.finish(first) == 0, log.read_text()
    check_made_up_for(study, killed, 6)
    workers = {trial.user_attrs["worker"] for trial in study.trials}
    assert workers == {first.pid, second.pid}, "both had a share"
    study._storage.remove_session()
    study._storage._backend.engine.dispose()


def test_on_a_journal_resuming_runs_the_killed_trials_again(example, tmp_path):
    journal = tmp_path / "study.journal"
    arguments = [*TINY, "--storage", str(journal), "--trials", "6"]
    study = example.open_study(example.parse(arguments))
    log = tmp_path / "log"
    with worker(arguments, log) as first, worker(arguments, log) as second:
        lock = journal.with_name("study.journal.lock")
        killed = [kill_in_a_trial(process, study, lock) for process in (first, second)]
    assert [t.state for t in study.trials].count(TrialState.RUNNING) == 2
    with worker([*arguments, "--resume"], log) as resumed:
        assert forked.finish(resumed) == 0, log.read_text()
    assert "2 unfinished trial(s) of an earlier run are repeated" in log.read_text()
    assert "best trial  MAE" in log.read_text()
    for trial in killed:
        check_made_up_for(study, trial, 6)


def test_a_lock_left_by_a_killed_worker_is_taken_over(example, tmp_path, monkeypatch):
    monkeypatch.setattr(example, "LOCK_SECONDS", 1)
    journal = tmp_path / "study.journal"
    journal.with_name("study.journal.lock").touch()
    with pytest.warns(UserWarning, match="grace_period"):
        study = example.open_study(example.parse(["--storage", str(journal)]))
    assert study.ask().number == 0


def test_a_study_in_this_process_and_its_continuation(example, tmp_path, capsys):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = ["--storage", str(tmp_path / "study.journal"), "--estimator", "R2SLRegressor"]
    arguments += ["--epochs", "2", "--n-users", "20", "--n-services", "30"]
    errors = example.main([*arguments, "--trials", "2"])
    assert set(errors) == {"defaults", "best trial"}
    example.main([*arguments, "--trials", "3", "--resume"])
    output = capsys.readouterr().out
    assert "0 unfinished trial(s)" in output
    assert "trials: {'COMPLETE': 3}" in output
