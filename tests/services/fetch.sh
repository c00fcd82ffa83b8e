#!/usr/bin/env bash
# Fetches or builds the servers that the tests run against, each once, into a cache folder outside the tree: Apache Kafka
# (Maven), influxd 2.x and toxiproxy (Go; influxd also needs Rust and a C compiler), Debian's influxdb 1.x (apt).
# Nothing is installed or started. A server that cannot be had is named with its reason, and the others are still made.
# Exit code: 0 all are there, 1 one is missing.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${WATTRIBUTE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wattribute}
KAFKA=4.1.1 INFLUXD=v2.9.1 TOXIPROXY=v2.5.0 PKG_CONFIG_VERSION=v0.3.0
mkdir -p "$cache" && exec 9>"$cache/.lock" && flock 9 # two calls at once: the second finds everything made
missing=0

note() { printf 'services: %s\n' "$*"; }
fail() { printf 'services: %s\n' "$*" >&2; missing=1; }

comes_from() {
  case $1 in
    java) echo "a Java runtime, 17 or newer; on Debian: default-jre-headless" ;;
    mvn) echo "Maven; on Debian: maven" ;;
    go) echo "Go, 1.22 or newer" ;;
    rustup) echo "rustup, with a stable toolchain" ;;
    cc) echo "a C compiler; on Debian: gcc libc6-dev" ;;
    *) echo "Debian" ;;
  esac
}

# made NAME TARGET COMMAND TOOL..: where TARGET is not there, the command fills "$part", which is put in place whole or
# not at all.
made() {
  local name=$1 target=$2 command=$3 tool began=$SECONDS
  [ -e "$target" ] && { note "$name: $target"; return; }
  for tool in "${@:4}"; do
    command -v "$tool" >/dev/null || { fail "$name needs $tool: $(comes_from "$tool")"; return; }
  done
  part=$target.part; rm -rf "$part"
  note "$name: being made; log: $cache/$name.log"
  if "$command" >"$cache/$name.log" 2>&1; then
    mv "$part" "$target" && note "$name: made in $((SECONDS - began)) s: $target"
  else
    fail "$name: failed after $((SECONDS - began)) s; the end of $cache/$name.log:"; tail -n 5 "$cache/$name.log" >&2
  fi
}

kafka() { mvn -q -B -C -f "$here/kafka.pom.xml" dependency:copy-dependencies -DoutputDirectory="$part"; }

toxiproxy() (
  bin=$(mktemp -d) && trap 'rm -rf "$bin"' EXIT
  GOBIN=$bin go install "github.com/Shopify/toxiproxy/v2/cmd/server@$TOXIPROXY" && mv "$bin/server" "$part"
)

# `go install ...@version` refuses influxd for its replace lines, so it is built from a module of its own.
influxd() (
  work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work" || exit 1
  # influxd's own toolchain file asks for a Rust that need not be there; any recent one builds it.
  RUSTUP_TOOLCHAIN=$(rustup toolchain list | awk '/^stable/ {print $1; exit}')
  [ -n "$RUSTUP_TOOLCHAIN" ] || { echo "rustup has no stable toolchain: rustup toolchain install stable"; exit 1; }
  export RUSTUP_TOOLCHAIN
  GOBIN=$work/bin go install "github.com/influxdata/pkg-config@$PKG_CONFIG_VERSION" &&
    go mod init wattribute.tests/influxd &&
    go get "github.com/influxdata/influxdb/v2/cmd/influxd@$INFLUXD" &&
    PKG_CONFIG=$work/bin/pkg-config go build -tags sqlite_foreign_keys,sqlite_json -ldflags '-s -w' \
      -o "$part" github.com/influxdata/influxdb/v2/cmd/influxd
)

# Unpacked, not installed: the package would start a server on every address of the machine.
influxdb1() (
  work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work" || exit 1
  [ "$(id -u)" != 0 ] || apt-get update -qq
  apt-get download influxdb && dpkg -x influxdb_1.*.deb . && mv usr/bin/influxd "$part"
)

made kafka "$cache/kafka-$KAFKA" kafka java mvn
made influxdb1 "$cache/influxd-v1" influxdb1 apt-get dpkg
made toxiproxy "$cache/toxiproxy-$TOXIPROXY" toxiproxy go
made influxd "$cache/influxd-$INFLUXD" influxd go rustup cc
note "all looked at after $SECONDS s"
exit $missing
