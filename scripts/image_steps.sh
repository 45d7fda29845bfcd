#!/usr/bin/env bash
# Do the steps of an image's Dockerfile in a plain virtual environment: what can be proved where there is no Docker.
#
#   scripts/image_steps.sh service|trainer|engine [FOLDER]
#
# A FOLDER of installed packages (a site-packages) stands in for what the image would download or come with: CUDA's
# torch for the trainer, vLLM for the engine. Prints each role that the image has, and how it says what it lacks.
set -euo pipefail
cd "$(dirname "$0")/.."

image=${1:?which image: scripts/image_steps.sh service|trainer|engine [FOLDER]}
layer=${2:-}
case $image in
service) roles='gateway registry extractor conductor trainings migrate' ;;
trainer) roles=trainer ;;
engine) roles=engine ;;
*) printf 'image_steps: no such image: %s\n' "$image" >&2; exit 2 ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
deploy/images/steps.sh wheel "$python" "$work/wheel"
"$python" -m venv ${layer:+--without-pip} "$work/environment" # a new environment's own setuptools would hide the layer's
if [ -n "$layer" ]; then
    mkdir "$work/layer"
    find "$layer" -mindepth 1 -maxdepth 1 ! -name 'lorry-*' ! -name '*.pth' -exec ln -s -t "$work/layer" {} +
    printf '%s\n' "$work/layer" >"$("$work/environment/bin/python" -c 'import site; print(site.getsitepackages()[0])')/layer.pth"
fi
deploy/images/steps.sh "$image" "$work/environment/bin/python" "$work/wheel"

cd "$work" # or Python would import the sources, and the wheel would not be what was tried
for role in $roles; do
    printf '=== %s\n' "$role"
    code=0
    env -i PATH="$PATH" HOME="$work" LORRY_ROLE="$role" "$work/environment/bin/python" -m lorry.container || code=$?
    [ "$code" = 2 ] || { printf 'image_steps: %s ended with %s, not with what it lacks\n' "$role" "$code" >&2; exit 1; }
done 2>&1
printf '=== %s\n' "$(env -i LORRY_ROLE=nobody "$work/environment/bin/python" -m lorry.container 2>&1 || true)"
