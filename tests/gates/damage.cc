// Files that are damaged while their member is down, and states that differ.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "conclave/client/client.h"
#include "conclave/client/maintenance.h"
#include "conclave/tests/faults/damaged_files.h"
#include "conclave/tests/faults/spoiled_state.h"
#include "conclave/tests/gates/gates.h"

namespace conclave::gates {
namespace {

using testing::FilePlace;
using testing::ServerKind;
using testing::TestCluster;
using testing::WaitFor;

constexpr int kPuts = 20;
constexpr size_t kFrameLengthBytes = 8;
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr absl::Duration kHeadStart = absl::Seconds(3);
constexpr absl::Duration kFoundWithin = absl::Seconds(2);
constexpr char kPrecious[] = "precious";
constexpr char kValue[] = "a value that stands nowhere else: Xq7vTz";

absl::StatusOr<Client> ClientOf(const std::vector<std::string>& endpoints) {
  return Client::Connect({.endpoints = endpoints, .log_sink = [](LogLevel, std::string_view) {}});
}

absl::StatusOr<std::unique_ptr<TestCluster>> Three(ServerKind kind) {
  std::vector<std::string> flags;
  if (kind == ServerKind::kConclave) flags = {"--snapshot-count=10"};
  return TestCluster::Start(
      TestCluster::Options{.kind = kind, .members = 3, .extra_flags = std::move(flags)});
}

absl::Status PutAcknowledged(const Client& client, const std::string& key,
                             const std::string& value) {
  absl::Status last;
  const bool put = WaitFor(
      [&] {
        last = client.Put(key, value).status();
        return last.ok();
      },
      kPatience);
  return put ? absl::OkStatus() : last;
}

// How many of the keys a linearizable read of this member shows; -1: it does not answer.
int64_t CountOn(const TestCluster& cluster, int member) {
  const absl::StatusOr<Client> client = ClientOf({cluster.endpoint(member)});
  if (!client.ok()) return -1;
  const auto keys =
      client->Range(Prefix("key-"), {.count_only = true}, {.timeout = absl::Seconds(3)});
  return keys.ok() ? keys->count : -1;
}

bool HasCorruptAlarm(const Client& client) {
  const auto alarms = Maintenance(client).Alarms({.timeout = absl::Seconds(1)});
  if (!alarms.ok()) return false;
  for (const Alarm& alarm : *alarms) {
    if (alarm.type == AlarmType::kCorrupt) return true;
  }
  return false;
}

// Three members, of which the second is down with `kValue` in its state; everything else about it
// is as the others have it.
absl::StatusOr<std::unique_ptr<TestCluster>> WithOneDown(ServerKind kind) {
  absl::StatusOr<std::unique_ptr<TestCluster>> started = Three(kind);
  if (!started.ok()) return started.status();
  TestCluster& cluster = **started;
  absl::StatusOr<Client> client = ClientOf({cluster.endpoint(0)});
  if (!client.ok()) return client.status();
  absl::Status status = PutAcknowledged(*client, kPrecious, kValue);
  for (int i = 0; i < 3 * kPuts && status.ok(); ++i) {
    status = PutAcknowledged(*client, absl::StrCat("other-", i), "value");
  }
  if (!status.ok()) return status;
  // An orderly end: etcd writes its database at it.
  if (status = cluster.WaitAllHealthy(); !status.ok()) return status;
  cluster.Terminate(1);
  return started;
}

// The value, by a linearizable read of this member.
absl::StatusOr<std::string> ValueOn(const TestCluster& cluster, int member) {
  const absl::StatusOr<Client> client = ClientOf({cluster.endpoint(member)});
  if (!client.ok()) return client.status();
  const auto value = client->Get(kPrecious, {}, {.timeout = absl::Seconds(3)});
  if (!value.ok()) return value.status();
  return value->has_value() ? (*value)->value : "";
}

}  // namespace

absl::StatusOr<Result> ZeroedFrame(ServerKind kind, const Scale&) {
  absl::StatusOr<std::unique_ptr<TestCluster>> started =
      TestCluster::Start(TestCluster::Options{.kind = kind, .members = 3});
  if (!started.ok()) return started.status();
  TestCluster& cluster = **started;
  cluster.Kill(2);
  const absl::StatusOr<Client> client = ClientOf({cluster.endpoint(0), cluster.endpoint(1)});
  if (!client.ok()) return client.status();
  for (int i = 0; i < kPuts; ++i) {
    absl::Status put = PutAcknowledged(*client, absl::StrCat("key-", i), "value");
    if (!put.ok()) return put;
  }
  if (!WaitFor([&] { return CountOn(cluster, 1) == kPuts; })) {
    return absl::UnavailableError("the second member does not have the writes");
  }
  cluster.Kill(1);
  cluster.Kill(0);
  const std::vector<FilePlace> records = testing::LastRecords(kind, cluster.data_dir(1), kPuts);
  if (records.empty()) return absl::NotFoundError("the log has no records");
  if (!testing::ZeroBytes(records.front(), kFrameLengthBytes)) {
    return absl::InternalError("the log cannot be damaged");
  }
  // The one that has it all comes last: until then the other two are a majority without the writes,
  // and must not act as one.
  absl::Status status = cluster.Restart(1);
  if (status.ok()) status = cluster.Restart(2);
  (void)cluster.WaitHealthy(2, kHeadStart);
  if (status.ok()) status = cluster.Restart(0);
  if (!status.ok()) return status;
  std::vector<std::string> counts;
  bool kept = true;
  (void)WaitFor(
      [&] {
        counts.clear();
        kept = true;
        for (int i = 0; i < 3; ++i) {
          const int64_t count = CountOn(cluster, i);
          kept = kept && count == kPuts;
          counts.push_back(count < 0 ? "none (no answer)" : absl::StrCat(count));
        }
        return kept;
      },
      kPatience);
  return Result{.kept = kept,
                .measured = absl::StrCat("of ", kPuts, " writes the members show ",
                                         absl::StrJoin(counts, ", "))};
}

absl::StatusOr<Result> FlippedBit(ServerKind kind, const Scale&) {
  absl::StatusOr<std::unique_ptr<TestCluster>> started = WithOneDown(kind);
  if (!started.ok()) return started.status();
  TestCluster& cluster = **started;
  const auto places = testing::PlacesInState(kind, cluster.data_dir(1), kValue);
  if (places.empty()) return absl::NotFoundError("the value is not in the member's state file");
  for (const FilePlace& place : places) {
    if (!testing::FlipBit(place, 0)) return absl::InternalError("a file cannot be damaged");
  }
  if (absl::Status status = cluster.Restart(1); !status.ok()) return status;
  const bool healthy = cluster.WaitHealthy(1, kPatience).ok();
  const absl::StatusOr<std::string> value = ValueOn(cluster, 1);
  const bool wrong = value.ok() && *value != kValue;
  const absl::StatusOr<Client> client = ClientOf({cluster.endpoint(0)});
  if (!client.ok()) return client.status();
  return Result{.kept = !wrong,
                .measured = absl::StrCat(
                    wrong        ? "a linearizable read shows another value"
                    : value.ok() ? "refused, and filled up by the others: the right value"
                                 : absl::StrCat("no value: ", value.status().message()),
                    healthy ? "; the member is healthy" : "; the member is not healthy",
                    HasCorruptAlarm(*client) ? ", an alarm" : ", no alarm")};
}

absl::StatusOr<Result> StatesThatDiffer(ServerKind kind, const Scale&) {
  absl::StatusOr<std::unique_ptr<TestCluster>> started = WithOneDown(kind);
  if (!started.ok()) return started.status();
  TestCluster& cluster = **started;
  if (kind == ServerKind::kConclave) {
    absl::Status spoiled = testing::SpoilState(cluster.data_dir(1));
    if (!spoiled.ok()) return spoiled;
  } else {
    for (const FilePlace& place : testing::PlacesInState(kind, cluster.data_dir(1), kValue)) {
      if (!testing::FlipBit(place, 0)) return absl::InternalError("a file cannot be damaged");
    }
  }
  const absl::StatusOr<Client> others = ClientOf({cluster.endpoint(0)});
  const absl::StatusOr<Client> itself = ClientOf({cluster.endpoint(1)});
  if (!others.ok()) return others.status();
  if (!itself.ok()) return itself.status();
  if (absl::Status status = cluster.Restart(1); !status.ok()) return status;
  // It counts from when it takes part: it answers, by what it has itself.
  std::optional<absl::Time> up;
  const absl::Time begun = absl::Now();
  const bool found = WaitFor(
      [&] {
        if (!up.has_value() &&
            itself
                ->Range("no such key", {.serializable = true}, {.timeout = absl::Milliseconds(200)})
                .ok()) {
          up = absl::Now();
        }
        return HasCorruptAlarm(*others);
      },
      kPatience);
  const absl::Time now = absl::Now();
  const absl::Duration after = up.has_value() ? now - *up : absl::ZeroDuration();
  const absl::Duration restart = now - begun;
  return Result{.kept = found && after <= kFoundWithin,
                .measured = found ? absl::StrCat("found ", Seconds(after), " after it served, ",
                                                 Seconds(restart), " after its start")
                                  : absl::StrCat("not found within ", Seconds(after))};
}

}  // namespace conclave::gates
