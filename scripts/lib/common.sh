# shellcheck shell=bash
# What the scripts have in common. Sourced, never run.

# The capability numbers of <linux/capability.h> that we ask about.
# shellcheck disable=SC2034
readonly CAP_NET_ADMIN=12 CAP_NET_RAW=13 CAP_SYS_ADMIN=21

repo_root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly repo_root

note() { printf '%s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
  exit 1
}

# has_capability NUMBER: whether this process holds it, in its own user namespace.
has_capability() {
  local name value
  while read -r name value; do
    if [[ $name == CapEff: ]]; then
      (((16#$value >> $1) & 1))
      return
    fi
  done </proc/self/status
  return 1
}

# Can this process make network namespaces and devices without a user namespace of its own?
is_privileged() { has_capability $CAP_SYS_ADMIN && has_capability $CAP_NET_ADMIN; }

# user_namespaces_work: tries it, because there are many ways to forbid them (sysctl, LSM, seccomp, no room).
user_namespaces_work() { unshare -Urn true 2>/dev/null; }

# default_library: the libustack.so beside these scripts: the build's, or installed with the same prefix.
default_library() {
  local candidate
  for candidate in \
    "$repo_root/build/release/shim/libustack.so" \
    "$repo_root/build/release/libustack.so" \
    "$repo_root/lib/libustack.so" \
    "$repo_root"/lib/*/libustack.so \
    /usr/local/lib/libustack.so \
    /usr/lib/libustack.so; do
    if [[ -e $candidate ]]; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}
