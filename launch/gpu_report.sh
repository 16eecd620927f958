#!/usr/bin/env bash
# Measures what matters on a GPU that is at hand for some minutes, and writes report.md:
# training steps beside PyTorch, losses, views, kNN, kernels, EuroSAT.
#   bash launch/gpu_report.sh [--minutes 12] [--tiny] [--data DIR] [--out DIR]
# The most valuable comes first and finished parts are kept: the same command continues.
# DIR has EuroSAT: its archives with the CSV of locations, or folders that `satmip prepare` wrote.
# PYTHON names the interpreter (that of .venv, else python3). Nothing is installed: packages that
# are missing (PyTorch, timm, grain, ...) are named, and the other parts run.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
[ -x "$python" ] || python=$(command -v "${PYTHON:-python3}")
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -m satmip_jax.bench.gpu_report "$@"
