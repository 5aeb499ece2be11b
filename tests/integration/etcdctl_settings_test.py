"""Debian's etcdctl in every setting: without and with authentication; plain, over TLS and over mutual TLS; one member
and three. The same commands against Debian's etcd and against us; outputs, errors and exit codes must agree.

usage: etcdctl_settings_test.py --etcdctl PATH --etcd PATH --conclave PATH [--only TEXT]
"""

import argparse
import dataclasses
import pathlib
import re
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import etcdctl_auth  # noqa: E402
import tables  # noqa: E402
from etcdctl_test import COMMANDS, FAILURES, TRANSACTIONS, Ctl, compare, fail  # noqa: E402
from pki import Authority  # noqa: E402
from servers import Cluster, Tls, memory_folder  # noqa: E402

# What COMMANDS leaves to the other test, which runs with a single setting.
MORE = [
    ["alarm", "list"], ["alarm", "disarm"], ["defrag"], ["version"], ["lease", "list"],
    ["lock", "matrix-lock", "echo", "inside"], ["get", "matrix-lock", "--prefix"],
    ["member", "add", "m9", "--peer-urls=nonsense"], ["member", "remove", "abcd"], ["member", "promote", "abcd"],
    ["user", "list"], ["role", "list"], ["user", "get", "nosuch"], ["role", "get", "nosuch"], ["user", "delete", "nosuch"],
    ["role", "delete", "nosuch"], ["role", "revoke-permission", "nosuch", "a"],
    ["user", "revoke-role", "nosuch", "nosuch"], ["get"], ["put", "only-a-key"], ["nonsense"],
]


@dataclasses.dataclass(frozen=True)
class Setting:
    auth: bool
    security: str  # plain, TLS, mutual TLS
    members: int

    @property
    def mutual(self):
        return self.security == "mutual TLS"

    def __str__(self):
        members = "1 member" if self.members == 1 else f"{self.members} members"
        return f"{'with' if self.auth else 'without'} authentication, {self.security}, {members}"


SETTINGS = [Setting(auth, security, members) for auth in (False, True)
            for security in ("plain", "TLS", "mutual TLS") for members in (1, 3)]


def snapshot(ctl, setting):
    """Saved from the first member, and what etcdctl says of it; sizes and hashes are each server's own."""
    file = ctl.cluster.folder / "snapshot"
    code, out, error = ctl.run("snapshot", "save", str(file), endpoints=ctl.cluster.endpoints.split(",")[0])
    if code != 0 or "Snapshot saved at" not in out:
        fail(f"snapshot save ({setting}, {ctl.cluster.name})", f"{code} {out} {error}")
        return None
    code, out, error = ctl.run("snapshot", "status", str(file))
    if code != 0:
        fail(f"snapshot status ({setting}, {ctl.cluster.name})", f"{code} {out} {error}")
        return None
    return out.split(", ")[1]  # the revision


def statuses(ctl, setting):
    code, out, error = ctl.run("endpoint", "status", "-w", "json")
    leaders = set(re.findall(r'"leader":(\d+)', out))
    if code != 0 or out.count('"Endpoint"') != setting.members or len(leaders) != 1 or leaders == {"0"}:
        fail(f"endpoint status ({setting}, {ctl.cluster.name})", f"{code} {out} {error}")


def mirror(theirs, ours, setting):
    """From etcd to us: what stands there comes, and what is written meanwhile."""
    theirs.run("put", "mirrored/1", "one")
    destination = ["--dest-insecure-transport=true"]
    if ours.cluster.tls:
        destination = ["--dest-insecure-transport=false", "--dest-cacert", str(ours.cluster.tls.authority.cert)]
        if ours.cluster.tls.client:
            destination += ["--dest-cert", str(ours.cluster.tls.client[0]), "--dest-key",
                            str(ours.cluster.tls.client[1])]
    process = theirs.start("make-mirror", "--prefix", "mirrored/", *destination,
                           ours.cluster.endpoints.split(",")[0])
    try:
        deadline = time.monotonic() + 30
        for key in ("mirrored/1", "mirrored/2"):
            while ours.run("get", key)[1] == "":
                if time.monotonic() > deadline or process.poll() is not None:
                    fail(f"make-mirror ({setting})", f"{key} never came")
                    return
            theirs.run("put", "mirrored/2", "two")
    finally:
        process.kill()
        process.communicate()


def run(args, setting, folder):
    tls = None
    if setting.security != "plain":
        tls = Tls(Authority(tempfile.mkdtemp(dir=folder), "ca"), setting.mutual)
    clusters = [Cluster(name, binary, setting.members, flags=["--bcrypt-cost", "4"], tls=tls, folder=memory_folder())
                for name, binary in (("etcd", args.etcd), ("conclave", args.conclave))]
    count = 0
    try:
        theirs, ours = (Ctl(args.etcdctl, cluster) for cluster in clusters)
        if setting.auth:
            count += etcdctl_auth.run_script(theirs, ours, setting)
            for ctl in (theirs, ours):
                if ctl.run("auth", "enable")[0] != 0:
                    fail(f"auth enable ({setting})", ctl.cluster.name)
            theirs, ours = (Ctl(args.etcdctl, cluster, user="root:pw") for cluster in clusters)
        commands = [c for c in [*COMMANDS, *MORE] if setting.members == 1 or c[:3] != ["member", "list", "-w"]]
        for arguments in commands:
            compare(ours, theirs, arguments, setting=setting)
        for transaction in TRANSACTIONS:
            compare(ours, theirs, ["txn"], stdin=transaction, setting=setting)
        revisions = [snapshot(ctl, setting) for ctl in (theirs, ours)]
        if revisions[0] != revisions[1]:
            fail(f"snapshot status ({setting})", f"revisions {revisions}")
        statuses(ours, setting)
        if not setting.auth:  # it has no way to say the destination's user
            mirror(theirs, ours, setting)
        return count + len(commands) + len(TRANSACTIONS) + 4
    finally:
        for cluster in clusters:
            cluster.stop()


def main():
    parser = argparse.ArgumentParser()
    for name in ("--etcdctl", "--etcd", "--conclave"):
        parser.add_argument(name, required=True)
    parser.add_argument("--only", default="", help="the settings whose description contains this")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="conclave-etcdctl-")
    rows = []
    try:
        for setting in SETTINGS:
            if args.only not in str(setting):
                continue
            began, before = time.monotonic(), len(FAILURES)
            count = run(args, setting, folder)
            rows.append([str(setting), count, "all the same" if len(FAILURES) == before else "differences"])
            print(f"{setting}: {count} commands, {len(FAILURES) - before} failures, {time.monotonic() - began:.0f} s",
                  flush=True)
    finally:
        shutil.rmtree(folder)
    if len(rows) == len(SETTINGS) and not FAILURES:
        tables.check("etcdctl", ["setting", "commands", "output, errors, exit code"], rows)
    print(f"{sum(row[1] for row in rows)} commands; {len(FAILURES)} failures")
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main())
