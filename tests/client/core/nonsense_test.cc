// A server that answers nonsense: a clear status or silence, a count, one line in the log; never a
// crash, never something delivered that cannot be.
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/lease_keeper.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using etcdserverpb::WatchResponse;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

// Counts what it is told.
class CountingObserver : public EngineObserver {
 public:
  void OnCall(std::string_view, absl::StatusCode, Duration) override {}
  void OnRetry(std::string_view) override {}
  void OnRetryHeld() override {}
  void OnFailover(std::string_view) override {}
  void OnStreamOpened(std::string_view) override {}
  void OnKeepAlive(Duration) override {}
  void OnSession(int, int) override {}
  void OnSessionLost() override {}
  void OnWatches(size_t) override {}
  void OnEvents(size_t) override {}
  void OnResync() override {}
  void OnNonsense(std::string_view what) override { ++counts[std::string(what)]; }

  std::map<std::string, int> counts;
};

// The observer and the log exist before the engine.
struct Witness {
  CountingObserver observer;
  std::vector<std::string> warnings;
};

class NonsenseTest : public Witness, public testing::EngineFixture {
 protected:
  NonsenseTest() : testing::EngineFixture(OptionsOf(*this)) {}

  static EngineOptions OptionsOf(Witness& witness) {
    EngineOptions options = Options(3);
    options.observer = &witness.observer;
    options.log = [&witness](LogLevel level, std::string_view line) {
      if (level >= LogLevel::kWarning) witness.warnings.emplace_back(line);
    };
    return options;
  }
  void Add(const KeyRange& range, const WatchOptions& options) {
    engine_.watches().Add(range, options,
                          [this](WatchBatch batch) { batches_.push_back(std::move(batch)); });
    engine_.Advance(now_);
  }
  void Created(int64_t id, int64_t revision = 10) {
    WatchResponse response;
    response.set_watch_id(id);
    response.set_created(true);
    response.mutable_header()->set_revision(revision);
    Say(response);
  }
  static WatchResponse Event(const std::string& key, const std::vector<int64_t>& revisions) {
    WatchResponse response;
    for (int64_t revision : revisions) {
      response.add_events()->mutable_kv()->set_key(key);
      response.mutable_events()->rbegin()->mutable_kv()->set_mod_revision(revision);
    }
    return response;
  }
  std::string Garbage(Prng& prng) {
    std::string bytes(prng.Below(64), '\0');
    for (char& byte : bytes) byte = static_cast<char>(prng.Below(256));
    return bytes;
  }

  std::vector<WatchBatch> batches_;
};

TEST_F(NonsenseTest, EventsOutsideTheRangeAreDroppedCountedAndLoggedOnce) {
  Add(Prefix("mine/"), {.from_revision = 1});
  Created(0);
  for (int64_t revision = 1; revision <= 5; ++revision) Say(Event("other", {revision}));
  EXPECT_TRUE(batches_.empty());
  Say(Event("mine/a", {6}));
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(observer.counts["event outside the range"], 5);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("event outside the range"), std::string::npos);
}

TEST_F(NonsenseTest, RevisionsThatGoBackWithinADeliveryEndTheStreamNotTheWatch) {
  Add("k", {.from_revision = 1});
  Created(0);
  Say(Event("k", {5, 4}));
  EXPECT_TRUE(batches_.empty());
  EXPECT_TRUE(wire_.streams[0].closed);
  Go(seconds(1));
  ASSERT_EQ(wire_.streams.size(), 2u);
  Created(0);
  Say(Event("k", {4, 5}));
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(batches_[0].revision, 5);
}

TEST_F(NonsenseTest, RevisionsThatNoStoreHasAreNotBelieved) {
  for (int64_t revision : {kHuge, kRevisionMax + 1}) {
    Add("k", {.from_revision = 1});
    Created(0);
    Say(Event("k", {revision}));
    EXPECT_TRUE(batches_.empty());
    Go(seconds(2));
  }
  EXPECT_EQ(engine_.options().vitals->newest_revision, 10);
}

TEST_F(NonsenseTest, AWatchFromNowOnNeedsARevisionToBeginWith) {
  for (int64_t revision : {int64_t{0}, int64_t{-7}, kHuge}) {
    if (wire_.streams.empty()) Add("k", {});
    while (LastStream().closed) Go(milliseconds(10));
    const WireId stream = LastStream().id;
    Created(0, revision);
    EXPECT_TRUE(wire_.Find(stream).closed);
  }
  EXPECT_EQ(observer.counts["watch without a revision"], 3);
}

TEST_F(NonsenseTest, ANumberGivenTwiceEndsTheStream) {
  Add("a", {.from_revision = 1});
  Add("b", {.from_revision = 1});
  Created(0);
  Created(0);
  EXPECT_TRUE(wire_.streams[0].closed);
  EXPECT_EQ(observer.counts["watch id given twice"], 1);
}

TEST_F(NonsenseTest, AServerThatAlwaysSaysCompactedIsNotAskedInAHotLoop) {
  Add("k", {.from_revision = 1});
  const Instant end = now_ + seconds(20);
  size_t answered = 0;
  while (now_ < end) {
    for (; answered < wire_.calls.size(); ++answered) {
      etcdserverpb::RangeResponse list;
      list.mutable_header()->set_revision(100 + static_cast<int64_t>(answered));
      engine_.OnUnaryDone(wire_.calls[answered].id, {}, list.SerializeAsString());
    }
    engine_.Advance(now_);
    WatchResponse refused;
    refused.set_created(true);
    refused.set_canceled(true);
    refused.set_compact_revision(1000000);
    Say(refused);
    Go(milliseconds(10));
  }
  EXPECT_LT(wire_.calls.size(), 200u);
  EXPECT_GT(wire_.calls.size(), 5u);
}

TEST_F(NonsenseTest, AServerThatCancelsWithoutAReasonIsNotAskedInAHotLoop) {
  Add("k", {.from_revision = 1});
  const Instant end = now_ + seconds(20);
  while (now_ < end) {
    if (!LastStream().closed) {
      Created(0);
      WatchResponse cancelled;
      cancelled.set_canceled(true);
      Say(cancelled);
    }
    Go(milliseconds(10));
  }
  EXPECT_LT(wire_.streams.size(), 120u);
}

TEST_F(NonsenseTest, ALeaseThatIsNoneIsAClearFailure) {
  for (const auto& [id, ttl] : std::vector<std::pair<int64_t, int64_t>>{{0, 10}, {7, 0}, {7, -3}}) {
    absl::Status status;
    SessionCore::Open(
        engine_, {.ttl_seconds = 10}, now_ + seconds(5), [](SessionHealth, Instant) {},
        [&status](absl::StatusOr<std::shared_ptr<SessionCore>> session) {
          status = session.status();
        });
    etcdserverpb::LeaseGrantResponse grant;
    grant.set_id(id);
    grant.set_ttl(ttl);
    Answer(grant);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << id << " " << ttl;
    EXPECT_EQ(engine_.leases().size(), 0u);
  }
}

TEST_F(NonsenseTest, AHugeTtlIsCutAndZeroOrLessIsALostLease) {
  for (const int64_t ttl : {kHuge, int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    std::vector<SessionHealth> heard;
    engine_.leases().Keep(7, seconds(9), seconds(1), now_,
                          [&heard](SessionHealth health, Instant) { heard.push_back(health); });
    Go(seconds(3));
    etcdserverpb::LeaseKeepAliveResponse renewed;
    renewed.set_id(7);
    renewed.set_ttl(ttl);
    Say(renewed);
    ASSERT_EQ(heard.size(), 1u) << ttl;
    EXPECT_EQ(heard[0], ttl > 0 ? SessionHealth::kAlive : SessionHealth::kLost);
    engine_.leases().Forget(7);
  }
}

// ---- Whatever comes
// --------------------------------------------------------------------------------

TEST_F(NonsenseTest, TenThousandRoundsOfRandomBytes) {
  Prng prng(4711);
  int answers = 0;
  const auto counted = [&answers](auto) { ++answers; };
  for (int round = 0; round < 10'000; ++round) {
    const size_t before = wire_.calls.size();
    switch (round % 8) {
      case 0:
        calls::Range(engine_, {.range = "k"}, now_ + seconds(1), counted);
        break;
      case 1:
        calls::Put(engine_, {.key = "k"}, now_ + seconds(1), counted);
        break;
      case 2:
        calls::Txn(engine_, {.conditions = {Absent("k")}, .success = {Put("k", "v"), Get("k")}},
                   now_ + seconds(1), counted);
        break;
      case 3:
        calls::Grant(engine_, 10, 0, CallKind::kWrite, now_ + seconds(1), counted);
        break;
      case 4:
        calls::MemberList(engine_, now_ + seconds(1), counted);
        break;
      case 5:
        calls::TimeToLive(engine_, 7, true, now_ + seconds(1), counted);
        break;
      case 6:
        calls::KeepAliveOnce(engine_, 7, now_ + seconds(1), counted);
        break;
      default:
        calls::Delete(engine_, {.range = Prefix("k")}, now_ + seconds(1), counted);
    }
    ASSERT_EQ(wire_.calls.size(), before + 1);
    engine_.OnUnaryDone(LastCall().id, {}, Garbage(prng));
    engine_.Advance(now_);
  }
  EXPECT_EQ(answers, 10'000);
  EXPECT_EQ(warnings.size(), observer.counts.size()) << "each kind is logged once";
}

TEST_F(NonsenseTest, TenThousandRoundsOfRandomBytesOnTheStreams) {
  Prng prng(4712);
  int64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    const std::string prefix(1, static_cast<char>('a' + i));
    engine_.watches().Add(Prefix(prefix), {.from_revision = 1}, [prefix](WatchBatch batch) {
      for (const WatchEvent& event : batch.events) {
        EXPECT_EQ(event.kv.key.substr(0, 1), prefix);
        EXPECT_GT(event.kv.mod_revision, 0);
      }
    });
  }
  for (int round = 0; round < 10'000; ++round) {
    if (engine_.leases().size() == 0) {
      engine_.leases().Keep(7, seconds(9), seconds(1), now_, [](SessionHealth, Instant) {});
    }
    // Half of the time, well-formed messages with random fields.
    std::string bytes = Garbage(prng);
    if (prng.Chance(1, 2)) {
      WatchResponse response;
      response.set_watch_id(static_cast<int64_t>(prng.Below(6)) - 1);
      response.set_created(prng.Chance(1, 4));
      response.set_canceled(prng.Chance(1, 16));
      response.set_fragment(prng.Chance(1, 4));
      if (prng.Chance(1, 16)) response.set_compact_revision(prng.Between(-5, 50));
      response.mutable_header()->set_revision(static_cast<int64_t>(prng.Next()));
      for (uint64_t i = prng.Below(4); i > 0; --i) {
        mvccpb::KeyValue& kv = *response.add_events()->mutable_kv();
        kv.set_key(std::string(1, static_cast<char>('a' + prng.Below(6))));
        kv.set_mod_revision(prng.Chance(1, 8) ? static_cast<int64_t>(prng.Next())
                                              : ++last + prng.Between(-3, 3));
      }
      bytes = response.SerializeAsString();
    }
    for (size_t i = 0; i < wire_.streams.size(); ++i) {
      if (!wire_.streams[i].closed) engine_.OnStreamMessage(wire_.streams[i].id, bytes);
    }
    engine_.Advance(now_);
    for (testing::FakeTransport::Call& call : wire_.calls) {
      engine_.OnUnaryDone(call.id, {}, Garbage(prng));
    }
    wire_.calls.clear();
    Go(milliseconds(prng.Between(0, 300)));
  }
  EXPECT_LE(warnings.size(), observer.counts.size() + 60) << "kinds once, outages once a minute";
  EXPECT_GT(observer.counts.size(), 2u);
}

}  // namespace
}  // namespace conclave
