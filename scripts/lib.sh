# Shared by the scripts: where things are, what they need, how to build. Sourced by bash, not run.

set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"

# What the product needs to build and run.
BUILD_PACKAGES=(
  g++ cmake ninja-build ccache mold pkg-config ca-certificates
  libgrpc++-dev libgrpc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
  libabsl-dev nlohmann-json3-dev prometheus-cpp-dev libcurl4-openssl-dev zlib1g-dev
  libnghttp2-dev libboost-dev libssl-dev libcrypt-dev libspdlog-dev libfmt-dev libyaml-cpp-dev
  libgtest-dev libgmock-dev libbenchmark-dev
)
# What only the tests need to run: real clients to test against.
TEST_PACKAGES=(
  python3 python3-etcd3 python3-grpcio golang-go golang-etcd-server-dev curl
  openssl dpkg-dev clang doxygen strace
)
LINT_PACKAGES=(clang-format python3 git)

say() { printf '%s\n' "$*"; }
die() {
  printf '%s\n' "$*" >&2
  exit 1
}
installed_something=no

# install_packages NAME...: by apt, and only what is missing.
install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${#missing[@]} packages: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "need root or sudo to install: ${missing[*]}"
    as_root=(sudo)
  fi
  mkdir -p build
  local log=build/apt.log
  if ! { "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    die "apt could not install the packages; the whole log is in $log"
  fi
  installed_something=yes
}

# build PRESET [TARGET...]: configures once, and again after an installation, then builds.
build() {
  local preset=$1
  shift
  mkdir -p build
  if [ ! -f "build/$preset/build.ninja" ] || [ "$installed_something" = yes ]; then
    say "configuring build/$preset"
    cmake --preset "$preset" >"build/configure-$preset.log" 2>&1 || {
      tail -n 30 "build/configure-$preset.log" >&2
      die "cmake failed; the whole log is in build/configure-$preset.log"
    }
  fi
  say "building build/$preset"
  ninja -C "build/$preset" --quiet "$@"
}

# unpack_peers: etcd's server and client and Prometheus, for the tests, from Debian's packages into build/peers;
# installed for real, each would start a service on the user's machine.
unpack_peers() {
  local into="$ROOT/build/peers" work
  if [ -x "$into/usr/bin/etcd" ] && [ -x "$into/usr/bin/etcdctl" ] &&
    [ -x "$into/usr/bin/prometheus" ]; then
    return 0
  fi
  mkdir -p "$into"
  work="$(mktemp -d "$into/download.XXXXXX")"
  if ! (cd "$work" && { apt-get download -qq etcd-server etcd-client prometheus ||
    { sudo_if_needed apt-get update -qq && apt-get download -qq etcd-server etcd-client prometheus; }; }) \
    >"$into/download.log" 2>&1; then
    cat "$into/download.log" >&2
    die "could not download Debian's packages of etcd and Prometheus"
  fi
  local package
  for package in "$work"/*.deb; do dpkg-deb -x "$package" "$into"; done
  rm -rf "$work"
}

sudo_if_needed() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Where the tests find the real peers and the server under test.
export_test_environment() {
  local preset=$1
  export CONCLAVE_TEST_ETCD="$ROOT/build/peers/usr/bin/etcd"
  export CONCLAVE_TEST_ETCDCTL="$ROOT/build/peers/usr/bin/etcdctl"
  export CONCLAVE_TEST_SERVER="$ROOT/build/$preset/bin/conclave"
  export CONCLAVE_TEST_BIN="$ROOT/build/$preset/bin"
}
