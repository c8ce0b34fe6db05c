#!/usr/bin/env bash
# Everything that must hold before a change is shared, from a bare checkout. Arguments go to pytest:
#   bash scripts/test.sh                    all of it
#   bash scripts/test.sh -k regions         the checks, and only the tests whose name has "regions"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

# A test runs Label Studio, our server and a training side by side: on a busy machine one torch thread beats two.
threads=$(($(getconf _NPROCESSORS_ONLN) / 2))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads < 1 ? 1 : threads > 4 ? 4 : threads))}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-$OMP_NUM_THREADS}

stage() {
  local name=$1 began=$SECONDS status=0
  shift
  say "$name"
  "$@" || status=$?
  if [ "$status" != 0 ]; then
    printf '== %s FAILED after %d s (exit status %d); the stages after it did not run\n' \
      "$name" $((SECONDS - began)) "$status" >&2
    exit "$status"
  fi
  printf '== %s: %d s\n' "$name" $((SECONDS - began))
}

stage "environments" make_environments
stage "browser" need_chromium
stage "format" .venv/bin/ruff format --check .
stage "lint" .venv/bin/ruff check .
stage "types" .venv/bin/mypy
stage "import contracts" .venv/bin/lint-imports --no-logo
# pytest leaves with 5 when a filter on the command line selects nothing of a stage.
tests() { .venv/bin/python -m pytest --durations=10 "$@" || { [ $? = 5 ] && [ "$filtered" = yes ]; }; }
filtered=$([ $# -gt 0 ] && echo yes || echo no)

# What an expert waits for is timed with nothing else running; all the rest runs in two processes, each with a Label
# Studio of its own. Files in the order of tests/conftest.py: by itself xdist leaves those with few tests, which take
# longest, to the end.
stage "tests" tests -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" "$@"
stage "tests alone" tests -m alone "$@"
printf '\nAll stages passed in %d s\n' "$SECONDS"
