# shellcheck shell=bash
# Sourced by the other scripts. Installs a requirements file and this package into $venv, once.
#   source launch/setup.sh requirements.txt
# PYTHON names the interpreter (3.11 to 3.13), VENV the folder of the environment (.venv).
requirements=$1
venv=${VENV:-.venv}
version='import sys; print("%d.%d" % sys.version_info[:2])'
if [ -n "${PYTHON:-}" ] && [ -x "$venv/bin/python" ] &&
  [ "$("$PYTHON" -c "$version")" != "$("$venv/bin/python" -c "$version")" ]; then
  echo "$venv has Python $("$venv/bin/python" -c "$version"), and PYTHON=$PYTHON is another:" \
    "name another folder with VENV=..., or delete this one" >&2
  exit 1
fi
stamp=$venv/.installed-$requirements
if ! cmp -s "$requirements" "$stamp"; then
  python=${PYTHON:-}
  for candidate in python3.11 python3.12 python3.13 python3; do
    [ -n "$python" ] && break
    "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null &&
      python=$candidate
  done
  if [ -z "$python" ]; then
    echo "Python 3.11, 3.12 or 3.13 is needed: install one, or name it with PYTHON=..." >&2
    exit 1
  fi
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  echo "Installing $requirements into $venv (a few minutes, once)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
  cp "$requirements" "$stamp"
fi
