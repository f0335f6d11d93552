#!/usr/bin/env bash
# On one NVIDIA GPU, unattended, in under nine minutes: first whether everything is right, then how fast what is right is.
#
#     benchmarks/gpu.sh [--wheel FILE] [--results FOLDER] [--backends "torch jax"] [--device cpu]
#
# Needs this repository, a Python (python3, or that of the variable PYTHON) with pytest and PyTorch for CUDA, and JAX for
# CUDA if it is to be checked too. No network; nothing is installed: with --wheel, made by `pip wheel --no-deps .`, the
# package is unpacked into a temporary folder, otherwise it must be installed. Every part writes its record as it goes,
# ends at its limit, and does not keep the next from running. With --device cpu the script is tried on tiny sizes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
results=benchmarks/results
wheel="" device=gpu backends="torch jax"
while (($#)); do
  (($# > 1)) || set -- --help # an option without its value
  case $1 in
    --wheel) wheel=$(realpath "$2") ;;
    --results) results=$2 ;;
    --backends) backends=$2 ;;
    --device) device=$2 ;;
    *) sed -n 's/^#  *benchmarks/usage: benchmarks/p' "$0" >&2 && exit 2 ;;
  esac
  shift 2
done
mkdir -p "$results"
results=$(realpath "$results")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ $wheel ]]; then
  "$python" -m zipfile -e "$wheel" "$scratch/site"
  export PYTHONPATH=$scratch/site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONDONTWRITEBYTECODE=1
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # one workspace: the same sums in every run
export XLA_PYTHON_CLIENT_PREALLOCATE=false # two frameworks share the card
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0" # or each compilation takes seconds
export JAX_COMPILATION_CACHE_DIR=$scratch/jax

started=$SECONDS
failed=()
rm -f "$results"/gpu_* # of an earlier run
# 0 where it passed. The limits of all parts below, with the 2 seconds that each may take to die, add up to 539.
part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 before=$SECONDS status=0
  shift 2
  printf '\n== %s, at most %d s: %s\n' "$name" "$limit" "$*"
  timeout --kill-after=2 "$limit" "$@" 2>&1 | tee "$results/gpu_$name.log" || status=$?
  printf '{"part": "%s", "status": %d, "seconds": %d}\n' "$name" "$status" $((SECONDS - before)) >>"$results/gpu_parts.jsonl"
  ((status == 0)) || failed+=("$name (status $status$( ((status == 124 || status == 137)) && echo ", out of time"))")
  return "$status"
}

# Whether BACKEND can be used on the device, and why not.
has_device() { # BACKEND
  local status=0
  part "device_$1" 30 "$python" benchmarks/gpu.py device --backend "$1" --device "$device" || status=$?
  case $status in
    0) ;;
    3) echo "gpu.sh: $1 sees no GPU here" >&2 ;;
    124 | 137) echo "gpu.sh: $1 did not say in time whether there is a GPU" >&2 ;;
    *) echo "gpu.sh: $1 cannot be imported, which says nothing about the GPU: see above" >&2 ;;
  esac
  return "$status"
}

tiny=() tests=() timed=(--shape ptb enwik8 --seconds 15)
if [[ $device == cpu ]]; then
  tiny=(--tiny) tests=(-k overwritten) timed=(--shape tiny --seconds 0 --precision float32)
fi
tests+=(tests/torch/test_cuda_graph.py)
if [[ $device != cpu ]]; then
  tests+=(tests/torch/test_triton.py)
fi

usable=()
for backend in $backends; do
  if has_device "$backend"; then
    usable+=("$backend")
  fi
done
if [[ " ${usable[*]:-} " != *" torch "* ]]; then
  echo "gpu.sh: without PyTorch nothing was measured" >&2
  exit 2
fi

common=(--device "$device" ${tiny[@]+"${tiny[@]}"})
part tests 90 "$python" -m pytest -v -p no:cacheprovider "${tests[@]}" || true
part parity 155 "$python" benchmarks/gpu.py parity "${common[@]}" --record "$results/gpu_parity.jsonl" || true
for backend in "${usable[@]}"; do
  limit=30
  [[ $backend == torch ]] || limit=75 # it compiles
  part "preflight_$backend" "$limit" "$python" benchmarks/gpu.py preflight --backend "$backend" "${common[@]}" \
    --record "$results/gpu_preflight_$backend.jsonl" || true
done
part forms 115 "$python" benchmarks/gpu_forms.py --device "$device" "${timed[@]}" \
  --parity "$results/gpu_parity.jsonl" --json "$results/gpu_forms.json" || true

echo
if ((${#failed[@]})); then
  printf 'gpu.sh: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "gpu.sh: all parts passed in $((SECONDS - started)) s; records in $results"
