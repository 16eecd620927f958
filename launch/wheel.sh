#!/usr/bin/env bash
# Builds the package and tries the wheel outside of the checkout, with each Python 3.11 to 3.13 that
# is there.
#   bash launch/wheel.sh
# Where .venv or .venv-VERSION has this Python, its packages are borrowed; elsewhere the wheel brings
# its own, in the newest releases that it allows.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pythons=() # one of each version
for version in 3.11 3.12 3.13; do
  for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
    if "$python" -c "" 2>/dev/null; then
      pythons+=("$python")
      break
    fi
  done
done

"${pythons[0]}" -m venv "$work/build"
"$work/build/bin/pip" install -qq --disable-pip-version-check build
rm -rf dist
"$work/build/bin/python" -m build --outdir dist . >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
wheel=$(ls "$checkout"/dist/*.whl)
du -h dist/*

try() { # PYTHON of the environment, its packages: own or borrowed
  mkdir -p "$work/empty" && cd "$work/empty"
  local satmip=("$1" -m satmip_jax.cli)
  "$1" -c 'import satmip_jax, sys; sys.exit("/site-packages/" not in satmip_jax.__file__)'
  "${satmip[@]}" --version
  "${satmip[@]}" models --examples chips
  "${satmip[@]}" embed chips --model eurosat-satmips --out chips.parquet
  # A config by its name: there is no folder of configs here.
  "$1" -c 'from satmip_jax.config.loading import load_config; load_config("eurosat:satmips,cpu")'
  if [ "$2" = own ]; then
    "${satmip[@]}" prepare synthetic --source scenes --train 64 --val 24 --size 48 --image-size 32 \
      --out shards
    "${satmip[@]}" train --config eurosat:satmips,runlocal --workdir run --config.data.dir=shards \
      --config.image.size=32 --config.optimizer.images=32
    "${satmip[@]}" report run --out report.html
  fi
  cd "$checkout" && rm -rf "$work/empty"
}

for python in "${pythons[@]}"; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "== Python $version"
  env=$work/$version
  "$python" -m venv "$env"
  packages=own options=()
  for lender in "$checkout/.venv" "$checkout/.venv-$version"; do
    if [ -d "$lender/lib/python$version/site-packages/jax" ]; then
      packages=borrowed options=(--no-deps)
      echo "$lender/lib/python$version/site-packages" \
        >"$env/lib/python$version/site-packages/borrowed.pth"
      break
    fi
  done
  "$env/bin/pip" install -qq --disable-pip-version-check "${options[@]}" "$wheel"
  try "$env/bin/python" "$packages" >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
done
echo "The wheel works: $(basename "$wheel")"
