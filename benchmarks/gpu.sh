#!/usr/bin/env bash
# On one NVIDIA GPU, in under nine minutes: parity first, then timing; records under benchmarks/results, a table last.
#
#     benchmarks/gpu.sh
#
# Takes the Python of the environment (variable PYTHON: another one), with this repository, PyTorch for CUDA, and JAX for
# CUDA if it is to be measured too.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
results=benchmarks/results
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # one workspace: the same sums in every run
export XLA_PYTHON_CLIENT_PREALLOCATE=false # two frameworks share the card

has_gpu() { # FRAMEWORK's backend, by its name
  "$python" - "$1" 2>/dev/null <<'PYTHON'
import sys
import rhn
sys.exit("cpu" in rhn.load_backend(sys.argv[1]).describe()["device"].lower())
PYTHON
}

if ! has_gpu torch; then
  echo "gpu.sh: PyTorch sees no GPU here, and nothing was measured" >&2
  exit 2
fi
backends=(torch)
if has_gpu jax; then
  backends+=(jax)
else
  echo "gpu.sh: JAX sees no GPU here, and is left out"
fi

started=$SECONDS
failed=()
# A part that fails or takes too long does not keep the next from being measured.
part() { # SECONDS COMMAND...
  local limit=$1
  shift
  echo
  echo "== $* ($((SECONDS - started)) s)"
  timeout "$limit" "$@" || failed+=("$*")
}

for backend in "${backends[@]}"; do
  part 90 "$python" -m rhn_conformance.cli run --backend "$backend" --device gpu \
    --results "$results/gpu_conformance_$backend.jsonl"
done
part 110 "$python" benchmarks/gpu_parity.py --json "$results/gpu_parity.json"
for backend in "${backends[@]:1}"; do # PyTorch's peers are measured on the GPU by gpu_forms.py
  part 60 "$python" benchmarks/training_step.py --backend "$backend" --device gpu --shape ptb enwik8 --seconds 5 \
    --json "$results/gpu_training_step_$backend.json"
  # Loops in command buffers, which XLA does not do by default: is the step faster with them?
  part 40 env XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer=+WHILE" \
    "$python" benchmarks/training_step.py --backend "$backend" --device gpu --shape ptb --seconds 5 \
    --json "$results/gpu_training_step_${backend}_while.json"
done
part 150 "$python" benchmarks/gpu_forms.py --json "$results/gpu_forms.json"

echo
if ((${#failed[@]})); then
  printf 'gpu.sh: failed or ran out of time: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "gpu.sh: all parts passed in $((SECONDS - started)) s; records in $results"
