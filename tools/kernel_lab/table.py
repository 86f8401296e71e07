"""What came of each test on each kernel."""

import re
import shutil


class Cell:
    """One test on one kernel."""

    def __init__(self):
        self.code, self.seconds, self.skipped = None, None, None
        self.failed, self.passed = 0, 0

    def text(self):
        if self.skipped:
            return f"– ({self.skipped})"
        if self.code is None:
            return "FAIL: no end"
        if self.is_good():
            return f"ok, {self.seconds} s"
        if self.code in (124, 137):
            return f"FAIL: time, {self.seconds} s"
        of = self.failed + self.passed
        what = f"FAIL: {self.failed} of {of}" if of else f"FAIL: exit {self.code}"
        return f"{what}, {self.seconds} s"

    def is_good(self):
        return bool(self.skipped) or self.code == 0 and self.failed == 0


class Column:
    """One kernel."""

    def __init__(self, release, rows):
        self.release, self.up, self.trouble = release, None, None
        self.cells = {row.name: Cell() for row in rows}


class Table:
    """All kernels."""

    def __init__(self, rows, skipped):
        self.rows, self.skipped, self.columns = rows, skipped, {}

    def of(self, series, release):
        return self.columns.setdefault(series, Column(release, self.rows))

    def passed(self):
        columns = self.columns.values()
        good = all(cell.is_good() for column in columns for cell in column.cells.values())
        return bool(self.columns) and good and not any(column.trouble for column in columns)

    def codes(self):
        cells = (cell for column in self.columns.values() for cell in column.cells.values())
        return [125 if cell.code is None else cell.code for cell in cells]

    def text(self):
        heads = [f"{series} ({column.release})" for series, column in self.columns.items()]
        lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        ups = [f"{column.up:.0f} s" if column.up else column.trouble or "–" for column in self.columns.values()]
        lines.append("| up after | " + " | ".join(ups) + " |")
        for row in self.rows:
            cells = [column.cells[row.name].text() for column in self.columns.values()]
            lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
        lines += [f"\nSkipped: {series}: {why}" for series, why in self.skipped.items()]
        return "\n".join(lines)


class Listener:
    """Takes a guest's lines apart: marks begin with @@, the rest is the output of a test."""

    def __init__(self, out, column, aloud):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        self.out, self.column, self.aloud = out, column, aloud
        self.file, self.name = None, None

    def hear(self, line):
        mark = re.match(r".*@@ (up|begin|skip|end|down) ?(.*)$", line)
        if not mark:
            return self.write(line)
        what, rest = mark[1], mark[2].split(" ", 2)
        cell = self.column.cells.get(rest[0])
        if what == "begin":
            self.name = rest[0]
            self.file = (self.out / f"{rest[0]}.log").open("w", errors="replace")
        elif what == "skip" and cell:
            cell.skipped = mark[2].split(" ", 1)[1]
            print(f"  SKIPPED {rest[0]}: {cell.skipped}", flush=True)
        elif what == "end" and cell:
            cell.code, cell.seconds = int(rest[1]), int(rest[2])
            self.file, closed = None, self.file
            closed and closed.close()
            if not self.aloud and not cell.skipped:
                print(f"  {rest[0]}: {cell.text()}", flush=True)
        return None

    def write(self, line):
        cell = self.column.cells.get(self.name)
        if cell and re.match(r"test .* \.\.\. ok$", line):
            cell.passed += 1
        if cell and re.match(r"test .* \.\.\. FAILED$", line):
            cell.failed += 1
            print(f"    {line}", flush=True)
        if self.file:
            self.file.write(line + "\n")
            self.file.flush()
            if self.aloud:
                print(line, flush=True)

    def finish(self, up):
        self.column.up = up

    def fail(self, why):
        self.column.trouble = f"FAIL: {why}"
        print(f"  {self.column.trouble}", flush=True)
