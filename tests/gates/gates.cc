#include "conclave/tests/gates/gates.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace conclave::gates {

const std::vector<Gate>& AllGates() {
  static const auto& gates = *new std::vector<Gate>{
      {"frame",
       "of three members one is down, all are killed, a frame of the log of one becomes zeros: "
       "nothing acknowledged is lost",
       ZeroedFrame},
      {"bit", "a bit of a value flips in the state file of a member: nobody reads it", FlippedBit},
      {"candidate",
       "who campaigns on a lease that ends while he waits is told so within 1 s, and never leads",
       CandidateWithoutALease},
      {"lease", "a lease that nobody renews ends, however often the leader changes",
       LeaseUnderChangesOfLeader},
      {"kill",
       "after the leader is killed others write again: half of the times within 0.6 s, always "
       "within 1.2 s",
       WriteGapAfterAKill},
      {"pause", "the same when the leader stands still", WriteGapAfterAPause},
      {"leases",
       "many leases that run out at once are gone within 5 s, and puts take at most three times as "
       "long",
       ManyLeasesAtOnce},
      {"watcher", "who watches and does not read costs the server no memory, and misses nothing",
       SlowWatcher},
      {"full",
       "a member whose disk of 140 MB is full reads on, starts again, and writes again when "
       "something was deleted",
       FullDisk},
      {"sync",
       "a member whose sync fails ends, and trusts nothing of its log that was not proven synced",
       FailedSync},
      {"states", "a member whose state differs is found within 2 s", StatesThatDiffer},
  };
  return gates;
}

std::string Seconds(absl::Duration duration) {
  return absl::StrFormat("%.2f s", absl::ToDoubleSeconds(duration));
}

absl::Duration Percentile(std::vector<absl::Duration> times, double share) {
  if (times.empty()) return absl::ZeroDuration();
  std::sort(times.begin(), times.end());
  const auto last = static_cast<double>(times.size() - 1);
  return times[static_cast<size_t>(share * last + 0.5)];
}

}  // namespace conclave::gates
