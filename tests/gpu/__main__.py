"""Run all checks on this machine's device, and write down the results.

    python -m tests.gpu [--output .artifacts/gpu.json] [--minutes 5.5]

Each test file runs in a process of its own, and so do the timings: whatever fails, dies or takes
too long is in the results with its cause, and hides nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.gpu import facts, lines, outcomes

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# test files by topic
TESTS = {
    "the device": "test_device.py",
    "exact: functions and metrics": "test_exact_functions.py",
    "exact: callbacks": "test_exact_callbacks.py",
    "exact: many classes": "test_many_classes.py",
    "what is said": "test_notes.py",
    "unobtrusive": "test_unobtrusive.py",
    "everyday projects": "test_projects.py",
    "memory": "test_memory.py",
    "deterministic": "test_deterministic.py",
    "waits": "test_waits.py",
    "several devices": "test_several_devices.py",
    "together": "test_together.py",
}


class Part:
    """A process that runs a part of the checks."""

    def __init__(self, name, command, folder):
        plain = "".join(c if c.isalnum() else "-" for c in name)
        self.name, self.answers = name, Path(folder, f"{plain}.jsonl")
        self.printed = Path(folder, f"{plain}.txt")
        with self.printed.open("w") as printed:
            self.process = subprocess.Popen(
                [*command, str(self.answers)],
                cwd=ROOT,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
                start_new_session=True,
            )

    def wait(self, end):
        """Wait for the process until a deadline; return what went wrong, or None."""
        try:
            code = self.process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            return "the time was up"
        # pytest returns 1 if tests failed, whose outcomes are recorded one by one
        return None if code in (0, 1) else f"its process ended with {code}: {self._last_line()}"

    def _last_line(self):
        printed = self.printed.read_text(errors="replace").strip().splitlines()
        return printed[-1][:300] if printed else "it printed nothing"


def tests_command(path):
    """A pytest command for a bare machine: without our own settings, conftest and cache."""
    chosen = ["-q", "-o", "addopts=", f"--confcutdir={HERE}", "-p", "no:cacheprovider"]
    plugin = ["-p", "tests.gpu.outcomes", str(path), "--outcomes"]
    return [sys.executable, "-m", "pytest", *chosen, *plugin]


def run_tests(files, seconds, at_once, folder):
    """Run test files; return the outcome of each test, by topic."""
    end, waiting, running, answers = time.monotonic() + seconds, dict(files), [], {}
    while waiting or running:
        while waiting and len(running) < at_once:
            name = next(iter(waiting))
            running.append(Part(name, tests_command(HERE / waiting.pop(name)), folder))
        part = next((p for p in running if p.process.poll() is not None), None)
        if part is None and time.monotonic() < end:
            time.sleep(0.2)
            continue
        for each in [part] if part is not None else list(running):
            running.remove(each)
            answers[each.name] = ended(each, each.wait(end))
            print(each.name, dict(Counter(t["outcome"] for t in answers[each.name])), flush=True)
        if part is None:
            answers |= {name: [unasked(files[name])] for name in waiting}
            waiting = {}
    return {name: answers[name] for name in files}


def ended(part, trouble):
    """The outcomes of a part; a test that did not end gets the trouble as its cause."""
    found = outcomes.read(part.answers)
    for test in found:
        if test["outcome"] == "started":
            test |= {"outcome": "failed", "cause": trouble or "it did not end", "seconds": None}
    if trouble is not None and not any(test.get("cause") == trouble for test in found):
        found.append({"test": part.name, "outcome": "failed", "cause": trouble, "seconds": None})
    return found


def unasked(file):
    return {"test": file, "outcome": "failed", "cause": "the time was up", "seconds": None}


def run_cost(seconds, small, folder):
    """Run the timings; return their rows, and if they were cut short, a row with the cause."""
    command = [sys.executable, "-m", "tests.gpu.cost", "--seconds", str(seconds)]
    part = Part("cost", [*command, *["--small"] * small, "--rows"], folder)
    # a row that cannot be interrupted gets extra time to finish
    trouble = part.wait(time.monotonic() + seconds + 20)
    found = lines.read(part.answers)
    if trouble is not None or part.process.returncode:
        cause = trouble or part._last_line()
        found.append({"section": "cost", "name": "", "what": "", "numbers": {}, "cause": cause})
    for row in found:
        print(" | ".join(map(str, (row["name"], row["what"], row["cause"] or row["numbers"]))))
    return found


def main(arguments=None):
    options = argparse.ArgumentParser()
    options.add_argument("--output", default=".artifacts/gpu.json", type=Path)
    options.add_argument("--minutes", default=5.5, type=float, help="time for everything")
    options.add_argument("--at-once", default=None, type=int, help="test files run at once")
    options.add_argument("--small", action="store_true", help="small sizes even on a GPU")
    options.add_argument("--tests", nargs="*", default=list(TESTS.values()), help="test files")
    chosen = options.parse_args(arguments)
    started = time.monotonic()
    at_once = chosen.at_once or max(1, min(4, (os.cpu_count() or 1) // 4))
    files = {name: file for name, file in TESTS.items() if file in chosen.tests}
    files |= {file: file for file in chosen.tests if file not in TESTS.values()}
    answers = {"facts": {}, "seconds": 0.0, "tests": {}, "rows": []}

    def write_down():
        answers["seconds"] = time.monotonic() - started
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(answers, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        seconds = 60 * chosen.minutes
        answers["tests"] = run_tests(files, seconds * 0.55, at_once, folder)
        answers["facts"] = facts.of_this_machine()
        write_down()  # in case the timings are stopped
        left = seconds - (time.monotonic() - started) - 20
        answers["rows"] = run_cost(max(left, 1), chosen.small, folder)
    write_down()
    failed = [
        t for of_file in answers["tests"].values() for t in of_file if t["outcome"] == "failed"
    ]
    for test in failed:
        print(f"failed: {test['test']}: {test['cause']}")
    print(f"{chosen.output}: {answers['seconds']:.0f} s, {len(failed)} tests failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
