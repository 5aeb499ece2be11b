"""Compares the failpoints of server/failpoint/names.h with the places in the code.

usage: names.py ROOT
"""

import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
listed = re.findall(r'^    "(\w+)",', (root / "server/failpoint/names.h").read_text(), re.M)
placed = set()
for file in (root / "server").rglob("*.cc"):
    placed.update(re.findall(r"CONCLAVE_FAILPOINT\((\w+)\)", file.read_text()))
problems = []
if listed != sorted(listed) or len(set(listed)) != len(listed):
    problems.append("names.h is not sorted, or names one twice")
problems += [f"{name}: stands in names.h, but nowhere in the code" for name in sorted(set(listed) - placed)]
problems += [f"{name}: stands in the code, but not in names.h" for name in sorted(placed - set(listed))]
for problem in problems:
    print(problem)
print(f"failpoints: {len(listed)} names, {len(problems)} problems")
sys.exit(1 if problems or not listed else 0)
