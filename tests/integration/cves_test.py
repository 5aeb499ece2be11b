"""etcd's published vulnerabilities, as far as a server like it can have them: each one tried against a running server
of ours, in a test that bears its name.

usage: cves_test.py --messages FOLDER --conclave PATH
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import raw_http2 as h2  # noqa: E402
from gateway import b64, post, request  # noqa: E402
from pki import Authority  # noqa: E402
from servers import Cluster, Tls, free_ports, wait_for  # noqa: E402

ARGS = None
FOLDER = None
PATIENCE_SECONDS = 40
GROWTH_BYTES_MAX = 64 << 20

DENIED = "etcdserver: permission denied"
NOBODY = "etcdserver: user name is empty"


class Vulnerability(unittest.TestCase):
    def start(self, flags=(), tls=None):
        self.cluster = Cluster("conclave", ARGS.conclave, flags=["--bcrypt-cost", "4", *flags], tls=tls)
        self.addCleanup(self.cluster.stop)
        self.server = self.cluster.clients[0]

    def with_users(self, flags=(), tls=None):
        """ann may read and write a..., and read r."""
        self.start(flags, tls)
        self.nobody = Caller(self.cluster.channels[0])
        set_up_users(self.nobody)
        self.root, self.ann = self.nobody.log_in("root", "root"), self.nobody.log_in("ann", "ann")

    def refused(self, text, caller, method, **fields):
        self.assertEqual(caller.refusal(method, **fields), text, f"{method} {fields}")

    def resident(self):
        return int(pathlib.Path(f"/proc/{self.cluster.processes[0].pid}/statm").read_text().split()[1]) * 4096

    def still_serves(self):
        self.assertIsNone(self.cluster.dead())
        Caller(self.cluster.channels[0]).call("Range", key=b"x")

    def runs_into(self, *arguments):
        """Exit code and output of a server that is expected to end by itself."""
        client, peer = free_ports(2)
        done = subprocess.run(
            [ARGS.conclave, "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls",
             f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}", *map(str, arguments)],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        return done.returncode, done.stdout + done.stderr


class Browsers(Vulnerability):
    def test_cve_2018_1098_requests_across_sites(self):
        self.start(["--cors", "https://good.example", "--host-whitelist", "127.0.0.1"])
        for method, path in (("POST", "/v3/kv/put"), ("OPTIONS", "/v3/kv/put"), ("GET", "/version")):
            _, headers, _ = request(self.server, method, path, "{}", {"Origin": "https://evil.example"})
            self.assertNotIn("access-control-allow-origin", headers, path)

    def test_cve_2018_1099_dns_rebinding(self):
        self.start(["--host-whitelist", "127.0.0.1,localhost"])
        for path in ("/v3/kv/put", "/v3/kv/range", "/v3/auth/enable", "/v3/watch"):
            status, _, body = request(self.server, "POST", path, "{}", {"Host": "rebound.example"})
            self.assertEqual(status, 421, path)
        for path in ("/version", "/metrics", "/health"):
            self.assertEqual(request(self.server, "GET", path, headers={"Host": "rebound.example:80"})[0], 421, path)
        self.assertEqual(post(self.server, "/v3/kv/range", {"key": b64("k")})[0], 200)


class Gateway(Vulnerability):
    def test_cve_2018_16886_the_gateways_certificate_is_nobodys_identity(self):
        authority = Authority(tempfile.mkdtemp(dir=FOLDER), "ca")
        tls = Tls(authority, mutual=True, client="root")
        tls.server = authority.issue("root")  # the server's own certificate says root as well
        self.start(tls=tls)
        set_up_users(Caller(self.cluster.channels[0]))
        for path in ("/v3/kv/range", "/v3/kv/put", "/v3/auth/user/list", "/v3/auth/disable"):
            status, body = post(self.server, path, {"key": b64("a")}, context=tls.context())
            self.assertEqual((status, body["message"]), (400, NOBODY), path)


class Disk(Vulnerability):
    def damaged(self, damage):
        self.start()
        caller = Caller(self.cluster.channels[0])
        for number in range(50):
            caller.call("Put", key=b"k%d" % number, value=b"v" * 100)
        self.cluster.kill(0)
        files = sorted(f for f in self.cluster.data_dir(0).rglob("*") if f.is_file() and "wal" in str(f.parent))
        self.assertTrue(files, "no log was found")
        for file in files:
            raw = bytearray(file.read_bytes())
            damage(raw)
            file.write_bytes(raw)
        self.cluster.start(0)
        process = self.cluster.processes[0]

        def serves_or_has_ended():
            if process.poll() is not None or "ready to serve client requests" in self.cluster.log(0).read_text():
                return True
            if process.poll() is None:
                self.assertLess(self.resident(), 256 << 20)
            return False

        wait_for(serves_or_has_ended, "it to serve or to end", PATIENCE_SECONDS)
        # It serves what is whole, or ends with a line that says why: never by a signal.
        if process.poll() is not None:
            self.assertGreater(process.returncode, 0, self.cluster.log(0).read_text()[-500:])
            self.assertRegex(self.cluster.log(0).read_text(), "(?i)damage|corrupt|checksum|crc|not whole|torn")

    def test_cve_2020_15106_a_length_without_bounds_in_the_log(self):
        def lengths(raw):
            for at in range(64, min(len(raw), 4096) - 8, 97):
                raw[at:at + 8] = b"\xff\xff\xff\x7f\xff\xff\xff\x7f"
        self.damaged(lengths)

    def test_cve_2020_15112_an_index_that_is_far_away(self):
        def zeros_and_ends(raw):
            for at in range(32, min(len(raw), 4096) - 8, 61):
                raw[at:at + 8] = b"\0" * 7 + b"\x80"
        self.damaged(zeros_and_ends)

    def test_cve_2020_15113_a_data_directory_open_to_others(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=FOLDER))
        open_to_all = folder / "data"
        open_to_all.mkdir()
        open_to_all.chmod(0o777)
        code, said = self.runs_into("--data-dir", open_to_all)
        self.assertGreater(code, 0)
        self.assertIn(f"data directory {open_to_all} has mode 0777", said)
        open_to_all.chmod(0o700)
        self.start(["--data-dir", str(open_to_all)])
        kept = list(open_to_all.rglob("*"))
        self.assertTrue(kept)
        for path in kept:
            self.assertEqual(path.stat().st_mode & 0o077, 0, f"{path} is open to others")


class Passwords(Vulnerability):
    def test_cve_2020_15115_no_password_is_no_password(self):
        self.with_users()
        self.root.call("UserAdd", name="bob", options=auth_pb2.UserAddOptions(no_password=True))
        for name, password in (("ann", ""), ("bob", ""), ("root", ""), ("", "")):
            self.assertNotEqual(self.nobody.refusal("Authenticate", name=name, password=password), "", name)

    def test_cve_2021_28235_and_ghsa_528j_secrets_are_nowhere_to_be_read(self):
        secret = "correct-horse-battery-staple"
        self.start(["--log-level", "debug", "--enable-pprof"])
        nobody = Caller(self.cluster.channels[0])
        nobody.call("UserAdd", name="root", password=secret)
        nobody.call("UserGrantRole", user="root", role="root")
        nobody.call("AuthEnable")
        token = dict(nobody.log_in("root", secret).metadata)["token"]
        root = nobody.with_token(token)
        nobody.refusal("Authenticate", name="root", password=secret + "-wrong")
        root.call("UserChangePassword", name="root", password=secret + "-new")
        post(self.server, "/v3/auth/authenticate", {"name": "root", "password": secret + "-new"})
        post(self.server, "/v3/kv/range", {"key": b64("k")}, {"Authorization": token})
        pages = ["/debug/requests", "/debug/events", "/debug/vars", "/debug/pprof/", "/debug/pprof/cmdline", "/metrics",
                 "/version", "/health", "/config/local/log"]
        shown = b"".join(request(self.server, "GET", path)[2] for path in pages)
        shown += self.cluster.log(0).read_bytes()
        for file in self.cluster.data_dir(0).rglob("*"):
            if file.is_file():
                shown += file.read_bytes()
        self.assertNotIn(secret.encode(), shown)
        self.assertNotIn(token.encode(), shown)


class Permissions(Vulnerability):
    def setUp(self):
        self.with_users()
        self.lease = self.root.call("LeaseGrant", TTL=600).ID
        for key in (b"a1", b"r", b"secret"):
            self.root.call("Put", key=key, value=b"value of " + key, lease=self.lease)

    def put(self, key, **fields):
        return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=b"x", **fields))

    def test_cve_2023_32082_a_lease_does_not_tell_its_keys(self):
        self.refused(DENIED, self.ann, "LeaseTimeToLive", ID=self.lease, keys=True)
        self.assertEqual(list(self.ann.call("LeaseTimeToLive", ID=self.lease).keys), [])
        self.refused(DENIED, self.ann, "LeaseLeases")

    def test_cve_2026_33413_every_method_asks_who_is_there(self):
        open_to_all = {"Authenticate", "AuthStatus", "LeaseKeepAlive", "Watch", "Snapshot", "Observe", "RangeStream"}
        asked = 0
        for method in METHODS.values():
            if method.name in open_to_all:
                continue
            fields = {"key": b"a"} if "key" in method.request.DESCRIPTOR.fields_by_name else {}
            if method.name in ("Proclaim", "Resign"):
                fields = {"leader": election_pb2.LeaderKey(name=b"a", key=b"a/1", rev=1, lease=1)}
            if method.name in ("Lock", "Campaign"):
                fields = {"name": b"a", "lease": self.lease}
            if method.name == "Txn":
                fields = {"success": [self.put(b"a")]}
            if method.name in ("MemberAdd", "MemberUpdate"):
                fields = {"peerURLs": ["http://127.0.0.1:1"]}
            self.refused(NOBODY, self.nobody, method.name, **fields)
            asked += 1
        self.assertGreater(asked, 35)
        for method, fields in (("Compact", {"revision": 1}), ("MemberAdd", {"peerURLs": ["http://127.0.0.1:1"]}),
                               ("MemberUpdate", {"ID": 1, "peerURLs": ["http://127.0.0.1:1"]}),
                               ("MemberRemove", {"ID": 1}), ("MemberPromote", {"ID": 1}),
                               ("Alarm", {"action": 1, "alarm": 1}), ("Alarm", {"action": 2}), ("Defragment", {}),
                               ("Hash", {}), ("HashKV", {}), ("MoveLeader", {"targetID": 1}), ("Downgrade", {}),
                               ("UserList", {}), ("RoleList", {}), ("UserAdd", {"name": "eve", "password": "e"}),
                               ("UserDelete", {"name": "root"}), ("RoleAdd", {"name": "eve"}), ("AuthDisable", {}),
                               ("UserChangePassword", {"name": "root", "password": "eve"}),
                               ("UserGrantRole", {"user": "ann", "role": "root"}), ("LeaseRevoke", {"ID": self.lease})):
            self.refused(DENIED, self.ann, method, **fields)

    def test_cve_2026_33413_streams_ask_too(self):
        watch = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"a"))
        for caller, method, first in ((self.nobody, "Watch", watch),
                                      (self.nobody, "LeaseKeepAlive", rpc_pb2.LeaseKeepAliveRequest(ID=self.lease)),
                                      (self.ann, "LeaseKeepAlive", rpc_pb2.LeaseKeepAliveRequest(ID=self.lease)),
                                      (self.nobody, "Snapshot", rpc_pb2.SnapshotRequest()),
                                      (self.ann, "Snapshot", rpc_pb2.SnapshotRequest()),
                                      (self.nobody, "RangeStream", rpc_pb2.RangeRequest(key=b"a")),
                                      (self.ann, "RangeStream", rpc_pb2.RangeRequest(key=b"secret"))):
            stream = caller.stream(method, first)
            try:
                answer = next(stream)
                self.assertTrue(getattr(answer, "canceled", False), f"{method}: {answer}")
                self.assertEqual(len(answer.events), 0)
            except grpc.RpcError as error:
                self.assertIn(error.details(), (DENIED, NOBODY), method)
            stream.cancel()

    def test_cve_2026_33343_transactions_within_transactions(self):
        secret = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"secret"))
        for inner in (secret, self.put(b"secret"),
                      rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"secret"))):
            op = inner
            for _ in range(4):
                for branch in ("success", "failure"):
                    self.refused(DENIED, self.ann, "Txn", **{branch: [op]})
                op = rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(success=[op]))
        compare = rpc_pb2.Compare(key=b"secret", target=rpc_pb2.Compare.VALUE, value=b"guess")
        self.refused(DENIED, self.ann, "Txn", compare=[compare])
        self.refused(DENIED, self.ann, "Txn", success=[rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(
            compare=[compare]))])

    def test_cve_2026_44283_what_a_put_in_a_transaction_gives_back_and_takes(self):
        self.root.call("RoleGrantPermission", name="some",
                       perm=auth_pb2.Permission(permType=auth_pb2.Permission.WRITE, key=b"w"))
        self.root.call("Put", key=b"w", value=b"not to be read")
        self.ann = self.nobody.log_in("ann", "ann")
        self.refused(DENIED, self.ann, "Put", key=b"w", prev_kv=True)
        self.refused(DENIED, self.ann, "Txn", success=[self.put(b"w", prev_kv=True)])
        self.refused(DENIED, self.ann, "DeleteRange", key=b"w", prev_kv=True)
        self.refused(DENIED, self.ann, "Txn", success=[rpc_pb2.RequestOp(
            request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"w", prev_kv=True))])
        # The lease holds a key that ann may not write: with her key on it, she could keep that one alive.
        self.refused(DENIED, self.ann, "Put", key=b"a1", lease=self.lease)
        self.refused(DENIED, self.ann, "Txn", success=[self.put(b"a1", lease=self.lease)])
        self.refused("", self.ann, "Txn", success=[self.put(b"w")])

    def test_cve_2026_73499_open_ends(self):
        for key, end in ((b"a", b"\0"), (b"\0", b"\0"), (b"", b"\0"), (b"", b""), (b"a", b"c"), (b"s", b"t"),
                         (b"secret", b"")):
            create = rpc_pb2.WatchCreateRequest(key=key, range_end=end, start_revision=1)
            answer = next(self.ann.stream("Watch", rpc_pb2.WatchRequest(create_request=create)))
            self.assertTrue(answer.canceled, f"{key} {end}")
            self.assertEqual(len(answer.events), 0)
            if key:
                self.refused(DENIED, self.ann, "Range", key=key, range_end=end)
                self.refused(DENIED, self.ann, "DeleteRange", key=key, range_end=end)


class Connections(Vulnerability):
    def test_cve_2026_59818_revocations_count_on_every_port(self):
        authority = Authority(tempfile.mkdtemp(dir=FOLDER), "ca")
        tls = Tls(authority, mutual=True)
        revoked = authority.issue("revoked")
        http_port = free_ports(1)[0]
        authority.revoke(revoked[0])
        self.start(["--client-crl-file", str(authority.crl), "--listen-client-http-urls",
                    f"https://127.0.0.1:{http_port}"], tls=tls)
        with self.assertRaises(Exception) as failed:
            Caller(self.cluster.channel(client=revoked)).call("Range", key=b"k", seconds=10)
        self.assertEqual(failed.exception.code, "UNAVAILABLE")
        address = f"127.0.0.1:{http_port}"
        self.assertEqual(post(address, "/v3/kv/range", {"key": b64("k")}, context=tls.context())[0], 200)
        with self.assertRaises(OSError):
            post(address, "/v3/kv/range", {"key": b64("k")}, context=tls.context(revoked))
        self.still_serves()

    def test_cve_2026_73500_handshakes_have_an_end(self):
        self.start(tls=Tls(Authority(tempfile.mkdtemp(dir=FOLDER), "ca")))
        host, port = self.server.split(":")
        before = self.resident()
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection((host, port), timeout=PATIENCE_SECONDS))
                      for _ in range(300)]
            self.still_serves()
            for peer in silent:  # each is cut by the server
                with contextlib.suppress(ConnectionError):
                    self.assertEqual(peer.recv(1), b"")
        self.assertLess(self.resident() - before, GROWTH_BYTES_MAX)
        self.still_serves()

    def test_ghsa_5x4g_old_protocols_and_weak_ciphers(self):
        self.start(tls=Tls(Authority(tempfile.mkdtemp(dir=FOLDER), "ca")))
        host, port = self.server.split(":")
        weak = [("TLSv1", None), ("TLSv1_1", None)]
        weak += [("TLSv1_2", suites) for suites in ("RC4", "3DES", "NULL:eNULL", "aNULL", "EXPORT", "MD5")]
        for version, suites in weak:
            context = ssl._create_unverified_context()
            try:
                context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
                context.set_ciphers(f"{suites or 'ALL'}:@SECLEVEL=0")
            except ssl.SSLError:
                continue  # this library has forgotten them
            with self.assertRaises(OSError, msg=f"{version} {suites}"), \
                    socket.create_connection((host, port), timeout=PATIENCE_SECONDS) as raw:
                context.wrap_socket(raw)
        self.still_serves()

    def test_ghsa_9gp7_and_pm3m_negative_numbers(self):
        for flag, value in (("--auto-compaction-retention", "-1"), ("--snapshot-count", "-1"),
                            ("--max-txn-ops", "-1"), ("--heartbeat-interval", "-1"), ("--max-request-bytes", "-1"),
                            ("--bcrypt-cost", "-1"), ("--auth-token-ttl", "-1")):
            data = tempfile.mkdtemp(dir=FOLDER)
            code, said = self.runs_into("--data-dir", data, flag, value)
            self.assertGreater(code, 0, f"{flag}: {said}")
            self.assertIn(flag.lstrip("-"), said)

    def test_cve_2023_44487_rapid_resets(self):
        self.start()
        before = self.resident()
        block = h2.grpc_headers("/etcdserverpb.KV/Range")
        with h2.Connection(self.server) as attacker:
            stream = 1
            with contextlib.suppress(OSError):  # it may be sent away
                for _ in range(500):
                    attacker.send(b"".join(
                        h2.frame(h2.HEADERS, h2.END_HEADERS, stream + 2 * i, block)
                        + h2.frame(h2.RESET, 0, stream + 2 * i, b"\0\0\0\x08") for i in range(100)))
                    stream += 200
            self.still_serves()
        self.assertLess(self.resident() - before, GROWTH_BYTES_MAX)

    def test_cve_2023_45288_headers_without_end(self):
        self.start()
        before = self.resident()
        for piece in (h2.headers([("x-filler", "y" * 8000)]), b"", b"\x40"):
            with h2.Connection(self.server) as attacker:
                with contextlib.suppress(OSError):
                    attacker.send(h2.frame(h2.HEADERS, 0, 1, h2.grpc_headers("/etcdserverpb.KV/Range")))
                    for _ in range(3000):
                        attacker.send(h2.frame(h2.CONTINUATION, 0, 1, piece) * 4)
                attacker.socket.settimeout(PATIENCE_SECONDS)
                with contextlib.suppress(OSError):
                    attacker.socket.shutdown(socket.SHUT_WR)
                attacker.until_closed()
            self.assertLess(self.resident() - before, GROWTH_BYTES_MAX)
        self.still_serves()

    def test_cve_2026_33186_a_path_without_its_slash(self):
        self.with_users()
        for path in ("", "etcdserverpb.KV/Range", "//etcdserverpb.KV/Range", "/etcdserverpb.KV//Range", "/etcdserverpb.KV",
                     "/etcdserverpb.kv/range", "*", "/", "/etcdserverpb.KV/Range/", "/etcdserverpb.KV/Range?x"):
            with h2.Connection(self.server) as peer:
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers(path))
                          + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"\x0a\x06secret")))
                self.assertNotIn(b"secret", peer.answer(1), path)
        self.refused(NOBODY, self.nobody, "Range", key=b"secret")
        self.assertIsNone(self.cluster.dead())


def main():
    global ARGS, FOLDER, Caller, METHODS, set_up_users, auth_pb2, election_pb2, rpc_pb2
    parser = argparse.ArgumentParser()
    for name in ("--messages", "--conclave"):
        parser.add_argument(name, required=True)
    ARGS, rest = parser.parse_known_args()
    ARGS.conclave = os.path.abspath(ARGS.conclave)
    sys.path.insert(0, ARGS.messages)
    from conclave.api import auth_pb2, election_pb2, rpc_pb2
    from protocol import METHODS, Caller, set_up_users
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    FOLDER = tempfile.mkdtemp(prefix="conclave-cves-")
    try:
        done = unittest.main(argv=["cves_test", "-v", *rest], exit=False)
    finally:
        shutil.rmtree(FOLDER)
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
