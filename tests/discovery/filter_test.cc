// Which instances a filter lets through.
#include "conclave/discovery/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/discovery/service_state.h"
#include "conclave/discovery/subset.h"

namespace conclave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::shared_ptr<const Snapshot> SnapshotOf(const std::vector<Instance>& instances) {
  ServiceState state({.service = "s"});
  WatchBatch batch;
  batch.resynced = true;
  batch.revision = 1;
  for (const Instance& instance : instances) {
    batch.state.push_back({.key = InstanceKey("s", instance.address),
                           .value = EncodeNamingValue(instance),
                           .mod_revision = 1});
  }
  (void)state.Apply(batch, absl::UnixEpoch());
  return state.snapshot();
}

std::vector<std::string> Pass(const ServiceFilter& filter,
                              const std::shared_ptr<const Snapshot>& all) {
  std::vector<std::string> addresses;
  const auto passed = SnapshotFilter(filter, "me").Apply(all);
  for (const Instance& instance : passed->instances()) addresses.push_back(instance.address);
  return addresses;
}

class FilterTest : public ::testing::Test {
 protected:
  const std::shared_ptr<const Snapshot> all_ = SnapshotOf({
      {.address = "a:1", .version = "1.4.2", .zone = "east", .tags = {"canary", "gpu"}},
      {.address = "b:1", .version = "1.4.20", .zone = "east", .state = InstanceState::kDraining},
      {.address = "c:1", .version = "1.5.0", .zone = "west", .tags = {"gpu"}},
      {.address = "d:1", .zone = "north", .state = InstanceState::kDown},
      {.address = "e:1"},
  });
};

TEST_F(FilterTest, NoFilterGivesTheVerySnapshot) {
  EXPECT_EQ(SnapshotFilter({}, "me").Apply(all_), all_);
}

TEST_F(FilterTest, ByZoneTagVersionAndState) {
  EXPECT_THAT(Pass({.zones = {"east", "north"}}, all_), ElementsAre("a:1", "b:1", "d:1"));
  EXPECT_THAT(Pass({.zones = {""}}, all_), ElementsAre("e:1"));
  EXPECT_THAT(Pass({.tags = {"gpu"}}, all_), ElementsAre("a:1", "c:1"));
  EXPECT_THAT(Pass({.tags = {"gpu", "canary"}}, all_), ElementsAre("a:1"));
  EXPECT_THAT(Pass({.tags = {"gpu"}, .exclude_tags = {"canary"}}, all_), ElementsAre("c:1"));
  EXPECT_THAT(Pass({.version = "1.4.2"}, all_), ElementsAre("a:1"));
  EXPECT_THAT(Pass({.version = "1.4.*"}, all_), ElementsAre("a:1", "b:1"));
  EXPECT_THAT(Pass({.version = "*"}, all_), ElementsAre("a:1", "b:1", "c:1", "d:1", "e:1"));
  EXPECT_THAT(Pass({.states = {InstanceState::kServing}}, all_), ElementsAre("a:1", "c:1", "e:1"));
  EXPECT_THAT(Pass({.zones = {"east"}, .version = "1.5.*"}, all_), IsEmpty());
}

TEST_F(FilterTest, ThePreferredZoneSpillsOverWhenNobodyServesThere) {
  EXPECT_THAT(Pass({.prefer_zone = "east"}, all_), ElementsAre("a:1", "b:1"));
  EXPECT_FALSE(SnapshotFilter({.prefer_zone = "east"}, "me").Apply(all_)->spilled_over());
  // "north" has one that is down, "south" none at all.
  for (const std::string zone : {"north", "south"}) {
    EXPECT_THAT(Pass({.prefer_zone = zone}, all_), ElementsAre("a:1", "b:1", "c:1", "d:1", "e:1"));
    EXPECT_TRUE(SnapshotFilter({.prefer_zone = zone}, "me").Apply(all_)->spilled_over());
  }
  EXPECT_THAT(Pass({.prefer_zone = "east", .exclude_tags = {"canary"}}, all_),
              ElementsAre("b:1", "c:1", "d:1", "e:1"))
      << "those that the other conditions leave out do not serve here";
  EXPECT_THAT(Pass({.prefer_zone = "north", .zones = {"north", "west"}}, all_),
              ElementsAre("c:1", "d:1"));
}

TEST_F(FilterTest, TheRestOfTheSnapshotStays) {
  const auto some = SnapshotFilter({.tags = {"gpu"}}, "me").Apply(all_);
  EXPECT_EQ(some->revision(), all_->revision());
  EXPECT_EQ(some->service(), "s");
  EXPECT_EQ(&some->instances()[0], &all_->instances()[0]) << "instances are shared";
}

TEST(FilterSubsetTest, IsTheOneOfTheInstancesAddresses) {
  std::vector<Instance> hundred;
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i) {
    names.push_back("h" + std::to_string(i) + ":1");
    hundred.push_back({.address = names.back()});
  }
  std::sort(names.begin(), names.end());  // as the keys are
  std::vector<std::string> expected;
  for (const size_t i :
       RendezvousSubset("me", std::vector<std::string_view>(names.begin(), names.end()), 10)) {
    expected.push_back(names[i]);
  }
  const auto all = SnapshotOf(hundred);
  EXPECT_EQ(Pass({.max_instances = 10, .subset_key = "me"}, all), expected);
  EXPECT_NE(Pass({.max_instances = 10, .subset_key = "you"}, all), expected);
}

TEST(FilterSubsetTest, CountsOnlyThoseThatServe) {
  const auto all = SnapshotOf({{.address = "a:1", .state = InstanceState::kDraining},
                               {.address = "b:1"},
                               {.address = "c:1", .state = InstanceState::kDown}});
  EXPECT_THAT(Pass({.max_instances = 5}, all), ElementsAre("b:1"));
}

TEST(FilterValidationTest, RefusesWhatContradictsItself) {
  const auto message = [](const ServiceFilter& filter) {
    const absl::Status status = SnapshotFilter::Validate(filter);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({.prefer_zone = "x", .zones = {"y"}}), HasSubstr("prefer_zone"));
  EXPECT_THAT(message({.tags = {"a"}, .exclude_tags = {"a"}}), HasSubstr("tag"));
  EXPECT_THAT(message({.version = "1.*.2"}), HasSubstr("star"));
  EXPECT_THAT(message({.states = {InstanceState::kDown}, .max_instances = 1}),
              HasSubstr("max_instances"));
  EXPECT_THAT(message({.subset_key = "me"}), HasSubstr("subset_key"));
  EXPECT_THAT(message({.max_instances = 1, .subset_key = std::string(2'000, 'x')}),
              HasSubstr("1024 bytes"));
  EXPECT_TRUE(SnapshotFilter::Validate({.prefer_zone = "x", .zones = {"x", "y"}}).ok());
}

TEST(FilterNameTest, DifferentFiltersHaveDifferentNames) {
  const std::vector<ServiceFilter> filters = {
      {},
      {.prefer_zone = "a"},
      {.zones = {"a"}},
      {.zones = {"a", "b"}},
      {.zones = {"a,b"}},
      {.tags = {"a"}},
      {.exclude_tags = {"a"}},
      {.version = "a"},
      {.states = {InstanceState::kServing}},
      {.max_instances = 1},
      {.max_instances = 11},
      {.max_instances = 1, .subset_key = "1"},
  };
  std::set<std::string> names;
  for (const ServiceFilter& filter : filters) names.insert(SnapshotFilter::NameOf(filter));
  EXPECT_EQ(names.size(), filters.size());
}

}  // namespace
}  // namespace conclave
