#include "conclave/tests/nemesis/workload.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/lock/mutex.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::nemesis {
namespace {

using Kind = sim::KvOperation::Kind;

constexpr char kPrefix[] = "kv/";
constexpr char kLeasePrefix[] = "lease/";
constexpr uint64_t kKeys = 12;
constexpr absl::Duration kCallTimeout = absl::Seconds(3);
constexpr absl::Duration kThinkMax = absl::Milliseconds(20);
constexpr absl::Duration kHoldMax = absl::Milliseconds(60);
constexpr int64_t kLeaseSeconds = 2;
constexpr absl::Duration kWatchPatience = absl::Seconds(60);
constexpr absl::Duration kLeasePatience = absl::Seconds(60);
// A lease that nobody renews lives no longer than its TTL and this: an election, its expiry's way
// through the log, and a busy machine.
constexpr absl::Duration kLeaseSlack = absl::Seconds(10);

std::string KeyOf(uint64_t i) { return absl::StrCat(kPrefix, i); }

absl::Duration UpTo(absl::Duration longest, Prng& prng) { return longest * prng.Unit(); }

sim::Outcome OutcomeOf(const absl::Status& status) {
  if (status.ok()) return sim::Outcome::kDone;
  return IsOutcomeUnknown(status) ? sim::Outcome::kUnknown : sim::Outcome::kRefused;
}

// Calls of one client, one after the other.
class KvClient {
 public:
  KvClient(Client client, int id) : client_(std::move(client)), id_(id) {}

  sim::KvOperation Do(Prng& prng) {
    const uint64_t dice = prng.Below(10);
    const Kind kind = dice < 4   ? Kind::kPut
                      : dice < 5 ? Kind::kDelete
                      : dice < 8 ? Kind::kRange
                                 : Kind::kSwap;
    sim::KvOperation op{.kind = kind, .client = id_, .key = KeyOf(prng.Below(kKeys))};
    if (kind == Kind::kPut || kind == Kind::kSwap) op.value = absl::StrCat(id_, ".", ++values_);
    op.invoked = Now();
    op.returned = kNever;
    const absl::Status status = Call(op, prng);
    op.outcome = OutcomeOf(status);
    if (status.ok()) op.returned = Now();
    return op;
  }

 private:
  absl::Status Call(sim::KvOperation& op, Prng& prng) {
    switch (op.kind) {
      case Kind::kPut: {
        const absl::StatusOr<PutResult> put = client_.Put(op.key, op.value, {}, call_);
        if (put.ok()) op.revision = put->revision;
        return put.status();
      }
      case Kind::kDelete: {
        const absl::StatusOr<DeleteResult> deleted = client_.Delete(op.key, {}, call_);
        if (!deleted.ok()) return deleted.status();
        op.revision = deleted->revision;
        op.deleted = deleted->deleted;
        return absl::OkStatus();
      }
      case Kind::kRange:
        return Read(op, prng);
      case Kind::kSwap:
        return Swap(op, prng);
    }
    return absl::InternalError("no such operation");
  }

  absl::Status Read(sim::KvOperation& op, Prng& prng) {
    op.serializable = prng.Chance(1, 4);
    KeyRange range = op.key;
    if (prng.Chance(1, 3)) range = Prefix(kPrefix);
    op.key = range.key;
    op.range_end = range.end;
    const absl::StatusOr<RangeResult> read =
        client_.Range(range, {.serializable = op.serializable}, call_);
    if (!read.ok()) return read.status();
    op.revision = read->revision;
    for (const KeyValue& kv : read->kvs) {
      op.keys.push_back(Seen(kv));
      known_[kv.key] = kv.mod_revision;
    }
    return absl::OkStatus();
  }

  absl::Status Swap(sim::KvOperation& op, Prng& prng) {
    // Another key than the first: no key is put twice in a transaction.
    op.second_key = absl::StrCat(KeyOf(prng.Below(kKeys)), "/second");
    op.expected_mod = known_[op.key];
    const absl::StatusOr<TxnResult> result =
        client_.Txn()
            .If(ModRevision(op.key) == op.expected_mod)
            .Then(conclave::Put(op.key, op.value), conclave::Put(op.second_key, op.value))
            .Else(conclave::Get(op.key))
            .Commit(call_);
    if (!result.ok()) return result.status();
    op.revision = result->revision;
    op.succeeded = result->succeeded;
    known_[op.key] = op.succeeded ? op.revision : 0;
    if (op.succeeded) return absl::OkStatus();
    if (const KeyValue* there = result->get(0); there != nullptr) {
      op.keys.push_back(Seen(*there));
      known_[op.key] = there->mod_revision;
    }
    return absl::OkStatus();
  }

  const Client client_;
  const int id_;
  const CallOptions call_{.timeout = kCallTimeout};
  int64_t values_ = 0;
  std::map<std::string, int64_t> known_;  // modification revisions, as last seen
};

}  // namespace

// A watch from the beginning.
struct Workload::Watched {
  std::unique_ptr<Client> client;
  std::mutex mutex;
  sim::WatchHistory history;
  int64_t delivered = 0;
  absl::Status status;
  Watch watch;
};

Workload::Workload(const WorkloadOptions& options, HistoryKeeper* keeper)
    : options_(options), keeper_(keeper) {}

Workload::~Workload() { Join(); }

void Workload::Join() {
  ending_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

absl::StatusOr<std::unique_ptr<Workload>> Workload::Start(const WorkloadOptions& options,
                                                          const std::vector<std::string>& endpoints,
                                                          const std::vector<std::string>& monitor,
                                                          HistoryKeeper* keeper) {
  std::unique_ptr<Workload> workload(new Workload(options, keeper));
  const auto silent = [](LogLevel, std::string_view) {};
  const auto connect = [&](const std::vector<std::string>& to) {
    return Client::Connect({.endpoints = to, .log_sink = silent});
  };
  absl::StatusOr<Client> direct = connect(monitor);
  if (!direct.ok()) return direct.status();
  workload->monitor_ = std::make_unique<Client>(*std::move(direct));
  workload->heard_ = workload->monitor_->Watch(
      AllKeys(), {.from_revision = 2}, [keeper](const WatchBatch& batch) { keeper->Heard(batch); });
  for (int i = 0; i < options.watches; ++i) {
    absl::StatusOr<Client> client = connect(endpoints);
    if (!client.ok()) return client.status();
    auto watched = std::make_unique<Watched>();
    watched->client = std::make_unique<Client>(*std::move(client));
    const KeyRange range = i % 2 == 0 ? Prefix(kPrefix) : KeyRange(KeyOf(static_cast<uint64_t>(i)));
    watched->history = {.key = range.key, .range_end = range.end, .start_revision = 2};
    watched->watch = watched->client->Watch(range, {.from_revision = 2, .report_progress = true},
                                            [raw = watched.get()](const WatchBatch& batch) {
                                              std::lock_guard lock(raw->mutex);
                                              raw->status.Update(batch.status);
                                              raw->delivered = batch.revision;
                                              Note(batch, &raw->history);
                                            });
    workload->watched_.push_back(std::move(watched));
  }
  Prng seeds(options.seed);
  const auto run = [&](int count, void (Workload::*body)(Client, int, Prng)) {
    for (int i = 0; i < count; ++i) {
      absl::StatusOr<Client> client = connect(endpoints);
      if (!client.ok()) return client.status();
      workload->threads_.emplace_back(body, workload.get(), *std::move(client),
                                      static_cast<int>(workload->threads_.size()),
                                      Prng(seeds.Next()));
    }
    return absl::OkStatus();
  };
  absl::Status started = run(options.kv_clients, &Workload::RunKv);
  if (started.ok()) started = run(options.lease_clients, &Workload::RunLeases);
  if (started.ok()) started = run(options.lock_clients, &Workload::RunLocks);
  if (!started.ok()) return started;
  return workload;
}

void Workload::RunKv(Client client, int id, Prng prng) {
  KvClient kv(std::move(client), id);
  while (!ending_) {
    keeper_->Add(kv.Do(prng));
    absl::SleepFor(UpTo(kThinkMax, prng));  // the load's own rate
  }
}

// ---- Leases ------------------------------------------------------------------------------------

void Workload::RunLeases(Client client, int id, Prng prng) {
  for (int n = 0; !ending_; ++n) KeepLease(client, absl::StrCat(kLeasePrefix, id, "/", n), prng);
}

// A lease with a key: renewed for a while, then left to die.
void Workload::KeepLease(const Client& client, const std::string& key, Prng& prng) {
  const CallOptions call{.timeout = kCallTimeout};
  // Finish gives it the time to go.
  sim::LeaseHistory lease{.key = key, .granted = Now(), .must_be_gone = true};
  const absl::StatusOr<GrantResult> grant = client.Grant(absl::Seconds(kLeaseSeconds), {}, call);
  if (!grant.ok()) return absl::SleepFor(UpTo(kThinkMax, prng));
  lease.id = grant->id;
  lease.ttl = absl::ToChronoNanoseconds(grant->ttl);
  LiveUntil(absl::Now() + grant->ttl + kLeaseSlack);
  lease.key_written = client.Put(key, "held", {.lease = lease.id}, call).ok();
  for (int64_t renewals = prng.Between(0, 8); renewals > 0 && !ending_; --renewals) {
    absl::SleepFor(UpTo(grant->ttl * 0.6, prng));
    const Instant sent = Now();
    lease.last_attempt = sent;
    const absl::StatusOr<absl::Duration> renewed = client.KeepAliveOnce(lease.id, call);
    if (absl::IsNotFound(renewed.status())) break;
    if (renewed.ok()) lease.renewed.push_back(sent);
    LiveUntil(absl::Now() + grant->ttl + kLeaseSlack);
  }
  keeper_->Add(std::move(lease));
}

void Workload::LiveUntil(absl::Time time) {
  std::lock_guard lock(mutex_);
  leases_end_ = std::max(leases_end_, time);
}

// ---- Locks -------------------------------------------------------------------------------------

void Workload::RunLocks(Client client, int id, Prng prng) {
  std::optional<Session> session;
  while (!ending_) {
    if (!session.has_value() || !session->alive()) {
      session.reset();
      absl::StatusOr<Session> opened =
          client.OpenSession({.ttl = absl::Seconds(3)}, {.timeout = kCallTimeout});
      if (!opened.ok()) {
        absl::SleepFor(UpTo(kThinkMax, prng));
        continue;
      }
      session = *std::move(opened);
    }
    HoldLock(*session, id, prng);
  }
}

void Workload::HoldLock(const Session& session, int id, Prng& prng) {
  absl::StatusOr<LockGuard> guard = Mutex(session, "lock").Lock({.timeout = absl::Seconds(5)});
  if (!guard.ok()) return absl::SleepFor(UpTo(kThinkMax, prng));
  Holding holding{.token = guard->token(), .client = id, .from = Now()};
  holding.until = holding.from;
  const Instant enough = holding.from + absl::ToChronoNanoseconds(UpTo(kHoldMax, prng));
  for (Instant now = holding.from; now < enough; now = Now()) {
    if (!guard->held()) break;
    holding.until = now;  // looked at before `held` was asked: it held then
    absl::SleepFor(absl::Milliseconds(2));
  }
  keeper_->Add(holding);
  (void)guard->Unlock({.timeout = kCallTimeout});  // what it leaves behind the checkers will see
}

// ---- The end -----------------------------------------------------------------------------------

absl::Status Workload::Finish() {
  Join();
  absl::Status status = EndWatches();
  // Nobody renews any more.
  if (!testing::WaitFor([this] { return LeasesAreGone(); }, kLeasePatience)) {
    status.Update(absl::DeadlineExceededError("it cannot be read whether the leases are gone"));
  }
  return status;
}

absl::Status Workload::EndWatches() {
  // A last write that it hears for each, and one behind them that those of many keys hear.
  std::map<std::string, int64_t> last;
  for (const std::unique_ptr<Watched>& watched : watched_) {
    if (watched->history.range_end.empty()) last[watched->history.key] = 0;
  }
  for (auto& [key, revision] : last) {
    const absl::StatusOr<PutResult> put = monitor_->Put(key, "the last value");
    if (!put.ok()) return put.status();
    revision = put->revision;
  }
  const absl::StatusOr<PutResult> put =
      monitor_->Put(absl::StrCat(kPrefix, "last"), "the last value");
  if (!put.ok()) return put.status();
  absl::Status status;
  for (const std::unique_ptr<Watched>& watched : watched_) {
    const auto of_key = last.find(watched->history.key);
    const int64_t wanted = of_key == last.end() ? put->revision : of_key->second;
    const bool complete = testing::WaitFor(
        [&] {
          std::lock_guard lock(watched->mutex);
          return watched->delivered >= wanted;
        },
        kWatchPatience);
    watched->watch.Cancel();
    status.Update(watched->status);
    if (!complete) status.Update(absl::DeadlineExceededError("a watch does not catch up"));
    watched->history.must_be_complete = complete;
    keeper_->Add(watched->history);
  }
  return status;
}

// Or have had the time for it: then the checkers will complain of those that are left.
bool Workload::LeasesAreGone() {
  const auto left = monitor_->Range(Prefix(kLeasePrefix), {.count_only = true});
  return left.ok() && (left->count == 0 || absl::Now() >= leases_end_);
}

}  // namespace conclave::nemesis
