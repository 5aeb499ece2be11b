// Processes that are stopped for longer than their lease lives, and wake up with a lock in hand: no
// write of theirs gets past the fence, whatever kind of lock it was.
#include <signal.h>

#include <map>
#include <memory>

#include "conclave/lock/lock.h"
#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ChildProcess;
using testing::ServerName;
using testing::WaitFor;

// Client::Fenced takes the guards of all kinds.
static_assert(Guard<LockGuard> && Guard<ReadGuard> && Guard<WriteGuard> && Guard<PermitGuard> &&
              Guard<MultiLockGuard> && Guard<ReentrantGuard> && Guard<QueuePlace>);

class PauseTest : public testing::LockTest {};

TEST_P(PauseTest, NoHolderOfAnyKindWritesUnderItsOldToken) {
  const std::string kinds[] = {"mutex", "read", "write", "permit", "multi"};
  std::map<std::string, std::unique_ptr<ChildProcess>> holders;
  const auto name = [this](const std::string& kind) { return absl::StrCat(name_, "-", kind); };
  for (const std::string& kind : kinds) {
    auto holder = ChildProcess::Start(
        {CONCLAVE_LOCK_WORKER, cluster_->JoinedEndpoints(), name(kind), "hold", kind});
    ASSERT_TRUE(holder.ok()) << holder.status();
    holders[kind] = *std::move(holder);
  }
  for (auto& [kind, holder] : holders) {
    ASSERT_TRUE(WaitFor([&] { return holder->Output() == "holding\n"; }, absl::Seconds(30)))
        << kind << ": " << holder->Output();
  }
  for (auto& [kind, holder] : holders) holder->Signal(SIGSTOP);
  // Each goes to somebody else as soon as the holder's lease has run out.
  Session session = NewSession();
  const CallOptions patient{.timeout = absl::Seconds(60)};
  auto mutex = Mutex(session, name("mutex")).Lock(patient);
  auto after_read = RWMutex(session, name("read")).WriteLock(patient);
  auto after_write = RWMutex(session, name("write")).ReadLock(patient);
  auto permit = Semaphore(session, name("permit"), {.permits = 2}).Acquire(1, patient);
  auto multi = MultiLock(session, {name("multi") + "-b"}).Lock(patient);
  ASSERT_TRUE(mutex.ok() && after_read.ok() && after_write.ok() && permit.ok() && multi.ok());
  for (auto& [kind, holder] : holders) holder->Signal(SIGCONT);
  for (auto& [kind, holder] : holders) {
    auto code = holder->Wait(absl::Seconds(30));
    ASSERT_TRUE(code.ok()) << kind << ": " << code.status();
    EXPECT_EQ(*code, 0) << kind;
    EXPECT_EQ(holder->Output(), "holding\nrefused\n") << kind;
  }
  EXPECT_TRUE(mutex->held());
  EXPECT_TRUE(multi->held());
}

INSTANTIATE_TEST_SUITE_P(Servers, PauseTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
