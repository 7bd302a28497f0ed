"""The systemd unit of a site: it starts with the machine and comes back after a crash."""

import getpass
import sys
from pathlib import Path

UNIT = """\
# /etc/systemd/system/consilium-{site}.service
# Then: systemctl daemon-reload && systemctl enable --now consilium-{site}
[Unit]
Description=Consilium, site {site}
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
User={user}
ExecStart={python} -m consilium site start {kit}
Restart=always
RestartSec=10
# 2: the kit or site.toml has to be mended by a person
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec=60
NoNewPrivileges=true
PrivateTmp=true
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""


def unit(site: str, kit: Path) -> str:
    """Return the text of a unit that runs a kit as the user who asks for it."""
    return UNIT.format(site=site, user=getpass.getuser(), python=sys.executable, kit=kit.resolve())
