"""The JSON gateway, and the lock and election services behind it, as HTTP clients see them: streams, waiting calls whose
clients go, leases that end, and requests that no client means well.

usage: gateway_test.py --conclave PATH
"""

import argparse
import json
import pathlib
import random
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
from gateway import SECONDS_MAX, Stream, b64, post, prefix, request, unb64  # noqa: E402
from servers import Cluster, wait_for  # noqa: E402

CLUSTER = None
ARGS = None


def address():
    return CLUSTER.clients[0]


def call(path, fields, **more):
    return post(address(), path, fields, **more)


def ok(path, fields):
    status, body = call(path, fields)
    if status != 200:
        raise AssertionError(f"{path} {fields}: {status} {body}")
    return body


def lease(seconds=60):
    return ok("/v3/lease/grant", {"TTL": seconds})["ID"]


def keys_under(name):
    return [unb64(kv["key"]).decode() for kv in ok("/v3/kv/range", prefix(name)).get("kvs", [])]


class InBackground(threading.Thread):
    """A call that may wait."""

    def __init__(self, path, fields):
        super().__init__(daemon=True)
        self.path, self.fields, self.answer = path, fields, None
        self.start()

    def run(self):
        self.answer = call(self.path, self.fields)

    def result(self):
        self.join(SECONDS_MAX)
        if self.is_alive():
            raise AssertionError(f"{self.path} never ended")
        return self.answer


class GatewayTest(unittest.TestCase):
    def wait(self, condition, what):
        wait_for(condition, what, SECONDS_MAX)

    def still_serves(self):
        self.assertEqual(call("/v3/kv/range", {"key": b64("x")})[0], 200)
        self.assertIsNone(CLUSTER.dead())


class Streams(GatewayTest):
    def test_a_watch_stays_open_behind_the_end_of_its_request(self):
        with Stream(address(), "/v3/watch", {"create_request": {"key": b64("w/a")}}) as watch:
            self.assertTrue(watch.next()["result"]["created"])
            for number in range(3):
                ok("/v3/kv/put", {"key": b64("w/a"), "value": b64(str(number))})
                event = watch.next()["result"]["events"][0]
                self.assertEqual(unb64(event["kv"]["value"]), str(number).encode())

    def test_many_watches_at_once(self):
        streams = [Stream(address(), "/v3/watch", {"create_request": {"key": b64("w/many")}}) for _ in range(200)]
        for stream in streams:
            self.assertTrue(stream.next()["result"]["created"])
        ok("/v3/kv/put", {"key": b64("w/many"), "value": b64("x")})
        for stream in streams:
            self.assertEqual(len(stream.next()["result"]["events"]), 1)
            stream.close()

    def test_requests_go_on_while_answers_come(self):
        with socket.create_connection(address().split(":"), timeout=SECONDS_MAX) as peer:
            peer.sendall(b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            lines = peer.makefile("rb")

            def send(fields):
                text = json.dumps(fields).encode()
                peer.sendall(b"%x\r\n%s\r\n" % (len(text), text))

            def until(word):
                while True:
                    line = lines.readline()
                    self.assertTrue(line, f"{word} never came")
                    if word in line:
                        return json.loads(line)["result"]

            send({"create_request": {"key": b64("w/live"), "watch_id": "5"}})
            until(b'"created":true')
            send({"create_request": {"key": b64("w/live2"), "watch_id": "6"}})
            self.assertEqual(until(b'"created":true')["watch_id"], "6")
            send({"cancel_request": {"watch_id": "5"}})
            self.assertEqual(until(b'"canceled":true')["watch_id"], "5")

    def test_an_error_behind_good_requests_comes_last(self):
        status, _, body = request(address(), "POST", "/v3/lease/keepalive", '{"ID":"5"}{bad')
        self.assertEqual(status, 200)
        first, last = [json.loads(line) for line in body.splitlines()]
        self.assertEqual(first["result"]["ID"], "5")
        self.assertEqual(last["error"]["grpc_code"], 3)

    def test_a_deadline_ends_a_call(self):
        key = ok("/v3/lock/lock", {"name": b64("l/deadline"), "lease": lease()})["key"]
        status, body = call("/v3/lock/lock", {"name": b64("l/deadline"), "lease": lease()},
                            headers={"Grpc-Timeout": "300m"})
        self.assertEqual((status, body["code"], body["message"]), (504, 4, "context deadline exceeded"))
        self.wait(lambda: len(keys_under("l/deadline/")) == 1, "the waiter's key to go")
        ok("/v3/lock/unlock", {"key": key})


class Locks(GatewayTest):
    def test_one_at_a_time_in_the_order_of_coming(self):
        name = "l/order"
        held = ok("/v3/lock/lock", {"name": b64(name), "lease": lease()})["key"]
        waiting = []
        for count in range(2, 6):
            waiting.append(InBackground("/v3/lock/lock", {"name": b64(name), "lease": lease()}))
            self.wait(lambda: len(keys_under(name + "/")) == count, "a waiter to queue")
        for waiter in waiting:
            self.assertTrue(waiter.is_alive())
            ok("/v3/lock/unlock", {"key": held})
            status, body = waiter.result()
            self.assertEqual(status, 200, body)
            held = body["key"]
        ok("/v3/lock/unlock", {"key": held})
        self.assertEqual(keys_under(name + "/"), [])

    def test_who_goes_leaves_the_queue(self):
        name = "l/gone"
        held = ok("/v3/lock/lock", {"name": b64(name), "lease": lease()})["key"]
        waiter = socket.create_connection(address().split(":"), timeout=SECONDS_MAX)
        text = json.dumps({"name": b64(name), "lease": lease()}).encode()
        waiter.sendall(b"POST /v3/lock/lock HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        self.wait(lambda: len(keys_under(name + "/")) == 2, "the waiter to queue")
        waiter.close()
        self.wait(lambda: len(keys_under(name + "/")) == 1, "the waiter's key to go")
        ok("/v3/lock/unlock", {"key": held})

    def test_a_waiter_whose_lease_ends_hears_it_at_once(self):
        for path, name, text in (("/v3/lock/lock", "l/lease", "mutex: session is expired"),
                                 ("/v3/election/campaign", "e/lease", "election: session is expired")):
            ok(path, {"name": b64(name), "lease": lease()})
            mine = lease()
            waiter = InBackground(path, {"name": b64(name), "lease": mine})
            self.wait(lambda: len(keys_under(name + "/")) == 2, "the waiter to queue")
            began = time.monotonic()
            ok("/v3/lease/revoke", {"ID": mine})
            status, body = waiter.result()
            self.assertLess(time.monotonic() - began, 5)  # of a loaded machine; a tenth of a second else
            self.assertEqual((status, body["message"]), (500, text))

    def test_locking_again_with_the_same_lease_is_nothing_new(self):
        mine = lease()
        first = ok("/v3/lock/lock", {"name": b64("l/again"), "lease": mine})
        second = ok("/v3/lock/lock", {"name": b64("l/again"), "lease": mine})
        self.assertEqual(first["key"], second["key"])
        self.assertEqual(first["header"]["revision"], second["header"]["revision"])


class Elections(GatewayTest):
    def test_observers_hear_every_leader_and_that_there_is_none(self):
        name = "e/observed"
        with Stream(address(), "/v3/election/observe", {"name": b64(name)}) as observer:
            first = ok("/v3/election/campaign", {"name": b64(name), "lease": lease(), "value": b64("one")})["leader"]
            self.assertEqual(unb64(observer.next()["result"]["kv"]["value"]), b"one")
            for value in ("two", "three"):
                ok("/v3/election/proclaim", {"leader": first, "value": b64(value)})
                told = observer.next()["result"]["kv"]
                self.assertEqual((unb64(told["value"]).decode(), told["create_revision"]), (value, first["rev"]))
            second = InBackground("/v3/election/campaign", {"name": b64(name), "lease": lease(), "value": b64("four")})
            self.wait(lambda: len(keys_under(name + "/")) == 2, "the second candidate to queue")
            ok("/v3/election/resign", {"leader": first})
            self.assertEqual(unb64(observer.next()["result"]["kv"]["value"]), b"four")
            status, body = second.result()
            self.assertEqual(status, 200)
            status, refused = call("/v3/election/proclaim", {"leader": first, "value": b64("late")})
            self.assertEqual((status, refused["message"]), (500, "election: not leader"))
            ok("/v3/election/resign", {"leader": body["leader"]})
            self.assertEqual(observer.next()["result"]["kv"], {})


class Hostile(GatewayTest):
    def raw(self, data, seconds=SECONDS_MAX):
        """All that the server says to `data`, until it closes."""
        with socket.create_connection(address().split(":"), timeout=seconds) as peer:
            try:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := peer.recv(65536):
                    answer += piece
            except ConnectionError:
                answer = b""
            return answer

    def test_bodies_that_are_no_requests(self):
        deep = '{"x":' * 100_000
        for body in ("[", "[]", "5", '"x"', "null", "{", '{"key":}', '{"key":"\x00"}', '{"limit":1e400}',
                     '{"limit":-99999999999999999999999}', '{"key":"' + "A" * 65537, deep, "[" * 100_000,
                     '{"sort_order":99999999999}', '{"key":{"key":{"key":1}}}'):
            status, _, answer = request(address(), "POST", "/v3/kv/range", body.encode())
            self.assertEqual(status, 400, body[:60])
            self.assertEqual(json.loads(answer)["code"], 3, body[:60])
        status, _, answer = request(address(), "POST", "/v3/kv/range", b'{"key":"\xff\xfe"}')
        self.assertEqual(status, 400)
        self.still_serves()

    def test_random_bytes(self):
        rng = random.Random(7)
        alphabet = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"key", b"success", b"request_put", b"1", b"\\", b"\x00",
                    b"\xff", b" ", b"null", b"true"]
        for _ in range(300):
            body = b"".join(rng.choice(alphabet) for _ in range(rng.randrange(40)))
            path = rng.choice(["/v3/kv/txn", "/v3/kv/range", "/v3/lease/keepalive", "/v3/lock/unlock"])
            status, _, _ = request(address(), "POST", path, body)
            self.assertIn(status, (200, 400, 500), body)
        self.still_serves()

    def test_half_requests_and_lies(self):
        for data in (b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"key\"",
                     b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                     b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                     b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cre",
                     b"POST /v3/kv/put HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"):
            self.raw(data)
        self.still_serves()

    def test_a_body_without_end_is_refused(self):
        with socket.create_connection(address().split(":"), timeout=SECONDS_MAX) as peer:
            peer.sendall(b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            peer.sendall(b"8\r\n{\"key\":\"\r\n")
            piece = b"10000\r\n" + b"A" * 65536 + b"\r\n"
            try:
                for _ in range(1000):
                    peer.sendall(piece)
                self.fail("64 MB of one request were taken")
            except ConnectionError:
                pass
        self.still_serves()

    def test_too_large_messages_are_told_so(self):
        status, body = call("/v3/kv/put", {"key": b64("big"), "value": b64(b"x" * 1_600_000)})
        self.assertEqual((status, body["message"]), (400, "etcdserver: request is too large"))
        status, body = call("/v3/kv/put", {"key": b64("big"), "value": b64(b"x" * 2_500_000)})
        self.assertEqual((status, body["code"]), (429, 8))

    def test_headers_that_no_call_may_carry(self):
        for name in ("Authorization", "Token", "Grpc-Metadata-Token"):
            answer = self.raw(b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                              + name.encode() + b": \xff\xfe\r\n\r\n{}")
            self.assertIn(b" 400 ", answer.split(b"\r\n")[0])
        self.assertEqual(call("/v3/kv/range", {"key": b64("x")}, headers={"Grpc-Timeout": "soon"})[0], 400)
        self.still_serves()

    def test_requests_in_a_row_on_one_connection(self):
        text = json.dumps({"key": b64("x")}).encode()
        one = b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)
        with socket.create_connection(address().split(":"), timeout=SECONDS_MAX) as peer:
            peer.sendall(one * 50)
            answer = b""
            while answer.count(b"HTTP/1.1 200 OK") < 50 or not answer.endswith(b"}"):
                piece = peer.recv(65536)
                self.assertTrue(piece)
                answer += piece

    def test_a_watcher_that_reads_nothing_costs_little(self):
        value = b64(b"v" * 100_000)
        with socket.create_connection(address().split(":"), timeout=SECONDS_MAX) as peer:
            text = json.dumps({"create_request": {"key": b64("slow")}}).encode()
            peer.sendall(b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            self.assertIn(b" 200 ", peer.recv(4096))
            before = self.resident()
            for _ in range(200):
                ok("/v3/kv/put", {"key": b64("slow"), "value": value})
            # The history keeps the values; what the stream keeps besides is bounded.
            self.assertLess(self.resident() - before, 120 << 20)
        self.still_serves()

    def resident(self):
        text = pathlib.Path(f"/proc/{CLUSTER.processes[0].pid}/statm").read_text()
        return int(text.split()[1]) * 4096


class Browsers(GatewayTest):
    def test_origins_and_hosts(self):
        cluster = Cluster("conclave", ARGS.conclave,
                          flags=["--cors", "https://good.example", "--host-whitelist", "127.0.0.1,good.example"])
        self.addCleanup(cluster.stop)
        server = cluster.clients[0]
        for origin, allowed in (("https://good.example", "https://good.example"), ("https://bad.example", None)):
            status, headers, _ = request(server, "OPTIONS", "/v3/kv/range", headers={"Origin": origin})
            self.assertEqual((status, headers.get("access-control-allow-origin")), (200, allowed))
        self.assertEqual(request(server, "GET", "/version", headers={"Host": "evil.example"})[0], 421)
        self.assertEqual(request(server, "GET", "/version", headers={"Host": "good.example:2379"})[0], 200)


class OtherPorts(GatewayTest):
    def test_http_has_a_port_of_its_own(self):
        from servers import free_ports
        http_port, metrics_port = free_ports(2)
        cluster = Cluster("conclave", ARGS.conclave, flags=[
            "--listen-client-http-urls", f"http://127.0.0.1:{http_port}",
            "--listen-metrics-urls", f"http://127.0.0.1:{metrics_port}"])
        self.addCleanup(cluster.stop)
        self.assertEqual(post(f"127.0.0.1:{http_port}", "/v3/kv/range", {"key": b64("x")})[0], 200)
        with self.assertRaises((ConnectionError, OSError)):
            request(cluster.clients[0], "GET", "/version")
        for path, status in (("/metrics", 200), ("/health", 200), ("/livez", 200), ("/readyz", 200), ("/version", 404)):
            self.assertEqual(request(f"127.0.0.1:{metrics_port}", "GET", path)[0], status, path)


class OneConnection(GatewayTest):
    def test_concurrent_streams_are_bounded_for_all_calls_together(self):
        cluster = Cluster("conclave", ARGS.conclave, flags=["--max-concurrent-streams", "3"])
        self.addCleanup(cluster.stop)
        server = cluster.clients[0]
        streams = [Stream(server, "/v3/watch", {"create_request": {"key": b64("w")}}) for _ in range(3)]
        for stream in streams:
            self.assertTrue(stream.next()["result"]["created"])
        with self.assertRaises(TimeoutError):
            post(server, "/v3/kv/range", {"key": b64("w")}, seconds=1)
        streams.pop().close()
        self.assertEqual(post(server, "/v3/kv/range", {"key": b64("w")})[0], 200)
        for stream in streams:
            stream.close()


def main():
    global CLUSTER, ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--conclave", required=True)
    ARGS, rest = parser.parse_known_args()
    CLUSTER = Cluster("conclave", ARGS.conclave)
    try:
        done = unittest.main(argv=["gateway_test", "-v", *rest], exit=False)
    finally:
        CLUSTER.stop()
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
