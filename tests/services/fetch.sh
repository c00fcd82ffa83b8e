#!/usr/bin/env bash
# Fetches or builds the servers that the tests run against, each once, into a cache folder outside the tree:
# Apache Kafka (Maven), influxd 2.x and toxiproxy (Go; influxd also needs Rust), and Debian's influxdb 1.x with apt.
# A server that cannot be had is named with its reason; the others are still made. Exit 1 if one is missing.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${WATTRIBUTE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wattribute}
KAFKA=4.1.1 INFLUXD=v2.9.1 TOXIPROXY=v2.5.0 PKG_CONFIG_VERSION=v0.3.0
mkdir -p "$cache" && exec 9>"$cache/.lock" && flock 9 # two calls at once: the second finds everything made
missing=0

note() { printf 'services: %s\n' "$*"; }
fail() { printf 'services: %s\n' "$*" >&2; missing=1; }
need() { command -v "$1" >/dev/null || { fail "$2 needs $1; on Debian: apt-get install $3"; return 1; }; }

# made NAME TARGET COMMAND..: runs the command, which fills "$part", and puts it in place whole or not at all.
made() {
  local name=$1 target=$2; shift 2
  [ -e "$target" ] && { note "$name: $target"; return; }
  part=$target.part; rm -rf "$part"
  local began=$SECONDS
  if "$@" >"$cache/$name.log" 2>&1; then
    mv "$part" "$target" && note "$name: made in $((SECONDS - began)) s: $target"
  else
    fail "$name: failed after $((SECONDS - began)) s, see $cache/$name.log"; tail -n 5 "$cache/$name.log" >&2
  fi
}

kafka() { mvn -q -B -f "$here/kafka.pom.xml" dependency:copy-dependencies -DoutputDirectory="$part"; }

influxd() {
  local work=$cache/influxd-build
  # influxd's own toolchain file asks for a Rust that is not installed; any recent one builds it.
  RUSTUP_TOOLCHAIN=$(rustup toolchain list | awk '/^stable/ {print $1; exit}')
  export RUSTUP_TOOLCHAIN
  rm -rf "$work" && mkdir -p "$work/bin" && cd "$work" || return 1
  GOBIN=$work/bin go install "github.com/influxdata/pkg-config@$PKG_CONFIG_VERSION" &&
    go mod init wattribute.tests/influxd &&
    go get "github.com/influxdata/influxdb/v2/cmd/influxd@$INFLUXD" &&
    PKG_CONFIG=$work/bin/pkg-config go build -tags sqlite_foreign_keys,sqlite_json -ldflags '-s -w' \
      -o "$part" github.com/influxdata/influxdb/v2/cmd/influxd && rm -rf "$work"
}

toxiproxy() {
  local bin; bin=$(mktemp -d)
  GOBIN=$bin go install "github.com/Shopify/toxiproxy/v2/cmd/server@$TOXIPROXY" && mv "$bin/server" "$part"
}

need java "Apache Kafka" default-jre-headless && need mvn "Apache Kafka" maven && made kafka "$cache/kafka-$KAFKA" kafka
need go toxiproxy golang && made toxiproxy "$cache/toxiproxy-$TOXIPROXY" toxiproxy
need go influxd golang && need rustup influxd rustup && made influxd "$cache/influxd-$INFLUXD" influxd

if command -v influxd >/dev/null && [ "$(influxd version 2>/dev/null | grep -c ' v\?1\.\|InfluxDB.*1\.')" -gt 0 ]; then
  note "influxdb 1: $(command -v influxd)"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  if { apt-get update -qq && apt-get install -y -qq --no-install-recommends influxdb; } >"$cache/influxdb1.log" 2>&1; then
    note "influxdb 1: installed"
  else
    fail "influxdb 1: apt-get install influxdb failed, see $cache/influxdb1.log"
  fi
else
  note "influxdb 1: left out; on Debian, as root: apt-get install influxdb"
fi
exit $missing
