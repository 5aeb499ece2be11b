"""Reads every include line and fails where a folder includes what its floor does not allow; and fails on
words that a deterministic folder must not contain.

usage: floors.py ROOT
"""

import pathlib
import re
import sys

# folder -> the folders (or single headers) it may include, besides base/ and itself. What those may
# include, it may as well.
FLOORS = {
    "base": [],
    "api": [],
    "api/wire": [],
    "server/raft/quorum": ["server/raft/types.h"],
    "server/raft/tracker": ["server/raft/quorum", "server/raft/types.h"],
    "server/raft/confchange": ["server/raft/tracker"],
    "server/raft": ["server/raft/confchange", "server/raft/tracker", "server/raft/quorum"],
    "server/env": [],
    "server/env/memory": ["server/env"],
    "server/failpoint": [],
    "server/mvcc": [],
    "server/lease": [],
    "server/auth": [],
    "server/watch": ["server/mvcc"],
    "server/apply": ["api/wire", "server/auth", "server/lease", "server/mvcc"],
    "server/wal": ["server/env", "server/raft/types.h"],
    "server/snapshot": ["server/env", "server/raft/types.h"],
    "server/bbolt": [],
    "server/backup": ["server/apply", "server/bbolt", "server/snapshot"],
    "server/node": ["server/apply", "server/backup", "server/env", "server/raft", "server/snapshot", "server/wal",
                    "server/watch"],
    "server/posix": ["server/env", "server/wal", "server/snapshot"],
    "server/tls": [],
    "server/rpc": ["api", "server/node", "server/tls"],
    "server/local": [],
    "server/http": ["api", "server/local", "server/node", "server/tls"],
    "server/recipes": ["api", "client", "lock", "election", "discovery", "discovery/xds", "server/local",
                       "server/node"],
    "server/app": ["server/env/memory", "server/failpoint", "server/rpc", "server/http", "server/posix", "server/recipes"],
    "client/core": ["api", "api/wire"],
    "client/grpc": ["client/core"],
    "client/dns": [],
    "client": ["client/core", "client/dns", "client/grpc"],
    "registry": ["client"],
    "registry/grpc": ["registry"],
    "lock/core": ["client/core"],
    "lock": ["client", "lock/core"],
    "election": ["client"],
    "coordination": ["client", "lock", "election"],
    "testing": ["client", "server/app"],
    "discovery/xds": [],
    "discovery/picking": ["discovery"],
    "discovery": ["client", "registry", "discovery/xds"],
}

# Folders whose code is a function of its inputs: the world comes in through arguments.
DETERMINISTIC = ["server/env/memory", "server/raft", "server/mvcc", "server/lease", "server/watch", "server/auth",
                 "server/apply", "server/wal", "server/snapshot", "server/bbolt", "server/backup",
                 "server/node", "client/core",
                 "lock/core", "api/wire"] + [
                     f"registry/{name}.{ending}" for ending in ("h", "cc") for name in (
                         "codec", "go_json", "health_damper", "override", "registrar",
                         "shared_lease")] + ["registry/codec"]
WORLDLY = {
    r"std::j?thread\b": "a thread",
    r"std::random_device\b": "true randomness",
    r"\b(?:system_clock|steady_clock|high_resolution_clock)\b": "a real clock",
    r"\babsl::Now\(": "a real clock",
    r"\b(?:clock_gettime|gettimeofday|nanosleep|usleep)\(": "a real clock",
    r"#include <(?:sys/|unistd|fcntl|netinet|arpa|poll|pthread)": "a system call's header",
}
# Who may see whose headers.
FOREIGN = {
    r"#include [<\"](?:grpc|grpcpp)/": ("gRPC", ["server/rpc", "server/local", "server/recipes", "server/app",
                                                 "client/grpc",
                                                 "discovery", "registry/grpc"]),
    r"#include [<\"]google/protobuf/": ("protobuf", ["server/rpc", "server/http", "server/recipes",
                                                     "server/app", "client/grpc", "discovery"]),
}
# Never in the product's code, wherever.
BANNED = {
    r"\b(?:TODO|FIXME|XXX|HACK)\b": "a promise: do it, or write it down where users see it",
    r"\bsleep_for\b|\babsl::SleepFor\b|\busleep\(": "a fixed sleep: wait for the condition",
}

INCLUDE = re.compile(r'^\s*#\s*include\s+"conclave/([^"]+)"')


def folder_of(path):
    """The most specific folder of FLOORS that holds `path`, or None."""
    parent = pathlib.PurePosixPath(path).parent
    while str(parent) != ".":
        if str(parent) in FLOORS:
            return str(parent)
        parent = parent.parent
    return None


def allowed(folder):
    """All folders and headers that `folder` may include, transitively."""
    seen, queue = set(), [folder]
    while queue:
        for floor in FLOORS.get(queue.pop(), []):
            if floor not in seen:
                seen.add(floor)
                queue.append(floor)
    return seen


def inside(path, folders):
    return any(path == f or path.startswith(f + "/") for f in folders)


def check_file(root, path):
    folder = folder_of(path)
    may = allowed(folder)
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        where = f"{path}:{number}:"
        match = INCLUDE.match(line)
        if match:
            target = match.group(1)
            owner = folder_of(target)
            if owner is None:
                yield f"{where} includes {target}, which belongs to no floor"
            elif owner not in (folder, "base") and owner not in may and target not in may:
                yield f"{where} {folder} may not include {owner} ({target})"
        code = line.split("//")[0]
        for pattern, (name, folders) in FOREIGN.items():
            if re.search(pattern, code) and not inside(path, folders):
                yield f"{where} {name} does not belong into {folder}"
        if inside(path, DETERMINISTIC):
            for pattern, what in WORLDLY.items():
                if re.search(pattern, code):
                    yield f"{where} {what} in a deterministic folder"
        for pattern, what in BANNED.items():
            if re.search(pattern, line):
                yield f"{where} {what}"


def main():
    root = pathlib.Path(sys.argv[1])
    problems, count = [], 0
    for top in sorted({f.split("/")[0] for f in FLOORS}):
        for file in sorted((root / top).rglob("*")):
            if file.suffix in (".cc", ".h"):
                path = file.relative_to(root).as_posix()
                count += 1
                if folder_of(path) is None:
                    problems.append(f"{path}: belongs to no floor")
                else:
                    problems.extend(check_file(root, path))
    for problem in problems:
        print(problem)
    print(f"floors: {count} files, {len(problems)} problems")
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
