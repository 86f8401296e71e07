"""Boots a kernel under qemu and runs a script there.

    qemu ── kernel, initramfs: busybox and the modules for 9p
              │ mounts this machine's / read-only (9p), an overlay in memory above it
              │ switch_root
              └─ bash guest script ── ttyS1 ──▶ lines for `Guest`
         ttyS0 ──▶ console log

What the script writes goes to memory, but for the folder $LAB_OUT, which stays. The script runs as
root, in the project's folder, with the caller's PATH.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .fetch import release_of

# A boot under emulation may end in an oops before it says a word.
TRIES = 4
# Without a word for so long a boot has failed, in seconds.
BOOT = 120
# What an ordinary boot with KVM takes at most; where the device is there and cannot run an
# ordinary kernel, it hangs.
KVM = 25

INIT = r"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
for m in /m/*.ko; do $b insmod $m; done
o=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o $o,ro,cache=loose root /ro || $b poweroff -f
$b mount -t tmpfs -o size=60% t /rw; $b mkdir /rw/u /rw/w
$b mount -t overlay -o lowerdir=/ro,upperdir=/rw/u,workdir=/rw/w o /n
for d in proc sys dev; do $b mount --move /$d /n/$d; done
$b mount -t tmpfs t /n/run
$b mkdir -p /n/run/lab-out /n/run/kept
$b mount -t 9p -o $o,cache=none out /n/run/lab-out
@KEEP@
exec $b switch_root /n @FIRST@
"""

# /tmp is memory; the project may be below it.
KEEP = r"""
$b mkdir -p /n/run/kept; $b mount --bind /n@PROJECT@ /n/run/kept
$b mount -t tmpfs t /n/tmp; $b mkdir -p /n@PROJECT@; $b mount --move /n/run/kept /n@PROJECT@
"""

START = r"""exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
mkdir -p /dev/pts /dev/shm; mount -t devtmpfs d /dev 2>/dev/null
mount -t devpts p /dev/pts; mount -t tmpfs t /dev/shm
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
mkdir -p /lib/modules/@RELEASE@ && mount --bind @MODULES@ /lib/modules/@RELEASE@
ip link set lo up
export HOME=/root PATH=@PATH@ LAB_OUT=/run/lab-out TERM=dumb RUST_BACKTRACE=0 @MORE@
echo "@@ up $(uname -r)"
ulimit -n 20000
cd @PROJECT@
@SCRIPT@
sync
echo "@@ down"
sleep 0.3
echo o >/proc/sysrq-trigger; sleep 60
"""


class Failed(Exception):
    """A boot that came to nothing, and what is known."""


class Machine:
    """One kernel, and how to boot it."""

    def __init__(self, lab, kernel, project, busybox, memory, cpus, root="/"):
        self.lab, self.kernel, self.project = lab, kernel, project
        self.busybox, self.memory, self.cpus, self.root = busybox, memory, cpus, root
        self.release = release_of(kernel)
        self.console = kernel / "console.log"

    def run(self, script, out, heard, limit, accelerator, first=None, said="@@ up"):
        """Boots, runs `script`, and calls `heard` with each line, until the machine goes down.
        Returns the seconds from the start of qemu to its first word."""
        for attempt in range(1, TRIES + 1):
            up = self.attempt(script, out, heard, limit, accelerator, first, said)
            if up is not None:
                return up
            print(f"  {self.release}: attempt {attempt} said nothing, once more", flush=True)
        raise Failed(f"{TRIES} boots without a word; the console: {self.tail()}")

    def attempt(self, script, out, heard, limit, accelerator, first, said):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            initramfs = self.initramfs(Path(work), first or "/bin/bash /run/lab-out/.start")
            (out / ".start").write_text(self.start(script))
            begin = time.monotonic()
            qemu = subprocess.Popen(
                self.command(initramfs, out, accelerator),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
            up = None
            late = threading.Timer(BOOT, qemu.kill)
            late.start()
            end = threading.Timer(limit, qemu.kill)
            end.start()
            try:
                for line in qemu.stdout:
                    line = line.rstrip("\r\n")
                    if up is None and said in line:
                        up = time.monotonic() - begin
                        late.cancel()
                    if up is not None:
                        heard(line)
            finally:
                late.cancel()
                end.cancel()
                qemu.kill()
                qemu.wait()
            return up

    def start(self, script):
        target = os.environ.get("CARGO_TARGET_DIR")
        modules = next(self.kernel.glob("lib/modules/*"))
        words = {
            "RELEASE": self.release,
            "MODULES": shlex.quote(str(modules)),
            "PATH": shlex.quote(os.environ["PATH"]),
            "PROJECT": shlex.quote(str(self.project)),
            "SCRIPT": script,
            "MORE": f"CARGO_TARGET_DIR={shlex.quote(target)}" if target else "",
        }
        return fill(START, words)

    def initramfs(self, work, first):
        root = work / "root"
        for folder in ["bin", "m", "proc", "sys", "dev", "ro", "rw", "n"]:
            (root / folder).mkdir(parents=True)
        shutil.copy(self.busybox, root / "bin" / "busybox")
        number = 10
        for wanted in ["virtio_pci", "9pnet_virtio", "9p", "overlay"]:
            for file in self.modules_for(wanted):
                name = re.sub(r"\.ko.*$", "", file.name)
                if not list((root / "m").glob(f"*-{name}.ko")):
                    (root / "m" / f"{number}-{name}.ko").write_bytes(unpacked(file))
                    number += 1
        is_hidden = self.root == "/" and str(self.project).startswith("/tmp")
        keep = KEEP if is_hidden else "$b mount -t tmpfs t /n/tmp"
        words = {"KEEP": fill(keep, {"PROJECT": str(self.project)}), "FIRST": first}
        init = root / "init"
        init.write_text(fill(INIT, words))
        init.chmod(0o755)
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        image = work / "initramfs"
        with image.open("wb") as file:
            command = ["cpio", "--quiet", "-o", "-H", "newc"]
            subprocess.run(command, cwd=root, input=names.encode(), stdout=file, check=True)
        return image

    def modules_for(self, name):
        command = ["modprobe", "-d", self.kernel, "-S", self.release, "--show-depends", name]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        lines = (line.split() for line in shown.splitlines())
        return [Path(words[1]) for words in lines if words and words[0] == "insmod"]

    def command(self, initramfs, out, accelerator):
        images = [*self.kernel.glob("boot/vmlinuz-*"), *self.kernel.glob("lib/modules/*/vmlinuz")]
        arguments = (
            "console=ttyS0 quiet panic=-1 mitigations=off nokaslr cryptomgr.notests tsc=reliable apparmor=0"
        )
        return [
            "qemu-system-x86_64",
            *accelerator,
            *["-M", "q35", "-smp", str(self.cpus), "-m", str(self.memory)],
            *["-nodefaults", "-display", "none", "-no-reboot"],
            *["-kernel", images[0], "-initrd", initramfs, "-append", arguments],
            *["-serial", f"file:{self.console}", "-serial", "stdio", "-device", "virtio-rng-pci"],
            *share("root", self.root, ",readonly=on"),
            *share("out", out, ""),
            *share("project", self.project, ",readonly=on"),
            *share("kernel", self.kernel, ",readonly=on"),
        ]

    def tail(self):
        lines = self.console.read_text(errors="replace").splitlines() if self.console.is_file() else []
        return " / ".join(lines[-3:]) or "nothing"


def share(name, path, more):
    what = f"local,id={name},path={path},security_model=none,multidevs=remap{more}"
    return ["-fsdev", what, "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"]


def fill(text, words):
    for name, value in words.items():
        text = text.replace(f"@{name}@", value)
    return text


def unpacked(file):
    tool = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"]}.get(file.suffix)
    return subprocess.run([*tool, file], check=True, capture_output=True).stdout if tool else file.read_bytes()


TCG = ["-accel", "tcg,thread=multi", "-cpu", "max"]
WITH_KVM = ["-accel", "kvm", "-cpu", "host"]


def accelerator(machine, out):
    """KVM if an ordinary kernel boots with it here. That the device is there proves nothing."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    known = machine.lab / "kvm"
    # Another boot may be on another machine.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not known.is_file() or boot not in known.read_text():
        words = []
        up = machine.attempt("", out, words.append, KVM, WITH_KVM, None, "@@ up")
        works = up is not None and "@@ down" in words
        known.write_text(f"{'yes' if works else 'no'} {boot}\n")
    return WITH_KVM if known.read_text().startswith("yes") else TCG
