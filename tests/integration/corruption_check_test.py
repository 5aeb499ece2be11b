"""--corrupt-check-time, in both of its spellings: the leader says, as often as asked, how often the members' states were
compared; and they were. What happens when they differ is tests/faults/divergence_test.cc.

usage: corruption_check_test.py --conclave PATH
"""

import argparse
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
from servers import Cluster, memory_folder, wait_for  # noqa: E402

ARGS = None
SECONDS_MAX = 60
LINE = "finished peer corruption check"
PUT = b"\x0a\x01k\x12\x01v"  # etcdserverpb.PutRequest of "k" and "v"


class CorruptionCheck(unittest.TestCase):
    def cluster(self, *flags, members=3):
        started = Cluster("conclave", ARGS.conclave, members, flags=flags, folder=memory_folder())
        self.addCleanup(started.stop)
        return started

    def reports(self, cluster):
        """By member: the lines of its log that tell of checks."""
        logs = [cluster.log(member).read_text().splitlines() for member in range(len(cluster.clients))]
        return [[json.loads(line) for line in log if LINE in line] for log in logs]

    def test_the_leader_tells_of_its_checks(self):
        for flag in ("--corrupt-check-time", "--experimental-corrupt-check-time"):
            with self.subTest(flag):
                cluster = self.cluster(f"{flag}=1s")
                put = cluster.unary("/etcdserverpb.KV/Put")

                def checked():
                    put(PUT, timeout=SECONDS_MAX)  # a new state to compare
                    return [r for r in sum(self.reports(cluster), []) if r["number-of-hashes-checked"] > 0]
                wait_for(lambda: len(checked()) >= 3, lambda: self.reports(cluster), SECONDS_MAX)
                told = [reports for reports in self.reports(cluster) if reports]
                for report in sum(told, []):
                    self.assertEqual((report["level"], report["number-of-peers-checked"]), ("info", 2))
                # Each state is compared with both others.
                self.assertGreaterEqual(sum(r["number-of-hashes-checked"] for r in sum(told, [])), 3)
                for member in range(3):
                    self.assertNotIn("found data inconsistency", cluster.log(member).read_text())
                cluster.stop()

    def test_without_the_flag_nothing_is_said(self):
        cluster = self.cluster("--corrupt-check-time=0s", "--compact-hash-check-time=1s",
                               "--feature-gates=CompactHashCheck=true")
        put = cluster.unary("/etcdserverpb.KV/Put")

        def other_checks():
            put(PUT, timeout=SECONDS_MAX)
            return any("finished compaction hash check" in cluster.log(member).read_text() for member in range(3))
        wait_for(other_checks, "the other check's line", SECONDS_MAX)
        self.assertEqual(self.reports(cluster), [[], [], []])


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--conclave", required=True)
    ARGS, rest = parser.parse_known_args()
    done = unittest.main(argv=["corruption_check_test", "-v", *rest], exit=False)
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
