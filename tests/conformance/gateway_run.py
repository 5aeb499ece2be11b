"""The same HTTP requests to Debian's etcd and to us; the answers are compared after what is each server's own (ids,
terms) has been taken out. Fails on any difference that DIFFERENCES does not explain.

usage: gateway_run.py --etcd PATH --conclave PATH
"""

import argparse
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
from gateway import Stream, b64, request  # noqa: E402
from servers import Cluster  # noqa: E402

# Newer etcd answers a failed precondition so; the oracle is older.
NEW_STATUS = {412: 400, 408: 499}
LEASE, LEASE2 = "1000001", "1000002"
KEY, VALUE = b64("foo"), b64("bar")
LOCK_KEY = b64("lock/" + format(int(LEASE), "x"))

# What both must answer alike, in order: (path, body).
REQUESTS = [
    ("/v3/kv/put", {"key": KEY, "value": VALUE}),
    ("/v3/kv/put", {"key": KEY, "value": VALUE, "prev_kv": True}),
    ("/v3/kv/put", {"key": b64(b"\xff\x00\x80"), "value": b64(b"\x00" * 100)}),
    ("/v3/kv/range", {"key": KEY}),
    ("/v3beta/kv/range", {"key": KEY}),
    ("/v3alpha/kv/range", {"key": KEY}),
    ("/v3/kv/range", {"key": b64(b"\0"), "rangeEnd": b64(b"\0"), "sortOrder": "DESCEND", "limit": 1}),
    ("/v3/kv/range", {"key": b64(b"\0"), "range_end": b64(b"\0"), "sort_order": 2, "limit": "1"}),
    ("/v3/kv/range", {"key": b64(b"\0"), "range_end": b64(b"\0"), "count_only": True}),
    ("/v3/kv/range", {"key": b64(b"\0"), "range_end": b64(b"\0"), "keys_only": True, "no_such": {"a": [1]}}),
    ("/v3/kv/range", {"key": KEY, "revision": "99999"}),
    ("/v3/kv/range", {"key": KEY, "limit": 1.5}),
    ("/v3/kv/range", {"key": KEY, "limit": 99999999999999999999}),
    ("/v3/kv/range", {"key": KEY, "limit": None}),
    ("/v3/kv/range", {"key": 5}),
    ("/v3/kv/range", {"key": "!!"}),
    ("/v3/kv/range", {}),
    ("/v3/kv/range", ""),
    ("/v3/kv/range", '{"key":"Zm9v"'),
    ("/v3/kv/range", "[]"),
    ("/v3/kv/range", "nonsense"),
    ("/v3/kv/range", '{"key":"Zm9v"} trailing'),
    ("/v3/kv/txn", {"success": [{"Request": {"request_put": {"key": KEY}}}]}),
    ("/v3/kv/txn", {"compare": [{"key": KEY, "target": "VALUE", "value": VALUE}],
                    "success": [{"request_put": {"key": b64("a"), "value": b64("1")}},
                                {"requestRange": {"key": b64("a")}},
                                {"request_delete_range": {"key": b64("a")}}]}),
    ("/v3/kv/txn", {"compare": [{"key": KEY, "target": "VERSION", "result": "GREATER", "version": "77"}],
                    "failure": [{"request_range": {"key": KEY}}]}),
    ("/v3/kv/deleterange", {"key": KEY, "prev_kv": True}),
    ("/v3/kv/deleterange", {"key": KEY}),
    ("/v3/kv/compaction", {"revision": "2"}),
    ("/v3/kv/compaction", {"revision": "2"}),
    ("/v3/kv/range", {"key": KEY, "revision": 1}),
    ("/v3/lease/grant", {"TTL": 600, "ID": LEASE}),
    ("/v3/lease/grant", {"TTL": "600", "ID": LEASE}),
    ("/v3/lease/grant", {"TTL": "600", "ID": LEASE2}),
    ("/v3/lease/timetolive", {"ID": LEASE, "keys": True}),
    ("/v3/kv/lease/timetolive", {"ID": "5"}),
    ("/v3/lease/leases", {}),
    ("/v3/kv/lease/leases", {}),
    ("/v3/lease/revoke", {"ID": "77"}),
    ("/v3/kv/lease/revoke", {"ID": "77"}),
    ("/v3/cluster/member/list", {}),
    ("/v3/maintenance/alarm", {}),
    ("/v3/maintenance/alarm", {"action": "ACTIVATE", "alarm": "NOSPACE"}),
    ("/v3/kv/put", {"key": KEY, "value": VALUE}),
    ("/v3/maintenance/alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE"}),
    ("/v3/nosuch", {}),
    ("/v3/kv/range/", {"key": KEY}),
    # Locks
    ("/v3/lock/lock", {"name": b64("lock"), "lease": LEASE}),
    ("/v3/lock/lock", {"name": b64("lock"), "lease": LEASE}),
    ("/v3/lock/lock", {"name": b64("lock"), "lease": "99"}),
    ("/v3/lock/lock", {"lease": LEASE}),
    ("/v3/kv/range", {"key": LOCK_KEY}),
    ("/v3/lock/unlock", {"key": LOCK_KEY}),
    ("/v3/lock/unlock", {"key": LOCK_KEY}),
    ("/v3/lock/unlock", {}),
    ("/v3/lock/unlock", {"key": b64("/" + format(int(LEASE), "x"))}),
    # Elections
    ("/v3/election/leader", {"name": b64("e")}),
    ("/v3/election/campaign", {"name": b64("e"), "lease": LEASE, "value": b64("one")}),
    ("/v3/election/campaign", {"name": b64("e"), "lease": LEASE, "value": b64("two")}),
    ("/v3/election/campaign", {"name": b64("e"), "lease": "99", "value": b64("two")}),
    ("/v3/election/leader", {"name": b64("e")}),
    ("/v3/election/proclaim", {}),
    ("/v3/election/proclaim", {"leader": {}}),
    ("/v3/election/proclaim", {"leader": {"name": b64("e"), "key": b64("e/1"), "rev": "2", "lease": LEASE}}),
    ("/v3/election/resign", {}),
    ("/v3/election/resign", {"leader": {}}),
    ("/v3/election/resign", {"leader": {"name": b64("e"), "key": b64("e/1"), "rev": "2", "lease": LEASE}}),
    ("/v3/election/leader", {"name": b64("e")}),
    ("/v3/lease/revoke", {"ID": LEASE}),
    ("/v3/election/leader", {"name": b64("e")}),
]

# (path, bodies, how many lines): streams whose first lines must agree.
STREAMS = [
    ("/v3/watch", [{"create_request": {"key": KEY, "start_revision": "3"}}], 2),
    ("/v3/watch", [{"create_request": {"key": KEY}}, {"create_request": {"key": b64("a")}}], 2),
    ("/v3/watch", [{"create_request": {"key": KEY, "start_revision": "1"}}], 2),
    ("/v3/watch", [{"create_request": {"key": KEY}}, {"cancel_request": {}}], 2),
    ("/v3/lease/keepalive", [{"ID": LEASE2}], 2),
    ("/v3/lease/keepalive", [{"ID": "5"}, {"ID": "6"}], 3),
    ("/v3/lease/keepalive", [], 1),
]

# (method, path): pages and methods; compared by status, Allow and whether there is a body.
PAGES = [("GET", "/health"), ("POST", "/health"), ("HEAD", "/health"), ("GET", "/version"), ("POST", "/version"),
         ("GET", "/metrics"), ("GET", "/"), ("GET", "/nosuch"), ("OPTIONS", "/health"), ("OPTIONS", "/v3/kv/range"),
         ("GET", "/v3/kv/range"), ("PUT", "/v3/kv/range"), ("GET", "/debug/vars"), ("POST", "/debug/vars")]

# Texts of the two languages' JSON readers, which say the same in other words.
UNREADABLE = re.compile(r"invalid|cannot unmarshal|illegal base64|unknown value|unexpected|expected|looking for|"
                        r"bad number|EOF|where an object|JSON")


def normal(value):
    """Without what is each server's own."""
    if isinstance(value, list):
        return [normal(v) for v in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for name, field in value.items():
        if name in ("cluster_id", "member_id", "raft_term", "peerURLs", "clientURLs", "memberID"):
            field = "own"
        if name == "members":
            field = [{**m, "ID": "own"} for m in field]
        out[name] = normal(field)
    return out


def answer(path, status, body):
    status = NEW_STATUS.get(status, status)
    try:
        found = normal(json.loads(body))
    except ValueError:
        found = body.decode(errors="replace").strip()
    if path.endswith("/alarm") and isinstance(found, dict):
        found.pop("header", None)  # only newer ones have it here
    if path.endswith("/campaign") and isinstance(found, dict) and "header" in found:
        # Where the key was there already: theirs is of the look, ours of the write that followed.
        found["header"].pop("revision", None)
    if status in (404, 405) and "Not" in str(found):
        return status, "no such thing"  # ours says it in JSON
    if status == 400 and isinstance(found, dict) and UNREADABLE.search(str(found.get("message"))):
        found["message"] = found["error"] = "unreadable"
    return status, found


def stream_lines(address, path, bodies, count):
    with Stream(address, path, *bodies) as stream:
        lines = []
        while len(lines) < count:
            line = stream.next()
            lines.append(normal(line) if line is not None else None)
            if line is None:
                break
        return stream.status, lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--conclave", required=True)
    args = parser.parse_args()
    servers = [Cluster("etcd", args.etcd), Cluster("conclave", args.conclave)]
    theirs, ours = (server.clients[0] for server in servers)
    differences = []
    compared = 0

    def compare(what, a, b):
        nonlocal compared
        compared += 1
        if a != b:
            differences.append(f"{what}\n    etcd: {a}\n    we:   {b}")

    try:
        for path, body in REQUESTS:
            text = body if isinstance(body, str) else json.dumps(body)
            a, b = (request(address, "POST", path, text) for address in (theirs, ours))
            compare(f"POST {path} {text}", answer(path, a[0], a[2]), answer(path, b[0], b[2]))
        for path, bodies, count in STREAMS:
            a, b = (stream_lines(address, path, bodies, count) for address in (theirs, ours))
            compare(f"stream {path} {bodies}", a, b)
        for method, path in PAGES:
            a, b = (request(address, method, path) for address in (theirs, ours))
            shown = [(r[0], r[1].get("allow"), bool(r[2]), r[1].get("access-control-allow-origin")) for r in (a, b)]
            compare(f"{method} {path}", *shown)
    finally:
        for server in servers:
            server.stop()
    for difference in differences:
        print(f"DIFFERENCE {difference}")
    print(f"gateway conformance: {compared} requests, {len(differences)} unexplained differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
