"""The metrics page of a cluster of ours beside that of a cluster of etcd: what dashboards and alert rules for etcd read
has the same name, type, labels and buckets. And promtool has nothing to say about our page that it would not say about etcd's.

usage: parity.py --root FOLDER --peers FOLDER --conclave PATH
"""

import argparse
import pathlib
import re
import subprocess
import sys
import time

# What the dashboards and alert rules for etcd read.
NAMES = """
etcd_server_has_leader etcd_server_is_leader etcd_server_is_learner etcd_server_id etcd_server_leader_changes_seen_total
etcd_server_proposals_failed_total etcd_server_proposals_pending etcd_server_proposals_committed_total
etcd_server_proposals_applied_total etcd_server_quota_backend_bytes etcd_server_version etcd_cluster_version
etcd_server_slow_apply_total etcd_server_slow_read_indexes_total etcd_server_read_indexes_failed_total
etcd_mvcc_db_total_size_in_bytes etcd_mvcc_db_total_size_in_use_in_bytes etcd_disk_wal_fsync_duration_seconds
etcd_disk_backend_commit_duration_seconds etcd_network_peer_round_trip_time_seconds etcd_network_peer_received_bytes_total
etcd_network_peer_sent_bytes_total etcd_network_client_grpc_received_bytes_total etcd_network_client_grpc_sent_bytes_total
etcd_network_active_peers grpc_server_started_total grpc_server_handled_total grpc_server_msg_received_total
grpc_server_msg_sent_total grpc_server_handling_seconds etcd_debugging_mvcc_keys_total etcd_debugging_mvcc_watcher_total
etcd_debugging_mvcc_slow_watcher_total etcd_debugging_mvcc_watch_stream_total etcd_debugging_mvcc_current_revision
etcd_debugging_mvcc_compact_revision etcd_debugging_lease_granted_total etcd_debugging_lease_revoked_total
etcd_debugging_lease_renewed_total process_cpu_seconds_total process_open_fds process_max_fds process_resident_memory_bytes
process_virtual_memory_bytes process_virtual_memory_max_bytes process_start_time_seconds
""".split()
# What Debian's etcd 3.4 does not have, or shows only when there is something to show: type and labels.
NEWER = {"etcd_server_healthcheck": ("gauge", {"type", "name"}),
         "etcd_debugging_server_alarms": ("gauge", {"server_id", "alarm_type"}),
         "etcd_network_peer_sent_failures_total": ("counter", {"To"})}


def differences(ours, theirs):
    for name in NAMES:
        if name not in theirs:
            yield f"{name}: etcd does not have it"
        elif name not in ours:
            yield f"{name}: missing"
        else:
            a, b = ours[name], theirs[name]
            if a.kind != b.kind:
                yield f"{name}: is a {a.kind}, etcd's a {b.kind}"
            if a.labels != b.labels:
                yield f"{name}: has labels {sorted(a.labels)}, etcd's {sorted(b.labels)}"
            if a.bounds != b.bounds:
                yield f"{name}: has buckets {sorted(a.bounds)}, etcd's {sorted(b.bounds)}"
    for name, (kind, labels) in NEWER.items():
        if name not in ours:
            yield f"{name}: missing"
        elif ours[name].kind != kind or ours[name].labels - labels:
            yield f"{name}: is a {ours[name].kind} with labels {sorted(ours[name].labels)}"


def method_differences(ours, theirs):
    """Every method that etcd counts is counted from the start, by every code."""
    for name in ("grpc_server_started_total", "grpc_server_handled_total", "grpc_server_handling_seconds"):
        missing = set(theirs[name].samples) - set(ours[name].samples)
        # Of streams etcd has histograms of its own.
        for suffix, labels in sorted(missing):
            yield f"{name}{suffix}{dict(labels)}: missing"


def value_problems(ours):
    """Sums and counts of histograms agree, and counters are whole numbers."""
    for name, family in ours.items():
        if family.kind != "histogram":
            continue
        for (suffix, labels), value in family.samples.items():
            if suffix == "_count":
                top = family.samples["_bucket", tuple(sorted([*labels, ("le", "+Inf")]))]
                if top != value:
                    yield f"{name}{dict(labels)}: counts {value}, but its last bucket holds {top}"


def manual_differences(ours, manual):
    """docs/metrics.md names what is on the page, and nothing else."""
    named = set(re.findall(r"`((?:etcd|grpc_server|process|conclave)_\w+)`", manual))
    for name in sorted(set(ours) - named):
        yield f"{name}: is not in docs/metrics.md"
    for name in sorted(named - set(ours)):
        yield f"{name}: is in docs/metrics.md, but not on the page"


def complaints(promtool, page):
    """Names of metrics, with what promtool says about them."""
    done = subprocess.run([promtool, "check", "metrics"], input=page, text=True, capture_output=True, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode not in (0, 3) or any("error while linting" in line for line in lines):
        raise SystemExit(f"promtool cannot read the page: {lines[:5]}")
    return set(lines)


def main():
    parser = argparse.ArgumentParser()
    for name in ("root", "peers", "conclave"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    args = parser.parse_args()
    sys.path[:0] = [str(args.root / "tests/support"), str(args.root / "tests/metrics")]
    from page import fetch, parse
    from servers import Cluster

    pages = {}
    for kind, binary, flags in (("etcd", args.peers / "etcd", []), ("conclave", args.conclave, [])):
        cluster = Cluster(kind, str(binary), members=2, flags=["--metrics=extensive", *flags])
        try:
            deadline = time.monotonic() + 40
            while True:
                text = fetch(cluster.clients[0])
                found = parse(text)
                # What appears with the first message between members, and with the cluster's version.
                if {"etcd_network_peer_round_trip_time_seconds", "etcd_cluster_version"} <= set(found) and \
                        found["etcd_network_peer_round_trip_time_seconds"].samples and \
                        found["etcd_network_peer_received_bytes_total"].samples:
                    break
                if time.monotonic() > deadline:
                    raise SystemExit(f"{kind} shows no round trips:\n{text[-1000:]}")
                time.sleep(0.2)
            pages[kind] = text, found
        finally:
            cluster.stop()
    (our_text, ours), (their_text, theirs) = pages["conclave"], pages["etcd"]
    problems = [*differences(ours, theirs), *method_differences(ours, theirs), *value_problems(ours)]
    problems += manual_differences(ours, (args.root / "docs/metrics.md").read_text())
    promtool = str(args.peers / "promtool")
    known = complaints(promtool, their_text)
    problems += [f"promtool: {line}" for line in sorted(complaints(promtool, our_text) - known)]
    version = next(iter(ours["etcd_cluster_version"].samples))[1]
    if not re.fullmatch(r"\d+\.\d+", dict(version)["cluster_version"]):
        problems.append(f"etcd_cluster_version has {version}")
    for problem in problems:
        print(problem)
    print(f"metrics: {len(ours)} families of ours, {len(NAMES) + len(NEWER)} compared, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
