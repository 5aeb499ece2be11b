"""Runs Prometheus, with the alert rules of packaging/, against a real cluster, and asks it every query of the dashboard
and every expression of the rules: each must give series.

usage: dashboards.py --root FOLDER --peers FOLDER --conclave PATH
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request

SECONDS_MAX = 120


def dashboard_queries(path):
    """(where, query) with the dashboard's variables filled in."""
    dashboard = json.loads(path.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$cluster", ".*etcd.*").replace("$__rate_interval", "1m")
            yield f'{path.name}: {panel["title"]}', query


def rule_queries(rules):
    """(where, query): the comparison of an alert as one that gives 0 or 1, so that it gives series in peace too."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            query, changed = re.subn(r"(==|!=|>=|<=|>|<)\s*(-?[\d.]+)\s*$", r"\1 bool \2", rule["query"])
            if changed != 1:
                raise SystemExit(f'{rule["name"]} does not end with a comparison: {rule["query"]}')
            yield rule["name"], query


class Prometheus:
    def __init__(self, binary, folder, port, targets, rules):
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "prometheus.yml"
        # JSON is YAML.
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "2s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "my-etcd", "static_configs": [{"targets": targets}]}]}))
        self.log = folder / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                 f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"], stdout=log, stderr=log)

    def get(self, path, **arguments):
        url = f"{self.url}{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def wait(self, condition, what):
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            try:
                if (outcome := condition()):
                    return outcome
            except OSError:
                pass  # it does not listen yet
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Prometheus: {what}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.3)

    def series(self, query):
        return self.get("/api/v1/query", query=query)["result"]

    def stop(self):
        self.process.kill()
        self.process.wait()


def make_traffic(cluster):
    """A little of everything: writes, reads, a call that fails."""
    import grpc
    put = cluster.unary("/etcdserverpb.KV/Put")
    for i in range(20):
        put(b"\x0a\x01a\x12\x01" + bytes([i]), timeout=10)
    try:
        put(b"", timeout=10)  # no key
        raise SystemExit("a put without a key was taken")
    except grpc.RpcError:
        pass
    cluster.unary("/etcdserverpb.Lease/LeaseGrant")(b"\x08\x3c", timeout=10)


def run(args, cluster, free_port):
    from page import fetch
    rules = args.root / "packaging/prometheus/conclave.rules.yml"
    server = Prometheus(str(args.peers / "prometheus"), cluster.folder, free_port, cluster.clients, rules)
    try:
        server.wait(lambda: len(server.series("up == 1")) == len(cluster.clients), "does not reach the members")
        make_traffic(cluster)
        loaded = server.wait(lambda: server.get("/api/v1/rules"), "has no rules")
        problems, count = [], 0
        for where, query in [*dashboard_queries(args.root / "packaging/grafana/conclave.json"),
                             *rule_queries(loaded)]:
            count += 1
            try:
                # A rate needs two scrapes.
                server.wait(lambda q=query: server.series(q), f"no series for {where}")
            except (SystemExit, urllib.error.HTTPError) as error:
                problems.append(f"{where}: {query}: {str(error).splitlines()[0]}")
        def evaluated():
            groups = server.get("/api/v1/rules")["groups"]
            return [r for g in groups for r in g["rules"]] if all(
                r["health"] != "unknown" for g in groups for r in g["rules"]) else None
        for rule in server.wait(evaluated, "does not evaluate its rules"):
            if rule["health"] != "ok":
                problems.append(f'{rule["name"]}: {rule.get("lastError")}')
            if rule["state"] == "firing":
                problems.append(f'{rule["name"]} fires at a cluster that is well')
        if not fetch(cluster.clients[0]):
            problems.append("the page is empty")
        return count, problems
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser()
    for name in ("root", "peers", "conclave"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    args = parser.parse_args()
    sys.path[:0] = [str(args.root / "tests/support"), str(args.root / "tests/metrics")]
    from servers import Cluster, free_ports
    cluster = Cluster("conclave", str(args.conclave), members=3, flags=["--metrics=extensive"])
    try:
        count, problems = run(args, cluster, free_ports(1)[0])
    finally:
        cluster.stop()
    for problem in problems:
        print(problem)
    print(f"dashboards: {count} queries, {len(problems)} problems")
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
