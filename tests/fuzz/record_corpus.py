"""Writes the corpora of the protocol's fuzzers anew: what real clients send, recorded on its way to a server, and
the snapshots that small servers give.

Debian's etcdctl and Python's etcd3 speak to a gRPC proxy that passes everything on; each different request becomes a
file of corpus/wire_fuzz, and, in JSON as the gateway takes it, of corpus/json_fuzz. Tokens and passwords are those of
the script, so nothing secret is recorded. The files of corpus/bbolt_fuzz are what `etcdctl snapshot save` gets of
Debian's etcd and of us, without the checksum at their end, which is the stream's.

usage: record_corpus.py --etcdctl PATH --server PATH --etcd PATH --messages FOLDER [--only requests|snapshots]
"""

import argparse
import collections
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys

import grpc
from google.protobuf import json_format

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE.parent / "integration")]
from etcdctl_auth import SCRIPT  # noqa: E402
from etcdctl_settings_test import MORE  # noqa: E402
from etcdctl_test import COMMANDS, TRANSACTIONS  # noqa: E402
from servers import Cluster, free_ports  # noqa: E402

SECONDS_MAX = 20
REQUEST_BYTES_MAX = 1024
FILES_MAX = 12  # of one method
# In the order of the fuzzers' own tables.
WIRE_TYPES = ["RangeRequest", "PutRequest", "DeleteRangeRequest", "TxnRequest", "CompactionRequest", "LeaseGrantRequest",
              "LeaseRevokeRequest", "LeaseKeepAliveRequest", "LeaseTimeToLiveRequest", "WatchRequest", "MemberAddRequest",
              "MemberUpdateRequest", "AlarmRequest", "DowngradeRequest"]
JSON_METHODS = ["Txn", "Range", "Watch", "Lock", "Proclaim", "RoleGrantPermission", "LeaseGrant", "Alarm"]
JSON_PIECE_BYTES = 5
USE_PYTHON = "--use-python"
CHECKSUM_BYTES = 32
FIX_METAS = b"\1"  # a flag of the fuzzer: the checksums of the two first pages are made right
# What is done to a store before each snapshot of it; each finds what the ones before it have left.
STAGES = {
    "empty": [],
    "versions": [("put", "a", "1"), ("put", "a", "2"), ("put", "b", "3"), ("put", "b/c", "x" * 40), ("del", "b"),
                 ("put", "b", "4"), ("lease", "grant", "600"), ("put", "", "no key")],
    "compacted": [("compaction", "4", "--physical"), ("defrag",)],
    "users": [("user", "add", "root:r"), ("user", "add", "ann:a"), ("role", "add", "some"),
              ("role", "grant-permission", "some", "readwrite", "a", "b"), ("user", "grant-role", "ann", "some"),
              ("user", "grant-role", "root", "root"), ("auth", "enable")],
}


class Recorder(grpc.GenericRpcHandler):
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.seen = collections.defaultdict(dict)  # method -> requests, in their order

    def service(self, details):
        path = details.method

        def passed_on(requests):
            for raw in requests:
                self.seen[path.rpartition("/")[2]][raw] = None
                yield raw

        def handle(requests, context):
            metadata = [pair for pair in context.invocation_metadata() if pair[0] in ("token", "authorization", "hasleader")]
            call = self.channel.stream_stream(path)(passed_on(requests), metadata=metadata)
            context.add_callback(call.cancel)
            try:
                yield from call
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
        return grpc.stream_stream_rpc_method_handler(handle)


def use_etcdctl(program, address):
    def run(*arguments, stdin=""):
        subprocess.run([program, "--endpoints", address, "--command-timeout", "3s", *arguments], input=stdin, text=True,
                       capture_output=True, timeout=SECONDS_MAX, check=False, env={"ETCDCTL_API": "3"})
    for command in [*COMMANDS, *MORE]:
        if command[0] != "version":
            run(*command)
    for text in TRANSACTIONS:
        run("txn", stdin=text)
    run("elect", "e", "proposal", "-l")
    run("watch", "--prefix", "w", "--rev=1", "--prev-kv", "--progress-notify")
    for command in SCRIPT:
        run(*command, stdin="new\n")


def use_python(address):
    """In a process of its own: the messages of that library have the names of ours."""
    import etcd3
    host, port = address.split(":")
    client = etcd3.client(host=host, port=int(port), timeout=SECONDS_MAX)
    lease = client.lease(30)
    client.put("py/a", "1", lease=lease)
    lease.refresh()
    assert lease.granted_ttl == 30
    client.put_if_not_exists("py/once", "1")
    client.replace("py/once", "1", "2")
    client.transaction(compare=[client.transactions.value("py/a") == "1", client.transactions.create("py/b") == 0],
                       success=[client.transactions.put("py/b", "2"), client.transactions.get("py/a")],
                       failure=[client.transactions.delete("py/a")])
    list(client.get_prefix("py/", sort_order="descend", sort_target="mod"))
    events, cancel = client.watch_prefix("py/", start_revision=1)
    next(events)
    cancel()
    with client.lock("py/lock", ttl=5):
        pass
    client.delete_prefix("py/")
    client.create_alarm()
    client.disarm_alarm()
    client.compact(3)
    lease.revoke()


def write(folder, files):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    print(f"{len(files)} files in {folder}")


def save_snapshots(name, server, etcdctl):
    """The files of one server, stage by stage."""
    files = {}
    cluster = Cluster(name, server)
    try:
        for stage, commands in STAGES.items():
            for command in commands:
                subprocess.run([etcdctl, "--endpoints", cluster.clients[0], *command], capture_output=True,
                               timeout=SECONDS_MAX, check=False, env={"ETCDCTL_API": "3"})
            target = cluster.folder / stage
            subprocess.run([etcdctl, "--endpoints", cluster.clients[0], "snapshot", "save", target,
                            *(["--user", "root:r"] if stage == "users" else [])], capture_output=True,
                           timeout=SECONDS_MAX, check=True, env={"ETCDCTL_API": "3"})
            files[f"{name}-{stage}"] = FIX_METAS + target.read_bytes()[:-CHECKSUM_BYTES]
    finally:
        cluster.stop()
    return files


def record_requests(args):
    sys.path.insert(0, args.messages)
    from protocol import METHODS
    cluster = Cluster("recorded", args.server)
    try:
        recorder = Recorder(cluster.clients[0])
        proxy = grpc.server(concurrent.futures.ThreadPoolExecutor(32), handlers=[recorder])
        address = f"127.0.0.1:{free_ports(1)[0]}"
        proxy.add_insecure_port(address)
        proxy.start()
        subprocess.run([sys.executable, __file__, USE_PYTHON, address], timeout=10 * SECONDS_MAX, check=True)
        use_etcdctl(args.etcdctl, address)
        proxy.stop(1).wait()
    finally:
        cluster.stop()
    wire, as_json = {}, {}
    for method, requests in sorted(recorder.seen.items()):
        of = METHODS[method].request
        small = [raw for raw in requests if len(raw) <= REQUEST_BYTES_MAX][:FILES_MAX]
        for number, raw in enumerate(small):
            if of.DESCRIPTOR.name in WIRE_TYPES:
                wire[f"{method}-{number}"] = bytes([WIRE_TYPES.index(of.DESCRIPTOR.name)]) + raw
            if method in JSON_METHODS:
                text = json_format.MessageToJson(of.FromString(raw), preserving_proto_field_name=number % 2 == 0)
                head = bytes([JSON_METHODS.index(method), JSON_PIECE_BYTES])
                as_json[f"{method}-{number}"] = head + re.sub(r"\s*\n\s*", "", text).encode()
    write(HERE / "corpus/wire_fuzz", wire)
    write(HERE / "corpus/json_fuzz", as_json)


def main():
    if sys.argv[1] == USE_PYTHON:
        return use_python(sys.argv[2])
    parser = argparse.ArgumentParser()
    for name in ("--etcdctl", "--server", "--etcd", "--messages"):
        parser.add_argument(name, required=True)
    parser.add_argument("--only", choices=["requests", "snapshots"])
    args = parser.parse_args()
    if args.only != "snapshots":
        record_requests(args)
    if args.only != "requests":
        ours = save_snapshots("conclave", args.server, args.etcdctl)
        last = list(ours)[-1]  # has all; the fuzzer writes smaller ones itself
        write(HERE / "corpus/bbolt_fuzz", {**save_snapshots("etcd", args.etcd, args.etcdctl), last: ours[last]})


if __name__ == "__main__":
    main()
