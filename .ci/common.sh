# Sourced by the steps beside it: the root of the repository, strict errors, shared functions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export OMP_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The tests start many processes, each of which would compile the package again.
unset PYTHONDONTWRITEBYTECODE
# A CPU build where an index or a folder has one; pyproject.toml keeps an open lower bound.
TORCH=torch==2.13.0

new_environment() { # with torch, in the folder $1
    rm -rf "$1"
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet "$TORCH"
}

readme_command() { # the first line of the code block below the mark <!-- $1 -->
    awk -v mark="<!-- $1 -->" '$0 == mark { found = 1 } found && /python/ { print; exit }' README.md
}
