#include "conclave/server/watch/event_batch.h"

#include <gtest/gtest.h>

#include <thread>

#include "conclave/api/rpc.pb.h"

namespace conclave::watch {
namespace {

mvcc::RecordRef Put(std::string_view key, std::string_view value, int64_t main, int64_t lease = 0) {
  return mvcc::MakeRecord({.key = key,
                           .value = value,
                           .revision = {main, 0},
                           .create_revision = 2,
                           .version = 3,
                           .lease = lease});
}

TEST(EventBatch, EncodesWhatAWatchResponseParses) {
  std::vector<Event> events;
  events.push_back({.record = Put("a", std::string(300, 'v'), 1000, -5), .previous = {}});
  events.push_back({.record = Put("b", "", 1001), .previous = Put("b", "old", 900, 7)});
  events.push_back({.record = mvcc::MakeRecord(
                        {.key = "c", .value = {}, .revision = {1002, 4}, .tombstone = true}),
                    .previous = Put("c", "gone", 901)});
  const EventBatch batch(std::move(events));
  EXPECT_EQ(batch.first_revision(), 1000);
  EXPECT_EQ(batch.last_revision(), 1002);
  ASSERT_EQ(batch.Encoded().size(), batch.encoded_size());

  etcdserverpb::WatchResponse response;
  ASSERT_TRUE(response.ParseFromString(batch.Encoded().ToString()));
  EXPECT_EQ(response.SerializeAsString(), batch.Encoded().view());
  ASSERT_EQ(response.events_size(), 3);
  EXPECT_EQ(response.events(0).kv().value().size(), 300u);
  EXPECT_EQ(response.events(0).kv().lease(), -5);
  EXPECT_FALSE(response.events(0).has_prev_kv());
  EXPECT_EQ(response.events(1).prev_kv().value(), "old");
  EXPECT_EQ(response.events(2).type(), 1);
  EXPECT_EQ(response.events(2).kv().key(), "c");
  EXPECT_EQ(response.events(2).kv().mod_revision(), 1002);
  EXPECT_EQ(response.events(2).prev_kv().value(), "gone");
}

TEST(EventBatch, ManyThreadsShareOneEncoding) {
  std::vector<Event> events;
  for (int i = 0; i < 1000; ++i)
    events.push_back({.record = Put("k", "v", 10 + i), .previous = {}});
  const EventBatch batch(std::move(events));
  std::vector<const char*> seen(4);
  std::vector<std::thread> threads;
  for (const char*& data : seen) threads.emplace_back([&] { data = batch.Encoded().data(); });
  for (std::thread& thread : threads) thread.join();
  for (const char* data : seen) EXPECT_EQ(data, seen[0]);
}

}  // namespace
}  // namespace conclave::watch
