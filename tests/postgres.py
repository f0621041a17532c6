"""A PostgreSQL server of our own for the time of a test."""

import contextlib
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ACCOUNT = "postgres"


def find_binaries():
    """Return the folder of initdb and postgres, which Debian keeps off the path, or None."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += [Path(folder) for folder in sorted(glob.glob("/usr/lib/postgresql/*/bin"))]
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def reason_to_skip():
    """Say why no server can be started here, or return None."""
    if find_binaries() is None:
        return "needs PostgreSQL's initdb and postgres, such as Debian's package postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "needs psycopg"
    if os.geteuid() == 0 and not _has_account():
        return f"needs an account named {ACCOUNT}: PostgreSQL does not run as root"
    return None


def _has_account():
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        return False
    return True


@contextlib.contextmanager
def server():
    """Run a server on a free port of the loopback interface; give the URL of a database."""
    binaries = find_binaries()
    # Not below pytest's folder, which the account of the server cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="skqos-postgres-"))
    run_as = {}
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        shutil.chown(folder, ACCOUNT, ACCOUNT)
        run_as = {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []}
    port = _free_port()
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **run_as}
    data = ["-D", str(folder / "data")]
    subprocess.run(
        [binaries / "initdb", *data, "-U", ACCOUNT, "-A", "trust", "-N"], check=True, **options
    )
    settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
    settings += ["fsync=off", "max_connections=40"]
    process = subprocess.Popen(
        [binaries / "postgres", *data, *(part for s in settings for part in ("-c", s))], **options
    )
    try:
        _wait_for(process, binaries / "pg_isready", port)
        yield f"postgresql+psycopg://{ACCOUNT}@127.0.0.1:{port}/postgres"
    finally:
        # SIGINT ends open connections, which SIGTERM would wait for.
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        shutil.rmtree(folder)


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait_for(process, pg_isready, port):
    deadline = time.monotonic() + 600
    while subprocess.run([pg_isready, "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
        assert process.poll() is None, "PostgreSQL ended"
        assert time.monotonic() < deadline, "PostgreSQL does not answer"
        time.sleep(0.1)
