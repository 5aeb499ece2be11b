"""Go's clientv3 (Debian's) and our recipes, on one cluster: mutexes exclude each other, elections follow each other,
and each side finds the endpoints that the other has registered. Against our server and against etcd.

usage: go_client_test.py --messages FOLDER --go-client PATH --conclave PATH --etcd PATH --bin FOLDER
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from pki import Authority  # noqa: E402
from servers import Cluster, Tls  # noqa: E402

SECONDS_MAX = 30
ARGS = None
GREET = "/conclave.examples.Greeter/Greet"


def range_count(cluster, prefix):
    """How many keys begin with `prefix`, by a raw RangeRequest{key, range_end, count_only}."""
    key = prefix.encode()
    end = key[:-1] + bytes([key[-1] + 1])
    request = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(end)]) + end + b"\x48\x01"
    answer = cluster.unary("/etcdserverpb.KV/Range")(request, timeout=5)
    # RangeResponse.count: field 4, the last one; absent when it is zero. Small here.
    return answer[-1] if answer[-2:-1] == b"\x20" else 0


class Process:
    """A program that talks by lines."""

    def __init__(self, *command, environment=None):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=self.errors, bufsize=1,
                                        env={**os.environ, **(environment or {})})

    def expect(self, word):
        """The next line that has `word`."""
        seen = []
        alarm = threading.Timer(SECONDS_MAX, self.process.kill)
        alarm.start()
        try:
            for line in self.process.stdout:
                seen.append(line)
                if word in line:
                    return line.strip()
        finally:
            alarm.cancel()
        raise AssertionError(f"{word!r} never came: {''.join(seen)} {self.complaints()}")

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self):
        out, _ = self.process.communicate(timeout=SECONDS_MAX)
        if self.process.returncode != 0:
            raise AssertionError(f"exit code {self.process.returncode}: {out} {self.complaints()}")
        return out

    def complaints(self):
        self.errors.seek(0)
        return self.errors.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=SECONDS_MAX)
        self.process.stdout.close()
        self.process.stdin.close()
        self.errors.close()


def number(line):
    return int(line.split()[-1])


class WithGo:
    """The tests, for a cluster of either kind."""

    def go(self, command, *arguments):
        process = Process(ARGS.go_client, command, self.cluster.endpoints, *arguments)
        self.addCleanup(process.stop)
        return process

    def example(self, program, *arguments):
        process = Process(pathlib.Path(ARGS.bin) / "examples" / program, "--endpoints", self.cluster.endpoints,
                          *arguments)
        self.addCleanup(process.stop)
        return process

    def wait_for_keys(self, prefix, count):
        deadline = time.monotonic() + SECONDS_MAX
        while range_count(self.cluster, prefix) != count:
            self.assertLess(time.monotonic(), deadline, f"{prefix} never had {count} keys")

    def test_kv_watch_and_leases(self):
        self.assertEqual(self.go("kv").finish(), "ok\n")

    def test_our_lock_waits_for_theirs(self):
        theirs = self.go("lock", "locks/go-first")
        held_at = number(theirs.expect("locked"))
        ours = self.example("lock_demo", "--name", "locks/go-first", "--rounds", "1", "--holder", "us")
        self.wait_for_keys("locks/go-first/", 2)
        self.assertIsNone(ours.process.poll())
        theirs.go_on()
        theirs.expect("unlocked")
        token = int(ours.expect("token").split("token")[1].split()[0].strip(":,"))
        self.assertGreater(token, held_at - 1)
        ours.finish()

    def test_their_lock_waits_for_ours(self):
        ours = self.example("lock_demo", "--name", "locks/we-first", "--rounds", "1", "--hold", "1s")
        token = int(ours.expect("token").split("token")[1].split()[0].strip(":,"))
        theirs = self.go("lock", "locks/we-first")
        self.assertGreater(number(theirs.expect("locked")), token)
        self.assertEqual(range_count(self.cluster, "locks/we-first/"), 1)
        theirs.go_on()
        theirs.expect("unlocked")
        ours.finish()

    def test_a_mixed_fleet_loses_no_update(self):
        rounds = 15
        fleet = [self.go("count", "locks/fleet", rounds) for _ in range(3)]
        for _ in range(3):
            worker = Process(pathlib.Path(ARGS.bin) / "tests" / "lock_worker", self.cluster.endpoints, "locks/fleet",
                             "count", rounds)
            self.addCleanup(worker.stop)
            fleet.append(worker)
        self.assertEqual(max(number(member.expect("counted")) for member in fleet), 6 * rounds)
        for member in fleet:
            member.finish()

    def test_leaders_follow_each_other(self):
        observer = self.go("observe", "elections/mixed")
        theirs = self.go("campaign", "elections/mixed", "go")
        theirs.expect("leader")
        self.assertEqual(observer.expect("go"), "go")
        ours = self.example("election_demo", "--name", "elections/mixed", "--id", "us", "--ttl", "5s")
        self.wait_for_keys("elections/mixed/", 2)
        theirs.go_on()
        theirs.expect("resigned")
        ours.expect("leads, term")
        self.assertEqual(observer.expect("us"), "us")
        second = self.go("campaign", "elections/mixed", "go-again")
        self.wait_for_keys("elections/mixed/", 2)
        ours.stop()
        second.expect("leader")
        self.assertEqual(observer.expect("go-again"), "go-again")

    def test_a_mixed_fleet_leads_in_the_order_of_its_coming(self):
        name = "elections/fleet"
        observer = self.go("observe", name)
        waiting = []

        def join(who):
            if who.startswith("go"):
                process = self.go("campaign", name, who)
            else:
                process = self.example("election_demo", "--name", name, "--id", who, "--ttl", "10s")
            waiting.append((who, process))
            self.wait_for_keys(f"{name}/", len(waiting))

        for who in ("go-1", "us-1", "go-2", "us-2"):
            join(who)
        last_term = 0
        for turn in range(8):
            who, process = waiting.pop(0)
            go = who.startswith("go")
            line = process.expect("leader " if go else "leads, term")
            term = number(line) if go else int(line.split()[-1])
            self.assertGreater(term, last_term)
            last_term = term
            self.assertEqual(observer.expect(who), who)
            self.assertEqual(range_count(self.cluster, f"{name}/"), len(waiting) + 1)
            if go:
                process.go_on()
                process.expect("resigned")
            else:
                process.stop()
            if turn < 4:
                join(f"{who}-again")

    def test_go_finds_and_calls_what_we_registered(self):
        servers = [self.example("greeter_server", "--service", "from-us", "--listen", "127.0.0.1:0")
                   for _ in range(2)]
        addresses = sorted(s.expect("listening on").split()[-1] for s in servers)
        for server in servers:
            server.expect("registered")
        found = [line.split()[1] for line in self.go("endpoints", "from-us").finish().splitlines()]
        self.assertEqual(found, addresses)
        answered = self.go("call", "from-us", GREET, 20).finish().split()
        self.assertEqual(sorted(set(answered)), addresses)
        self.assertEqual(len(answered), 20)

    def test_we_find_and_call_what_go_registered(self):
        server = self.example("greeter_server", "--service", "elsewhere", "--listen", "127.0.0.1:0")
        address = server.expect("listening on").split()[-1]
        theirs = self.go("register", "from-go", address, "some metadata")
        theirs.expect("registered")
        out = self.example("greeter_client", "--service", "from-go", "--calls", "10").finish()
        self.assertIn(f"{address} answered 10 calls", out)
        self.assertIn("10 calls, 0 failed", out)
        theirs.go_on()
        theirs.expect("deregistered")

    def test_go_and_we_share_a_service(self):
        follower = self.go("follow", "shared")
        follower.expect("following")
        ours = self.example("greeter_server", "--service", "shared", "--listen", "127.0.0.1:0")
        our_address = ours.expect("listening on").split()[-1]
        self.assertEqual(follower.expect("add"), f"add shared/{our_address} {our_address}")
        elsewhere = self.example("greeter_server", "--service", "not-shared", "--listen", "127.0.0.1:0")
        their_address = elsewhere.expect("listening on").split()[-1]
        theirs = self.go("register", "shared", their_address, "of go")
        self.assertEqual(follower.expect("add"), f"add shared/{their_address} {their_address}")
        both = sorted([our_address, their_address])
        found = sorted(line.split()[1] for line in self.go("endpoints", "shared").finish().splitlines())
        self.assertEqual(found, both)
        answered = set()  # a backend whose connection is still under way gets no calls
        deadline = time.monotonic() + SECONDS_MAX
        while answered != set(both) and time.monotonic() < deadline:
            out = self.example("greeter_client", "--service", "shared", "--calls", "200").finish()
            self.assertIn("200 calls, 0 failed", out)
            answered |= {line.split()[0] for line in out.splitlines() if " answered " in line}
        self.assertEqual(answered, set(both))
        theirs.expect("registered")
        theirs.go_on()
        self.assertEqual(follower.expect("delete"), f"delete shared/{their_address}")
        ours.stop()
        self.assertEqual(follower.expect("delete"), f"delete shared/{our_address}")

    def test_a_key_that_go_deletes_comes_back(self):
        follower = self.go("follow", "deleted-by-go")
        follower.expect("following")
        ours = self.example("greeter_server", "--service", "deleted-by-go", "--listen", "127.0.0.1:0")
        address = ours.expect("listening on").split()[-1]
        follower.expect(f"add deleted-by-go/{address}")
        self.assertEqual(self.go("remove", "deleted-by-go", address).finish(), "removed\n")
        follower.expect(f"delete deleted-by-go/{address}")
        follower.expect(f"add deleted-by-go/{address}")


class WithUserAndCertificates:
    """A user of few rights, over mutual TLS; the token ends while it is in use."""

    kind, members = None, 1

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="conclave-go-")
        self.addCleanup(shutil.rmtree, folder)
        self.tls = Tls(Authority(folder, "ca"), mutual=True, client="root")
        self.cluster = Cluster(self.kind, getattr(ARGS, self.kind), self.members,
                               flags=["--bcrypt-cost", "4"], tls=self.tls)
        self.addCleanup(self.cluster.stop)
        self.root = Caller(self.cluster.channels[0])  # by the certificate's name
        set_up_users(self.root)
        for prefix in (b"go/", b"locks/", b"elections/"):
            self.root.call("RoleGrantPermission", name="some", perm=auth_pb2.Permission(
                permType=auth_pb2.Permission.READWRITE, key=prefix, range_end=prefix[:-1] + b"0"))

    def go(self, command, *arguments, user="ann"):
        cert, key = self.tls.client
        process = Process(ARGS.go_client, command, self.cluster.endpoints, *arguments, environment={
            "GO_CLIENT_USER": user, "GO_CLIENT_PASSWORD": user, "GO_CLIENT_CACERT": str(self.tls.authority.cert),
            "GO_CLIENT_CERT": str(cert), "GO_CLIENT_KEY": str(key)})
        self.addCleanup(process.stop)
        return process

    def end_all_tokens(self):
        self.root.call("AuthDisable")
        self.root.call("AuthEnable")

    def test_what_is_the_users_and_what_is_not(self):
        self.assertEqual(self.go("kv", user="root").finish(), "ok\n")  # it compacts, which is root's alone
        self.assertEqual(self.go("denied", "secret").finish(), "denied\n")

    def test_locks_and_elections_outlive_their_token(self):
        first = self.go("lock", "locks/go")
        held = number(first.expect("locked"))
        second = self.go("lock", "locks/go")
        leader = self.go("campaign", "elections/go", "one")
        leader.expect("leader")
        observer = self.go("observe", "elections/go")
        self.assertEqual(observer.expect("one"), "one")
        self.end_all_tokens()
        first.go_on()
        first.expect("unlocked")
        self.assertGreater(number(second.expect("locked")), held)
        leader.go_on()
        leader.expect("resigned")
        self.assertEqual(number(self.go("count", "locks/n", 5).expect("counted")), 5)


class WithUserOnConclave(WithUserAndCertificates, unittest.TestCase):
    kind, members = "conclave", 3


class WithUserOnEtcd(WithUserAndCertificates, unittest.TestCase):
    kind = "etcd"


class OnConclave(WithGo, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("conclave", ARGS.conclave, members=3)
        cls.addClassCleanup(cls.cluster.stop)


class OnEtcd(WithGo, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("etcd", ARGS.etcd)
        cls.addClassCleanup(cls.cluster.stop)


def main():
    global ARGS, Caller, set_up_users, auth_pb2
    parser = argparse.ArgumentParser()
    for name in ("--messages", "--go-client", "--conclave", "--etcd", "--bin"):
        parser.add_argument(name, required=True)
    ARGS, rest = parser.parse_known_args()
    sys.path.insert(0, ARGS.messages)
    from conclave.api import auth_pb2
    from protocol import Caller, set_up_users
    done = unittest.main(argv=["go_client_test", "-v", *rest], exit=False)
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
