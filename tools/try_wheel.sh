#!/bin/sh
# Builds a wheel, installs it in a clean environment, and trains and opens a tiny run from an empty folder.
#
#     tools/try_wheel.sh PYTHON [pip's flags]    e.g. tools/try_wheel.sh python3.12
#
# The wheel is left in dist/.
set -eu

python=$1
shift
repository=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A copy of what git tracks, so that the build leaves nothing in the clone and packs nothing that is not committed.
mkdir "$scratch/source"
(cd "$repository" && git ls-files -z | tar --null --files-from=- -cf -) | tar -xf - -C "$scratch/source"

"$python" -m venv "$scratch/environment"
environment=$scratch/environment/bin/python
"$environment" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$scratch/dist" "$scratch/source"
"$environment" -m pip install --quiet --disable-pip-version-check "$@" "$scratch"/dist/gm_jax-*.whl
mkdir -p "$repository/dist" "$scratch/empty"
cp "$scratch"/dist/gm_jax-*.whl "$repository/dist/"
cp "$repository/tools/installed_package.py" "$scratch/empty/mine.py"
cd "$scratch/empty"
"$environment" mine.py --train.steps 4
