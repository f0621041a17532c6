"""Processes without the seconds that each would take to import: forked from one that has.

The server that forks them has imported what is named below and has done nothing else: a process of
it is as good as a new one to be killed.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

import torch

# In the server, too, which imports this module; see tests/conftest.py.
torch.set_num_threads(1)

# Seconds, for a machine that is busy with other things.
PATIENCE = 120

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["skqos.training", "skqos.persistence", "tests.common", "tests.forked", "optuna"]
)


def start(function, *arguments, log=os.devnull, env=()):
    """Call a function of a module in a new process whose output goes to the end of a file."""
    process = CONTEXT.Process(target=_call, args=(function, arguments, log, dict(env)))
    process.start()
    return process


def finish(process):
    """Return the exit code of a process, which is killed if it does not end in time."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"{process.name} did not end in {PATIENCE} s")
    return process.exitcode


def _call(function, arguments, log, env):
    with Path(log).open("ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    os.environ.update(env)
    torch.set_num_threads(1)
    function(*arguments)


def run_script(path, arguments):
    """Run a script as Python's command line does."""
    sys.path.insert(0, str(Path(path).parent))
    sys.argv = [str(path), *map(str, arguments)]
    runpy.run_path(str(path), run_name="__main__")
