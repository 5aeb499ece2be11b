"""Doxygen's view of a header: a "//" comment above a declaration is its documentation, one behind a member too.

usage: doc_comments.py HEADER
"""

import re
import sys

ESCAPED = re.compile(r"([@\\<>&#$%])")  # what Doxygen would take for a command, a tag or a link


def escape(text):
    return ESCAPED.sub(r"\\\1", text).replace('"', '\\"').replace("::", "\\::")


def main():
    in_head = True
    for line in open(sys.argv[1], encoding="utf-8"):
        line = line.rstrip("\n")
        comment = re.match(r"^(\s*)//(?!/)\s?(.*)$", line)
        behind = re.match(r"^(\s*\S.*?[;,{(])\s+// (.*)$", line)
        if comment and in_head:
            # The comment at the head of a file describes the file.
            print(f"{comment[1]}//! {escape(comment[2])}" if comment[2] else "//!")
        elif comment and comment[2].startswith("----"):
            print("")  # a heading inside a class
        elif comment:
            print(f"{comment[1]}/// {escape(comment[2])}")
        elif behind and '"' not in behind[1]:
            print(f"{behind[1]}  ///< {escape(behind[2])}")
        else:
            if in_head and line.startswith("#"):
                in_head = False
            print(line)


if __name__ == "__main__":
    main()
