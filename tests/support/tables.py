"""The tables of docs/compatibility.md are made by the tests: each one stands between two marks there. With
CONCLAVE_WRITE_DOCS=1 in the environment a test writes its own; else it fails when the one in the page is not that."""

import os
import pathlib
import re

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "compatibility.md"


def table(head, rows):
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def check(name, head, rows, agree=None):
    """`agree` judges the lines of the page and those made now, where they may differ (counts of random runs)."""
    begin, end = f"<!-- made by the tests: {name} -->\n", f"<!-- end: {name} -->\n"
    made, text = table(head, rows), PAGE.read_text()
    if begin not in text or end not in text:
        raise SystemExit(f"{PAGE} has no marks for the table {name!r}")
    before, rest = text.split(begin)
    found, after = rest.split(end)
    if os.environ.get("CONCLAVE_WRITE_DOCS") == "1":
        PAGE.write_text(f"{before}{begin}\n{made}\n\n{end}{after}")
        return
    agree = agree or (lambda lines, now: lines == now)
    if not agree(found.strip().splitlines(), made.splitlines()):
        raise SystemExit(f"{PAGE}: the table {name!r} is not what the tests have found; run this test again with "
                         f"CONCLAVE_WRITE_DOCS=1\n{made}")


def _first_column(lines):
    return {re.split(r"(?<!\\)\|", line)[1].strip() for line in lines}


def same_rows(lines, now):
    return _first_column(lines) == _first_column(now)


def known_rows(lines, now):
    """A rare row may be missing now."""
    return _first_column(lines) >= _first_column(now)
