# For deploy/check-*: a Debian root file system of this machine's own release. Sourced, with fail() defined.

# make_root FOLDER LOG PACKAGES [DEBOOTSTRAP OPTION...]: unless it is there already.
make_root() {
  local root=$1 log=$2 packages=$3 mirror release
  shift 3
  if [ -e "$root/.ready" ]; then return; fi
  # This machine's own mirror: no host's name is written here.
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' | head -n 1 || true)
  [ -n "$mirror" ] || fail "no Debian mirror is named in /etc/apt; this needs a Debian machine."
  release=$(. /etc/os-release; echo "$VERSION_CODENAME")
  echo "$(basename "$0"): making a Debian root file system in $root"
  debootstrap --variant=minbase --include="$packages" "$@" "$release" "$root" "$mirror" > "$log" 2>&1 ||
    fail "debootstrap failed; see $log."
  touch "$root/.ready"
}
