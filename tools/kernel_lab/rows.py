"""What is run on each kernel."""

import json
import shlex
import subprocess
from dataclasses import dataclass, field


@dataclass
class Row:
    """One line of the table: a command, and how long it may take under emulation, in seconds."""

    name: str
    command: list
    limit: int = 600
    # Modules without which it is skipped.
    modules: list = field(default_factory=list)

    def script(self):
        """As a guest runs it, between two marks."""
        words = " ".join(shlex.quote(str(word)) for word in self.command)
        load = "".join(
            f'modprobe {module} 2>/dev/null || {{ echo "@@ skip {self.name} no module {module}"; false; }} && '
            for module in self.modules
        )
        return (
            f'echo "@@ begin {self.name}"; since=$EPOCHSECONDS\n'
            f"{load}timeout -k 5 {self.limit} {words}\n"
            f'code=$?; echo; echo "@@ end {self.name} $code $((EPOCHSECONDS - since))"\n'
        )


# Name, binary of `cargo test`, and what of it.
TESTS = [
    ("library", "socket_takeover", []),
    ("contract", "kernel_contract", []),
    ("wire", "takeover", ["wire::"]),
    ("kinds", "examples", ["embedding_kinds::"]),
    ("limits", "takeover", ["limits::"]),
    ("callers", "takeover", ["callers::"]),
    ("original", "service", ["original::"]),
    ("positions", "takeover", ["positions::"]),
]


def default(project):
    """Builds all that the default run needs, and returns its rows."""
    print("building the service, its client and the tests", flush=True)
    build = ["cargo", "build", "--release", "--workspace", "--quiet"]
    subprocess.run(build, cwd=project, check=True)
    binaries = test_binaries(project)
    demo = ["tools/demo", "--no-build", "--connections", 200, "--takeovers", 5, "--rate", 500]
    rows = [Row("demo", demo)]
    for name, binary, what in TESTS:
        rows.append(Row(name, [binaries[binary], *what]))
    bad = ["delay", "50ms", "10ms", "loss", "5%", "reorder", "5%", "duplicate", "1%"]
    network = ["tools/kernel_lab/guest/netem", 200, 300, 10, *bad]
    rows.append(Row("netem", network, modules=["veth", "sch_netem"]))
    return rows


def test_binaries(project):
    """The test programs of the main package by name; that of the library has the crate's."""
    command = ["cargo", "test", "--no-run", "--message-format=json", "--quiet"]
    done = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True)
    found = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["profile"]["test"]:
            found[message["target"]["name"]] = message["executable"]
    return found
