// From addresses with zones and weights to the localities that an xDS client is told; and the
// resources that carry a channel's policy.
#include "conclave/discovery/xds/endpoint_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/discovery/xds/resources.h"
#include "conclave/discovery/xds/xds.pb.h"

namespace conclave::xds {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;
using Candidate = EndpointSet::Candidate;
using Layout = EndpointSet::Layout;
using Weights = EndpointSet::Layout::Weights;

std::vector<std::string> Print(const EndpointSet& set) {
  std::vector<std::string> lines;
  for (const EndpointSet::Locality& locality : set.localities()) {
    std::string line = std::to_string(locality.priority) + " " + locality.zone + "/" +
                       locality.sub_zone + " " + std::to_string(locality.weight) + ":";
    for (const Endpoint& endpoint : locality.endpoints) {
      line += " " + endpoint.ip;
      if (endpoint.weight != 1) line += "*" + std::to_string(endpoint.weight);
    }
    lines.push_back(line);
  }
  return lines;
}

const std::vector<Candidate> kFour = {{.address = "10.0.0.1:1", .zone = "east", .weight = 100},
                                      {.address = "10.0.0.2:1", .zone = "west", .weight = 100},
                                      {.address = "10.0.0.3:1", .zone = "east", .weight = 10},
                                      {.address = "10.0.0.4:1", .weight = 0}};

TEST(ArrangeTest, AllAlikeAreOneLocality) {
  EXPECT_THAT(Print(EndpointSet::Arrange(kFour, {}, nullptr)),
              ElementsAre("0 / 1: 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4"));
}

TEST(ArrangeTest, EqualWeightsShareALocalityOfTheirSum) {
  EXPECT_THAT(Print(EndpointSet::Arrange(kFour, {.weights = Weights::kByLocality}, nullptr)),
              ElementsAre("0 /weight-10 10: 10.0.0.3", "0 /weight-100 200: 10.0.0.1 10.0.0.2"));
}

TEST(ArrangeTest, ARingTakesTheWeightsOfEndpoints) {
  EXPECT_THAT(Print(EndpointSet::Arrange(kFour, {.weights = Weights::kByEndpoint}, nullptr)),
              ElementsAre("0 / 1: 10.0.0.1*100 10.0.0.2*100 10.0.0.3*10"));
}

TEST(ArrangeTest, TheFirstZoneComesFirstAndNoPriorityIsEmpty) {
  EXPECT_THAT(Print(EndpointSet::Arrange(kFour, {.first_zone = "east"}, nullptr)),
              ElementsAre("0 east/ 1: 10.0.0.1 10.0.0.3", "1 elsewhere/ 1: 10.0.0.2 10.0.0.4"));
  EXPECT_THAT(Print(EndpointSet::Arrange(kFour, {.first_zone = "north"}, nullptr)),
              ElementsAre("0 elsewhere/ 1: 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4"));
  EXPECT_THAT(Print(EndpointSet::Arrange(
                  kFour, {.weights = Weights::kByLocality, .first_zone = "east"}, nullptr)),
              ElementsAre("0 east/weight-10 10: 10.0.0.3", "0 east/weight-100 100: 10.0.0.1",
                          "1 elsewhere/weight-100 100: 10.0.0.2"));
}

TEST(ArrangeTest, OnlyZerosCountAsOnes) {
  const std::vector<Candidate> zeros = {{.address = "10.0.0.1:1", .weight = 0},
                                        {.address = "10.0.0.2:1", .weight = 0}};
  EXPECT_THAT(Print(EndpointSet::Arrange(zeros, {.weights = Weights::kByLocality}, nullptr)),
              ElementsAre("0 /weight-1 2: 10.0.0.1 10.0.0.2"));
}

TEST(ArrangeTest, ManyWeightsShareFewLocalitiesAndKeepTheirSum) {
  std::vector<Candidate> many;
  uint64_t sum = 0;
  for (uint32_t i = 0; i < 2000; ++i) {
    const uint32_t weight = 1 + i * 50;
    sum += weight;
    many.push_back(
        {.address = "10.0." + std::to_string(i / 250) + "." + std::to_string(1 + i % 250) + ":1",
         .weight = weight});
  }
  const EndpointSet set = EndpointSet::Arrange(many, {.weights = Weights::kByLocality}, nullptr);
  EXPECT_LE(set.localities().size(), EndpointSet::kWeightClassesMax);
  EXPECT_GE(set.localities().size(), 20u);
  EXPECT_EQ(set.size(), 2000u);
  uint64_t total = 0;
  for (const auto& locality : set.localities()) total += locality.weight;
  EXPECT_EQ(total, sum);
}

TEST(ArrangeTest, AddressesThatNoClientTakesAreLeftOutWithTheReason) {
  std::vector<EndpointSet::Skipped> skipped;
  std::vector<Candidate> candidates;
  for (const char* address :
       {"0.0.0.0:1", "[::]:1", "[fe80::1%eth0]:1", "::1:1", "host:1", "10.0.0.1", "10.0.0.1:0",
        "10.0.0.1:65536", "10.0.0.1:+1", "", ":", "[::1]", "10.0.0.1:1\n", "\xff:1"}) {
    candidates.push_back({.address = address});
  }
  EXPECT_TRUE(EndpointSet::Arrange(candidates, {}, &skipped).empty());
  EXPECT_THAT(skipped, SizeIs(candidates.size()));
  for (const auto& [address, reason] : skipped) EXPECT_FALSE(reason.empty()) << address;
}

TEST(ArrangeTest, OneAddressOfTwoZonesOrWeightsIsThereOnce) {
  std::vector<EndpointSet::Skipped> skipped;
  const EndpointSet set =
      EndpointSet::Arrange({{.address = "10.0.0.1:1", .zone = "east", .weight = 5},
                            {.address = "10.0.0.1:1", .zone = "west", .weight = 7}},
                           {.weights = Weights::kByLocality, .first_zone = "east"}, &skipped);
  EXPECT_THAT(Print(set), ElementsAre("0 east/weight-5 5: 10.0.0.1"));
  EXPECT_THAT(skipped, SizeIs(1));
}

TEST(ArrangeTest, TheLargestSetDoesNotOverflow) {
  std::vector<Candidate> many;
  for (uint32_t i = 0; i < EndpointSet::kEndpointsMax + 1; ++i) {
    many.push_back({.address = "10." + std::to_string(i / 62500) + "." +
                               std::to_string(i / 250 % 250) + "." + std::to_string(1 + i % 250) +
                               ":1",
                    .weight = 4'000'000'000});
  }
  std::vector<EndpointSet::Skipped> skipped;
  const EndpointSet set = EndpointSet::Arrange(many, {.weights = Weights::kByLocality}, &skipped);
  EXPECT_EQ(set.size(), EndpointSet::kEndpointsMax);
  EXPECT_THAT(skipped, SizeIs(1));
  ASSERT_THAT(set.localities(), SizeIs(1));
  EXPECT_EQ(set.localities()[0].weight,
            uint64_t{EndpointSet::kWeightMax} * EndpointSet::kEndpointsMax);
}

TEST(ResourcesTest, AClusterCarriesTheRingAndTheOutliers) {
  CallPolicy policy{.hash_header = "x-user", .ring_size_min = 77};
  policy.outlier = OutlierPolicy{.interval = std::chrono::milliseconds(1500),
                                 .failure_percent = 60,
                                 .hosts_min = 2,
                                 .calls_min = 9};
  Cluster cluster;
  ASSERT_TRUE(cluster.ParseFromString(ClusterResource("c", policy).value()));
  EXPECT_EQ(cluster.lb_policy(), Cluster::RING_HASH);
  EXPECT_EQ(cluster.ring_hash_lb_config().minimum_ring_size().value(), 77u);
  const OutlierDetection& outlier = cluster.outlier_detection();
  EXPECT_EQ(outlier.interval().seconds(), 1);
  EXPECT_EQ(outlier.interval().nanos(), 500'000'000);
  EXPECT_EQ(outlier.enforcing_failure_percentage().value(), 100u);
  EXPECT_EQ(outlier.failure_percentage_threshold().value(), 60u);
  EXPECT_EQ(outlier.enforcing_success_rate().value(), 0u) << "not by that";
  EXPECT_TRUE(cluster.ParseFromString(ClusterResource("c", {}).value()));
  EXPECT_EQ(cluster.lb_policy(), Cluster::ROUND_ROBIN);
  EXPECT_FALSE(cluster.has_outlier_detection());
}

}  // namespace
}  // namespace conclave::xds
