// A server that is built with failpoints: armed by its environment and through its door.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conclave/tests/app/server_process.h"

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;

class FailpointServerTest : public ::testing::Test {
 protected:
  void Start(const std::vector<std::string>& environment) {
    auto process = ChildProcess::Start(server_.flags_, environment);
    ASSERT_TRUE(process.ok()) << process.status();
    server_.process_ = *std::move(process);
  }
  std::string Put(const std::string& name, const std::string& terms) const {
    return Exchange(door_,
                    absl::StrCat("PUT /", name, " HTTP/1.1\r\nHost: x\r\nContent-Length: ",
                                 terms.size(), "\r\n\r\n", terms),
                    false);
  }

  TemporaryDirectory directory_;
  const int door_ = FreePort();
  SingleServer server_{directory_.path("data")};
};

TEST_F(FailpointServerTest, PanicThroughTheDoorEndsItAndNothingAcknowledgedIsLost) {
  Start({absl::StrCat("GOFAIL_HTTP=127.0.0.1:", door_)});
  ASSERT_TRUE(server_.WaitReady()) << server_.Output();
  ASSERT_TRUE(testing::Put(server_.endpoint(), "a", "1", std::chrono::seconds(20)));
  EXPECT_THAT(Put("raftAfterSave", "panic"), HasSubstr("204"));
  EXPECT_FALSE(testing::Put(server_.endpoint(), "b", "2"));
  EXPECT_EQ(server_.process_->Wait().value_or(-1), 2);
  EXPECT_THAT(server_.Output(), HasSubstr("failpoint panic: raftAfterSave"));
  Start({});
  ASSERT_TRUE(server_.WaitReady()) << server_.Output();
  const auto all = ReadAll(server_.endpoint());
  EXPECT_EQ(all.at("a"), "1");
  EXPECT_EQ(all.at("b"), "2");  // it was on the disk
}

TEST_F(FailpointServerTest, ItsEnvironmentArmsIt) {
  Start({"GOFAIL_FAILPOINTS=walBeforeSync=panic"});
  EXPECT_EQ(server_.process_->Wait().value_or(-1), 2);
  EXPECT_THAT(server_.Output(), HasSubstr("failpoint panic: walBeforeSync"));
}

TEST_F(FailpointServerTest, AWrongVariableIsNamed) {
  Start({"GOFAIL_FAILPOINTS=walBeforeSync=boom"});
  EXPECT_EQ(server_.process_->Wait().value_or(-1), 2);
  EXPECT_THAT(server_.Output(), HasSubstr("GOFAIL_FAILPOINTS: "));
}

}  // namespace
}  // namespace conclave::testing
