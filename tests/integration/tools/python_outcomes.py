#!/usr/bin/env python3
"""Runs one module of CPython's own tests and writes each test's outcome as a line of JSON.

  python_outcomes.py MODULE OUTCOMES [--ignore PATTERN]... [--match PATTERN]...
                     [--resource NAME]...

CPython's own runner keeps outcomes by name only in its JUnit mode, which swaps the standard streams and breaks tests.
"""

import argparse
import faulthandler
import fnmatch
import importlib
import json
import sys
import time
import unittest

from test import support

#: A test that takes longer says where it hangs, and the run ends.
_PATIENCE = 100


class Outcomes(unittest.TextTestResult):
    """The tests that have ended, in a file that is true at any moment."""

    path = ""

    def startTestRun(self):
        super().startTestRun()
        self.file = open(self.path, "w")
        self.outcome = "passed"

    def startTest(self, test):
        super().startTest(test)
        self.outcome = "passed"
        self.started = time.monotonic()
        faulthandler.dump_traceback_later(_PATIENCE, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        self.write(test, self.outcome, time.monotonic() - self.started)
        super().stopTest(test)

    def write(self, test, outcome, seconds):
        name = test.id().removeprefix("test.")
        self.file.write(json.dumps({"name": name, "outcome": outcome, "seconds": round(seconds, 2)}) + "\n")
        self.file.flush()

    def _failed(self, test):
        self.outcome = "failed"
        if not isinstance(test, unittest.TestCase):  # setUpModule and its like
            self.write(test, "failed", 0)

    def addError(self, test, err):
        super().addError(test, err)
        self._failed(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._failed(test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed(test)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._failed(test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcome = "skipped"


def tests_of(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


def matches(test, patterns):
    return any(fnmatch.fnmatch(test.id(), pattern) for pattern in patterns)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("outcomes")
    parser.add_argument("--ignore", action="append", default=[])
    parser.add_argument("--match", action="append", default=[])
    parser.add_argument("--resource", action="append", default=[])
    arguments = parser.parse_args()
    # As CPython's runner: nothing outside of the machine, nothing that takes all of it.
    support.use_resources = ["cpu", *arguments.resource]
    support.verbose = 0
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromModule(importlib.import_module("test." + arguments.module))
    chosen = loader.suiteClass(test for test in tests_of(suite) if not matches(test, arguments.ignore)
                               and (not arguments.match or matches(test, arguments.match)))
    Outcomes.path = arguments.outcomes
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2, resultclass=Outcomes).run(chosen)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
