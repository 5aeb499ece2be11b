"""Takes the C++ blocks out of a page, so that a test can compile and run them.

usage: extract.py PAGE OUTPUT

OUTPUT ends in .h: all blocks in one header, block N in namespace block_N; for a test that calls them itself.
OUTPUT ends in .cc: the same, and each function "absl::Status Name(const conclave::Client& client)" of a block is
registered for docs_test, which runs it against a server.
A block fenced as "```cpp fragment" is part of something larger and is left out.
"""

import pathlib
import re
import sys

RUNNABLE = re.compile(r"^absl::Status (\w+)\(const conclave::Client& client\) \{", re.M)


def main():
    page, output = (pathlib.Path(argument) for argument in sys.argv[1:])
    blocks = re.findall(r"^```cpp\n(.*?)^```$", page.read_text(), re.M | re.S)
    includes, bodies = [], []
    for number, block in enumerate(blocks, 1):
        lines = block.splitlines()
        includes += [line for line in lines if line.startswith("#include")]
        body = "\n".join(line for line in lines if not line.startswith("#include"))
        if output.suffix == ".cc":
            for name in RUNNABLE.findall(body):
                body += f'\nconst bool {name}_registered = conclave::docs::Register("{page.name}", "{name}", {name});\n'
        name = f"block_{number}" if output.suffix == ".h" else f"{re.sub(r'[^a-z0-9]', '_', page.stem)}_{number}"
        bodies.append(f"namespace {name} {{\n{body}\n}}  // namespace {name}\n")
    head = ["#pragma once"] if output.suffix == ".h" else ['#include "conclave/tests/docs/examples.h"']
    output.write_text("\n".join(head + list(dict.fromkeys(includes)) + [""] + bodies))


if __name__ == "__main__":
    main()
