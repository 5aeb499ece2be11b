// A real member whose disk fails a sync, or a write, under load: it ends and says so, and when it
// is started again it trusts nothing that was not proven synced.
#include "conclave/tests/faults/failing_sync.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "conclave/tests/support/strace.h"

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kExitIoError = 74;

struct Failure {
  const char* name;
  bool leader;
  const char* calls;
};
void PrintTo(const Failure& failure, std::ostream* out) { *out << failure.name; }

class FailingSyncTest : public ::testing::TestWithParam<Failure> {};

TEST_P(FailingSyncTest, TheMemberEndsAndComesBackWithoutALoss) {
  if (const auto binary = ServerBinary(ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  if (const absl::Status can = CanTrace(); !can.ok()) GTEST_SKIP() << can;
  const absl::StatusOr<FailingSync> result =
      RunFailingSync(ServerKind::kConclave, GetParam().leader, GetParam().calls);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->exit_code, kExitIoError);
  EXPECT_THAT(result->last_words, HasSubstr("Input/output error"));
  EXPECT_THAT(result->last_words, HasSubstr("the process ends"));
  EXPECT_GE(result->acknowledged, 200);
  EXPECT_EQ(result->lost, 0);
  // What the page cache shows of the last batch may not be on the disk: it is written again.
  ASSERT_TRUE(result->first_write.has_value());
  ASSERT_GT(result->last_record, 0u);
  EXPECT_LE(*result->first_write, result->last_record);
}

INSTANTIATE_TEST_SUITE_P(Members, FailingSyncTest,
                         ::testing::Values(Failure{"SyncOfTheLeader", true, "fdatasync,fsync"},
                                           Failure{"SyncOfAFollower", false, "fdatasync,fsync"},
                                           Failure{"WriteOfTheLeader", true, "pwritev"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace conclave::testing
