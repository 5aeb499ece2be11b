// RangeStream and Snapshot: what comes in which message, at one revision whatever is written
// meanwhile, and no faster than the client takes it; and what a snapshot holds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <string>

#include "conclave/api/rpc.pb.h"
#include "conclave/server/backup/restore.h"
#include "conclave/server/bbolt/reader.h"
#include "conclave/server/node/settings.h"
#include "conclave/server/snapshot/sha256.h"
#include "conclave/tests/bbolt/memory_source.h"
#include "conclave/tests/node/solo.h"
#include "conclave/tests/node/trio.h"

namespace conclave::node {
namespace {

namespace pb = etcdserverpb;

void Put(Solo& solo, const std::string& key, const std::string& value, int64_t lease = 0) {
  pb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  request.set_lease(lease);
  const Reply reply = solo.Call(Method::kPut, request.SerializeAsString());
  ASSERT_EQ(reply.error, nullptr) << reply.error->message;
}

std::string Key(int number) { return "key" + std::to_string(1000 + number); }

pb::RangeRequest AllKeys() {
  pb::RangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_range_end(std::string(1, '\0'));
  return request;
}

// Everything that has come on a stream, each message acknowledged.
template <typename Response>
struct Download {
  std::vector<Response> messages;
  bool finished = false;
  std::string error;

  // Takes what is there; true if there was something.
  bool Take(Solo& solo, uint64_t stream) {
    uint64_t bytes = 0;
    const std::vector<StreamEffect> heard = solo.Heard(stream);
    for (const StreamEffect& effect : heard) {
      if (effect.finish) {
        finished = true;
        if (effect.error != nullptr) error = effect.error->message;
        continue;
      }
      bytes += effect.charge;
      Response response;
      EXPECT_TRUE(response.ParseFromString(effect.prefix.ToString() + effect.shared.ToString()));
      messages.push_back(std::move(response));
    }
    if (bytes > 0) solo.Put(StreamSent{CallId(stream), bytes});
    return !heard.empty();
  }
};

template <typename Response>
Download<Response> Run(Solo& solo, StreamKind kind, const std::string& request) {
  Download<Response> download;
  const uint64_t stream = solo.OpenStream(kind);
  solo.Say(stream, request);
  solo.Put(StreamHalfClosed{CallId(stream)});
  do {
    solo.Settle();
  } while (download.Take(solo, stream) && !download.finished);
  EXPECT_TRUE(download.finished);
  return download;
}

Download<pb::RangeStreamResponse> Stream(Solo& solo, const pb::RangeRequest& request) {
  return Run<pb::RangeStreamResponse>(solo, StreamKind::kRangeStream, request.SerializeAsString());
}

TEST(RangeStream, GivesKeysInGrowingChunksAndTheRestAtTheEnd) {
  Solo solo;
  for (int i = 0; i < 50; ++i) Put(solo, Key(i), "v");
  for (const bool serializable : {false, true}) {
    pb::RangeRequest request = AllKeys();
    request.set_serializable(serializable);
    const auto download = Stream(solo, request);
    EXPECT_EQ(download.error, "");
    ASSERT_EQ(download.messages.size(), 3u);
    std::vector<int> sizes;
    int key = 0;
    for (const pb::RangeStreamResponse& message : download.messages) {
      const pb::RangeResponse& range = message.range_response();
      sizes.push_back(range.kvs_size());
      for (const auto& kv : range.kvs()) EXPECT_EQ(kv.key(), Key(key++));
      const bool last = &message == &download.messages.back();
      EXPECT_EQ(range.has_header(), last);
      EXPECT_EQ(range.count(), last ? 50 : 0);
    }
    EXPECT_THAT(sizes, testing::ElementsAre(10, 20, 20));
    EXPECT_EQ(download.messages.back().range_response().header().revision(), 51);
    EXPECT_FALSE(download.messages.back().range_response().more());
  }
}

TEST(RangeStream, StopsAtTheLimitAndCountsAll) {
  Solo solo;
  for (int i = 0; i < 30; ++i) Put(solo, Key(i), "v");
  Put(solo, "zzz", "later");
  for (const int64_t revision : {0, 31, 32}) {
    pb::RangeRequest request = AllKeys();
    request.set_limit(15);
    request.set_revision(revision);
    const auto download = Stream(solo, request);
    int keys = 0;
    for (const auto& message : download.messages) keys += message.range_response().kvs_size();
    EXPECT_EQ(keys, 15);
    EXPECT_TRUE(download.messages.back().range_response().more());
    EXPECT_EQ(download.messages.back().range_response().count(), revision == 31 ? 30 : 31);
  }
}

TEST(RangeStream, SaysOnceWhatIsToBeCountedOrIsNotThere) {
  Solo solo;
  for (int i = 0; i < 30; ++i) Put(solo, Key(i), "v");
  pb::RangeRequest request = AllKeys();
  request.set_count_only(true);
  for (const int64_t revision : {0, 21}) {
    request.set_revision(revision);
    const auto download = Stream(solo, request);
    ASSERT_EQ(download.messages.size(), 1u);
    EXPECT_EQ(download.messages[0].range_response().count(), revision == 21 ? 20 : 30);
    EXPECT_EQ(download.messages[0].range_response().kvs_size(), 0);
  }
  request = pb::RangeRequest();
  request.set_key("absent");
  const auto download = Stream(solo, request);
  ASSERT_EQ(download.messages.size(), 1u);
  EXPECT_EQ(download.messages[0].range_response().count(), 0);
  EXPECT_TRUE(download.messages[0].range_response().has_header());
}

TEST(RangeStream, RefusesWhatEtcdRefuses) {
  Solo solo;
  Put(solo, "a", "1");
  const auto error_of = [&solo](const pb::RangeRequest& request) {
    const auto download = Stream(solo, request);
    EXPECT_TRUE(download.messages.empty());
    return download.error;
  };
  EXPECT_EQ(error_of({}), wire::kErrEmptyKey.message);
  pb::RangeRequest request = AllKeys();
  request.set_sort_order(pb::RangeRequest::DESCEND);
  EXPECT_EQ(error_of(request), "RangeStream does not support custom sort orders");
  request = AllKeys();
  request.set_min_mod_revision(1);
  EXPECT_EQ(error_of(request), "RangeStream does not support revision filters");
  request = AllKeys();
  request.set_revision(99);
  EXPECT_EQ(error_of(request), wire::kErrFutureRevision.message);
  // The default order may be named.
  request = AllKeys();
  request.set_sort_order(pb::RangeRequest::ASCEND);
  EXPECT_EQ(Stream(solo, request).error, "");
}

TEST(RangeStream, StaysAtItsRevisionAndWaitsForItsReader) {
  Options options = Solo::DefaultOptions();
  options.stream_unsent_bytes_max = 64 << 10;
  Solo solo(options);
  for (int i = 0; i < 400; ++i) Put(solo, Key(i), std::string(1000, 'v'));
  const uint64_t stream = solo.OpenStream(StreamKind::kRangeStream);
  solo.Say(stream, AllKeys().SerializeAsString());
  solo.Settle();
  // It has stopped: nobody has said that anything has left.
  std::vector<StreamEffect> heard = solo.Heard(stream);
  uint64_t bytes = 0;
  for (const StreamEffect& effect : heard) bytes += effect.charge;
  EXPECT_GE(bytes, 64u << 10);
  EXPECT_LT(bytes, 400'000u);
  for (int i = 0; i < 400; ++i) Put(solo, Key(i), "later");
  pb::CompactionRequest compaction;
  compaction.set_revision(700);
  EXPECT_EQ(solo.Call(Method::kCompact, compaction.SerializeAsString()).error, nullptr);
  EXPECT_TRUE(solo.Heard(stream).empty());

  solo.Put(StreamSent{CallId(stream), bytes});
  Download<pb::RangeStreamResponse> rest;
  do {
    solo.Settle();
  } while (rest.Take(solo, stream) && !rest.finished);
  EXPECT_TRUE(rest.finished);
  for (const auto& message : rest.messages) {
    for (const auto& kv : message.range_response().kvs()) EXPECT_EQ(kv.value().size(), 1000u);
  }
  EXPECT_EQ(rest.messages.back().range_response().count(), 400);
}

TEST(RangeStream, EndsWhenItsClientIsGone) {
  Options options = Solo::DefaultOptions();
  options.stream_unsent_bytes_max = 1000;
  Solo solo(options);
  for (int i = 0; i < 100; ++i) Put(solo, Key(i), std::string(100, 'v'));
  const uint64_t stream = solo.OpenStream(StreamKind::kRangeStream);
  solo.Say(stream, AllKeys().SerializeAsString());
  solo.Settle();
  EXPECT_FALSE(solo.Heard(stream).empty());
  solo.Put(StreamClosed{CallId(stream)});
  solo.Settle();
  const std::vector<StreamEffect> heard = solo.Heard(stream);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(heard[0].finish);
}

// ---- Snapshot -----------------------------------------------------------------------------------

// Joined and checked as a client does it; gives the file without its hash.
std::string Save(Solo& solo) {
  const auto download = Run<pb::SnapshotResponse>(solo, StreamKind::kSnapshot, "");
  EXPECT_EQ(download.error, "");
  std::string file;
  uint64_t total = 0;
  for (const pb::SnapshotResponse& message : download.messages) {
    EXPECT_EQ(message.version(), "3.5.0");
    const bool last = &message == &download.messages.back();
    if (file.empty()) total = message.remaining_bytes() + message.blob().size();
    if (last) {
      EXPECT_EQ(message.remaining_bytes(), 0u);
      snapshot::Sha256 hash;
      hash.Append(file);
      const snapshot::Hash expected = hash.Finish();
      EXPECT_EQ(message.blob(), std::string(expected.data(), expected.size()));
      EXPECT_EQ(file.size(), total);
      break;
    }
    EXPECT_LE(message.blob().size(), 32u << 10);
    file += message.blob();
    EXPECT_EQ(message.remaining_bytes(), total - file.size());
  }
  return file;
}

using Entry = std::tuple<std::string, std::string, int64_t, int64_t, int64_t, int64_t>;

std::vector<Entry> ContentAt(const mvcc::Store& store, int64_t revision) {
  std::vector<Entry> content;
  store.ForEach(mvcc::KeyRange::All(), revision, [&content](const mvcc::Record& record) {
    content.emplace_back(record.key(), record.value(), record.create_revision(),
                         record.mod_revision(), record.version(), record.lease());
    return true;
  });
  return content;
}

apply::StateParts Restore(const std::string& file, const backup::RestoreOptions& options = {}) {
  bbolt::MemorySource source(file);
  auto database = bbolt::Database::Open(&source);
  EXPECT_TRUE(database.ok()) << database.status();
  EXPECT_TRUE(database->Check().ok()) << database->Check();
  auto parts = backup::ReadState(&*database, options);
  EXPECT_TRUE(parts.ok()) << parts.status();
  parts->store->CheckInvariants();
  return *std::move(parts);
}

void Fill(Solo& solo) {
  for (const int64_t id : {77, -5}) {
    pb::LeaseGrantRequest grant;
    grant.set_id(id);
    grant.set_ttl(id == 77 ? 60 : 120);
    ASSERT_EQ(solo.Call(Method::kLeaseGrant, grant.SerializeAsString()).error, nullptr);
  }
  for (int i = 0; i < 300; ++i)
    Put(solo, Key(i % 100), std::string(1 + i * 7 % 500, 'v'), i % 7 == 0 ? 77 : 0);
  Put(solo, "large", std::string(200'000, 'x'));
  pb::DeleteRangeRequest del;
  del.set_key(Key(3));
  del.set_range_end(Key(6));
  ASSERT_EQ(solo.Call(Method::kDeleteRange, del.SerializeAsString()).error, nullptr);
  Put(solo, Key(4), "again");
}

TEST(Snapshot, HoldsKeysWithTheirHistoryAndLeases) {
  Solo solo;
  Fill(solo);
  const mvcc::Store& store = solo.node().state().store();
  const std::string before = Save(solo);
  apply::StateParts parts = Restore(before);
  EXPECT_EQ(parts.store->current_revision(), store.current_revision());
  EXPECT_EQ(parts.store->compact_revision(), -1);
  for (int64_t revision = 1; revision <= store.current_revision(); ++revision) {
    ASSERT_EQ(ContentAt(*parts.store, revision), ContentAt(store, revision)) << revision;
  }
  ASSERT_EQ(parts.leases.leases.size(), 2u);
  EXPECT_EQ(parts.leases.leases[0], (lease::LeaseImage{-5, 120, 120'000}));
  EXPECT_EQ(parts.leases.leases[1], (lease::LeaseImage{77, 60, 60'000}));

  pb::CompactionRequest compaction;
  compaction.set_revision(250);
  ASSERT_EQ(solo.Call(Method::kCompact, compaction.SerializeAsString()).error, nullptr);
  parts = Restore(Save(solo));
  EXPECT_EQ(parts.store->compact_revision(), 250);
  for (int64_t revision = 250; revision <= store.current_revision(); ++revision) {
    ASSERT_EQ(ContentAt(*parts.store, revision), ContentAt(store, revision)) << revision;
  }
  EXPECT_EQ(parts.store->digest(), store.digest());
}

TEST(Snapshot, NamesTheMembersThatWereRemoved) {
  Solo solo;
  pb::MemberAddRequest add;
  add.add_peerurls("http://127.0.0.1:7777");
  pb::MemberAddResponse added;
  ASSERT_TRUE(added.ParseFromString(
      solo.Call(Method::kMemberAdd, add.SerializeAsString()).body.ToString()));
  pb::MemberRemoveRequest remove;
  remove.set_id(added.member().id());
  ASSERT_EQ(solo.Call(Method::kMemberRemove, remove.SerializeAsString()).error, nullptr);
  const std::string file = Save(solo);
  bbolt::MemorySource source(file);
  auto database = bbolt::Database::Open(&source);
  ASSERT_TRUE(database.ok()) << database.status();
  std::map<std::string, std::string> removed;
  ASSERT_TRUE(database
                  ->ForEach("members_removed",
                            [&](std::string_view key, std::string_view value) {
                              removed.emplace(key, value);
                              return absl::OkStatus();
                            })
                  .ok());
  std::ostringstream id;
  id << std::hex << added.member().id();
  EXPECT_EQ(removed, (std::map<std::string, std::string>{{id.str(), "removed"}}));
}

TEST(Snapshot, OfAFreshMemberIsEmpty) {
  Solo solo;
  const apply::StateParts parts = Restore(Save(solo));
  EXPECT_EQ(parts.store->current_revision(), 1);
  EXPECT_TRUE(ContentAt(*parts.store, mvcc::kLatest).empty());
}

TEST(Snapshot, IsOfTheMomentAtWhichItWasAskedFor) {
  Options options = Solo::DefaultOptions();
  options.stream_unsent_bytes_max = 40'000;
  Solo solo(options);
  Fill(solo);
  const std::string quiet = Save(solo);
  const auto content = ContentAt(solo.node().state().store(), mvcc::kLatest);
  const uint64_t stream = solo.OpenStream(StreamKind::kSnapshot);
  solo.Say(stream, "");
  Download<pb::SnapshotResponse> download;
  int writes = 0;
  do {
    solo.Settle();
    Put(solo, "meanwhile" + std::to_string(writes++), std::string(10'000, 'w'));
  } while (download.Take(solo, stream) && !download.finished);
  EXPECT_GT(writes, 3);
  std::string file;
  for (const auto& message : download.messages) file += message.blob();
  EXPECT_EQ(ContentAt(*Restore(file.substr(0, file.size() - 32)).store, mvcc::kLatest), content);
}

TEST(Snapshot, RestoredWithARaisedRevisionNeverGivesAnOldOneAgain) {
  Solo solo;
  Fill(solo);
  const mvcc::Store& store = solo.node().state().store();
  const std::string file = Save(solo);
  const int64_t raised = store.current_revision() + 1000;
  apply::StateParts parts = Restore(file, {.bump_revision = 1000, .mark_compacted = true});
  EXPECT_EQ(parts.store->current_revision(), raised);
  EXPECT_EQ(parts.store->compact_revision(), raised);
  EXPECT_EQ(ContentAt(*parts.store, mvcc::kLatest), ContentAt(store, mvcc::kLatest));

  bbolt::MemorySource source(file);
  auto database = bbolt::Database::Open(&source);
  EXPECT_TRUE(absl::IsInvalidArgument(
      backup::ReadState(&*database, {.bump_revision = UINT64_MAX}).status()));
}

TEST(Snapshot, BecomesTheStateOfANewCluster) {
  Solo solo;
  Fill(solo);
  Options options = Solo::DefaultOptions();
  const FoundingMember founder{"solo", {"http://127.0.0.1:2380"}};
  const InitialCluster cluster = *FoundCluster({&founder, 1}, "another");
  options.id = cluster.members[0].id;
  options.cluster_id = cluster.cluster_id;
  auto recovered = FoundingState(options, cluster, Restore(Save(solo)));
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  recovered->state->CheckInvariants();
  EXPECT_EQ(recovered->state->lease_count(), 2u);
  EXPECT_EQ(recovered->state->membership().cluster_id(), cluster.cluster_id);
  EXPECT_EQ(recovered->state->applied_index(), recovered->snapshot.index.value());
}

// ---- Downgrade ----------------------------------------------------------------------------------

TEST(Downgrade, GoesOneMinorVersionDownAndBack) {
  Solo solo;
  const auto call = [&solo](pb::DowngradeRequest::DowngradeAction action, const char* version) {
    pb::DowngradeRequest request;
    request.set_action(action);
    request.set_version(version);
    return solo.Call(Method::kDowngrade, request.SerializeAsString());
  };
  const auto status = [&solo] {
    pb::StatusResponse response;
    const Reply reply = solo.Call(Method::kStatus, "");
    EXPECT_TRUE(response.ParseFromString(reply.body.ToString()));
    return response;
  };
  solo.Settle();
  EXPECT_EQ(status().storageversion(), "3.5.0");
  EXPECT_TRUE(status().has_downgradeinfo());
  EXPECT_FALSE(status().downgradeinfo().enabled());
  for (const auto action : {pb::DowngradeRequest::VALIDATE, pb::DowngradeRequest::ENABLE}) {
    EXPECT_EQ(call(action, "3").error->message, wire::kErrWrongDowngradeVersionFormat.message);
    EXPECT_EQ(call(action, "x.y").error->message, wire::kErrWrongDowngradeVersionFormat.message);
    for (const char* wrong : {"3.3", "3.5.0", "3.6.0", "2.4.0"}) {
      EXPECT_EQ(call(action, wrong).error->message, wire::kErrInvalidDowngradeTarget.message);
    }
  }
  EXPECT_EQ(call(pb::DowngradeRequest::VALIDATE, "3.4.0").error, nullptr);
  EXPECT_EQ(call(pb::DowngradeRequest::CANCEL, "").error, nullptr);
  const Reply enabled = call(pb::DowngradeRequest::ENABLE, "3.4");
  ASSERT_EQ(enabled.error, nullptr);
  pb::DowngradeResponse response;
  ASSERT_TRUE(response.ParseFromString(enabled.body.ToString()));
  EXPECT_EQ(response.version(), "3.5");
  solo.Settle();
  EXPECT_EQ(status().storageversion(), "3.4.0");
  EXPECT_TRUE(status().downgradeinfo().enabled());
  EXPECT_EQ(status().downgradeinfo().targetversion(), "3.4.0");
  EXPECT_EQ(call(pb::DowngradeRequest::ENABLE, "3.3").error->message,
            wire::kErrDowngradeInProgress.message);
  EXPECT_EQ(call(pb::DowngradeRequest::CANCEL, "").error, nullptr);
  solo.Settle();
  EXPECT_EQ(status().storageversion(), "3.5.0");
  EXPECT_FALSE(status().downgradeinfo().enabled());
}

TEST(Downgrade, EndsWhenTheLeaderIsOfTheOlderVersion) {
  constexpr size_t kOlder = 2;
  Trio trio(3, [](Options* options) {
    if (options->name == "m2") options->version = "3.4.9";
  });
  const auto lead = [&trio](size_t member) {
    if (trio.leader() == member) return;
    pb::MoveLeaderRequest request;
    request.set_targetid(trio.options(member).id.value());
    EXPECT_EQ(trio.Call(trio.leader(), Method::kMoveLeader, request.SerializeAsString()).error,
              nullptr);
    trio.Advance(std::chrono::seconds(1));
    ASSERT_EQ(trio.leader(), member);
  };
  const auto lines = [&trio](size_t member) {
    std::vector<std::string> versions;
    for (const LogLine& line : trio.log(member)) {
      if (line.message != "the cluster has been downgraded") continue;
      versions.push_back(line.fields.at(0).first + "=" + line.fields.at(0).second);
    }
    return versions;
  };
  const auto status = [&trio](size_t member) {
    pb::StatusResponse response;
    EXPECT_TRUE(response.ParseFromString(trio.Call(member, Method::kStatus, "").body.ToString()));
    return response;
  };
  lead(0);
  pb::DowngradeRequest enable;
  enable.set_action(pb::DowngradeRequest::ENABLE);
  enable.set_version("3.4");
  ASSERT_EQ(trio.Call(1, Method::kDowngrade, enable.SerializeAsString()).error, nullptr);
  lead(1);
  for (size_t member = 0; member < trio.size(); ++member) {
    EXPECT_TRUE(status(member).downgradeinfo().enabled()) << member;
    EXPECT_THAT(lines(member), testing::IsEmpty()) << member;
  }
  lead(kOlder);
  for (size_t member = 0; member < trio.size(); ++member) {
    EXPECT_FALSE(status(member).downgradeinfo().enabled()) << member;
    EXPECT_EQ(status(member).storageversion(), "3.4.0") << member;
  }
  EXPECT_THAT(lines(kOlder), testing::ElementsAre("cluster-version=3.4.0"));
}

}  // namespace
}  // namespace conclave::node
