"""Takes the C++ blocks out of a page, so that a test can compile and run them. usage: extract.py PAGE HEADER

All #include lines come first, then each block in a namespace of its own: block_1, block_2, ...
"""

import pathlib
import re
import sys


def main():
    page, header = sys.argv[1:]
    blocks = re.findall(r"^```cpp\n(.*?)^```$", pathlib.Path(page).read_text(), re.M | re.S)
    includes, bodies = [], []
    for number, block in enumerate(blocks, 1):
        lines = block.splitlines()
        includes += [line for line in lines if line.startswith("#include")]
        body = "\n".join(line for line in lines if not line.startswith("#include"))
        bodies.append(f"namespace block_{number} {{\n{body}\n}}  // namespace block_{number}\n")
    pathlib.Path(header).write_text("#pragma once\n" + "\n".join(dict.fromkeys(includes)) + "\n\n" + "\n".join(bodies))


if __name__ == "__main__":
    main()
