"""A Debian root with systemd as process 1, for tests of packages and units."""

import shlex
import shutil
import subprocess

from . import fetch
from .boot import TCG, fill

SUITE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps,rsyslog,python3-minimal"

UNIT = """\
[Unit]
Description=The lab's command
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/bash /run/lab-out/.command
ExecStopPost=/bin/systemctl --no-block poweroff
StandardInput=null
StandardOutput=file:/dev/ttyS1
StandardError=inherit

[Install]
WantedBy=multi-user.target
"""

COMMAND = """\
stty -F /dev/ttyS1 raw -echo
options=trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose
for share in project kernel; do
    mkdir -p /mnt/$share
    mount -t 9p -o $options $share /mnt/$share
done
mkdir -p /lib/modules/@RELEASE@
mount --bind /mnt/kernel/lib/modules/@RELEASE@ /lib/modules/@RELEASE@
export HOME=/root LAB_OUT=/run/lab-out PROJECT=/mnt/project
cd /mnt/project
echo "@@ up $(uname -r)"
@SCRIPT@
echo "@@ down"
"""


def root(lab):
    """The root, made once."""
    folder = lab / f"root-{SUITE}"
    if (folder / "sbin" / "init").exists():
        return folder
    fetch.install(("debootstrap", "debootstrap"))
    print(f"making a root of {SUITE}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    mirror = fetch.Fetcher(lab).mirrors()["main"]
    made = folder.with_suffix(".new")
    shutil.rmtree(made, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, made, mirror]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    units = made / "etc" / "systemd" / "system"
    (units / "lab.service").write_text(UNIT)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "lab.service").symlink_to("/etc/systemd/system/lab.service")
    (made / "etc" / "hostname").write_text("lab\n")
    made.rename(folder)
    return folder


def run(machine, rows, out, heard, limit):
    """As [`Machine.run`], with systemd in place of a script."""
    script = "\n".join(row.script() for row in rows)
    out.mkdir(parents=True, exist_ok=True)
    words = {"SCRIPT": script, "RELEASE": machine.release}
    (out / ".command").write_text(fill(COMMAND, words))
    return machine.run("", out, heard, limit, TCG, first=shlex.join(["/lib/systemd/systemd"]))
