"""Brings Debian's kernels, by a private apt folder: the system's own lists, sources and packages
stay as they are. Only what a test needs is unpacked."""

import os
import re
import shutil
import subprocess
from pathlib import Path

DEFAULT = ["5.10", "6.1", "6.12", "6.16", "newest"]

# Where each of Debian's releases keeps its kernels: suite, component of the mirror.
SOURCES = [
    ("security", "bullseye-security"),
    ("security", "bookworm-security"),
    ("main", "bookworm"),
    ("main", "trixie-backports"),
]
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Parts of a package that a test can want.
WANTED = [
    "vmlinuz*",
    "modules.order",
    "modules.builtin*",
    "kernel/net/*",
    "kernel/fs/9p*",
    "kernel/fs/netfs*",
    "kernel/fs/fscache*",
    "kernel/fs/overlayfs*",
    "kernel/fs/ext4*",
    "kernel/fs/jbd2*",
    "kernel/fs/mbcache*",
    "kernel/drivers/block/loop*",
    "kernel/drivers/virtio*",
    "kernel/drivers/net/*.ko*",
    "kernel/drivers/char/hw_random*",
    "kernel/crypto*",
    "kernel/lib*",
    "kernel/arch/x86/crypto*",
]


class Missing(Exception):
    """Something cannot be had here, and why."""


def install(*programs):
    """Installs what is missing of these, as (program, package)."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    packages = [package for program, package in programs if not shutil.which(program)]
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise Missing(f"no apt-get here; install {' '.join(packages)} by the system's own means")
    print(f"installing {' '.join(packages)}", flush=True)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    quiet = dict(check=True, stdout=subprocess.DEVNULL)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run([*sudo, "apt-get", "update", "-qq"], **quiet)
    command = [*sudo, "apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
    subprocess.run(command, env=environment, **quiet)


class Fetcher:
    """The private apt folder."""

    def __init__(self, lab):
        self.lab = lab
        self.apt = lab / "apt"
        self.updated = False

    def kernel(self, series):
        """The folder of a kernel, brought if it is not there or not the newest."""
        folder = self.lab / "kernels" / series
        try:
            image, packages = self.packages(series)
        except (Missing, subprocess.CalledProcessError) as why:
            if (folder / "release").is_file():
                print(f"{series}: {why}; what was brought before is used", flush=True)
                return folder
            raise Missing(str(why)) from why
        release = re.sub(r"^linux-(image|binary)-|-unsigned$", "", image)
        if release_of(folder) == release:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for package in packages:
            self.unpack(package, folder, WANTED)
        if not (folder / "lib").exists():
            (folder / "lib").symlink_to("usr/lib")
        subprocess.run(["depmod", "-b", folder, release], stderr=subprocess.DEVNULL, check=True)
        (folder / "release").write_text(release)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{series}: {release}, {size >> 20} MB", flush=True)
        return folder

    def busybox(self):
        """A static busybox, for the first steps of a boot."""
        folder = self.lab / "busybox"
        program = folder / "bin" / "busybox"
        if not program.is_file():
            self.update()
            folder.mkdir(parents=True, exist_ok=True)
            self.unpack("busybox-static", folder, ["*busybox"])
            moved = folder / "usr" / "bin" / "busybox"
            if moved.is_file():
                program.parent.mkdir(exist_ok=True)
                moved.rename(program)
        return program

    def packages(self, series):
        """The newest package of a series, and all that belong to it."""
        self.update()
        names = self.run("apt-cache", "pkgnames").split()
        if series == "newest":
            # Split in two since 7.2.
            pattern = r"linux-binary-[0-9.]+\+deb\d+-amd64"
        else:
            version = re.escape(series) + r"\.[0-9.]+(-\d+|\+deb\d+(\.\d+)?)"
            pattern = rf"linux-(image|binary)-{version}-amd64(-unsigned)?"
        fits = [name for name in names if re.fullmatch(pattern, name)]
        if not fits:
            raise Missing(f"the mirror has no kernel {series}")
        image = max(fits, key=natural)
        rest = [image.replace("binary", "modules")] if "linux-binary" in image else []
        return image, [image, *rest]

    def update(self):
        if self.updated:
            return
        for folder in ["lists/partial", "cache/archives/partial", "debs"]:
            (self.apt / folder).mkdir(parents=True, exist_ok=True)
        (self.apt / "status").touch()
        mirrors = self.mirrors()
        lines = [f"deb [signed-by={KEYS}] {mirrors[which]} {suite} main" for which, suite in SOURCES]
        (self.apt / "sources.list").write_text("\n".join(lines) + "\n")
        (self.apt / "conf").write_text(
            f'Dir::Etc::sourcelist "{self.apt}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
            f'Dir::State::lists "{self.apt}/lists"; Dir::State::status "{self.apt}/status";\n'
            f'Dir::Cache "{self.apt}/cache"; APT::Architecture "amd64";\n'
            'Acquire::Languages "none"; APT::Sandbox::User "root";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        )
        print("reading the mirror's lists", flush=True)
        self.run("apt-get", "update", "-qq")
        self.updated = True

    def mirrors(self):
        """The mirrors that this machine's own apt uses."""
        command = ["apt-get", "indextargets", "--format", "$(BASE_URI)", "Created-By: Packages"]
        if not shutil.which("apt-get"):
            raise Missing("no apt-get here: kernels come from Debian's mirror")
        targets = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = {}
        for which, name in [("main", "debian"), ("security", "debian-security")]:
            match = re.search(rf"^(\S+/{name})/dists/", targets, re.MULTILINE)
            if not match:
                raise Missing(f"apt knows no mirror of {name} here")
            found[which] = match[1]
        return found

    def unpack(self, package, folder, wanted):
        debs = self.apt / "debs"
        for old in debs.glob(f"{package}_*.deb"):
            old.unlink()
        self.run("apt-get", "download", "-qq", package, cwd=debs)
        (deb,) = debs.glob(f"{package}_*.deb")
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tar:
            command = ["tar", "-x", "-C", folder, "--wildcards", "--no-anchored", *wanted]
            # It complains about a pattern that fits nothing in this package.
            subprocess.run(command, stdin=tar.stdout, stderr=subprocess.DEVNULL, check=False)
        deb.unlink()
        if tar.returncode != 0:
            raise Missing(f"{package} cannot be unpacked")

    def run(self, *command, cwd=None):
        environment = dict(os.environ, APT_CONFIG=str(self.apt / "conf"))
        done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Missing(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")
        return done.stdout


def natural(name):
    """So that 6.1.10 comes behind 6.1.9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def release_of(folder):
    file = Path(folder) / "release"
    return file.read_text() if file.is_file() else None
