"""Runs the same load against Debian's etcd and against conclave, in turn, and prints one table of ratios.

Servers run on one core and the load on the other. Each server starts on an empty data directory on the same disk;
CPU is what the server's processes used while the load ran, from /proc. A row is measured `--rounds` times for each
server, alternating, and the round with the median CPU is shown.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

SERVER_CORE = "0"
LOAD_CORE = "1"
START_SECONDS_MAX = 60


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    """One or three members of one kind, pinned to the server core, on empty data directories."""

    def __init__(self, name, binary, load, work, members):
        self.name, self.binary, self.load, self.work = name, binary, load, work
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        ports = free_ports(2 * members)
        self.clients = [f"127.0.0.1:{p}" for p in ports[:members]]
        self.peers = [f"127.0.0.1:{p}" for p in ports[members:]]
        self.processes = [None] * members
        for member in range(members):
            self.start(member)
        self.wait()

    def start(self, member):
        cluster = ",".join(f"m{i}=http://{p}" for i, p in enumerate(self.peers))
        with open(self.work / f"m{member}.log", "ab") as log:
            self.processes[member] = subprocess.Popen(
                ["taskset", "-c", SERVER_CORE, self.binary, "--name", f"m{member}",
                 "--data-dir", str(self.work / f"m{member}"),
                 "--listen-client-urls", f"http://{self.clients[member]}",
                 "--advertise-client-urls", f"http://{self.clients[member]}",
                 "--listen-peer-urls", f"http://{self.peers[member]}",
                 "--initial-advertise-peer-urls", f"http://{self.peers[member]}",
                 "--initial-cluster", cluster, "--quota-backend-bytes", str(8 << 30)],
                stdout=log, stderr=log)

    def wait(self):
        for endpoint in self.clients:
            run(self.load, ["wait", "--endpoints", endpoint, "--seconds", str(START_SECONDS_MAX)])

    def endpoints(self):
        return ",".join(self.clients)

    def cpu_seconds(self):
        total = 0
        for process in self.processes:
            # One line per thread; schedstat counts in nanoseconds, where /proc/PID/stat counts ticks.
            for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory_mb(self):
        total = 0
        for process in self.processes:
            for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total / 1024

    def restart_seconds(self):
        """Kills member 0, starts it again, and waits for the first linearizable read."""
        self.processes[0].send_signal(signal.SIGKILL)
        self.processes[0].wait()
        began = time.monotonic()
        self.start(0)
        self.wait()
        return time.monotonic() - began

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.work, ignore_errors=True)


def run(load, arguments):
    done = subprocess.run(["taskset", "-c", LOAD_CORE, load, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: load {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def measure(cluster, operation, options, seconds):
    """One row of one server: rate, latencies, CPU per operation."""
    arguments = [operation, "--endpoints", cluster.endpoints()]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    if "total" not in options:
        arguments += ["--seconds", str(seconds)]
    before = cluster.cpu_seconds()
    row = run(cluster.load, arguments)
    row["cpu_us"] = (cluster.cpu_seconds() - before) * 1e6 / max(row["operations"], 1)
    return row


def median(rows):
    return sorted(rows, key=lambda row: row["cpu_us"])[len(rows) // 2]


ROWS_ONE = [
    ("put, 1 key, 100 clients", "put", {"clients": 100}),
    ("put, 1 client", "put", {"clients": 1}),
    ("put, 1,000 a second (open loop)", "put", {"clients": 100, "rate": 1000}),
    ("range, linearizable, 100 clients", "range", {"clients": 100}),
    ("range, 1 client", "range", {"clients": 1}),
    ("transaction of 4 puts, 100 clients", "txn-put", {"clients": 100}),
    ("keep-alive, 100 streams", "keep-alive", {"clients": 100}),
    ("watch, 1,000 watchers, 10 streams", "watch", {"watchers": 1000, "streams": 10}),
]
ROWS_THREE = [
    ("3 members: put, 100 clients", "put", {"clients": 100}),
    ("3 members: put, 1 client", "put", {"clients": 1}),
    ("3 members: range, 100 clients", "range", {"clients": 100}),
]


def small_rows(servers, work, load, rows, members, args, table):
    results = {label: {name: [] for name in servers} for label, _, _ in rows}
    for _ in range(args.rounds):
        for name, binary in servers.items():
            cluster = Cluster(name, binary, load, work / name, members)
            try:
                run(load, ["put", "--endpoints", cluster.endpoints(), "--clients", "100",
                           "--seconds", "1"])
                for label, operation, options in rows:
                    results[label][name].append(measure(cluster, operation, options, args.seconds))
                if members == 1:
                    table.setdefault("memory, few keys (MB)", {})[name] = cluster.memory_mb()
            finally:
                cluster.stop()
    for label, _, _ in rows:
        table[label] = {name: median(found) for name, found in results[label].items()}


def large_rows(servers, work, load, args, table):
    """What many keys cost: writing them, memory, counting, a long range, a restart."""
    for name, binary in servers.items():
        cluster = Cluster(name, binary, load, work / name, 1)
        try:
            keys = {"keys": args.keys, "total": args.keys, "clients": 100}
            put = {name: measure(cluster, "put", keys, 0)}
            table.setdefault(f"put, {args.keys:,} distinct keys", {}).update(put)
            memory = table.setdefault(f"memory, {args.keys:,} keys (MB)", {})
            memory[name] = cluster.memory_mb()
            count = measure(cluster, "count", {"total": 20}, 0)
            table.setdefault("count of all keys (range, limit 1)", {})[name] = count
            long_range = measure(cluster, "range-all", {"total": 10, "limit": 100000}, 0)
            table.setdefault("range of 100,000 keys", {})[name] = long_range
            restart = table.setdefault(f"restart until it serves, {args.keys:,} keys (s)", {})
            restart[name] = statistics.median(cluster.restart_seconds() for _ in range(3))
            memory = table.setdefault(f"memory after the restart, {args.keys:,} keys (MB)", {})
            memory[name] = cluster.memory_mb()
        finally:
            cluster.stop()


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}" if theirs else "-"


def print_table(table, servers):
    theirs, ours = list(servers)
    header = ["operation", f"{theirs}/s", f"{ours}/s", "ratio", f"{theirs} p50/p99 ms",
              f"{ours} p50/p99 ms", "p50 ratio", "p99 ratio", f"{theirs} CPU us", f"{ours} CPU us", "CPU ratio"]
    lines = [header]
    single = [["figure", theirs, ours, "ratio"]]
    for label, row in table.items():
        a, b = row[theirs], row[ours]
        if not isinstance(a, dict):
            single.append([label, f"{a:.2f}", f"{b:.2f}", ratio(b, a)])
            continue
        lines.append([
            label, f"{a['rate']:.0f}", f"{b['rate']:.0f}", ratio(b["rate"], a["rate"]),
            f"{a['p50_us'] / 1e3:.2f} / {a['p99_us'] / 1e3:.2f}",
            f"{b['p50_us'] / 1e3:.2f} / {b['p99_us'] / 1e3:.2f}",
            ratio(b["p50_us"], a["p50_us"]), ratio(b["p99_us"], a["p99_us"]),
            f"{a['cpu_us']:.2f}", f"{b['cpu_us']:.2f}", ratio(b["cpu_us"], a["cpu_us"])])
    for block in (lines, single):
        widths = [max(len(line[i]) for line in block) for i in range(len(block[0]))]
        for index, line in enumerate(block):
            cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]
            print("| " + " | ".join(cells) + " |")
            if index == 0:
                print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--etcd", required=True, help="path of the etcd program")
    parser.add_argument("--conclave", required=True, help="path of the conclave program")
    parser.add_argument("--load", required=True, help="path of the load generator")
    parser.add_argument("--work", required=True, help="folder for the data directories")
    parser.add_argument("--seconds", type=float, default=5, help="of each row (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of each row (default 3)")
    parser.add_argument("--keys", type=int, default=1_000_000, help="of the large store")
    parser.add_argument("--only", choices=["one", "three", "large"], help="one part of the table")
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench: needs two cores, one for the server and one for the load")
    servers = {"etcd": args.etcd, "conclave": args.conclave}
    work, table = pathlib.Path(args.work), {}
    if args.only in (None, "one"):
        small_rows(servers, work, args.load, ROWS_ONE, 1, args, table)
    if args.only in (None, "three"):
        small_rows(servers, work, args.load, ROWS_THREE, 3, args, table)
    if args.only in (None, "large"):
        large_rows(servers, work, args.load, args, table)
    print_table(table, servers)


if __name__ == "__main__":
    main()
