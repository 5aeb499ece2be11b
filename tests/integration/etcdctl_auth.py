"""The script by which Debian's etcdctl manages users and roles. Outputs, errors and exit codes agree between etcd and
us, but for what later etcds have mended (NEWER)."""

from etcdctl_test import fail, outcome, outcomes

ROOT = ["--user", "root:pw"]
ANN = ["--user", "ann:ann"]
DENIED = (1, "", "<warning>\nError: etcdserver: permission denied\n")

SCRIPT = [
    ["user", "add", "root:pw"], ["user", "add", "root:pw"], ["user", "list"], ["user", "get", "root"],
    ["user", "add", "ann:ann"], ["user", "get", "nosuch"], ["role", "add", "r"], ["role", "add", "r"],
    ["user", "grant-role", "ann", "nosuch"], ["user", "grant-role", "nosuch", "r"],
    ["user", "grant-role", "ann", "r"], ["user", "grant-role", "ann", "r"],
    ["role", "grant-permission", "nosuch", "read", "a"],
    ["role", "grant-permission", "r", "readwrite", "a", "b"], ["role", "grant-permission", "r", "read", "zz"],
    ["role", "grant-permission", "r", "write", "w"],
    ["role", "grant-permission", "r", "read", "x", "--prefix"], ["role", "get", "r"], ["role", "get", "nosuch"],
    ["put", "secret", "1"],
    ["auth", "enable"], ["auth", "enable"],
    # Nobody, and the wrong password.
    ["get", "a"], ["put", "a", "1"], ["user", "list"], ["role", "list"], ["auth", "disable"],
    ["--user", "root:bad", "get", "a"], ["--user", "nobody:x", "get", "a"], ["--user", "ann:", "get", "a"],
    # Root.
    [*ROOT, "get", "secret"], [*ROOT, "auth", "enable"], [*ROOT, "user", "list"], [*ROOT, "role", "list"],
    [*ROOT, "role", "grant-permission", "r", "read", "y", "--from-key"], [*ROOT, "role", "get", "r"],
    [*ROOT, "user", "get", "ann", "--detail"], [*ROOT, "user", "get", "ann", "-w", "json"],
    # A user.
    [*ANN, "user", "get", "ann"], [*ANN, "user", "get", "root"], [*ANN, "role", "get", "r"], [*ANN, "user", "list"],
    [*ANN, "role", "list"], [*ANN, "user", "add", "eve:e"], [*ANN, "user", "delete", "root"],
    [*ANN, "role", "grant-permission", "r", "read", "", "--prefix"], [*ANN, "auth", "disable"],
    [*ANN, "put", "a1", "v"], [*ANN, "put", "secret", "v"], [*ANN, "get", "a", "b"], [*ANN, "get", "a", "c"],
    [*ANN, "get", "a", "--prefix"], [*ANN, "get", "", "--prefix"], [*ANN, "get", "a", "--from-key"],
    [*ANN, "get", "y", "--from-key"], [*ANN, "get", "zz", "--consistency=s"], [*ANN, "get", "secret", "--consistency=s"],
    [*ANN, "put", "w", "1"], [*ANN, "put", "w", "1", "--prev-kv"], [*ANN, "del", "w", "--prev-kv"],
    [*ANN, "del", "a", "b"], [*ANN, "del", "a", "c"], [*ANN, "del", "", "--prefix"],
    [*ANN, "alarm", "disarm"],
    [*ANN, "member", "list", "-w", "simple"],
    # What root cannot take from himself.
    [*ROOT, "user", "revoke-role", "root", "root"], [*ROOT, "user", "delete", "root"],
    [*ROOT, "role", "delete", "root"],
    # A new password ends the old one.
    [*ROOT, "user", "passwd", "ann", "--interactive=false"], [*ANN, "get", "a"], ["--user", "ann:new", "get", "a"],
    [*ROOT, "user", "passwd", "nosuch", "--interactive=false"],
    [*ROOT, "role", "revoke-permission", "r", "a", "b"], [*ROOT, "role", "revoke-permission", "r", "nosuch"],
    ["--user", "ann:new", "get", "a"], [*ROOT, "user", "revoke-role", "ann", "nosuch"],
    [*ROOT, "user", "revoke-role", "ann", "r"], ["--user", "ann:new", "get", "zz"], [*ROOT, "role", "delete", "r"],
    [*ROOT, "role", "delete", "r"], [*ROOT, "user", "delete", "ann"], [*ROOT, "user", "delete", "ann"],
    ["--user", "ann:new", "get", "a"], [*ROOT, "auth", "disable"], ["get", "secret"], ["user", "list"],
]
TXNS = [
    ('mod("zz") = "0"\n\nget zz\n\nput a1 x\n\n', None),
    ('mod("secret") = "0"\n\nget zz\n\nget zz\n\n', DENIED),
    ('mod("zz") = "0"\n\nget zz\n\nput secret x\n\n', DENIED),
    ('mod("zz") = "0"\n\nget zz\n\nget secret\n\n', DENIED),
]
# What etcd 3.4 lets everybody do, and its successors and we do not; or what they show in another way.
NEWER = [
    ([*ANN, "compaction", "1"], DENIED),
    ([*ROOT, "role", "grant-permission", "r", "read", "q", "p"],
     (1, "", "<warning>\nError: etcdserver: invalid auth management\n")),
    ([*ROOT, "role", "get", "root"],
     (0, "Role root\nKV Read:\n\t[, <open ended> (prefix )\nKV Write:\n\t[, <open ended> (prefix )\n", "")),
    (["member", "list"], (1, "", "<warning>\nError: etcdserver: user name is empty\n")),
    (["lease", "grant", "10"], (1, "", "<warning>\nError: failed to grant lease (etcdserver: user name is empty)\n")),
]


def check_newer(ctl, setting):
    for arguments, expected in NEWER:
        got = outcome(ctl, arguments, "")
        if got != expected:
            fail(f"{' '.join(arguments)} ({setting})", f"  expected: {expected}\n  got:      {got}")


def run_script(theirs, ours, setting):
    """Begins and ends without authentication; root (password pw) is left. Gives the number of commands."""
    for number, arguments in enumerate(SCRIPT):
        stdin = "new\n" if "passwd" in arguments else ""
        expected, got = outcomes(theirs, ours, arguments, stdin)
        if expected != got:
            fail(f"{number}: {' '.join(arguments)} ({setting})", f"  etcd: {expected}\n  ours: {got}")
        if arguments == [*ANN, "del", "a", "b"]:
            for text, required in TXNS:
                expected, got = outcomes(theirs, ours, [*ANN, "txn"], text)
                if expected != got or (required is not None and got != required):
                    fail(f"txn {text!r} ({setting})", f"  etcd: {expected}\n  ours: {got}")
            if not setting.mutual:  # there, who says no name has that of the certificate
                check_newer(ours, setting)
    return len(SCRIPT) + len(TXNS)
