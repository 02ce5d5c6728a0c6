"""A pytest plugin that records the outcome of each test as it ends.

    python -m pytest -p tests.gpu.outcomes --outcomes PATH

It writes a line when a test starts and one when it ends, so that the test in which a process dies
is known.
"""

from pathlib import Path

from tests.gpu import lines


def pytest_addoption(parser):
    parser.addoption("--outcomes", default=None, help="file for the outcomes of tests")


def pytest_configure(config):
    path = config.getoption("--outcomes")
    if path is not None:
        config.pluginmanager.register(_Outcomes(Path(path)))


class _Outcomes:
    def __init__(self, path):
        self.path = path

    def _write(self, **line):
        lines.append(self.path, line)

    def pytest_runtest_logstart(self, nodeid):
        self._write(test=nodeid, outcome="started")

    def pytest_runtest_logreport(self, report):
        # of setup and teardown, only failures and skips
        if report.when == "call" or not report.passed:
            self._write(
                test=report.nodeid,
                outcome=report.outcome,
                cause=_cause(report),
                seconds=report.duration,
            )

    def pytest_collectreport(self, report):
        if report.failed:
            self._write(test=report.nodeid, outcome="failed", cause=_cause(report), seconds=0.0)


def _cause(report, length=500):
    if report.passed:
        return None
    if isinstance(report.longrepr, tuple):  # file, line and reason of a skipped test
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    said = [line.strip() for line in text.splitlines() if line.strip()]
    # the first line says what was expected, the last one of an inner traceback says why
    return " ... ".join(dict.fromkeys(said[:1] + said[-1:]))[:length]


def read(path):
    """The last known outcome of each test, in order."""
    known = {}
    for line in lines.read(path):
        before = known.get(line["test"], {})
        if before.get("outcome") != "failed":  # a failure is final, whatever follows
            known[line["test"]] = line
    return list(known.values())
