#!/usr/bin/env bash
# Sets up a virtual environment and runs linters, type checker and tests.
#   bash launch/test.sh [pytest arguments]
#   PYTHON=python3.13 VENV=.venv-3.13 bash launch/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh requirements-test.txt
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/lint-imports"
exec "$venv/bin/python" -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile "$@"
