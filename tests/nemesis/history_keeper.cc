#include "conclave/tests/nemesis/history_keeper.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"

namespace conclave::nemesis {
namespace {

constexpr absl::Duration kReadPatience = absl::Seconds(60);

sim::Write WriteOf(const WatchEvent& event) {
  if (event.type == WatchEvent::Type::kDelete) return {.key = event.kv.key, .tombstone = true};
  return {.key = event.kv.key,
          .value = event.kv.value,
          .create_revision = event.kv.create_revision,
          .version = event.kv.version,
          .lease = event.kv.lease};
}

}  // namespace

Instant Now() { return Instant(std::chrono::steady_clock::now().time_since_epoch()); }

sim::SeenKey Seen(const KeyValue& kv) {
  return {.key = kv.key,
          .value = kv.value,
          .create_revision = kv.create_revision,
          .mod_revision = kv.mod_revision,
          .version = kv.version};
}

void Note(const WatchBatch& batch, sim::WatchHistory* watch) {
  using Kind = sim::WatchHistory::Note::Kind;
  for (const WatchEvent& event : batch.events) {
    watch->notes.push_back({.kind = Kind::kEvent,
                            .heard = {.revision = event.kv.mod_revision, .write = WriteOf(event)}});
  }
  watch->notes.push_back({.kind = Kind::kProgress, .revision = batch.revision});
}

void HistoryKeeper::Add(sim::KvOperation operation) {
  std::lock_guard lock(mutex_);
  operations_.push_back(std::move(operation));
}

void HistoryKeeper::Add(sim::LeaseHistory lease) {
  std::lock_guard lock(mutex_);
  leases_.push_back(std::move(lease));
}

void HistoryKeeper::Add(sim::WatchHistory watch) {
  std::lock_guard lock(mutex_);
  watches_.push_back(std::move(watch));
}

void HistoryKeeper::Add(Holding holding) {
  std::lock_guard lock(mutex_);
  holdings_.push_back(holding);
}

void HistoryKeeper::Heard(const WatchBatch& batch) {
  const Instant now = Now();
  std::lock_guard lock(mutex_);
  for (const WatchEvent& event : batch.events) heard_.emplace(event.kv.mod_revision, now);
}

HistoryKeeper::Counts HistoryKeeper::counts() const {
  std::lock_guard lock(mutex_);
  Counts counts{.watches = watches_.size(),
                .leases = leases_.size(),
                .holdings = holdings_.size(),
                .revisions = revisions_};
  std::vector<Instant> writes;
  for (const sim::KvOperation& op : operations_) {
    if (op.outcome == sim::Outcome::kDone) ++counts.done;
    if (op.outcome == sim::Outcome::kRefused) ++counts.refused;
    if (op.outcome == sim::Outcome::kUnknown) ++counts.unknown;
    if (op.outcome == sim::Outcome::kDone && op.kind != sim::KvOperation::Kind::kRange) {
      writes.push_back(op.returned);
    }
  }
  std::sort(writes.begin(), writes.end());
  for (size_t i = 1; i < writes.size(); ++i) {
    counts.longest_pause =
        std::max(counts.longest_pause, absl::FromChrono(writes[i] - writes[i - 1]));
  }
  return counts;
}

absl::StatusOr<sim::TrueHistory> HistoryKeeper::Read(const std::string& endpoint) const {
  absl::StatusOr<Client> client = Client::Connect({.endpoints = {endpoint}});
  if (!client.ok()) return client.status();
  const absl::StatusOr<RangeResult> last = client->Range("no such key");
  if (!last.ok()) return last.status();
  sim::TrueHistory truth;
  if (last->revision < 2) return truth;
  absl::Notification whole;
  absl::Status failure;
  Watch watch = client->Watch(AllKeys(), {.from_revision = 2}, [&](const WatchBatch& batch) {
    if (whole.HasBeenNotified()) return;
    if (!batch.status.ok() || batch.resynced) {
      failure = absl::DataLossError(
          absl::StrCat("the history cannot be read: ", batch.status.ToString()));
      return whole.Notify();
    }
    for (const WatchEvent& event : batch.events) {
      const int64_t revision = event.kv.mod_revision;
      if (truth.empty() || truth.back().revision != revision) {
        truth.push_back({.revision = revision});
      }
      truth.back().writes.push_back(WriteOf(event));
    }
    if (batch.revision >= last->revision) whole.Notify();
  });
  const bool in_time = whole.WaitForNotificationWithTimeout(kReadPatience);
  watch.Cancel();
  if (!in_time) return absl::DeadlineExceededError("the history cannot be read in time");
  if (!failure.ok()) return failure;
  for (size_t i = 0; i < truth.size(); ++i) {
    if (truth[i].revision != static_cast<int64_t>(i) + 2) {
      return absl::DataLossError(absl::StrCat("the history has a gap before ", truth[i].revision));
    }
  }
  return truth;
}

absl::StatusOr<sim::Complaints> HistoryKeeper::Check(const std::vector<std::string>& endpoints) {
  sim::Complaints complaints;
  sim::TrueHistory truth;
  for (const std::string& endpoint : endpoints) {
    absl::StatusOr<sim::TrueHistory> read = Read(endpoint);
    if (!read.ok()) return read.status();
    if (endpoint == endpoints.front()) truth = *std::move(read);
    const size_t common = std::min(truth.size(), read->size());
    for (size_t i = 0; endpoint != endpoints.front() && i < common; ++i) {
      if (truth[i].writes == (*read)[i].writes) continue;
      complaints.push_back(absl::StrCat("members differ at revision ", truth[i].revision));
      break;
    }
    if (endpoint != endpoints.front() && read->size() > truth.size()) truth = *std::move(read);
  }
  std::lock_guard lock(mutex_);
  revisions_ = truth.size();
  for (sim::TrueRevision& revision : truth) {
    // What nobody heard of in time counts as late: a lease is then never blamed wrongly.
    const auto heard = heard_.find(revision.revision);
    revision.applied = heard == heard_.end() ? kNever : heard->second;
  }
  const auto take = [&](const sim::Complaints& more) {
    complaints.insert(complaints.end(), more.begin(), more.end());
  };
  take(sim::CheckKv(truth, operations_));
  for (const sim::WatchHistory& watch : watches_) take(sim::CheckWatch(truth, watch));
  for (const sim::LeaseHistory& lease : leases_) take(sim::CheckLease(truth, lease));
  take(CheckHoldings(holdings_));
  return complaints;
}

}  // namespace conclave::nemesis
