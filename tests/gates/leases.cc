// Leases that must end, in time.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/api/election.grpc.pb.h"
#include "conclave/client/client.h"
#include "conclave/client/maintenance.h"
#include "conclave/tests/gates/gates.h"

namespace conclave::gates {
namespace {

using testing::ServerKind;
using testing::TestCluster;
using testing::WaitFor;

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr absl::Duration kToldWithin = absl::Seconds(1);
constexpr absl::Duration kGoneWithin = absl::Seconds(5);
constexpr int kGrantThreads = 64;
// How long a lease and its key take at most, one after the other; and a TTL that any server grants.
constexpr double kGrantMillis = 4;
constexpr absl::Duration kShortestTtl = absl::Seconds(4);
constexpr absl::Duration kCalm = absl::Seconds(3);  // what the storm is compared with

using Campaigning = std::future<grpc::Status>;

Campaigning Campaign(v3electionpb::Election::Stub* stub, LeaseId lease,
                     v3electionpb::CampaignResponse* response) {
  return std::async(std::launch::async, [stub, lease, response] {
    v3electionpb::CampaignRequest request;
    request.set_name("gate");
    request.set_lease(lease);
    request.set_value("candidate");
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(15)));
    return stub->Campaign(&context, request, response);
  });
}

}  // namespace

absl::StatusOr<Result> CandidateWithoutALease(ServerKind kind, const Scale&) {
  absl::StatusOr<std::unique_ptr<TestCluster>> cluster =
      TestCluster::Start(TestCluster::Options{.kind = kind, .members = 1});
  if (!cluster.ok()) return cluster.status();
  absl::StatusOr<Client> client = Client::Connect({.endpoints = (*cluster)->endpoints()});
  if (!client.ok()) return client.status();
  const auto stub = v3electionpb::Election::NewStub(
      grpc::CreateChannel((*cluster)->endpoint(0), grpc::InsecureChannelCredentials()));
  const absl::StatusOr<GrantResult> leads = client->Grant(absl::Seconds(60));
  const absl::StatusOr<GrantResult> waits = client->Grant(absl::Seconds(60));
  if (!leads.ok()) return leads.status();
  if (!waits.ok()) return waits.status();
  v3electionpb::CampaignResponse leader;
  v3electionpb::CampaignResponse candidate;
  if (!Campaign(stub.get(), leads->id, &leader).get().ok()) {
    return absl::UnavailableError("the first one cannot lead");
  }
  Campaigning second = Campaign(stub.get(), waits->id, &candidate);
  if (!WaitFor([&] {
        const auto keys = client->Range(Prefix("gate/"), {.count_only = true});
        return keys.ok() && keys->count == 2;
      })) {
    return absl::DeadlineExceededError("the second one does not queue");
  }
  const absl::Time revoked = absl::Now();
  if (absl::Status status = client->Revoke(waits->id); !status.ok()) return status;
  const bool told =
      second.wait_for(absl::ToChronoMilliseconds(kToldWithin)) == std::future_status::ready;
  const absl::Duration after = absl::Now() - revoked;
  // Now the way would be free.
  if (absl::Status status = client->Revoke(leads->id); !status.ok()) return status;
  const grpc::Status answer = second.get();
  const std::string what =
      answer.ok() ? "\"you lead\"" : absl::StrCat("\"", answer.error_message(), "\"");
  return Result{.kept = told && !answer.ok(),
                .measured = absl::StrCat(told ? "told after " : "not told within ", Seconds(after),
                                         "; in the end: ", what)};
}

absl::StatusOr<Result> LeaseUnderChangesOfLeader(ServerKind kind, const Scale&) {
  constexpr absl::Duration kTtl = absl::Seconds(5);
  constexpr absl::Duration kMoveEvery = absl::Seconds(2);
  constexpr absl::Duration kElection = absl::Milliseconds(500);
  const absl::Duration limit = kTtl + kElection + absl::Seconds(1);
  absl::StatusOr<std::unique_ptr<TestCluster>> cluster =
      TestCluster::Start(TestCluster::Options{.kind = kind, .members = 3});
  if (!cluster.ok()) return cluster.status();
  absl::StatusOr<Client> client = Client::Connect({.endpoints = (*cluster)->endpoints()});
  if (!client.ok()) return client.status();
  const Maintenance maintenance(*client);
  std::vector<uint64_t> ids;
  for (const std::string& endpoint : (*cluster)->endpoints()) {
    const absl::StatusOr<MemberStatus> status = client->Status(endpoint);
    if (!status.ok()) return status.status();
    ids.push_back(status->member_id);
  }
  const absl::StatusOr<GrantResult> lease = client->Grant(kTtl);
  if (!lease.ok()) return lease.status();
  const absl::Time granted = absl::Now();
  if (auto put = client->Put("held", "x", {.lease = lease->id}); !put.ok()) return put.status();
  int moves = 0;
  absl::Time next_move = granted + kMoveEvery;
  absl::Time gone = absl::InfiniteFuture();
  while (absl::Now() < granted + limit * 3) {
    const absl::StatusOr<std::optional<KeyValue>> held = client->Get("held");
    if (held.ok() && !held->has_value()) {
      gone = absl::Now();
      break;
    }
    if (absl::Now() >= next_move) {
      const absl::StatusOr<int> leader = (*cluster)->Leader();
      if (leader.ok() && maintenance.MoveLeader(ids[static_cast<size_t>((*leader + 1) % 3)]).ok()) {
        ++moves;
        next_move = absl::Now() + kMoveEvery;
      }
    }
    absl::SleepFor(absl::Milliseconds(20));  // between two looks
  }
  const absl::Duration lived = gone - granted;
  return Result{
      .kept = lived >= kTtl && lived <= limit && moves >= 2,
      .measured = absl::StrCat("a lease of ", Seconds(kTtl),
                               gone == absl::InfiniteFuture()
                                   ? absl::StrCat(" still lived after ", Seconds(limit * 3))
                                   : absl::StrCat(" lived ", Seconds(lived)),
                               " under ", moves, " changes of leader")};
}

namespace {

// All of them run out in the second before `end`. With a prefix: each holds a key.
absl::Status GrantMany(const Client& client, int count, absl::Time end,
                       std::string_view key_prefix) {
  std::atomic<int> next = 0;
  std::vector<std::future<absl::Status>> threads;
  for (int i = 0; i < kGrantThreads; ++i) {
    threads.push_back(std::async(std::launch::async, [&]() -> absl::Status {
      for (int n = next++; n < count; n = next++) {
        const absl::Duration ttl = absl::Trunc(end - absl::Now(), absl::Seconds(1));
        if (ttl < kShortestTtl) return absl::DeadlineExceededError("granting takes too long");
        const absl::StatusOr<GrantResult> grant = client.Grant(ttl);
        if (!grant.ok()) return grant.status();
        if (key_prefix.empty()) continue;
        const auto put =
            client.Put(absl::StrCat(std::string(key_prefix), n), "x", {.lease = grant->id});
        if (!put.ok()) return put.status();
      }
      return absl::OkStatus();
    }));
  }
  absl::Status status;
  for (auto& thread : threads) status.Update(thread.get());
  return status;
}

// Puts one after the other until told to end, and gives how long each took.
class PutClock {
 public:
  explicit PutClock(const Client& client)
      : thread_([this, client] {
          while (!ending_) {
            const absl::Time begin = absl::Now();
            if (client.Put("clock", "x").ok()) times_.push_back(absl::Now() - begin);
            absl::SleepFor(absl::Milliseconds(1));  // the load's own rate
          }
        }) {}
  std::vector<absl::Duration> End() {
    ending_ = true;
    thread_.join();
    return times_;
  }

 private:
  std::atomic<bool> ending_ = false;
  std::vector<absl::Duration> times_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<Result> ManyLeasesAtOnce(ServerKind kind, const Scale& scale) {
  absl::StatusOr<std::unique_ptr<TestCluster>> cluster =
      TestCluster::Start(TestCluster::Options{.kind = kind, .members = 1});
  if (!cluster.ok()) return cluster.status();
  absl::StatusOr<Client> client = Client::Connect({.endpoints = (*cluster)->endpoints()});
  if (!client.ok()) return client.status();
  absl::Status granted =
      GrantMany(*client, scale.leases - scale.expiring, absl::Now() + absl::Hours(10), "");
  if (!granted.ok()) return granted;
  PutClock before(*client);
  absl::SleepFor(kCalm);
  const std::vector<absl::Duration> calm = before.End();
  const absl::Time last =
      absl::Now() + kShortestTtl * 2 + absl::Milliseconds(scale.expiring * kGrantMillis);
  granted = GrantMany(*client, scale.expiring, last, "dying/");
  if (!granted.ok()) return granted;
  const auto left = [&] {
    const auto keys = client->Range(Prefix("dying/"), {.count_only = true});
    return keys.ok() ? keys->count : -1;
  };
  absl::SleepFor(last - absl::Seconds(1) - absl::Now());
  PutClock during(*client);
  const bool gone = WaitFor([&] { return left() == 0; }, kPatience);
  const absl::Duration late = absl::Now() - last;
  const std::vector<absl::Duration> storm = during.End();
  const absl::Duration calm_p99 = Percentile(calm, 0.99);
  const absl::Duration storm_p99 = Percentile(storm, 0.99);
  return Result{
      .kept = gone && late <= kGoneWithin && storm_p99 <= 3 * calm_p99,
      .measured = absl::StrCat(
          scale.expiring, " of ", scale.leases, " leases ",
          gone ? absl::StrCat("were gone ", Seconds(std::max(late, absl::ZeroDuration())),
                              " after their end")
               : absl::StrCat("were not gone after ", Seconds(kPatience)),
          "; a put's p99 ", absl::FormatDuration(absl::Trunc(calm_p99, absl::Microseconds(10))),
          " before, ", absl::FormatDuration(absl::Trunc(storm_p99, absl::Microseconds(10))),
          " then")};
}

}  // namespace conclave::gates
