#!/bin/sh
# Find a Python that can carry the project and hand over to scripts/bootstrap.py.
#
#   sh scripts/bootstrap.sh demo|dev
#
# PYTHON=/path/to/python3 names one; otherwise the first of .venv's own, python3, python3.14 to
# python3.11 and what an installed uv knows of is taken. Exit 2 with one line when there is none.
set -u
cd "$(dirname "$0")/.." || exit 2
unset PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONSTARTUP

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    if ! new_enough "$PYTHON"; then
        echo "set-up: PYTHON=$PYTHON is not a Python 3.11 or newer; name another: make PYTHON=/path/to/python3" >&2
        exit 2
    fi
    exec "$PYTHON" -m scripts.bootstrap "$@"
fi

for candidate in .venv/bin/python python3 python3.14 python3.13 python3.12 python3.11; do
    if new_enough "$candidate"; then
        exec "$candidate" -m scripts.bootstrap "$@"
    fi
done

candidate=$(UV_PYTHON_DOWNLOADS=never uv python find '>=3.11' 2>/dev/null) || candidate=
if [ -n "$candidate" ] && new_enough "$candidate"; then
    exec "$candidate" -m scripts.bootstrap "$@"
fi

echo "set-up: no Python 3.11 or newer here; install one (Debian 12+, Ubuntu 24.04+: sudo apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2
exit 2
