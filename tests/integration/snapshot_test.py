"""Snapshots between Debian's etcd and us, both ways: what one saves the other restores and serves, with the history of
every key and with its leases.

usage: snapshot_test.py --etcdctl PATH --etcd PATH --conclave PATH
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from pki import Authority  # noqa: E402
from servers import Cluster, Tls  # noqa: E402

SECONDS_MAX = 90
BUMP_DEFAULT = 1_000_000_000
ARGUMENTS = None
ENVIRONMENT = {**os.environ, "ETCDCTL_API": "3"}


def run(*command, stdin="", ok=True, environment=None):
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True,
                          env={**ENVIRONMENT, **(environment or {})}, timeout=SECONDS_MAX, check=False)
    if ok and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def ctl(cluster, *arguments, **options):
    return run(ARGUMENTS.etcdctl, "--endpoints", cluster.clients[0], *arguments, **options).stdout


def conclave(*arguments, **options):
    return run(ARGUMENTS.conclave, "snapshot", *arguments, **options)


def fill(cluster):
    """Some of everything; gives the compact revision."""
    for ttl, lease in (("600", 0x1234), ("900", 0x7000000000000001)):
        # etcdctl chooses the ids of leases itself.
        cluster.unary("/etcdserverpb.Lease/LeaseGrant")(b"\x08" + varint(int(ttl)) + b"\x10" + varint(lease))
    for i in range(40):
        ctl(cluster, "put", f"key{i % 15:02}", f"value {i}")
    ctl(cluster, "put", "leased/1", "x", "--lease=1234")
    ctl(cluster, "put", "leased/2", "y", "--lease=7000000000000001")
    ctl(cluster, "put", "leased/3", "z", "--lease=1234")
    ctl(cluster, "put", "large", stdin="l" * 300_000)
    ctl(cluster, "del", "key01", "key03")
    ctl(cluster, "txn", stdin='version("key05") > "0"\n\nput a 1\nput b 2\ndel key06\n\nput c 3\n\n')
    compacted = json.loads(ctl(cluster, "get", "a", "-w", "json"))["header"]["revision"] - 20
    ctl(cluster, "compaction", str(compacted), "--physical")
    ctl(cluster, "put", "key01", "again")
    ctl(cluster, "put", "a", "3", "--lease=1234")
    return compacted


def varint(number):
    encoded = b""
    while number >= 0x80:
        encoded += bytes([number & 0x7f | 0x80])
        number >>= 7
    return encoded + bytes([number])


def revision_of(cluster):
    return json.loads(ctl(cluster, "get", "absent", "-w", "json"))["header"]["revision"]


def keys_at(cluster, revision):
    return json.loads(ctl(cluster, "get", "", "--from-key", f"--rev={revision}", "-w", "json")).get("kvs", [])


def history(cluster, compacted):
    return {revision: keys_at(cluster, revision) for revision in range(compacted, revision_of(cluster) + 1)}


def leases(cluster):
    """What was granted, with the keys; what is left is no property of a file."""
    found = {}
    for line in ctl(cluster, "lease", "list").splitlines()[1:]:
        shown = json.loads(ctl(cluster, "lease", "timetolive", line, "--keys", "-w", "json"))
        found[line] = (shown["granted-ttl"], sorted(shown["keys"] or []))
        assert 0 < shown["ttl"] <= shown["granted-ttl"], shown
    return found


class Snapshots(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="conclave-test-snapshot-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def cluster(self, name, binary, members=1, prepare=None, tls=None):
        started = Cluster(name, binary, members, prepare, tls=tls)
        self.addCleanup(started.stop)
        return started

    def restored(self, file, *flags, members=1, by_etcd=False):
        """A cluster on what a snapshot holds."""
        tool = [ARGUMENTS.etcdctl, "snapshot"] if by_etcd else [ARGUMENTS.conclave, "snapshot"]

        def prepare(cluster, member):
            run(*tool, "restore", file, "--name", f"m{member}", "--data-dir", cluster.data_dir(member),
                "--initial-cluster", cluster.initial_cluster,
                "--initial-advertise-peer-urls", cluster.peers[member], *flags)
        return self.cluster("restored", ARGUMENTS.etcd if by_etcd else ARGUMENTS.conclave, members, prepare)

    def check_status(self, file):
        for form in ("json", "simple", "table"):
            theirs = run(ARGUMENTS.etcdctl, "snapshot", "status", file, "-w", form).stdout
            ours = conclave("status", file, "-w", form).stdout
            if form == "json":
                shown = json.loads(ours)
                shown.pop("version")
                self.assertEqual(shown, json.loads(theirs))
            elif "3." not in ours.splitlines()[-1 if form == "simple" else 3]:
                self.assertEqual(ours, theirs)
            else:  # our files tell the storage's version as well, of which this etcdctl knows nothing
                for part in theirs.replace("|", ",").split("\n")[0 if form == "simple" else 3].split(","):
                    self.assertIn(part.strip(), ours)

    def test_what_etcd_saves_is_served_by_us(self):
        etcd = self.cluster("etcd", ARGUMENTS.etcd)
        compacted = fill(etcd)
        file = self.folder / "etcd.db"
        self.assertIn(f"Snapshot saved at {file}", conclave("save", file, "--endpoints", etcd.clients[0]).stdout)
        self.check_status(file)
        was, held = history(etcd, compacted), leases(etcd)
        self.assertEqual(len(held), 2)
        ours = self.restored(file, "--bump-revision=0")
        self.assertEqual(history(ours, compacted), was)
        self.assertEqual(leases(ours), held)
        self.assertIn("compacted", run(ARGUMENTS.etcdctl, "--endpoints", ours.clients[0], "get", "a",
                                       f"--rev={compacted - 1}", ok=False).stderr)
        # It goes on from there, and starts again.
        ctl(ours, "put", "after", "restore")
        self.assertEqual(revision_of(ours), max(was) + 1)
        ours.kill(0)
        ours.start(0)
        ours.wait(0)
        self.assertEqual(keys_at(ours, max(was)), was[max(was)])

        # The file of a member that was stopped has no hash.
        etcd.kill(0)
        raw = self.folder / "raw.db"
        shutil.copy(etcd.data_dir(0) / "member" / "snap" / "db", raw)
        refused = conclave("restore", raw, "--data-dir", self.folder / "refused", ok=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("Error: snapshot missing hash but --skip-hash-check=false", refused.stderr)
        raw_served = self.restored(raw, "--skip-hash-check", "--bump-revision", "0")
        self.assertEqual(history(raw_served, compacted), was)

    def test_what_we_save_is_served_by_etcd(self):
        ours = self.cluster("conclave", ARGUMENTS.conclave)
        file = self.folder / "empty.db"
        conclave("save", file, f"--endpoints={ours.clients[0]}")
        self.check_status(file)
        compacted = fill(ours)
        file = self.folder / "conclave.db"
        self.assertIn("Snapshot saved at", ctl(ours, "snapshot", "save", str(file)))
        self.check_status(file)
        was, held = history(ours, compacted), leases(ours)
        etcd = self.restored(file, by_etcd=True)
        self.assertEqual(history(etcd, compacted), was)
        self.assertEqual(leases(etcd), held)
        ctl(etcd, "put", "after", "restore")
        self.assertEqual(revision_of(etcd), max(was) + 1)
        # The hash of everything is the same, too, seen by etcd and by us.
        again = self.restored(file, "--bump-revision=0")
        ctl(again, "put", "after", "restore")
        hashes = [json.loads(ctl(cluster, "endpoint", "hashkv", "-w", "json"))[0]["HashKV"]["hash"]
                  for cluster in (etcd, again)]
        self.assertEqual(hashes[0], hashes[1])

    def test_the_revision_is_raised_and_the_rest_compacted_unless_told_otherwise(self):
        ours = self.cluster("conclave", ARGUMENTS.conclave)
        fill(ours)
        file = self.folder / "conclave.db"
        ctl(ours, "snapshot", "save", str(file))
        revision, keys = revision_of(ours), keys_at(ours, 0)
        raised = self.restored(file, members=3)
        self.assertEqual(revision_of(raised), revision + BUMP_DEFAULT)
        for client in raised.clients:
            shown = run(ARGUMENTS.etcdctl, "--endpoints", client, "get", "", "--from-key", "-w", "json").stdout
            self.assertEqual(json.loads(shown)["kvs"], keys)
        self.assertIn("compacted", run(ARGUMENTS.etcdctl, "--endpoints", raised.clients[0], "get", "a",
                                       f"--rev={revision}", ok=False).stderr)
        ctl(raised, "put", "a", "4")
        self.assertEqual(revision_of(raised), revision + BUMP_DEFAULT + 1)
        # And through etcd, which has to come to the same revision.
        file = self.folder / "raised.db"
        ctl(raised, "snapshot", "save", str(file))
        etcd = self.restored(file, by_etcd=True)
        self.assertEqual(revision_of(etcd), revision + BUMP_DEFAULT + 1)
        self.assertEqual(keys_at(etcd, 0), keys_at(raised, 0))

    def test_ranges_and_snapshots_come_as_streams(self):
        ours = self.cluster("conclave", ARGUMENTS.conclave)
        put = ours.unary("/etcdserverpb.KV/Put")
        for i in range(100):
            put(b"\x0a\x05key%02d\x12" % i + varint(100_000) + b"v" * 100_000)
        every_key = b"\x0a\x01\x00\x12\x01\x00"
        ranges = ours.channels[0].unary_stream("/etcdserverpb.KV/RangeStream")
        chunks = list(ranges(every_key))
        self.assertGreater(len(chunks), 3)
        self.assertEqual(sum(chunk.count(b"\x0a\x05key") for chunk in chunks), 100)
        self.assertLess(max(map(len, chunks)), 5 << 20)
        self.assertEqual(chunks[0].count(b"\x0a\x05key"), 10)
        with self.assertRaises(grpc.RpcError) as refused:
            list(ranges(every_key + b"\x28\x02"))  # sort_order: DESCEND
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertEqual(refused.exception.details(), "RangeStream does not support custom sort orders")
        # A client that goes away in the midst of it does no harm.
        snapshots = ours.channels[0].unary_stream("/etcdserverpb.Maintenance/Snapshot")
        for stream in (ranges(every_key), snapshots(b"")):
            next(stream)
            stream.cancel()
        self.assertGreater(sum(map(len, snapshots(b""))), 100 * 100_000)

    def test_users_and_roles_go_along(self):
        for binary, by_etcd in ((ARGUMENTS.etcd, False), (ARGUMENTS.conclave, True)):
            source = self.cluster("auth", binary)
            ctl(source, "put", "a", "1")
            for command in ("user add root:secret", "user add reader:word", "role add root", "role add looks",
                            "role grant-permission looks read a", "user grant-role root root",
                            "user grant-role reader looks", "auth enable"):
                ctl(source, *command.split())
            file = self.folder / f"auth-{by_etcd}.db"
            ctl(source, "--user=root:secret", "snapshot", "save", str(file))
            flags = () if by_etcd else ("--bump-revision=0",)
            served = self.restored(file, *flags, by_etcd=by_etcd)
            self.assertEqual(ctl(served, "--user=reader:word", "get", "a").split(), ["a", "1"])
            for arguments in (("get", "a"), ("--user=reader:word", "put", "a", "2"),
                              ("--user=reader:wrong", "get", "a")):
                self.assertNotEqual(run(ARGUMENTS.etcdctl, "--endpoints", served.clients[0], *arguments,
                                        ok=False).returncode, 0, arguments)
            self.assertEqual(ctl(served, "--user=root:secret", "user", "list").split(), ["reader", "root"])

    def test_our_own_tool_saves_over_tls_and_as_a_user(self):
        """From both servers, over TLS, over mutual TLS, and where users are looked at."""
        authority, other = Authority(self.folder, "authority"), Authority(self.folder, "other")
        for number, (kind, mutual) in enumerate((kind, mutual) for kind in ("etcd", "conclave") for mutual in (False, True)):
            tls = Tls(authority, mutual)
            source = self.cluster(kind, getattr(ARGUMENTS, kind), tls=tls)
            mine = ["--cert", tls.client[0], "--key", tls.client[1]] if mutual else []
            secure = ["--endpoints", source.clients[0], "--cacert", authority.cert, *mine]
            lines = [f"--endpoints={source.endpoints}", "--cacert", authority.cert, *mine]
            run(ARGUMENTS.etcdctl, *lines, "put", "a", "1")
            file = self.folder / f"tls-{number}.db"
            self.assertIn(f"Snapshot saved at {file}", conclave("save", file, *secure).stdout)
            self.assertEqual(json.loads(conclave("status", file, "-w", "json").stdout)["revision"], 2)
            # Nobody is believed whom another authority has vouched for, and no client without a certificate served.
            stranger = ["--endpoints", source.clients[0], "--cacert", other.cert, *mine]
            for wrong in [stranger, *([secure[:-4]] if mutual else [])]:
                refused = conclave("save", self.folder / "refused.db", *wrong, ok=False)
                self.assertEqual(refused.returncode, 1, wrong)
                self.assertFalse((self.folder / "refused.db").exists())
            trusting = ["--endpoints", source.clients[0], "--insecure-skip-tls-verify", *mine]
            conclave("save", self.folder / f"trusting-{number}.db", *trusting)

            for command in ("user add root:secret", "user add reader:word", "role add root",
                            "user grant-role root root", "auth enable"):
                run(ARGUMENTS.etcdctl, *lines, *command.split())
            for who in (["--user", "root:secret"], ["--user", "root", "--password", "secret"]):
                file = self.folder / f"user-{number}-{len(who)}.db"
                self.assertIn("Snapshot saved", conclave("save", file, *secure, *who).stdout)
                self.assertGreaterEqual(json.loads(conclave("status", file, "-w", "json").stdout)["totalKey"], 1)
            for who, says in ((["--user", "root:wrong"], "authentication failed"),
                              (["--user", "reader:word"], "permission denied"),
                              # With a certificate, its name is a user's whom nobody has made: in whatever words.
                              ([], "" if mutual else "user name is empty")):
                refused = conclave("save", self.folder / "refused.db", *secure, *who, ok=False)
                self.assertEqual(refused.returncode, 1, who)
                self.assertIn(says, refused.stderr)
                self.assertFalse((self.folder / "refused.db").exists())
            unfinished = conclave("save", self.folder / "refused.db", *secure, "--user", "root", ok=False)
            self.assertEqual(unfinished.returncode, 2)
            self.assertIn("a password is missing", unfinished.stderr)
            by_environment = {"ETCDCTL_CACERT": str(authority.cert), "ETCDCTL_ENDPOINTS": source.clients[0],
                              "ETCDCTL_USER": "root:secret"}
            if mutual:
                by_environment |= {"ETCDCTL_CERT": str(tls.client[0]), "ETCDCTL_KEY": str(tls.client[1])}
            conclave("save", self.folder / f"environment-{number}.db", environment=by_environment)
            source.stop()

    def test_refuses_what_would_do_harm(self):
        ours = self.cluster("conclave", ARGUMENTS.conclave)
        ctl(ours, "put", "a", "1")
        file = self.folder / "conclave.db"
        ctl(ours, "snapshot", "save", str(file))
        there = self.folder / "there"
        conclave("restore", file, "--data-dir", there)
        again = conclave("restore", file, "--data-dir", there, ok=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("not empty or could not be read", again.stderr)

        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        wrong = conclave("restore", file, "--data-dir", self.folder / "wrong", ok=False)
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("Error: expected sha256", wrong.stderr)
        self.assertFalse((self.folder / "wrong").exists())
        for flags in (("--bump-revision=5", "--mark-compacted=false"), ("--bump-revision=0", "--mark-compacted"),
                      ("--bump-revision=x",), ("--no-such-flag=1",)):
            self.assertEqual(conclave("restore", file, "--data-dir", self.folder / "wrong", *flags, ok=False).returncode,
                             2, flags)
        self.assertEqual(conclave("status", self.folder / "absent", ok=False).returncode, 1)


def main():
    global ARGUMENTS
    parser = argparse.ArgumentParser()
    for name in ("--etcdctl", "--etcd", "--conclave"):
        parser.add_argument(name, required=True)
    ARGUMENTS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
