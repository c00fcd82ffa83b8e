#!/bin/sh
# Puts the units, their user and the udev rule in place. Run as root from a checkout, after
#   python3 -m venv /opt/wattribute && /opt/wattribute/bin/pip install .
# Running it again upgrades these files; a configuration that is there is kept. docs/install.md says how to remove them.
set -eu
here=$(dirname "$0")

[ -x /opt/wattribute/bin/wattribute ] || { echo "install.sh: no /opt/wattribute/bin/wattribute; see docs/install.md" >&2; exit 1; }

install -D -m 644 "$here/wattribute.sysusers" /etc/sysusers.d/wattribute.conf
systemd-sysusers wattribute.conf
install -D -m 644 "$here/70-wattribute-powercap.rules" /etc/udev/rules.d/70-wattribute-powercap.rules
udevadm control --reload 2>/dev/null && udevadm trigger --subsystem-match=powercap \
  || echo "install.sh: udev does not run here, so nobody gives the CPU's energy counters to group powercap" >&2
install -d -m 755 /etc/wattribute
[ -e /etc/wattribute/config.toml ] || install -m 644 "$here/../config.toml" /etc/wattribute/config.toml
for unit in wattribute wattribute-collect wattribute-ingest wattribute-aggregate wattribute-control wattribute-web; do
  install -D -m 644 "$here/$unit.service" "/etc/systemd/system/$unit.service"
done
systemctl daemon-reload
echo "install.sh: done. Next: systemctl enable --now wattribute; in a fleet: wattribute-collect and its like instead"
