"""Each header that is installed compiles by itself with clang, without a warning and without exceptions; with
g++ the build does the same (the target installed_headers).

usage: clang_test.py BUILD_DIR
"""

import concurrent.futures
import pathlib
import shutil
import subprocess
import sys

BUILD = pathlib.Path(sys.argv[1])


def compile_alone(job):
    header, work = job
    source = work / (header.replace("/", "_") + ".cc")
    source.write_text(f'#include "conclave/{header}"\n')
    launcher = [shutil.which("ccache")] if shutil.which("ccache") else []
    # gRPC's and protobuf's own headers are the system's, and its warnings are not ours.
    return subprocess.run(
        launcher + ["clang++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-c", str(source),
                    "-I", str(BUILD / "include"), "-o", str(source.with_suffix(".o"))],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main():
    if not shutil.which("clang++"):
        print("skipped: clang++ is not installed")
        return 77
    headers = (BUILD / "installed_headers.txt").read_text().split()
    work = BUILD / "clang_headers"
    work.mkdir(exist_ok=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for header, result in zip(headers, pool.map(compile_alone, [(h, work) for h in headers])):
            if result.returncode != 0:
                failed += 1
                print(f"{header}:\n{result.stdout}")
    print(f"{len(headers) - failed} passed, {failed} failed")
    return 1 if failed or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
