#!/usr/bin/env bash
# Builds the documentation site into site/ (open site/index.html; search works without a server),
# with warnings as errors, and checks links and spelling.
#   bash launch/docs.sh [--external]    # also requests the links to other hosts
#   VENV=.venv-docs bash launch/docs.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh requirements-docs.txt
export NO_MKDOCS_2_WARNING=1 JAX_PLATFORMS=cpu
"$venv/bin/python" -m mkdocs build --strict
"$venv/bin/python" docs/tools/check_links.py "$@"
"$venv/bin/codespell" README.md CONTRIBUTING.md CITATION.cff mkdocs.yml docs satmip_jax configs launch
echo "Open site/index.html"
