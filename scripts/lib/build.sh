# shellcheck shell=bash
# Configure and build one preset. Sourced by quickstart and test, after common.sh.
: "${repo_root:?source common.sh first}"

# How many compilers at once: the processors we may use, but not more than the memory carries (1 GB each).
build_jobs() {
  local processors kilobytes jobs
  processors=$(nproc)
  kilobytes=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  jobs=$((kilobytes / 1048576))
  ((jobs < 1)) && jobs=1
  ((jobs > processors)) && jobs=$processors
  printf '%s\n' "$jobs"
}

# build_preset PRESET LOG [cmake configure arguments --] [TARGET...]: into build/PRESET. Output goes to LOG; on
# failure its end is shown and 1 is returned. A lock keeps two builds out of one directory.
build_preset() {
  local preset=$1 log=$2
  shift 2
  local configure=()
  while (($#)) && [[ $1 == -D* ]]; do
    configure+=("$1")
    shift
  done
  local targets=() target
  for target in "$@"; do targets+=(--target "$target"); done
  mkdir -p "$repo_root/build/$preset" "$(dirname -- "$log")"
  if ! (
    flock 9
    cd -- "$repo_root" &&
      cmake --preset "$preset" ${configure[@]+"${configure[@]}"} &&
      cmake --build "build/$preset" -j "${JOBS:-$(build_jobs)}" ${targets[@]+"${targets[@]}"}
  ) >"$log" 2>&1 9>"$repo_root/build/$preset/.lock"; then
    note "the build of preset '$preset' failed; the end of $log:"
    grep -nE 'error|warning|FAILED|CMake Error' "$log" | head -n 40 >&2 || true
    tail -n 25 "$log" >&2
    return 1
  fi
}
