#!/usr/bin/env bash
# Everything that needs a GPU.
set -euo pipefail
usage="usage: $0 OUTPUT_FOLDER
       $0 --dry_run OUTPUT_FOLDER

Run what needs a GPU: the tests, memory and race checks of the kernels under compute-sanitizer, the benchmarks, beside what
benchmarks/roofline.py expects of them, and a short training. Tables (.md) and reports (.json) are written to
OUTPUT_FOLDER, all tables once more to OUTPUT_FOLDER/report.md, to paste. --dry_run goes as far as that goes without a
GPU: benchmarks and training on the CPU with tiny sizes, tests collected but not run."
dry=
[ "${1-}" != "--dry_run" ] || { dry=1; shift; }
[ "${1-}" != "--help" ] && [ "${1-}" != "-h" ] || { echo "$usage"; exit 0; }
[ $# -eq 1 ] || { echo "$usage" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

# Tests of kernels that write to memory of their own, by words of their names; each has to select one.
kernel_tests="matches_reference matches_kinematics formula strided rows_of_a_solve first_start"
selection=(-m "cuda and not slow" tests/ops -k "${kernel_tests// / or }")
if [ -n "$dry" ]; then
  device=cpu
  kernels=(--rows 1000 --repeats 2)
  train_step=(--preset tiny --batch 16 --repeats 2)
  solve=(--rows 10 --repeats 2)
  roofline=(--preset tiny)
  training=(--max_steps 3 --batch_size 16)
  command -v compute-sanitizer || echo "compute-sanitizer: not here"
  python -m pytest -n 0 -q --collect-only "${selection[@]}" > "$out/kernel_tests.txt"
  for word in $kernel_tests; do
    grep -q "::.*$word.*cuda" "$out/kernel_tests.txt" || { echo "no test of CUDA for -k $word" >&2; exit 1; }
  done
else
  python -c "import sys, torch; sys.exit(not torch.cuda.is_available() and 'no CUDA device')"
  command -v compute-sanitizer > /dev/null || { echo "compute-sanitizer: not found; it comes with CUDA" >&2; exit 1; }
  device=cuda
  kernels=()
  train_step=(--preset tiny small default --batch 256 4096 65536)
  solve=()
  roofline=()
  training=(--max_steps 5000 --batch_size 4096)
  python -m pytest -m cuda tests
  # PyTorch's caching allocator hides accesses past an array: without it every array is an allocation of its own.
  for tool in memcheck racecheck; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      python -m pytest -n 0 "${selection[@]}"
  done
fi
python benchmarks/kernels.py --device $device "${kernels[@]}" --json "$out/kernels.json" \
  | tee "$out/kernels.md"
python benchmarks/train_step.py --device $device "${train_step[@]}" --json "$out/train_step.json" \
  | tee "$out/train_step.md"
python benchmarks/solve_gpu.py --device $device --preset tiny "${solve[@]}" --json "$out/solve_gpu.json" \
  | tee "$out/solve_gpu.md"
python benchmarks/roofline.py --measured "$out" "${roofline[@]}" | tee "$out/roofline.md"
python scripts/train.py --data_path online --robot panda --preset tiny --device $device "${training[@]}" \
  --output_dir "$out/training" --overwrite | tee "$out/training.md"
for name in kernels train_step solve_gpu roofline training; do
  printf '\n## %s\n\n' "$name"
  cat "$out/$name.md"
done > "$out/report.md"
echo "all tables: $out/report.md"
