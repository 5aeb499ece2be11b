"""Runs the scripts of requests (cases.py) and seeded random requests against Debian's etcd and against us, and fails
on any difference that differences.py does not explain. The random ones are made by several workers at once, each with
servers of its own.

usage: run.py --etcd PATH --conclave PATH --messages FOLDER [--seed N] [--requests N] [--workers N] [--case NAME]
"""

import argparse
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import time

DIFFERENCES_MAX = 3  # of a worker, before it stops
WORKER_SECONDS_MAX = 420  # no new part is begun after that: a machine that is busy with other things asks less


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--conclave", required=True)
    parser.add_argument("--messages", required=True, help="folder of the generated Python messages")
    parser.add_argument("--seed", type=int, help="of the random requests; default: a new one")
    parser.add_argument("--requests", type=int, default=50_000, help="random ones (default 50,000)")
    # A worker mostly waits for one of its servers; two for each core keep the cores busy.
    parser.add_argument("--workers", type=int, default=2 * len(os.sched_getaffinity(0)),
                        help="how many make them at once (default: two for each core)")
    parser.add_argument("--case", help="only the cases whose name contains this, and nothing random")
    parser.add_argument("--worker", action="store_true", help="this is one: random requests, the result as JSON")
    return parser.parse_args()


class Result:
    """What the comparisons of one process have found; adds up with those of others."""

    def __init__(self):
        self.requests, self.parts = 0, 0
        self.explained, self.sent = collections.Counter(), collections.Counter()
        self.unexplained = []

    def add_pair(self, pair):
        self.requests += pair.requests
        self.explained.update(pair.explained)
        self.sent.update(pair.sent)
        self.unexplained.extend(pair.unexplained)

    def add_json(self, text):
        other = json.loads(text)
        self.requests += other["requests"]
        self.parts += other["parts"]
        self.explained.update(other["explained"])
        self.sent.update(other["sent"])
        self.unexplained.extend(other["unexplained"])

    def as_json(self):
        return json.dumps(vars(self))


def with_pair(args, result, context, body):
    from pair import Pair
    from servers import Cluster, memory_folder
    servers = [Cluster(name, binary, folder=memory_folder())
               for name, binary in (("etcd", args.etcd), ("conclave", args.conclave))]
    try:
        pair = Pair(*servers, context)
        body(pair)
    finally:
        for server in servers:
            server.stop()
    result.add_pair(pair)


def run_cases(pair, names):
    """On one pair of servers, for as long as they stay in step; returns the cases that are left."""
    from cases import CASES
    while names:
        pair.context = names.pop(0)
        before = len(pair.unexplained)
        CASES[pair.context](pair)
        for server in pair.servers:
            if server.dead() is not None:
                pair.differ("after the case", f"{server.name} has died", server.dead())
                return
        revisions = pair.revisions()
        if len(pair.unexplained) > before or revisions[0] != revisions[1]:
            if len(pair.unexplained) == before:
                pair.differ("revision after the case", *revisions)
            return


def random_part(pair, seed):
    from auth_run import AuthRun
    from generator import Generator
    from recipes_run import RecipesRun
    from watch_run import WatchRun
    generator = Generator(pair, seed)
    watch = WatchRun(generator)
    for _ in range(4):
        if not pair.over:
            generator.run(1000)
        if not pair.over:
            watch.run(300)
    watch.close()
    if not pair.over:
        RecipesRun(generator).run(500)
    if not pair.over:
        permissions = AuthRun(generator)
        permissions.set_up()
        permissions.run(1500)
        if not pair.over:
            permissions.tear_down()


def run_worker(args):
    result, began = Result(), time.monotonic()
    while (result.requests < args.requests and len(result.unexplained) <= DIFFERENCES_MAX
           and time.monotonic() - began < WORKER_SECONDS_MAX):
        seed = args.seed + result.parts
        with_pair(args, result, f"random, --seed {seed} --workers 1", lambda pair: random_part(pair, seed))
        result.parts += 1
    print(result.as_json())


def run_workers(args, result):
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    started = time.monotonic()
    share = args.requests // args.workers
    workers = [subprocess.Popen(
        [sys.executable, __file__, "--worker", "--etcd", args.etcd, "--conclave", args.conclave, "--messages",
         args.messages, "--requests", str(share), "--seed", str(seed + 1000 * number)], stdout=subprocess.PIPE, text=True)
        for number in range(args.workers)]
    for worker in workers:
        out, _ = worker.communicate()
        if worker.returncode != 0:
            result.unexplained.append(f"a worker has failed with {worker.returncode}: {out[-1000:]}")
        else:
            result.add_json(out)
    print(f"random requests from --seed {seed}, {result.parts} runs of fresh servers, "
          f"{time.monotonic() - started:.0f} s")


def write_tables(result):
    """In docs/compatibility.md. How often something came is each run's own; which methods there are is not."""
    import tables
    from differences import DIFFERENCES
    from protocol import METHODS
    gateway = " by gateway"
    rows = [[f"{METHODS[name].service}.{name}", count, result.sent.get(name + gateway, "-")]
            for name, count in sorted(result.sent.items(), key=lambda item: (METHODS[item[0].split()[0]].path, item[0]))
            if not name.endswith(gateway)]
    tables.check("requests", ["method", "by gRPC", "through the gateway"], rows, tables.known_rows)
    reasons = sorted(difference.reason for difference in DIFFERENCES)
    tables.check("differences", ["difference from etcd 3.4", "times"],
                 [[reason, result.explained.get(reason, 0)] for reason in reasons], tables.same_rows)


def main():
    args = parse()
    sys.path[:0] = [args.messages, str(pathlib.Path(__file__).parent.parent / "support")]
    if args.worker:
        run_worker(args)
        return 0
    from cases import CASES
    result = Result()
    names = [name for name in CASES if not args.case or args.case in name]
    cases = len(names)
    while names:
        with_pair(args, result, "", lambda pair: run_cases(pair, names))
    print(f"{cases} cases, {result.requests} requests")
    if not args.case:
        run_workers(args, result)

    if not args.case and not result.unexplained:
        write_tables(result)
    print("requests per method: " + ", ".join(f"{name} {count}" for name, count in sorted(result.sent.items())))
    for reason, count in sorted(result.explained.items()):
        print(f"explained, {count} times: {reason}")
    for difference in result.unexplained:
        print(f"DIFFERENCE {difference}")
    print(f"conformance: {result.requests} requests, {sum(result.explained.values())} explained differences, "
          f"{len(result.unexplained)} unexplained")
    return 1 if result.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
