// Ranges page by page, against real servers.
#include "conclave/client/pages.h"

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "conclave/client/client.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;

class PagesTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  static constexpr int kKeys = 57;

  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    prefix_ = std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "/";
    for (int i = 0; i < kKeys; ++i) {
      auto put = client_->Put(Key(i), std::to_string(i));
      ASSERT_TRUE(put.ok()) << put.status();
      revision_ = put->revision;
    }
  }
  std::string Key(int i) const { return absl::StrFormat("%s%03d", prefix_, i); }
  Client& client() { return *client_; }

  std::optional<Client> client_;
  std::string prefix_;
  int64_t revision_ = 0;
};

TEST_P(PagesTest, AllKeysOnceInOrderAndOfOneRevision) {
  for (const int64_t page_size : {1, 10, 57, 58, 1000}) {
    int next = 0;
    for (const absl::StatusOr<Page>& page :
         client().Pages(Prefix(prefix_), {.page_size = page_size})) {
      ASSERT_TRUE(page.ok()) << page.status();
      EXPECT_LE(page->size(), static_cast<size_t>(page_size));
      EXPECT_FALSE(page->kvs.empty());
      EXPECT_EQ(page->count, kKeys);
      for (const KeyValue& kv : *page) {
        EXPECT_EQ(kv.key, Key(next));
        EXPECT_EQ(kv.value, std::to_string(next));
        ++next;
      }
    }
    EXPECT_EQ(next, kKeys);
  }
}

TEST_P(PagesTest, WritesInBetweenAreNotSeen) {
  conclave::Pages pages = client().Pages(Prefix(prefix_), {.page_size = 10});
  auto first = pages.Next();
  ASSERT_TRUE(first.ok() && first->has_value()) << first.status();
  EXPECT_GE(pages.revision(), revision_);
  ASSERT_TRUE(client().Delete(Prefix(prefix_)).ok());
  ASSERT_TRUE(client().Put(Key(20), "new").ok());
  ASSERT_TRUE(client().Put(Key(kKeys), "new").ok());
  int seen = static_cast<int>((*first)->size());
  for (const absl::StatusOr<Page>& page : pages) {
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_EQ(page->revision, (*first)->revision);
    for (const KeyValue& kv : *page) EXPECT_EQ(kv.value, std::to_string(seen++));
  }
  EXPECT_EQ(seen, kKeys);
}

TEST_P(PagesTest, LimitKeysOnlySerializableAndAnOlderRevision) {
  int seen = 0;
  for (const absl::StatusOr<Page>& page :
       client().Pages(Prefix(prefix_),
                      {.page_size = 10, .limit = 25, .serializable = true, .keys_only = true})) {
    ASSERT_TRUE(page.ok()) << page.status();
    for (const KeyValue& kv : *page) EXPECT_EQ(kv.value, "");
    seen += static_cast<int>(page->size());
  }
  EXPECT_EQ(seen, 25);
  seen = 0;
  for (const absl::StatusOr<Page>& page :
       client().Pages(Prefix(prefix_), {.page_size = 10, .revision = revision_ - 7})) {
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_EQ(page->revision, revision_ - 7);
    seen += static_cast<int>(page->size());
  }
  EXPECT_EQ(seen, kKeys - 7);
  seen = 0;
  for (const absl::StatusOr<Page>& page :
       client().Pages(Prefix(prefix_), {.page_size = 5, .min_mod_revision = revision_ - 11})) {
    ASSERT_TRUE(page.ok()) << page.status();
    seen += static_cast<int>(page->size());
  }
  EXPECT_EQ(seen, 12);
}

TEST_P(PagesTest, ACompactionInBetweenIsTheLoopsLastWord) {
  std::vector<absl::Status> statuses;
  for (const absl::StatusOr<Page>& page :
       client().Pages(Prefix(prefix_), {.page_size = 10, .revision = revision_ - 1})) {
    statuses.push_back(page.status());
    if (statuses.size() != 2) continue;
    ASSERT_TRUE(client().Compact(revision_).ok());
  }
  ASSERT_EQ(statuses.size(), 3u);
  EXPECT_TRUE(statuses[1].ok());
  EXPECT_TRUE(absl::IsOutOfRange(statuses[2])) << statuses[2];
  EXPECT_TRUE(IsCompacted(statuses[2]));
}

TEST_P(PagesTest, AnEmptyRangeTellsItsRevision) {
  conclave::Pages pages = client().Pages(Prefix(prefix_ + "none/"));
  EXPECT_EQ(pages.revision(), 0);
  EXPECT_EQ(pages.begin(), pages.end());
  EXPECT_GE(pages.revision(), revision_);
}

INSTANTIATE_TEST_SUITE_P(Servers, PagesTest, ::testing::ValuesIn(AllServers()), ServerName);

TEST(PagesWithoutAServerTest, AnErrorEndsTheLoopAndIsSeen) {
  absl::StatusOr<Client> client = Client::Connect({.endpoints = {"127.0.0.1:1"}});
  ASSERT_TRUE(client.ok()) << client.status();
  int turns = 0;
  for (const absl::StatusOr<Page>& page :
       client->Pages(AllKeys(), {}, {.timeout = absl::Milliseconds(50)})) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(page.status())) << page.status();
    ++turns;
  }
  EXPECT_EQ(turns, 1);
  for (const absl::StatusOr<Page>& page : client->Pages(AllKeys(), {.page_size = -1})) {
    EXPECT_TRUE(absl::IsInvalidArgument(page.status()));
  }
}

}  // namespace
}  // namespace conclave
