"""Whether a cluster keeps its leader under full load: three members with default timings, and writers that never pause,
all on the cores of this machine. The history is compacted every half minute, as an operator would.

Prints one row, and ends with 1 if there was an election after the first one.

usage: steady.py --server PATH --load PATH [--minutes N] [--clients N] [--folder DIR]
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
from servers import Cluster  # noqa: E402

LOOK_SECONDS = 10
LOOKS_PER_COMPACTION = 3
REVISIONS_KEPT = 100_000
ANSWER_SECONDS_MAX = 60  # of a machine that has more to do than it can
FLAGS = ["--quota-backend-bytes", str(8 << 30)]


def call(client, path, request):
    with urllib.request.urlopen(f"http://{client}/v3/{path}", json.dumps(request).encode(),
                                timeout=ANSWER_SECONDS_MAX) as answer:
        return json.load(answer)


def terms(cluster):
    return [int(call(client, "maintenance/status", {})["raftTerm"]) for client in cluster.clients]


def compact(cluster):
    revision = int(call(cluster.clients[0], "kv/range", {"key": "AA=="})["header"]["revision"])
    if revision > REVISIONS_KEPT:
        call(cluster.clients[0], "kv/compaction", {"revision": str(revision - REVISIONS_KEPT)})


def under_load(cluster, args):
    """What the load tells of itself, and the terms before and after it."""
    first, loads = max(terms(cluster)), []
    load = subprocess.Popen([args.load, "put", "--endpoints", cluster.endpoints, "--clients", str(args.clients),
                             "--keys", "100000", "--seconds", str(args.minutes * 60)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    looks = 0
    while load.poll() is None:
        try:
            load.wait(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            looks += 1
            loads.append(os.getloadavg()[0])
            if looks % LOOKS_PER_COMPACTION == 0:
                compact(cluster)
    out, errors = load.communicate()
    if load.returncode != 0:
        sys.exit(f"steady: the load failed: {out}{errors}")
    return json.loads(out), max(terms(cluster)) - first, loads


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--server", required=True, help="path of the server program, conclave's or etcd's")
    parser.add_argument("--load", required=True, help="path of the load generator")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--folder", help="where the data directories go (default: the system's)")
    args = parser.parse_args()
    began = time.monotonic()
    cluster = Cluster("steady", args.server, 3, flags=FLAGS, folder=args.folder)
    try:
        row, elections, loads = under_load(cluster, args)
    finally:
        cluster.stop()
    machine = f"load {min(loads):.0f} to {max(loads):.0f}" if loads else "not looked at"
    print(f"| {pathlib.Path(args.server).name} | {(time.monotonic() - began) / 60:.1f} min | {elections} elections "
          f"| {row['operations']} puts, {row['operations'] / (args.minutes * 60):.0f}/s "
          f"| p50 {row['p50_us'] / 1e3:.1f} ms, p99 {row['p99_us'] / 1e3:.1f} ms | {machine} |")
    return 1 if elections else 0


if __name__ == "__main__":
    sys.exit(main())
