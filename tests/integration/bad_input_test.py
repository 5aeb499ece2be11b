"""Requests that no client means well, to every method: fields at their edges, random bytes, nesting without end, sizes
without bounds, lies about lengths, halves, and bytes that come slowly. Whatever comes, the server answers or closes,
stays up, serves others meanwhile, and its memory stays bounded. And what etcd says to the same requests, we say as well,
but for the differences below.

usage: bad_input_test.py --messages FOLDER --etcd PATH --conclave PATH
"""

import argparse
import collections
import concurrent.futures
import contextlib
import pathlib
import random
import socket
import struct
import sys
import threading
import time
import unittest

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
import raw_http2 as h2  # noqa: E402
from servers import Cluster, memory_folder  # noqa: E402

ARGS = None
GROWTH_BYTES_MAX = 256 << 20
SECONDS_MAX = 30
# What would end the server or its cluster, or change who may do what, as it should.
NOT_HERE = {"AuthEnable", "AuthDisable", "MemberAdd", "Downgrade", "Alarm"}
# Codes of a server that has judged a request; the others would be its own failure.
JUDGED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED", "UNKNOWN",
          "RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED", "PERMISSION_DENIED"}
NUMBERS = [0, 1, -1, 2, 1 << 31, (1 << 63) - 1, -(1 << 63)]
TEXTS = [b"", b"\0", b"a", b"\xff" * 3, b"k" * 4096]


def edges(field):
    """Values of one field, at and beyond what it is meant for."""
    kind = field.cpp_type
    if kind == field.CPPTYPE_BOOL:
        return [True]
    if kind == field.CPPTYPE_ENUM:
        return [0, 1, 99, -1]
    if kind == field.CPPTYPE_STRING:
        return TEXTS if field.type == field.TYPE_BYTES else ["", "a", "\x00", "\uffff" * 300]
    if kind in (field.CPPTYPE_UINT64, field.CPPTYPE_UINT32):
        return [0, 1, (1 << 32) - 1]
    return NUMBERS if kind == field.CPPTYPE_INT64 else []


def with_edges(request_type):
    """Messages in which one field is at an edge, the key being given; and with all fields at once."""
    for field in request_type.DESCRIPTOR.fields:
        for value in edges(field):
            message = request_type()
            if "key" in request_type.DESCRIPTOR.fields_by_name:
                message.key = b"a"
            with contextlib.suppress(ValueError, TypeError):  # what the library does not let one say
                if field.label == field.LABEL_REPEATED:
                    getattr(message, field.name).extend([value] * 3)
                else:
                    setattr(message, field.name, value)
                yield message.SerializeToString()


class Said:
    """Code and text of an answer; a code alone where there is no error."""

    def __init__(self, code, text=""):
        self.code, self.text = code, text

    def __eq__(self, other):
        return (self.code, self.text) == (other.code, other.text)

    def __str__(self):
        return f"{self.code} {self.text}".strip()


DIED = "(etcd has died of it)"
# What we answer differently than Debian's etcd 3.4 on purpose, with the reason: a condition on the method's name, the
# request, and both answers.
DIFFERENCES = [
    ("an order or a target of sorting that does not exist is refused since 3.5; 3.4 ignores it, or dies of it",
     lambda method, request, theirs, ours: method == "Range" and theirs.code in ("OK", DIED)
     and ours.text == "etcdserver: invalid sort option"),
    ("RangeStream exists since 3.7",
     lambda method, request, theirs, ours: method == "RangeStream" and theirs.code == "UNIMPLEMENTED"),
    ("HashKV at the compacted revision itself answers since 3.5; 3.4 refuses it",
     lambda method, request, theirs, ours: method == "HashKV" and ours.code == "OK"
     and theirs.text == "etcdserver: mvcc: required revision has been compacted"),
    ("peer URLs that are none are refused in MemberUpdate too, and before the member is looked for",
     lambda method, request, theirs, ours: method == "MemberUpdate" and theirs.text == "etcdserver: member not found"
     and ours.text == "etcdserver: given member URLs are invalid"),
    ("a password that no one could log in with is refused, before users are looked for: bcrypt ends it at a zero byte, and "
     "at 72 bytes",
     lambda method, request, theirs, ours: method in ("UserAdd", "UserChangePassword")
     and ours.text == "conclave: a password has at most 72 bytes, and none of them is zero"),
    ("a grant without a permission is refused since 3.5, whatever the role; 3.4 looks for the role first",
     lambda method, request, theirs, ours: method == "RoleGrantPermission" and not request.HasField("perm")
     and theirs.text == "etcdserver: role name not found" and ours.text == "etcdserver: permission not given"),
]


def ask(channel, method, raw, seconds=SECONDS_MAX):
    of = METHODS[method]
    try:
        if method in STREAMS:
            stream = channel.stream_stream(of.path)(iter([raw]), timeout=seconds)
            try:
                next(stream, None)
            finally:
                stream.cancel()
        else:
            channel.unary_unary(of.path)(raw, timeout=seconds)
        return Said("OK")
    except grpc.RpcError as error:
        return Said(error.code().name, error.details())


def patience(method):
    """Who waits for a lock or an election is let wait no longer."""
    return 1 if METHODS[method].service in ("Lock", "Election") else SECONDS_MAX


class BesideEtcd(unittest.TestCase):
    """The same requests in the same order to an etcd and to us, both new; and new again when etcd has died of one."""

    def start(self):
        self.clusters = [Cluster(name, getattr(ARGS, name), folder=memory_folder()) for name in ("etcd", "conclave")]

    def stop(self):
        for cluster in self.clusters:
            cluster.stop()

    def ask_both(self, pool, method, raw):
        theirs, ours = pool.map(  # for some have to wait
            lambda cluster: ask(cluster.channels[0], method, raw, patience(method)), self.clusters)
        self.assertIsNone(self.clusters[1].dead(), f"{method} {raw[:100]!r}")
        if theirs.code == "UNAVAILABLE" and self.clusters[0].has_died():
            theirs = Said(DIED)
            self.stop()
            self.start()
        return theirs, ours

    def test_every_field_at_its_edges(self):
        self.start()
        self.addCleanup(self.stop)
        pool = concurrent.futures.ThreadPoolExecutor(2)
        self.addCleanup(pool.shutdown)
        count, explained, unexplained = 0, collections.Counter(), []
        for method in METHODS.values():
            if method.name in NOT_HERE or method.name in ("Watch", "Observe"):
                continue
            for raw in with_edges(method.request):
                theirs, ours = self.ask_both(pool, method.name, raw)
                count += 1
                if theirs == ours:
                    continue
                request = method.request.FromString(raw)
                reason = next((reason for reason, applies in DIFFERENCES
                               if applies(method.name, request, theirs, ours)), None)
                if reason is None:
                    unexplained.append(f"{method.name} {{{' '.join(str(request).split())[:200]}}}\n"
                                       f"    etcd: {theirs}\n    we:   {ours}")
                explained[reason] += 1
        self.assertEqual(unexplained, [], "\n".join(unexplained))
        self.assertGreater(count, 250)
        for reason, _ in DIFFERENCES:
            self.assertGreater(explained[reason], 0, f"a difference that is none any more: {reason}")


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("conclave", ARGS.conclave)
        cls.addClassCleanup(cls.cluster.stop)
        cls.server = cls.cluster.clients[0]
        cls.channel = cls.cluster.channels[0]

    def setUp(self):
        self.before = self.resident()

    def tearDown(self):
        self.assertIsNone(self.cluster.dead())
        self.still_serves()
        self.assertLess(self.resident() - self.before, GROWTH_BYTES_MAX)

    def resident(self):
        return int(pathlib.Path(f"/proc/{self.cluster.processes[0].pid}/statm").read_text().split()[1]) * 4096

    def still_serves(self):
        self.assertEqual(self.code("Range", b"\x0a\x01k"), "OK")

    def code(self, method, raw, seconds=SECONDS_MAX):
        return ask(self.channel, method, raw, seconds).code

    def judged(self, method, raw, seconds=SECONDS_MAX):
        code = self.code(method, raw, seconds)
        self.assertIn(code, JUDGED, f"{method} {raw[:100]!r}")
        return code

    def test_random_bytes_and_broken_messages(self):
        rng = random.Random(11)
        for method in METHODS.values():
            if method.name in NOT_HERE | {"Watch", "LeaseKeepAlive", "Observe", "Snapshot"}:
                continue
            samples = list(with_edges(method.request)) or [b""]
            for _ in range(25):
                raw = bytearray(rng.choice(samples))
                kind = rng.randrange(3)
                if kind == 0 or not raw:
                    raw = bytearray(rng.randbytes(rng.randrange(60)))
                elif kind == 1:
                    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
                else:
                    del raw[rng.randrange(len(raw)):]
                self.judged(method.name, bytes(raw), patience(method.name))

    def test_nesting_without_end(self):
        for depth in (30, 100, 1000, 20_000):
            raw = b""
            for _ in range(depth):
                for field in (4, 2):  # RequestOp.request_txn in TxnRequest.success
                    raw = bytes([field << 3 | 2]) + varint(len(raw)) + raw
                if len(raw) > 1_000_000:
                    break
            code = self.judged("Txn", raw)
            if depth > 100:
                self.assertNotEqual(code, "OK", depth)
        groups = b"\x0b" * 500_000  # groups that begin and never end
        self.assertNotEqual(self.judged("Put", groups), "OK")

    def test_too_many_and_too_large(self):
        put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"k"))
        empty = rpc_pb2.Compare(key=b"k")
        for fields in ({"success": [put] * 10_000}, {"failure": [put] * 10_000}, {"compare": [empty] * 10_000}):
            self.assertEqual(self.judged("Txn", rpc_pb2.TxnRequest(**fields).SerializeToString()), "INVALID_ARGUMENT")
        for size in (1_600_000, 5_000_000, 100_000_000):
            code = self.code("Put", rpc_pb2.PutRequest(key=b"k", value=bytes(size)).SerializeToString())
            self.assertIn(code, ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"), size)
        urls = rpc_pb2.MemberUpdateRequest(ID=1, peerURLs=["http://127.0.0.1:1"] * 20_000)
        self.assertNotEqual(self.judged("MemberUpdate", urls.SerializeToString()), "OK")
        name = rpc_pb2.AuthUserAddRequest(name="n" * 1_000_000, password="p" * 400_000)
        self.judged("UserAdd", name.SerializeToString())

    def test_lies_about_lengths(self):
        path = h2.grpc_headers("/etcdserverpb.KV/Put")
        lies = [b"\0\xff\xff\xff\xff", b"\0\x7f\xff\xff\xffab", b"\0\0\0\0\x05ab", b"\x01" + struct.pack(">I", 3) + b"abc",
                b"\x07\0\0\0\0", b"\0", h2.message(b"\x0a\x01k") * 3, b"\0\0\0\0\x01\x0a\xff"]
        for lie in lies:
            with h2.Connection(self.server) as peer:
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, path) + h2.frame(h2.DATA, h2.END_STREAM, 1, lie))
                self.assertTrue(peer.answer(1), lie)
        frames = [h2.frame(h2.DATA, 0, 1, b"x"), h2.frame(h2.DATA, 0, 0, b"x"), h2.frame(h2.HEADERS, 4, 2, path),
                  h2.frame(h2.HEADERS, 4, 1, b"\xff" * 50), h2.frame(h2.SETTINGS, 0, 0, b"abc"),
                  h2.frame(h2.PING, 0, 0, b"short"), h2.frame(8, 0, 0, b"\0\0\0\0"), h2.frame(200, 0, 1, b"x" * 100),
                  b"\xff\xff\xff" + bytes([h2.DATA]) + b"\0\0\0\0\x01", random.Random(3).randbytes(5000)]
        for frame in frames:
            with h2.Connection(self.server) as peer, contextlib.suppress(ConnectionError):
                peer.send(frame)
                peer.socket.shutdown(1)
                peer.until_closed()

    def test_a_version_of_the_client_that_is_no_text(self):
        for version, is_answered in ((b"3.5.1", True), (b"\xff\xfe", False)):
            with h2.Connection(self.server) as peer:
                path = h2.grpc_headers("/etcdserverpb.KV/Range", ("client-api-version", version))
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, path)
                          + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"\x0a\x01k")))
                kinds = [kind for kind, _ in peer.frames(1)]
            # An error is trailers alone.
            self.assertEqual(kinds, [h2.HEADERS, h2.DATA, h2.HEADERS] if is_answered else [h2.HEADERS], version)

    def test_halves(self):
        block = h2.grpc_headers("/etcdserverpb.KV/Put")
        whole = (h2.PREFACE + h2.frame(h2.SETTINGS) + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block)
                 + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"\x0a\x04half\x12\x01v")))
        for cut in range(1, len(whole) - 1, 7):
            with socket.create_connection(self.server.split(":"), timeout=SECONDS_MAX) as peer:
                peer.sendall(whole[:cut])
        self.assertEqual(Caller(self.channel).call("Range", key=b"half").count, 0)

    def test_slow_bytes_hold_up_nobody(self):
        block = h2.grpc_headers("/etcdserverpb.KV/Put")
        whole = (h2.PREFACE + h2.frame(h2.SETTINGS) + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block)
                 + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"\x0a\x04slow\x12\x01v")))
        over = threading.Event()

        def drip():
            with socket.create_connection(self.server.split(":"), timeout=SECONDS_MAX) as peer:
                with contextlib.suppress(OSError):
                    for i in range(len(whole)):
                        peer.sendall(whole[i:i + 1])
                        if over.wait(0.01):
                            peer.sendall(whole[i + 1:])
                            break
                    while peer.recv(4096):
                        pass
        threads = [threading.Thread(target=drip, daemon=True) for _ in range(20)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        for _ in range(50):
            self.still_serves()
        self.assertLess(time.monotonic() - began, SECONDS_MAX)
        over.set()
        deadline = time.monotonic() + SECONDS_MAX
        while Caller(self.channel).call("Range", key=b"slow").count == 0:
            self.assertLess(time.monotonic(), deadline, "a slow request was never served")


def varint(number):
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def main():
    global ARGS, METHODS, STREAMS, Caller, rpc_pb2
    parser = argparse.ArgumentParser()
    for name in ("--messages", "--etcd", "--conclave"):
        parser.add_argument(name, required=True)
    ARGS, rest = parser.parse_known_args()
    sys.path.insert(0, ARGS.messages)
    from conclave.api import rpc_pb2
    from protocol import METHODS, Caller
    STREAMS = {"Watch", "LeaseKeepAlive", "Snapshot", "RangeStream", "Observe"}
    done = unittest.main(argv=["bad_input_test", "-v", *rest], exit=False)
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
