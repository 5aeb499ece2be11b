"""Puts and gets over TLS against Debian's etcd and against conclave, in turn: rate, and the server's CPU per call.

The load is h2load (Debian: nghttp2-client), which speaks enough gRPC for one fixed request; it runs on the second core,
the server on the first. Certificates are ECDSA P-256, one for both servers; TLS 1.3, as both choose.

usage: tls_bench.py --etcd PATH --conclave PATH [--h2load PATH] [--calls N] [--clients N] [--rounds N]
"""

import argparse
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "integration"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from bench import LOAD_CORE, SERVER_CORE, free_ports  # noqa: E402
from pki import Authority  # noqa: E402


def field(number, value):
    return bytes([number << 3 | 2, len(value)]) + value


def request(message):
    return struct.pack(">BI", 0, len(message)) + message


KEY, VALUE = b"benchmark-key", b"v" * 100
CALLS = [("put", "/etcdserverpb.KV/Put", request(field(1, KEY) + field(2, VALUE))),
         ("get, linearizable", "/etcdserverpb.KV/Range", request(field(1, KEY)))]


def cpu_seconds(pid):
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def start(binary, folder, authority, scheme):
    cert, key = authority.issue("server")
    port, peer = free_ports(2)
    url, peer_url = f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, binary, "--name", "m", "--data-dir", str(folder / f"data-{port}"),
         "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer_url,
         "--initial-advertise-peer-urls", peer_url, "--initial-cluster", f"m={peer_url}",
         *(["--cert-file", str(cert), "--key-file", str(key)] if scheme == "https" else [])],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return process, url


def load(arguments, url, path, body_file, calls):
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, arguments.h2load, "-n", str(calls), "-c", str(arguments.clients), "-m", "1",
         "-d", str(body_file), "-H", "content-type: application/grpc", "-H", "te: trailers", "--npn-list", "h2",
         url + path], capture_output=True, text=True, check=False)
    rate = re.search(r"finished in .*?, ([0-9.]+) req/s", done.stdout)
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    return float(rate.group(1)) if rate else 0.0, int(succeeded.group(1)) if succeeded else 0


def measure(name, binary, arguments, folder, authority, scheme):
    process, url = start(binary, folder, authority, scheme)
    rows = {}
    try:
        for what, path, body in CALLS:
            body_file = folder / "body"
            body_file.write_bytes(body)
            for _ in range(200):  # until the server serves
                if load(arguments, url, path, body_file, arguments.clients)[1] == arguments.clients:
                    break
            before = cpu_seconds(process.pid)
            rate, succeeded = load(arguments, url, path, body_file, arguments.calls)
            if succeeded != arguments.calls:
                sys.exit(f"{name}: {succeeded} of {arguments.calls} calls succeeded")
            rows[what] = (rate, (cpu_seconds(process.pid) - before) * 1e6 / arguments.calls)
    finally:
        process.kill()
        process.wait()
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--conclave", required=True)
    parser.add_argument("--h2load", default="h2load")
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}; {arguments.clients} connections, {arguments.calls} calls")
    with tempfile.TemporaryDirectory(prefix="conclave-tls-bench-") as name:
        folder = pathlib.Path(name)
        authority = Authority(folder, "ca")
        for scheme in ("https", "http"):
            best = {}
            for _ in range(arguments.rounds):
                for kind, binary in (("etcd", arguments.etcd), ("conclave", arguments.conclave)):
                    for what, row in measure(kind, binary, arguments, folder, authority, scheme).items():
                        best.setdefault(what, {}).setdefault(kind, []).append(row)
            for what, kinds in best.items():
                # The round with the median CPU.
                etcd, ours = (sorted(kinds[k], key=lambda r: r[1])[len(kinds[k]) // 2] for k in ("etcd", "conclave"))
                print(f"{scheme} {what}: etcd {etcd[0]:.0f}/s {etcd[1]:.1f} us CPU; conclave {ours[0]:.0f}/s "
                      f"{ours[1]:.1f} us CPU; ratio {ours[0] / etcd[0]:.1f} in rate, {etcd[1] / ours[1]:.1f} in CPU")


if __name__ == "__main__":
    main()
