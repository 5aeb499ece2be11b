"""Every mark that docs/simulation.md leaves to a test is reached by that test."""

import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent  # where all tests are run
PAGE = ROOT / "docs" / "simulation.md"
BIN = pathlib.Path(sys.argv.pop(1)).resolve()
ROW = re.compile(r"^\| ((?:[a-z0-9]+): [^|]+) \| `(\w+)` (\w+\.\w+) \|$", re.MULTILINE)
ROWS_MIN = 30


def reached_by(program, test):
    with tempfile.NamedTemporaryFile("r") as names:
        environment = {**os.environ, "CONCLAVE_MARKS_FILE": names.name}
        done = subprocess.run([BIN / program, f"--gtest_filter={test}"], cwd=ROOT, env=environment, text=True,
                              timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or "[  PASSED  ] 1 test." not in done.stdout:
            raise AssertionError(f"{program} {test} does not pass:\n{done.stdout[-2000:]}")
        return set(names.read().splitlines())


class Marks(unittest.TestCase):
    def test_each_is_reached_by_the_test_that_is_named(self):
        rows = ROW.findall(PAGE.read_text())
        self.assertGreaterEqual(len(rows), ROWS_MIN, f"the table of {PAGE} has another form")
        marks = collections.defaultdict(set)
        for mark, program, test in rows:
            marks[program, test].add(mark)
        for (program, test), named in marks.items():
            with self.subTest(program=program, test=test):
                self.assertEqual(named - reached_by(program, test), set())


if __name__ == "__main__":
    unittest.main(verbosity=2)
