"""The command line."""

import argparse
import os
import re
import sys
from pathlib import Path

from . import fetch, rows, systemd, table
from .boot import Failed, Machine, accelerator

HELP = """\
Boots other Linux kernels, each with this machine's own file system as its root, and runs this
project's tests there. What they write goes to memory. At the end there is a table of kernels and
tests; logs are in target/kernels/out. Exit code: 0 if all of it passed, 1 if not, 2 for a wrong
call.

Kernels are Debian's, by the mirror that this machine's apt uses: some 400 MB for the default five.
qemu and kmod are installed if they are missing. Without a KVM that can run an ordinary kernel, qemu
emulates, and a kernel takes its time.

  tools/kernels                          the default series and tests
  tools/kernels 5.10 newest              two of them
  tools/kernels 6.1 -- uname -a          a command in place of the tests
  tools/kernels --only netem             one test on each
  tools/kernels --systemd 6.12 -- CMD    a Debian root of its own, with systemd as process 1

An older kernel than the mirror has is acted by `cargo run -p as-kernel -- 5.4 COMMAND` at full
speed: what came later fails as it did there."""


def main(arguments):
    command = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
        if not command:
            print("tools/kernels: no command behind --", file=sys.stderr)
            return 2
    options = parser().parse_args(arguments)
    wrong = [one for one in options.series if one != "newest" and not re.fullmatch(r"\d+\.\d+", one)]
    if wrong:
        print(f"tools/kernels: {wrong[0]!r} is no series such as 6.12, or newest", file=sys.stderr)
        return 2
    try:
        return run(options, command)
    except fetch.Missing as why:
        print(f"tools/kernels: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser():
    made = argparse.ArgumentParser(
        prog="tools/kernels",
        usage="tools/kernels [OPTIONS] [SERIES...] [-- COMMAND...]",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("series", nargs="*", metavar="SERIES", help="such as 6.12, or newest")
    made.add_argument("--only", metavar="WORD", help="only tests whose name contains WORD")
    made.add_argument("--fetch", action="store_true", help="bring the kernels, and boot none")
    made.add_argument("--systemd", action="store_true", help="with systemd as process 1; needs a command")
    made.add_argument("--memory", type=int, default=4096, metavar="MB", help="default 4096")
    made.add_argument("--cpus", type=int, default=2, help="default 2")
    made.add_argument("--limit", type=int, default=3600, metavar="S", help="for one kernel, in seconds; default 3600")
    return made


def run(options, command):
    project = Path(__file__).resolve().parents[2]
    lab = Path(os.environ.get("CARGO_TARGET_DIR") or project / "target").resolve() / "kernels"
    lab.mkdir(parents=True, exist_ok=True)
    if options.systemd and not command:
        print("tools/kernels: --systemd needs a command behind --", file=sys.stderr)
        return 2
    if not options.fetch and os.geteuid() != 0:
        print("tools/kernels: only root can show a kernel all files of this machine", file=sys.stderr)
        return 1
    fetch.install(
        ("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod"), ("cpio", "cpio")
    )
    fetcher = fetch.Fetcher(lab)
    kernels, skipped = {}, {}
    for series in options.series or fetch.DEFAULT:
        try:
            kernels[series] = fetcher.kernel(series)
        except fetch.Missing as why:
            print(f"SKIPPED {series}: {why}", flush=True)
            skipped[series] = str(why)
    if options.fetch:
        return 0 if kernels else 1
    if command:
        wanted = [rows.Row("command", command, limit=options.limit)]
    else:
        wanted = [row for row in rows.default(project) if (options.only or "") in row.name]
        if not wanted:
            print(f"tools/kernels: no test is called like {options.only!r}", file=sys.stderr)
            return 2
    root = systemd.root(lab) if options.systemd else Path("/")
    results = table.Table(wanted, skipped)
    for series, kernel in kernels.items():
        machine = Machine(lab, kernel, project, fetcher.busybox(), options.memory, options.cpus, root)
        out = lab / "out" / series
        listener = table.Listener(out, results.of(series, machine.release), aloud=bool(command))
        how = accelerator(machine, lab / "out" / "kvm") if not options.systemd else None
        print(f"== {series}: {machine.release}{' (emulated)' if how and 'tcg' in how[1] else ''}", flush=True)
        try:
            if options.systemd:
                up = systemd.run(machine, wanted, out, listener.hear, options.limit)
            else:
                script = "\n".join(row.script() for row in wanted)
                up = machine.run(script, out, listener.hear, options.limit, how)
            listener.finish(up)
        except Failed as why:
            listener.fail(str(why))
    if command:
        codes = results.codes()
        return max(codes) if codes else 1
    print()
    print(results.text())
    return 0 if results.passed() else 1
