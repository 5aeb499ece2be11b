"""Each test that docs/complaints.md names exists. usage: complaints.py SOURCE_DIR"""

import pathlib
import re
import sys


def main():
    root = pathlib.Path(sys.argv[1])
    page = (root / "docs/complaints.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    sources = "\n".join(path.read_text() for path in (root / "tests").rglob("*.cc"))
    tests = {f"{suite}.{name}" for suite, name in re.findall(r"\bTEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", sources)}
    lists = "\n".join(path.read_text() for path in (root / "tests").rglob("CMakeLists.txt"))
    tests |= set(re.findall(r"add_test\(NAME (\w+)", lists))
    failed = 0
    for number, row in enumerate(rows, 1):
        if not row.startswith(f"| {number} |"):
            print(f"row {number} is missing")
            failed += 1
        shown = row.split("|")[5].strip()
        named = re.findall(r"`([^`]+)`", shown)
        missing = [name for name in named if name not in tests]
        if missing or (not named and shown != "-"):
            print(f"row {number}: no such test: {', '.join(missing) or shown}")
            failed += 1
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed or len(rows) != 40 else 0


if __name__ == "__main__":
    sys.exit(main())
