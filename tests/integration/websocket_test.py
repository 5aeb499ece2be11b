"""WebSockets on the JSON gateway, by a client that writes the frames itself. What etcd promises too is asked of both.

usage: websocket_test.py --server PATH --kind etcd|conclave
"""

import argparse
import base64
import hashlib
import json
import os
import pathlib
import socket
import struct
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
from gateway import SECONDS_MAX, b64, post, unb64  # noqa: E402
from servers import Cluster  # noqa: E402

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, CLOSE, PING, PONG = 0, 1, 8, 9, 10
CLUSTER = None
ARGUMENTS = None


class WebSocket:
    def __init__(self, path, headers=(), version=13):
        host, port = CLUSTER.clients[0].split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=SECONDS_MAX)
        key = base64.b64encode(os.urandom(16))
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key.decode()}", f"Sec-WebSocket-Version: {version}", *headers, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(1)
            if not data:
                break
            head += data
        self.head = head.decode().lower()
        self.accepted = self.head.startswith("http/1.1 101")
        expected = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode().lower()
        assert not self.accepted or f"sec-websocket-accept: {expected}" in self.head, head

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def frame(self, opcode, payload, masked=True):
        size = len(payload)
        head = bytes([0x80 | opcode])
        bit = 0x80 if masked else 0
        head += (bytes([bit | size]) if size < 126 else bytes([bit | 126]) + struct.pack(">H", size)
                 if size < 65536 else bytes([bit | 127]) + struct.pack(">Q", size))
        if not masked:
            return self.socket.sendall(head + payload)
        mask = os.urandom(4)
        return self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def say(self, fields):
        self.frame(TEXT, json.dumps(fields).encode())

    def take(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def hear(self):
        """Opcode and payload of the next frame; nothing behind the last one."""
        try:
            first, second = self.take(2)
            size = second & 0x7f
            if size == 126:
                size, = struct.unpack(">H", self.take(2))
            elif size == 127:
                size, = struct.unpack(">Q", self.take(8))
            assert not second & 0x80, "a server does not mask"
            self.is_whole = first & 0x80 != 0
            return first & 0xf, self.take(size)
        except (EOFError, ConnectionError):
            return None, b""

    def next(self):
        opcode, payload = self.hear()
        assert opcode == TEXT, (opcode, payload)
        while not self.is_whole:
            opcode, more = self.hear()
            assert opcode == CONTINUATION, opcode
            payload += more
        return json.loads(payload)

    def is_over(self):
        """Closed, with a farewell or without; what comes before is passed over."""
        while True:
            opcode, _ = self.hear()
            if opcode in (CLOSE, None):
                return True


def put(key, value):
    assert post(CLUSTER.clients[0], "/v3/kv/put", {"key": b64(key), "value": b64(value)})[0] == 200


class Both(unittest.TestCase):
    def test_a_watch(self):
        with WebSocket("/v3/watch") as watch:
            self.assertTrue(watch.accepted, watch.head)
            watch.say({"create_request": {"key": b64("ws/a")}})
            self.assertTrue(watch.next()["result"]["created"])
            for number in range(3):
                put("ws/a", str(number))
                event = watch.next()["result"]["events"][0]
                self.assertEqual(unb64(event["kv"]["value"]), str(number).encode())
            # The same stream takes further requests.
            watch.say({"create_request": {"key": b64("ws/b")}})
            self.assertEqual(watch.next()["result"]["watch_id"], "1")
            watch.say({"cancel_request": {"watch_id": "1"}})
            self.assertTrue(watch.next()["result"]["canceled"])

    def test_a_unary_call(self):
        put("ws/unary", "x")
        with WebSocket("/v3/kv/range") as call:
            call.say({"key": b64("ws/unary")})
            self.assertEqual(unb64(call.next()["kvs"][0]["value"]), b"x")

    def test_a_lease_kept_alive(self):
        lease = post(CLUSTER.clients[0], "/v3/lease/grant", {"TTL": 60})[1]["ID"]
        with WebSocket("/v3/lease/keepalive") as keep:
            for _ in range(2):
                keep.say({"ID": lease})
                self.assertEqual(keep.next()["result"]["TTL"], "60")

    def test_a_ping_is_answered(self):
        with WebSocket("/v3/watch") as watch:
            watch.frame(PING, b"hello")
            self.assertEqual(watch.hear(), (PONG, b"hello"))

    def test_large_messages(self):
        value = "v" * 300_000
        with WebSocket("/v3/watch") as watch:
            watch.say({"create_request": {"key": b64("ws/large"), "range_end": b64("ws/m" + "x" * 70_000)}})
            self.assertTrue(watch.next()["result"]["created"])
            if ARGUMENTS.kind == "conclave":  # etcd's proxy ends with a line of more than 64 KiB
                put("ws/large", value)
                self.assertEqual(unb64(watch.next()["result"]["events"][0]["kv"]["value"]), value.encode())


class Ours(unittest.TestCase):
    def still_serves(self):
        put("ws/still", "x")
        self.assertIsNone(CLUSTER.dead())

    def test_the_end_of_a_call_ends_the_socket(self):
        with WebSocket("/v3/kv/range") as call:
            call.say({"key": b64("ws/unary")})
            call.next()
            self.assertEqual(call.hear(), (CLOSE, struct.pack(">H", 1000)))
        with WebSocket("/v3/watch") as watch:
            watch.frame(TEXT, b"nonsense")
            self.assertIn("error", watch.next())
            self.assertTrue(watch.is_over())

    def test_who_closes_is_gone(self):
        with WebSocket("/v3/watch") as watch:
            watch.say({"create_request": {"key": b64("ws/gone")}})
            self.assertTrue(watch.next()["result"]["created"])
            watch.frame(CLOSE, struct.pack(">H", 1000))
            self.assertTrue(watch.is_over())
        self.still_serves()

    def test_what_is_no_upgrade_is_refused(self):
        with WebSocket("/v3/nonsense") as nowhere:
            self.assertTrue(nowhere.head.startswith("http/1.1 404"), nowhere.head)
        with WebSocket("/version") as page:
            self.assertTrue(page.head.startswith("http/1.1 200"), page.head)
        with WebSocket("/v3/watch", version=7) as old:
            self.assertFalse(old.accepted, old.head)

    def test_broken_frames_end_the_connection(self):
        frames = [b"\x81\x05hello",              # not masked
                  b"\xf1\x80\x00\x00\x00\x00",   # bits that nobody has agreed on
                  b"\x83\x80\x00\x00\x00\x00",   # an opcode that does not exist
                  b"\x89\xfe\x01\x00" + b"x" * 300,  # a ping that is too long
                  b"\x81\xff" + b"\xff" * 8 + b"\x00" * 4]  # a size beyond all
        for frame in frames:
            with WebSocket("/v3/watch") as watch:
                watch.socket.sendall(frame)
                self.assertTrue(watch.is_over(), frame)
        self.still_serves()

    def test_a_message_that_is_too_large_ends_the_connection(self):
        with WebSocket("/v3/watch") as watch:
            try:
                for _ in range(64):
                    watch.socket.sendall(b"\x01\xff" + struct.pack(">Q", 1 << 20) + bytes(4) + b" " * (1 << 20))
            except OSError:
                pass  # it has been cut while it sent
            self.assertTrue(watch.is_over())
        self.still_serves()

    def test_a_token_comes_as_a_subprotocol(self):
        with WebSocket("/v3/kv/range", ["Sec-WebSocket-Protocol: Bearer, some-token"]) as call:
            self.assertIn("sec-websocket-protocol: bearer", call.head)

    def test_many_at_once_and_none_closes(self):
        sockets = [WebSocket("/v3/watch") for _ in range(100)]
        for each in sockets:
            each.say({"create_request": {"key": b64("ws/many")}})
        for each in sockets:
            self.assertTrue(each.next()["result"]["created"])
        put("ws/many", "x")
        for each in sockets:
            self.assertEqual(len(each.next()["result"]["events"]), 1)
            each.socket.close()
        self.still_serves()


class Restricted(unittest.TestCase):
    """With a token, and with one origin."""

    def test_origins(self):
        self.assertTrue(WebSocket("/v3/watch", ["Origin: http://good.example"]).accepted)
        self.assertTrue(WebSocket("/v3/watch").accepted)
        self.assertTrue(WebSocket("/v3/watch", ["Origin: http://bad.example"]).head.startswith("http/1.1 403"))

    def test_users(self):
        for path, fields in (("/v3/auth/user/add", {"name": "root", "password": "pw"}),
                             ("/v3/auth/user/grant", {"user": "root", "role": "root"}), ("/v3/auth/enable", {})):
            self.assertEqual(post(CLUSTER.clients[0], path, fields)[0], 200)
        token = post(CLUSTER.clients[0], "/v3/auth/authenticate", {"name": "root", "password": "pw"})[1]["token"]
        with WebSocket("/v3/watch", [f"Sec-WebSocket-Protocol: Bearer, {token}"]) as watch:
            watch.say({"create_request": {"key": b64("k")}})
            self.assertNotIn("canceled", watch.next()["result"])
        with WebSocket("/v3/watch") as watch:
            watch.say({"create_request": {"key": b64("k")}})
            self.assertTrue(watch.next()["result"]["canceled"])


def run(cases, flags=()):
    global CLUSTER
    CLUSTER = Cluster(ARGUMENTS.kind, ARGUMENTS.server, flags=flags)
    try:
        suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases)
        return unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful()
    finally:
        CLUSTER.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--kind", choices=["etcd", "conclave"], required=True)
    ARGUMENTS = parser.parse_args()
    good = run([Both])
    if ARGUMENTS.kind == "conclave":
        good = run([Ours]) and good
        good = run([Restricted], ["--cors", "http://good.example"]) and good
    sys.exit(0 if good else 1)
