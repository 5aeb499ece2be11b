"""What TLS and authentication cost: puts and gets against Debian's etcd and against conclave, in turn, over plain HTTP,
over TLS, and over plain HTTP as a user with a simple token. Rate, and the server's CPU per call.

The load is h2load (Debian: nghttp2-client), which speaks enough gRPC for one fixed request; it runs on the second core,
the server on the first. Certificates are ECDSA P-256, one for both servers; TLS 1.3, as both choose. The user is not
root: a role lets him read and write one prefix.

usage: security_bench.py --etcd PATH --conclave PATH [--h2load PATH] [--calls N] [--clients N] [--rounds N]
"""

import argparse
import base64
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import urllib.request

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


def post(url, path, body, token=None):
    """One call through the JSON gateway."""
    request = urllib.request.Request(f"{url}/v3/{path}", data=json.dumps(body).encode())
    if token:
        request.add_header("Authorization", token)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def text(value):
    return base64.b64encode(value).decode()


def enable_authentication(url):
    """Gives the token of a user who may use the benchmark's keys."""
    users = [("root", "root"), ("app", "app")]
    for user, role in users:
        post(url, "auth/role/add", {"name": role})
        post(url, "auth/user/add", {"name": user, "password": "pw"})
        post(url, "auth/user/grant", {"user": user, "role": role})
    post(url, "auth/role/grant", {"name": "app", "perm": {
        "permType": "READWRITE", "key": text(b"benchmark-"), "range_end": text(b"benchmark.")}})
    post(url, "auth/enable", {})
    return post(url, "auth/authenticate", {"name": "app", "password": "pw"})["token"]


def load(arguments, url, path, body_file, calls, token):
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, arguments.h2load, "-n", str(calls), "-c", str(arguments.clients), "-m", "1",
         "-d", str(body_file), "-H", "content-type: application/grpc", "-H", "te: trailers", "--npn-list", "h2",
         *(["-H", f"authorization: {token}"] if token else []), url + path], capture_output=True, text=True, check=False)
    rate = re.search(r"finished in .*?, ([0-9.]+) req/s", done.stdout)
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    return float(rate.group(1)) if rate else 0.0, int(succeeded.group(1)) if succeeded else 0


def measure(name, binary, arguments, folder, authority, setting):
    process, url = start(binary, folder, authority, "https" if setting == "TLS" else "http")
    rows, token = {}, None
    try:
        body_file = folder / "body"
        for what, path, body in CALLS:
            body_file.write_bytes(body)
            for _ in range(200):  # until the server serves
                if load(arguments, url, path, body_file, arguments.clients, token)[1] == arguments.clients:
                    break
            if setting == "a user" and token is None:
                token = enable_authentication(url)
            before, revision = cpu_seconds(process.pid), None
            if token:
                revision = int(post(url, "kv/range", {"key": text(KEY)}, token)["header"]["revision"])
            rate, succeeded = load(arguments, url, path, body_file, arguments.calls, token)
            if succeeded != arguments.calls:
                sys.exit(f"{name}: {succeeded} of {arguments.calls} calls succeeded")
            rows[what] = (rate, (cpu_seconds(process.pid) - before) * 1e6 / arguments.calls)
            # h2load takes a refusal in the trailers for a success; the store does not.
            if token and what == "put":
                now = int(post(url, "kv/range", {"key": text(KEY)}, token)["header"]["revision"])
                if now != revision + arguments.calls:
                    sys.exit(f"{name}: {arguments.calls} puts as a user, and {now - revision} revisions")
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
    found = {}  # (call, setting, server): rows
    settings = ("plain", "TLS", "a user")
    servers = (("etcd", arguments.etcd), ("conclave", arguments.conclave))
    with tempfile.TemporaryDirectory(prefix="conclave-security-bench-") as name:
        folder = pathlib.Path(name)
        authority = Authority(folder, "ca")
        for _ in range(arguments.rounds):
            for setting in settings:
                for server, binary in servers:
                    for what, row in measure(server, binary, arguments, folder, authority, setting).items():
                        found.setdefault((what, setting, server), []).append(row)
    # The round with the median CPU.
    row = {key: sorted(rows, key=lambda r: r[1])[len(rows) // 2] for key, rows in found.items()}
    print("| call | setting | etcd/s | conclave/s | ratio | etcd CPU us | conclave CPU us | ratio "
          "| etcd, over plain | conclave, over plain |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for what, _, _ in CALLS:
        for setting in settings:
            etcd, ours = row[what, setting, "etcd"], row[what, setting, "conclave"]
            over = [row[what, setting, s][1] / row[what, "plain", s][1] for s, _ in servers]
            print(f"| {what} | {setting} | {etcd[0]:.0f} | {ours[0]:.0f} | {ours[0] / etcd[0]:.2f} | {etcd[1]:.1f} "
                  f"| {ours[1]:.1f} | {ours[1] / etcd[1]:.2f} | {over[0]:.2f} | {over[1]:.2f} |")


if __name__ == "__main__":
    main()
