#!/bin/sh
# What the images' RUN lines do, in one place, so that scripts/image_steps.sh can do the same without Docker.
#
#   steps.sh wheel PYTHON FOLDER              build Lorry's wheel from the sources here, and put the pins beside it
#   steps.sh service|trainer|engine PYTHON FOLDER     install that wheel into PYTHON's environment
set -eu
step=$1 python=$2 folder=$3
pip() { "$python" -m pip --disable-pip-version-check --no-cache-dir "$@"; }

case $step in
wheel)
    mkdir -p "$folder"
    # What builds the wheel is pinned, too; older versions of pip know the first name, newer ones the second.
    export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_BUILD_CONSTRAINT="$PWD/constraints.txt"
    pip wheel --quiet --no-deps --wheel-dir "$folder" .
    # The pins name torch's build for CPUs, which images do not want.
    sed 's/+cpu$//' constraints.txt >"$folder/constraints.txt"
    ;;
service)
    wheel=$(ls "$folder"/lorry-*.whl)
    pip install --quiet -c "$folder/constraints.txt" "$wheel[erasure]"
    ;;
trainer)
    wheel=$(ls "$folder"/lorry-*.whl)
    pip install --quiet -c "$folder/constraints.txt" "$wheel[train]"
    ;;
engine)
    # vLLM's image was tested as it is: whatever Lorry needs must fit what is there, or this fails.
    pip freeze --exclude-editable --exclude lorry | grep -v ' @ ' >"$folder/stock.txt"
    pip install --quiet -c "$folder/stock.txt" "$folder"/lorry-*.whl
    pip freeze --exclude-editable --exclude lorry | grep -v ' @ ' >"$folder/now.txt"
    changed=$(grep -vxF -f "$folder/now.txt" "$folder/stock.txt" || true)
    [ -z "$changed" ] || { printf 'steps: changed what vLLM came with:\n%s\n' "$changed" >&2; exit 1; }
    ;;
*) printf 'steps: no such step: %s\n' "$step" >&2; exit 2 ;;
esac
