// RWMutex: who excludes whom, in which order, and what a downgrade lets in.
#include "conclave/lock/rw_mutex.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::Soon;
using testing::WaitFor;

class RWMutexTest : public testing::LockTest {};

TEST_P(RWMutexTest, ReadersShareAndAWriterWaitsForTheLastOfThem) {
  Session a = NewSession(), b = NewSession();
  RWMutex first(a, name_), second(b, name_);
  auto one = first.ReadLock(Soon());
  auto two = first.ReadLock(Soon());  // of the same session: another reader
  auto three = second.ReadLock(Soon());
  ASSERT_TRUE(one.ok() && two.ok() && three.ok());
  EXPECT_LT(one->token(), two->token());
  EXPECT_LT(two->token(), three->token());
  auto writing = Later([&] { return second.WriteLock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 4));
  EXPECT_TRUE(three->Unlock().ok());
  EXPECT_TRUE(one->Unlock().ok());
  EXPECT_FALSE(Ready(writing));
  auto refused = first.TryWriteLock();
  ASSERT_TRUE(refused.ok());
  EXPECT_FALSE(refused->has_value());
  EXPECT_TRUE(two->Unlock().ok());
  auto writer = writing.get();
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_GT(writer->token(), three->token());
  EXPECT_TRUE(writer->held());
  auto no = first.TryReadLock();
  ASSERT_TRUE(no.ok());
  EXPECT_FALSE(no->has_value());
  EXPECT_TRUE(writer->Unlock().ok());
  EXPECT_TRUE(KeysBecome(name_, 0));
}

TEST_P(RWMutexTest, AReaderBehindAWaitingWriterWaits) {
  Session a = NewSession(), b = NewSession(), c = NewSession();
  RWMutex first(a, name_), second(b, name_), third(c, name_);
  auto reader = first.ReadLock(Soon());
  ASSERT_TRUE(reader.ok());
  auto writing = Later([&] { return second.WriteLock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  auto tried = third.TryReadLock();
  ASSERT_TRUE(tried.ok());
  EXPECT_FALSE(tried->has_value());
  auto reading = Later([&] { return third.ReadLock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 3));
  auto queue = third.Queue();
  ASSERT_TRUE(queue.ok());
  ASSERT_EQ(queue->size(), 3u);
  EXPECT_FALSE((*queue)[0].writer);
  EXPECT_TRUE((*queue)[1].writer);
  EXPECT_FALSE((*queue)[2].writer);
  EXPECT_FALSE((*queue)[2].who.holder.empty());
  ASSERT_TRUE(reader->Unlock().ok());
  auto writer = writing.get();
  ASSERT_TRUE(writer.ok());
  EXPECT_FALSE(Ready(reading));
  ASSERT_TRUE(writer->Unlock().ok());
  auto late = reading.get();
  ASSERT_TRUE(late.ok());
  EXPECT_GT(late->token(), writer->token());
}

TEST_P(RWMutexTest, ADowngradeLetsReadersInButNoWriter) {
  Session a = NewSession(), b = NewSession(), c = NewSession(), d = NewSession();
  RWMutex first(a, name_), second(b, name_), third(c, name_), fourth(d, name_);
  auto writer = first.WriteLock(Soon());
  ASSERT_TRUE(writer.ok());
  const int64_t token = writer->token();
  auto reading = Later([&] { return second.ReadLock(Soon()); });  // just behind: comes in
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  auto writing = Later([&] { return third.WriteLock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 3));
  auto blocked = Later([&] { return fourth.ReadLock(Soon()); });  // behind that writer: waits
  ASSERT_TRUE(KeysBecome(name_ + "/", 4));
  auto downgraded = (*std::move(writer)).Downgrade(Soon());
  ASSERT_TRUE(downgraded.ok()) << downgraded.status();
  EXPECT_EQ(downgraded->token(), token);
  EXPECT_TRUE(downgraded->held());
  auto reader = reading.get();
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(downgraded->held());
  EXPECT_FALSE(Ready(writing));
  EXPECT_FALSE(Ready(blocked));
  EXPECT_EQ(downgraded->Upgrade().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(reader->Unlock().ok());
  EXPECT_FALSE(Ready(writing));
  EXPECT_TRUE(downgraded->Unlock().ok());
  auto next = writing.get();
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_FALSE(Ready(blocked));
  EXPECT_TRUE(next->Unlock().ok());
  EXPECT_TRUE(blocked.get().ok());
}

TEST_P(RWMutexTest, AReaderComesInBesideADowngradedWriter) {
  Session a = NewSession(), b = NewSession();
  RWMutex first(a, name_), second(b, name_);
  auto writer = first.WriteLock(Soon());
  ASSERT_TRUE(writer.ok());
  auto reader = (*std::move(writer)).Downgrade(Soon());
  ASSERT_TRUE(reader.ok());
  auto tried = second.TryReadLock();
  ASSERT_TRUE(tried.ok()) << tried.status();
  EXPECT_TRUE(tried->has_value());
  auto locked = second.ReadLock(Soon());
  EXPECT_TRUE(locked.ok());
  auto no = second.TryWriteLock();
  ASSERT_TRUE(no.ok());
  EXPECT_FALSE(no->has_value());
}

TEST_P(RWMutexTest, ATimedLockLeavesNoKeyAndLetsTheNextOnesGoOn) {
  Session a = NewSession(), b = NewSession(), c = NewSession();
  RWMutex first(a, name_), second(b, name_), third(c, name_);
  auto reader = first.ReadLock(Soon());
  ASSERT_TRUE(reader.ok());
  std::stop_source stop;
  auto writing = Later([&] { return second.WriteLock({.stop = stop.get_token()}); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  auto reading = Later([&] { return third.ReadLock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 3));
  stop.request_stop();
  EXPECT_EQ(writing.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(reading.get().ok());  // the writer that it waited for is gone
  EXPECT_TRUE(KeysBecome(name_ + "/write/", 0));
  auto late = second.WriteLock({.timeout = absl::Milliseconds(100)});
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(KeysBecome(name_ + "/write/", 0));
}

// etcd #16221: two writers, for the first one's key had gone while it waited.
TEST_P(RWMutexTest, AWaiterWhoseKeyIsGoneDoesNotGetTheLock) {
  Session a = NewSession(), b = NewSession();
  RWMutex first(a, name_), second(b, name_);
  auto reader = first.ReadLock(Soon());
  ASSERT_TRUE(reader.ok());
  auto writing = Later([&] { return second.WriteLock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  ASSERT_TRUE(client().Delete(Prefix(name_ + "/write/")).ok());
  EXPECT_TRUE(IsLost(writing.get().status()));
  EXPECT_TRUE(reader->held());
}

TEST_P(RWMutexTest, ALostSessionLosesReadersAndWriters) {
  Session a = NewSession(absl::Seconds(30)), b = NewSession(), c = NewSession(absl::Seconds(30));
  RWMutex first(a, name_), second(b, name_), third(c, name_);
  auto reader = first.ReadLock(Soon());
  ASSERT_TRUE(reader.ok());
  auto lost_waiting = Later([&] { return third.WriteLock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  ASSERT_TRUE(client().Revoke(c.lease_id()).ok());
  EXPECT_TRUE(IsLost(lost_waiting.get().status()));
  ASSERT_TRUE(client().Revoke(a.lease_id()).ok());
  EXPECT_TRUE(WaitFor([&] { return reader->stop_token().stop_requested(); }));
  EXPECT_FALSE(reader->held());
  auto writer = second.WriteLock(Soon());
  ASSERT_TRUE(writer.ok());
  EXPECT_TRUE(IsLost(reader->Unlock()));
}

// Many threads on a few sessions, reading, writing, trying, giving up and downgrading; a model
// says who may be inside.
TEST_P(RWMutexTest, NeverLetsAWriterInWithAnybodyElse) {
  constexpr int kThreads = 8, kRounds = 15, kSessions = 4;
  std::vector<Session> sessions;
  for (int i = 0; i < kSessions; ++i) sessions.push_back(NewSession());
  std::mutex mutex;
  int readers = 0, writers = 0, entered = 0;
  int64_t last_write = 0;
  const auto enter = [&](bool write, int64_t token) {
    std::lock_guard lock(mutex);
    (write ? writers : readers) += 1;
    ++entered;
    EXPECT_LE(writers, 1);
    EXPECT_TRUE(writers == 0 || readers == 0) << readers << " readers, " << writers << " writers";
    EXPECT_GT(token, last_write);  // whoever comes after a writer has a greater token
    if (write) last_write = token;
  };
  const auto leave = [&](bool write, bool to_reader) {
    std::lock_guard lock(mutex);
    (write ? writers : readers) -= 1;
    if (to_reader) ++readers;
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(i);
      RWMutex lock(sessions[i % kSessions], name_);
      for (int round = 0; round < kRounds; ++round) {
        const bool patient = random() % 4 != 0;
        const CallOptions call{.timeout =
                                   patient ? absl::Seconds(60) : absl::Milliseconds(random() % 40)};
        if (random() % 3 != 0) {
          auto guard = lock.ReadLock(call);
          if (!guard.ok()) {
            EXPECT_EQ(guard.status().code(), absl::StatusCode::kDeadlineExceeded);
            EXPECT_FALSE(patient);
            continue;
          }
          enter(false, guard->token());
          leave(false, false);
          EXPECT_TRUE(guard->Unlock(Soon()).ok());
          continue;
        }
        auto guard = lock.WriteLock(call);
        if (!guard.ok()) {
          EXPECT_EQ(guard.status().code(), absl::StatusCode::kDeadlineExceeded);
          EXPECT_FALSE(patient);
          continue;
        }
        enter(true, guard->token());
        if (random() % 2 == 0) {
          leave(true, /*to_reader=*/true);
          auto reader = (*std::move(guard)).Downgrade(Soon());
          ASSERT_TRUE(reader.ok()) << reader.status();
          leave(false, false);
          EXPECT_TRUE(reader->Unlock(Soon()).ok());
        } else {
          leave(true, false);
          EXPECT_TRUE(guard->Unlock(Soon()).ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(entered, kThreads);
  EXPECT_TRUE(KeysBecome(name_, 0));
}

INSTANTIATE_TEST_SUITE_P(Servers, RWMutexTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
