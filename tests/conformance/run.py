"""Runs the scripts of requests (cases.py) and seeded random requests against Debian's etcd and against us, and fails
on any difference that differences.py does not explain.

usage: run.py --etcd PATH --conclave PATH --messages FOLDER [--seed N] [--requests N] [--case NAME]
"""

import argparse
import pathlib
import random
import sys
import time


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--conclave", required=True)
    parser.add_argument("--messages", required=True, help="folder of the generated Python messages")
    parser.add_argument("--seed", type=int, help="of the random requests; default: a new one")
    parser.add_argument("--requests", type=int, default=20_000, help="random ones (default 20,000)")
    parser.add_argument("--case", help="only the cases whose name contains this, and nothing random")
    return parser.parse_args()


def main():
    args = parse()
    sys.path[:0] = [args.messages, str(pathlib.Path(__file__).parent.parent / "support")]
    from auth_run import AuthRun
    from cases import CASES
    from generator import Generator
    from pair import Pair
    from servers import Cluster
    from watch_run import WatchRun

    total, explained, unexplained = 0, {}, []

    def with_pair(context, body):
        nonlocal total
        theirs = Cluster("etcd", args.etcd)
        ours = Cluster("conclave", args.conclave)
        try:
            pair = Pair(theirs, ours, context)
            body(pair)
        finally:
            theirs.stop()
            ours.stop()
        total += pair.requests
        unexplained.extend(pair.unexplained)
        for reason, count in pair.explained.items():
            explained[reason] = explained.get(reason, 0) + count

    def run_cases(pair, names):
        """On one pair of servers, for as long as they stay in step; returns the cases that are left."""
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

    names = [name for name in CASES if not args.case or args.case in name]
    cases = len(names)
    while names:
        with_pair("", lambda pair: run_cases(pair, names))
    print(f"{cases} cases, {total} requests")

    if not args.case:
        seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
        started, part = time.monotonic(), 0
        while total < args.requests and len(unexplained) <= 3:
            def body(pair):
                generator = Generator(pair, seed + part)
                watch = WatchRun(generator)
                for _ in range(4):
                    if not pair.over:
                        generator.run(1000)
                    if not pair.over:
                        watch.run(300)
                watch.close()
                if not pair.over:
                    permissions = AuthRun(generator)
                    permissions.set_up()
                    permissions.run(1000)
                    if not pair.over:
                        permissions.tear_down()
            with_pair(f"random, --seed {seed + part}", body)
            part += 1
        print(f"random requests from --seed {seed}, {part} runs of fresh servers, "
              f"{time.monotonic() - started:.0f} s")

    for reason, count in sorted(explained.items()):
        print(f"explained, {count} times: {reason}")
    for difference in unexplained:
        print(f"DIFFERENCE {difference}")
    print(f"conformance: {total} requests, {sum(explained.values())} explained differences, "
          f"{len(unexplained)} unexplained")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
