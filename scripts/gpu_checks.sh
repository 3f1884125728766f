#!/usr/bin/env bash
# Everything that needs a GPU.
set -euo pipefail
usage="usage: $0 OUTPUT_FOLDER

Run what needs a GPU: the tests, memory and race checks of the kernels under compute-sanitizer, and the benchmarks, whose
tables (.md) and reports (.json) are written to OUTPUT_FOLDER."
[ "${1-}" != "--help" ] && [ "${1-}" != "-h" ] || { echo "$usage"; exit 0; }
[ $# -eq 1 ] || { echo "$usage" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
python -c "import sys, torch; sys.exit(not torch.cuda.is_available() and 'no CUDA device')"

python -m pytest -m cuda tests
# PyTorch's caching allocator hides accesses past an array: without it every array is an allocation of its own.
for tool in memcheck racecheck; do
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 1 \
    python -m pytest -m "cuda and not slow" tests/ops -k "matches_reference or matches_kinematics or formula or strided or rows_of_a_solve or first_start"
done
python benchmarks/kernels.py --device cuda --json "$out/kernels.json" | tee "$out/kernels.md"
python benchmarks/train_step.py --device cuda --preset tiny small default --batch 256 4096 65536 \
  --json "$out/train_step.json" | tee "$out/train_step.md"
python benchmarks/solve_gpu.py --preset tiny --json "$out/solve_gpu.json" | tee "$out/solve_gpu.md"
