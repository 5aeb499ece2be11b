"""How members come to be: founders that find each other through Debian's etcd, members that join and are left alone,
removed before they have joined, or join those that move meanwhile, and one that moves itself.

usage: bootstrap_test.py --etcdctl PATH --etcd PATH --conclave PATH
"""

import argparse
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
import servers  # noqa: E402
from proxy import Proxy  # noqa: E402
from servers import Cluster, free_ports  # noqa: E402

PATIENCE_SECONDS = 100
wait_for = functools.partial(servers.wait_for, seconds=PATIENCE_SECONDS)
ARGUMENTS = None


class Member:
    """One conclave process; the flags decide how it comes to be."""

    def __init__(self, folder, name, *flags, advertised=None):
        self.folder, self.name = folder, name
        self.client_port, self.peer_port = free_ports(2)
        self.client, self.peer = f"127.0.0.1:{self.client_port}", f"http://127.0.0.1:{self.peer_port}"
        self.advertised = advertised or self.peer
        self.log_path, self.process = folder / f"{name}.log", None
        self.start(*flags)

    def start(self, *flags):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [ARGUMENTS.conclave, "--name", self.name, "--data-dir", str(self.folder / self.name),
                 "--listen-client-urls", f"http://{self.client}", "--advertise-client-urls", f"http://{self.client}",
                 "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.advertised, *flags],
                stdout=log, stderr=log)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def count(self, line):
        return self.log().count(line)

    def wait_ready(self, times=1):
        wait_for(lambda: self.count("ready to serve client requests") >= times, lambda: f"{self.name}:\n{self.log()}")

    def exit_code(self):
        wait_for(lambda: self.process.poll() is not None, lambda: f"the end of {self.name}:\n{self.log()}")
        return self.process.returncode

    def stop(self, how=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait()


class Bootstrap(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="conclave-test-bootstrap-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def member(self, name, *flags, **options):
        started = Member(self.folder, name, *flags, **options)
        self.addCleanup(started.stop)
        return started

    def ctl(self, endpoint, *command, ok=True):
        done = subprocess.run([ARGUMENTS.etcdctl, "--endpoints", endpoint, *command], capture_output=True, text=True,
                              env={**os.environ, "ETCDCTL_API": "3"}, timeout=60, check=False)
        if ok:
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def members_of(self, endpoint):
        """By name: id and peer URLs."""
        lines = self.ctl(endpoint, "member", "list").splitlines()
        return {fields[2]: (fields[0], fields[3]) for fields in (line.split(", ") for line in lines)}

    def test_founders_find_each_other(self):
        service = Cluster("etcd", ARGUMENTS.etcd)
        self.addCleanup(service.stop)
        flags = ["--discovery-token", "t1", "--discovery-endpoints", service.clients[0]]
        lost = self.member("lost", *flags)
        self.assertEqual(lost.exit_code(), 1)
        self.assertIn("size key not found", lost.log())

        self.ctl(service.clients[0], "put", "/_etcd/registry/t1/_config/size", "3")
        first = self.member("a", *flags)
        second = self.member("b", *flags)
        wait_for(lambda: first.count("waiting for other members"), lambda: first.log())
        second.stop(signal.SIGTERM)  # as long as it waits, a signal ends it
        self.assertEqual(second.exit_code(), -signal.SIGTERM)
        third = self.member("c", *flags)
        second.start(*flags)
        for member in (first, second, third):
            member.wait_ready()
        self.ctl(first.client, "put", "k", "v")
        for member in (second, third):
            self.assertEqual(self.ctl(member.client, "get", "k"), "k\nv\n")
        found = self.members_of(second.client)
        self.assertEqual({name: urls for name, (_, urls) in found.items()},
                         {m.name: m.peer for m in (first, second, third)})
        # Each is registered as etcd does it.
        kept = self.ctl(service.clients[0], "get", "--prefix", "/_etcd/registry/t1/members/").split()
        self.assertEqual(dict(zip(kept[::2], kept[1::2])),
                         {f"/_etcd/registry/t1/members/{found[m.name][0]}": f"{m.name}={m.peer}"
                          for m in (first, second, third)})

        late = self.member("d", *flags)
        self.assertEqual(late.exit_code(), 1)
        self.assertIn("discovery: cluster is full", late.log())

        # Later starts need nobody.
        service.stop()
        third.stop()
        third.start(*flags)
        third.wait_ready(times=2)

    def test_the_service_may_come_later(self):
        port, peer = free_ports(2)
        alone = self.member("m", "--discovery-token", "t2", "--discovery-endpoints", f"127.0.0.1:{port}",
                            "--discovery-request-timeout", "500ms")
        wait_for(lambda: alone.count("the discovery service does not answer"), lambda: alone.log())
        with open(self.folder / "etcd.log", "ab") as log:
            service = subprocess.Popen(
                [ARGUMENTS.etcd, "--data-dir", str(self.folder / "etcd"),
                 "--listen-client-urls", f"http://127.0.0.1:{port}",
                 "--advertise-client-urls", f"http://127.0.0.1:{port}",
                 "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-cluster", f"default=http://127.0.0.1:{peer}",
                 "--force-new-cluster=false"], stdout=log, stderr=log)
        self.addCleanup(service.wait)
        self.addCleanup(service.kill)

        def sized():
            self.ctl(f"127.0.0.1:{port}", "put", "/_etcd/registry/t2/_config/size", "1", ok=False)
            return alone.count("ready to serve client requests") or alone.process.poll() is not None
        # It may look before the size is there, and is told so; then it is started again.
        wait_for(sized, lambda: alone.log())
        if alone.process.poll() is not None:
            self.assertIn("size key not found", alone.log())
            alone.start("--discovery-token", "t2", "--discovery-endpoints", f"127.0.0.1:{port}")
        alone.wait_ready()

    def test_a_member_that_moves(self):
        first = self.member("a")
        first.wait_ready()
        port, = free_ports(1)
        self.ctl(first.client, "member", "update", self.members_of(first.client)["a"][0],
                 f"--peer-urls=http://127.0.0.1:{port}")
        first.stop(signal.SIGTERM)
        first.peer = f"http://127.0.0.1:{port}"
        for flags in ((), ("--initial-cluster", f"a={first.advertised}"), ("--initial-cluster", f"z={first.peer}")):
            starts = first.count("ready to serve client requests")
            first.start(*flags)
            first.wait_ready(times=starts + 1)
            self.assertEqual(self.members_of(first.client)["a"][1], first.peer)
            first.stop(signal.SIGTERM)

    def test_a_member_that_joins_and_is_left_alone(self):
        """Whoever would send it the state has the address of nobody, and then is gone."""
        first = self.member("a")
        first.wait_ready()
        nowhere, = free_ports(1)
        advertised = f"http://127.0.0.1:{nowhere}"
        self.ctl(first.client, "member", "add", "b", f"--peer-urls={advertised}")
        joins = self.member("b", "--initial-cluster", f"a={first.peer},b={advertised}",
                            "--initial-cluster-state", "existing", advertised=advertised)
        wait_for(lambda: joins.count("starting a new member"), lambda: joins.log())
        first.stop()
        self.assertEqual(joins.exit_code(), 1, joins.log())
        self.assertIn("no member of the cluster has answered", joins.log())

    def learner_that_nobody_reaches(self, first, peer_of_first):
        """One that waits for its state, and the way to it, which is shut."""
        there, = free_ports(1)
        advertised = f"http://127.0.0.1:{there}"
        self.ctl(first.client, "member", "add", "b", "--learner", f"--peer-urls={advertised}")
        joins = self.member("b", "--initial-cluster", f"a={peer_of_first},b={advertised}",
                            "--initial-cluster-state", "existing", advertised=advertised)
        way = Proxy(joins.peer_port, there, is_open=False)
        self.addCleanup(way.shut)
        wait_for(lambda: joins.count("starting a new member"), lambda: joins.log())
        return joins, way

    def test_a_member_that_is_removed_before_it_has_joined(self):
        first = self.member("a")
        first.wait_ready()
        joins, _ = self.learner_that_nobody_reaches(first, first.peer)
        added = next(line.split(", ")[0] for line in self.ctl(first.client, "member", "list").splitlines()
                     if "unstarted" in line)
        self.ctl(first.client, "member", "remove", added)
        # As a member ends that has served before: those who stay remember whom they have removed.
        self.assertEqual(joins.exit_code(), 0, joins.log())
        lines = [json.loads(line) for line in joins.log().splitlines()]
        self.assertIn(("warn", "the member has been permanently removed from the cluster", added),
                      [(line["level"], line["msg"], line.get("member")) for line in lines])
        self.assertEqual(joins.count("ready to serve client requests"), 0)
        joins.start("--initial-cluster", f"a={first.peer},b={joins.advertised}", "--initial-cluster-state", "existing")
        self.assertEqual(joins.exit_code(), 1)
        self.assertIn("conclave: --initial-cluster-state=existing: cannot join: ", joins.log().splitlines()[-1])
        self.assertEqual(joins.count("ready to serve client requests"), 0)

    def test_a_member_that_joins_those_who_move(self):
        """The joiner's answers go where the first member has moved, or it would never get its state."""
        old, new = free_ports(2)
        first = self.member("a", "--initial-cluster", f"a=http://127.0.0.1:{old}", advertised=f"http://127.0.0.1:{old}")
        before, after = Proxy(first.peer_port, old), Proxy(first.peer_port, new)
        self.addCleanup(before.shut)
        self.addCleanup(after.shut)
        first.wait_ready()
        self.ctl(first.client, "put", "k", "v")
        joins, way = self.learner_that_nobody_reaches(first, before.url)
        wait_for(lambda: before.connections > 0, lambda: joins.log())
        self.assertEqual(after.connections, 0)
        self.ctl(first.client, "member", "update", self.members_of(first.client)["a"][0], f"--peer-urls={after.url}")
        wait_for(lambda: after.connections > 0, lambda: f"the joiner follows:\n{joins.log()}")
        before.shut()
        self.assertEqual(joins.count("ready to serve client requests"), 0)
        way.open()
        joins.wait_ready()
        self.assertEqual(self.ctl(joins.client, "get", "--consistency=s", "k"), "k\nv\n")
        self.assertEqual(self.members_of(first.client)["b"][1], way.url)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("--etcdctl", "--etcd", "--conclave"):
        parser.add_argument(flag, required=True)
    ARGUMENTS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
