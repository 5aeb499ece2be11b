"""Members that come and go, as real processes: the same script of Debian's etcdctl against etcd and against us, with
compared outputs; and what only we are asked: joining under load, leaving by oneself, a lost disk, a forced new cluster.

usage: members_test.py --etcdctl PATH --etcd PATH --conclave PATH
"""

import argparse
import functools
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from etcdctl_test import Ctl, blank  # noqa: E402
import servers  # noqa: E402
from servers import Cluster, free_ports  # noqa: E402

PATIENCE_SECONDS = 60
wait_for = functools.partial(servers.wait_for, seconds=PATIENCE_SECONDS)
FAILURES = []


def check(condition, what):
    if not condition:
        FAILURES.append(what)
        print(f"FAILED {what}")


class GrowingCluster(Cluster):
    """A cluster whose members beyond the first ones join later."""

    def __init__(self, name, binary, founders, most):
        self.founders, self.extra = founders, []
        super().__init__(name, binary, founders)
        ports = free_ports(2 * (most - founders))
        for i in range(most - founders):
            self.clients.append(f"127.0.0.1:{ports[2 * i]}")
            self.peers.append(f"http://127.0.0.1:{ports[2 * i + 1]}")
            self.channels.append(grpc.insecure_channel(
                self.clients[-1], options=[("grpc.use_local_subchannel_pool", 1)]))
        self.gone = set()

    def start(self, member, flags=(), listed=None):
        existing = member >= self.founders or bool(listed)
        listed = listed or (range(self.founders) if not existing else
                            [m for m in range(member + 1) if m not in self.gone])
        while len(self.processes) <= member:
            self.processes.append(None)
        with open(self.log(member), "ab") as log:
            self.processes[member] = subprocess.Popen(
                [self.binary, "--name", f"m{member}", "--data-dir", str(self.folder / f"m{member}"),
                 "--listen-client-urls", f"http://{self.clients[member]}",
                 "--advertise-client-urls", f"http://{self.clients[member]}",
                 "--listen-peer-urls", self.peers[member],
                 "--initial-advertise-peer-urls", self.peers[member],
                 "--initial-cluster", ",".join(f"m{i}={self.peers[i]}" for i in listed),
                 "--initial-cluster-state", "existing" if existing else "new", *flags],
                stdout=log, stderr=log)

    def exit_code(self, member):
        """Of a process that ends of its own accord."""
        wait_for(lambda: self.processes[member].poll() is not None, f"the end of member {member}")
        return self.processes[member].returncode

    def put(self, key, value, member=0):
        """Until it is acknowledged: while a leader is chosen, it may be refused or its outcome unknown."""
        message = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value
        call = self.unary("/etcdserverpb.KV/Put", member)

        def attempt():
            try:
                call(message, timeout=20, wait_for_ready=True)
                return True
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                return False
        wait_for(attempt, f"put {key}")

    def stop(self):
        self.processes = [p for p in self.processes if p is not None]
        super().stop()


def member_id(ctl, name):
    _, out, _ = ctl.run("member", "list")
    for line in out.splitlines():
        fields = line.split(", ")
        if fields[2] == name:
            return fields[0]
    return None


def until_accepted(ctl, *arguments):
    """A change that is refused for the moment only: not healthy for five seconds yet, not in sync yet."""
    def attempt():
        code, out, err = ctl.run(*arguments)
        passing = "unhealthy cluster" in err or "in sync with leader" in err or "leader" in err
        return None if code != 0 and passing else (code, out, err)
    return wait_for(attempt, " ".join(arguments))


def without_order(text):
    """Lists are by id, and ids differ."""
    return "\n".join(sorted(text.splitlines()))


def story(kind, binary, etcdctl):
    """From one member to three and back to two; every output, blanked."""
    cluster = GrowingCluster(kind, binary, founders=1, most=3)
    told = []

    def tell(outcome):
        code, out, err = outcome
        text = without_order(blank(cluster, out)) + "\n" + blank(cluster, err)
        # Names of members in --initial-cluster's line come in the order of ids.
        text = re.sub(r'ETCD_INITIAL_CLUSTER="(.*)"',
                      lambda m: 'ETCD_INITIAL_CLUSTER="' + ",".join(sorted(m[1].split(","))) + '"', text)
        told.append((code, text))

    try:
        ctl = Ctl(etcdctl, cluster)
        ctl.cluster = type("First", (), {"endpoints": cluster.clients[0]})
        run = ctl.run
        tell(run("member", "list"))
        tell(run("member", "add", "m1", f"--peer-urls={cluster.peers[1]}"))
        cluster.start(1)
        cluster.wait(1)
        wait_for(lambda: member_id(ctl, "m1"), "m1 in the list")
        tell(run("member", "list"))
        tell(until_accepted(ctl, "member", "add", "m2", "--learner", f"--peer-urls={cluster.peers[2]}"))
        tell(run("member", "list"))
        tell(run("member", "add", "m3", "--learner", "--peer-urls=http://127.0.0.1:1"))
        tell(run("member", "add", "m4", f"--peer-urls={cluster.peers[1]}"))
        tell(run("member", "add", "m4", "--peer-urls=nonsense"))
        tell(run("member", "remove", "abcd"))
        tell(run("member", "promote", "abcd"))
        tell(run("member", "update", "abcd", "--peer-urls=http://127.0.0.1:1"))
        tell(run("member", "promote", member_id(ctl, "m1")))
        cluster.start(2)
        wait_for(lambda: member_id(ctl, "m2"), "m2 in the list")
        tell(run("member", "list"))
        tell(until_accepted(ctl, "member", "promote", member_id(ctl, "m2")))
        cluster.wait(2)
        tell(run("member", "list"))
        tell(run("member", "update", member_id(ctl, "m2"), "--peer-urls=http://127.0.0.1:1"))
        tell(run("member", "list"))
        tell(run("member", "update", member_id(ctl, "m2"), f"--peer-urls={cluster.peers[2]}"))
        tell(run("put", "k", "v"))
        tell(until_accepted(ctl, "member", "remove", member_id(ctl, "m2")))
        told.append(("exit code", cluster.exit_code(2)))
        tell(run("member", "list"))
        tell(run("get", "k"))
    finally:
        cluster.stop()
    return told


def compare(arguments):
    etcd = story("etcd", arguments.etcd, arguments.etcdctl)
    conclave = story("conclave", arguments.conclave, arguments.etcdctl)
    for step, (theirs, ours) in enumerate(zip(etcd, conclave)):
        check(theirs == ours, f"step {step}\n  etcd:     {theirs}\n  conclave: {ours}")
    check(len(etcd) == len(conclave), "both tell as much")
    print(f"{len(etcd)} outputs compared")


class Load:
    """Writes until it is stopped; counts what was acknowledged."""

    def __init__(self, cluster):
        self.cluster, self.count, self.over = cluster, 0, False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over:
            self.cluster.put(b"load%06d" % self.count, b"x" * 100)
            self.count += 1

    def stop(self):
        self.over = True
        self.thread.join()
        return self.count


def ours(arguments):
    cluster = GrowingCluster("conclave", arguments.conclave, founders=1, most=4)
    try:
        ctl = Ctl(arguments.etcdctl, cluster)
        ctl.cluster = type("First", (), {"endpoints": cluster.clients[0]})
        load = Load(cluster)
        wait_for(lambda: load.count > 200, "some writes")

        # A server that nobody has added does not come in.
        cluster.start(1)
        check(cluster.exit_code(1) != 0, "a stranger does not join")
        check("has no member with the peer URLs" in cluster.log(1).read_text(), "and is told why")

        for member in (1, 2):
            code, _, err = until_accepted(ctl, "member", "add", f"m{member}",
                                          f"--peer-urls={cluster.peers[member]}")
            check(code == 0, f"add m{member}: {err}")
            before = load.count
            wait_for(lambda: load.count > before + 20, "writes while the new one is not there yet")
            cluster.start(member)
            cluster.wait(member)
        written = load.stop()
        for member in (1, 2):
            _, out, _ = ctl.run("get", "load", "--prefix", "--limit=1", "--write-out=fields",
                                endpoints=cluster.clients[member])
            check(f'"Count" : {written}' in out, f"member {member} has all {written} keys: {out}")

        # All three vote: the first may go down. Then it is removed, and told so when it comes back.
        cluster.kill(0)
        cluster.put(b"without-the-first", b"v", member=1)
        ctl.cluster = type("Others", (), {"endpoints": cluster.clients[1]})
        code, _, err = until_accepted(ctl, "member", "remove", member_id(ctl, "m0"))
        check(code == 0, f"remove m0: {err}")
        cluster.start(0)
        check(cluster.exit_code(0) == 0, "a removed member that was away ends")
        check("the member has been permanently removed" in cluster.log(0).read_text(), "and says why")
        cluster.gone.add(0)

        # A restart needs nobody's word, and a lost disk is no new beginning.
        cluster.kill(2)
        cluster.start(2)
        cluster.wait(2)
        cluster.kill(2)
        shutil.rmtree(cluster.folder / "m2")
        cluster.start(2)
        check(cluster.exit_code(2) != 0, "a member that lost its disk does not start")
        check("has already been bootstrapped" in cluster.log(2).read_text(), "and says why")

        # Disaster: the others are lost, one member's data is left.
        cluster.kill(1)
        cluster.start(1, flags=["--force-new-cluster"], listed=[1])
        cluster.wait(1)
        _, out, _ = ctl.run("member", "list")
        check(len(out.splitlines()) == 1, f"one member is left: {out}")
        _, out, _ = ctl.run("get", "load", "--prefix", "--limit=1", "--write-out=fields")
        check(f'"Count" : {written}' in out, f"all {written} keys are left: {out}")
        cluster.kill(1)
        cluster.start(1, listed=[1])
        cluster.wait(1)
        cluster.gone.add(2)
        code, _, err = until_accepted(ctl, "member", "add", "m3", f"--peer-urls={cluster.peers[3]}")
        check(code == 0, f"add m3: {err}")
        cluster.start(3)
        cluster.wait(3)
        _, out, _ = ctl.run("get", "load", "--prefix", "--limit=1", "--write-out=fields",
                            endpoints=cluster.clients[3])
        check(f'"Count" : {written}' in out, f"the new member has all {written} keys: {out}")
        print(f"{written} keys lived through it")
    finally:
        cluster.stop()


def main():
    parser = argparse.ArgumentParser()
    for name in ("etcdctl", "etcd", "conclave"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    ours(arguments)
    compare(arguments)
    if FAILURES:
        sys.exit(f"{len(FAILURES)} failures")


if __name__ == "__main__":
    main()
