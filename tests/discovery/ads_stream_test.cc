// The ADS stream's state machine and the catalog behind it: requests in, responses out, no network.
#include "conclave/discovery/xds/ads_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "conclave/discovery/xds/catalog.h"
#include "conclave/discovery/xds/endpoint_set.h"
#include "conclave/discovery/xds/resources.h"
#include "conclave/discovery/xds/xds.pb.h"

namespace conclave::xds {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;

EndpointSet Set(const std::vector<std::string>& addresses) {
  return EndpointSet::FromAddresses(addresses, nullptr);
}

std::vector<std::string> Addresses(const google::protobuf::Any& resource) {
  ClusterLoadAssignment assignment;
  EXPECT_TRUE(assignment.ParseFromString(resource.value()));
  std::vector<std::string> addresses;
  for (const auto& locality : assignment.endpoints()) {
    EXPECT_TRUE(locality.has_locality());
    EXPECT_GT(locality.load_balancing_weight().value(), 0u);
    for (const auto& endpoint : locality.lb_endpoints()) {
      const auto& address = endpoint.endpoint().address().socket_address();
      addresses.push_back(address.address() + ":" + std::to_string(address.port_value()));
    }
  }
  return addresses;
}

class AdsStreamTest : public testing::Test {
 protected:
  DiscoveryRequest Request(std::string_view type, std::vector<std::string> names,
                           const std::string& nonce = "") {
    DiscoveryRequest request;
    request.set_type_url(std::string(type));
    for (auto& name : names) request.add_resource_names(name);
    request.set_response_nonce(nonce);
    return request;
  }
  AdsStream::Heard Hear(const DiscoveryRequest& request) {
    const auto heard = stream_.OnRequest(request);
    EXPECT_TRUE(heard.ok()) << heard.status();
    return *heard;
  }
  DiscoveryResponse MustNext() {
    DiscoveryResponse response;
    EXPECT_TRUE(stream_.Next(now_, &response));
    return response;
  }
  bool Silent() {
    DiscoveryResponse response;
    return !stream_.Next(now_, &response);
  }
  void Acknowledge(const DiscoveryResponse& response, std::vector<std::string> names) {
    EXPECT_EQ(Hear(Request(response.type_url(), std::move(names), response.nonce())),
              AdsStream::Heard::kAck);
  }

  Catalog catalog_;
  AdsStream stream_{&catalog_, milliseconds(10)};
  Instant now_{std::chrono::seconds(100)};
};

TEST_F(AdsStreamTest, AClientIsLedFromListenerToEndpoints) {
  catalog_.Declare("my-service", "my-service", {});
  catalog_.SetEndpoints("my-service", Set({"10.0.0.1:80", "10.0.0.2:80"}));

  EXPECT_EQ(Hear(Request(kListenerType, {"my-service"})), AdsStream::Heard::kSubscription);
  const DiscoveryResponse lds = MustNext();
  ASSERT_EQ(lds.resources_size(), 1);
  Listener listener;
  ASSERT_TRUE(listener.ParseFromString(lds.resources(0).value()));
  EXPECT_EQ(listener.name(), "my-service");
  HttpConnectionManager manager;
  ASSERT_TRUE(manager.ParseFromString(listener.api_listener().api_listener().value()));
  const Route& route = manager.route_config().virtual_hosts(0).routes(0);
  EXPECT_TRUE(route.match().has_prefix()) << "an absent prefix makes the client refuse the route";
  EXPECT_EQ(route.route().cluster(), "my-service");
  EXPECT_EQ(manager.http_filters_size(), 1);
  Acknowledge(lds, {"my-service"});

  Hear(Request(kClusterType, {"my-service"}));
  const DiscoveryResponse cds = MustNext();
  Cluster cluster;
  ASSERT_TRUE(cluster.ParseFromString(cds.resources(0).value()));
  EXPECT_EQ(cluster.type(), Cluster::EDS);
  EXPECT_TRUE(cluster.eds_cluster_config().eds_config().has_ads());
  EXPECT_GT(cluster.circuit_breakers().thresholds(0).max_requests().value(), 1'000'000u);
  Acknowledge(cds, {"my-service"});

  Hear(Request(kEndpointType, {"my-service"}));
  const DiscoveryResponse eds = MustNext();
  EXPECT_THAT(Addresses(eds.resources(0)), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  Acknowledge(eds, {"my-service"});
  EXPECT_TRUE(Silent());
  EXPECT_EQ(stream_.NextDeadline(), kNever);
}

TEST_F(AdsStreamTest, UntilTheEndpointsAreKnownNothingIsSaidOfThem) {
  Hear(Request(kEndpointType, {"s"}));
  EXPECT_TRUE(Silent()) << "an empty set would make calls fail";
  EXPECT_EQ(stream_.NextDeadline(), kNever);
  catalog_.SetEndpoints("s", {});
  EXPECT_THAT(Addresses(MustNext().resources(0)), IsEmpty()) << "known to be empty is an answer";
}

TEST_F(AdsStreamTest, ABurstOfChangesBecomesOneResponse) {
  Hear(Request(kEndpointType, {"s"}));
  catalog_.SetEndpoints("s", Set({"10.0.0.1:1"}));
  Acknowledge(MustNext(), {"s"});
  for (int i = 2; i < 50; ++i) {
    catalog_.SetEndpoints("s", Set({"10.0.0.1:" + std::to_string(i)}));
    EXPECT_TRUE(Silent()) << "within the coalescing time";
  }
  EXPECT_EQ(stream_.NextDeadline(), now_ + milliseconds(10));
  now_ += milliseconds(10);
  EXPECT_THAT(Addresses(MustNext().resources(0)), ElementsAre("10.0.0.1:49"));
  EXPECT_TRUE(Silent());
}

TEST_F(AdsStreamTest, AChangeAfterAQuietTimeIsSentAtOnce) {
  Hear(Request(kEndpointType, {"s"}));
  catalog_.SetEndpoints("s", Set({"10.0.0.1:1"}));
  MustNext();
  now_ += milliseconds(500);
  catalog_.SetEndpoints("s", Set({"10.0.0.2:1"}));
  EXPECT_THAT(Addresses(MustNext().resources(0)), ElementsAre("10.0.0.2:1"));
}

TEST_F(AdsStreamTest, ASetThatChangesBackIsNotSentAsNews) {
  Hear(Request(kEndpointType, {"s"}));
  catalog_.SetEndpoints("s", Set({"10.0.0.1:1"}));
  MustNext();
  catalog_.SetEndpoints("s", Set({"10.0.0.1:1"}));
  now_ += milliseconds(500);
  EXPECT_TRUE(Silent());
}

TEST_F(AdsStreamTest, ARefusedResponseIsNotRepeatedButTheNextChangeIsSent) {
  Hear(Request(kEndpointType, {"s"}));
  catalog_.SetEndpoints("s", Set({"10.0.0.1:1"}));
  DiscoveryRequest nack = Request(kEndpointType, {"s"}, MustNext().nonce());
  nack.mutable_error_detail()->set_message("bad address");
  EXPECT_EQ(Hear(nack), AdsStream::Heard::kNack);
  EXPECT_EQ(stream_.nack_detail(), "bad address");
  now_ += milliseconds(500);
  EXPECT_TRUE(Silent());
  catalog_.SetEndpoints("s", Set({"10.0.0.2:1"}));
  EXPECT_THAT(Addresses(MustNext().resources(0)), ElementsAre("10.0.0.2:1"));
}

TEST_F(AdsStreamTest, AnAnswerToAnOlderResponseIsPassedOver) {
  Hear(Request(kEndpointType, {"s"}));
  catalog_.SetEndpoints("s", Set({"10.0.0.1:1"}));
  const DiscoveryResponse first = MustNext();
  now_ += milliseconds(500);
  catalog_.SetEndpoints("s", Set({"10.0.0.2:1"}));
  const DiscoveryResponse second = MustNext();
  EXPECT_EQ(Hear(Request(kEndpointType, {"other"}, first.nonce())), AdsStream::Heard::kStale);
  EXPECT_THAT(stream_.clusters(), ElementsAre("s"));
  Acknowledge(second, {"s"});
}

TEST_F(AdsStreamTest, ANameThatIsAskedForAgainIsSentAgain) {
  catalog_.SetEndpoints("s", Set({"10.0.0.1:1"}));
  Hear(Request(kEndpointType, {"s"}));
  const DiscoveryResponse first = MustNext();
  EXPECT_EQ(Hear(Request(kEndpointType, {}, first.nonce())), AdsStream::Heard::kSubscription);
  EXPECT_TRUE(Silent());
  Hear(Request(kEndpointType, {"s"}, first.nonce()));
  EXPECT_EQ(MustNext().resources_size(), 1);
}

TEST_F(AdsStreamTest, OnlyChangedEndpointsAreSentButAllClusters) {
  catalog_.Declare("a", "a", {});
  catalog_.Declare("b", "b", {});
  catalog_.SetEndpoints("a", Set({"10.0.0.1:1"}));
  catalog_.SetEndpoints("b", Set({"10.0.0.2:1"}));
  Hear(Request(kEndpointType, {"a", "b"}));
  EXPECT_EQ(MustNext().resources_size(), 2);
  Hear(Request(kClusterType, {"a"}));
  const DiscoveryResponse one = MustNext();
  EXPECT_EQ(one.resources_size(), 1);
  Hear(Request(kClusterType, {"a", "b"}, one.nonce()));
  EXPECT_EQ(MustNext().resources_size(), 2) << "absence from a cluster response means deletion";
  now_ += milliseconds(500);
  catalog_.SetEndpoints("b", Set({"10.0.0.3:1"}));
  const DiscoveryResponse changed = MustNext();
  ASSERT_EQ(changed.resources_size(), 1);
  EXPECT_THAT(Addresses(changed.resources(0)), ElementsAre("10.0.0.3:1"));
}

TEST_F(AdsStreamTest, AnUnknownListenerIsAbsentAtOnceInAClosedCatalog) {
  Hear(Request(kListenerType, {"nobody"}));
  EXPECT_EQ(MustNext().resources_size(), 0) << "silence would make the client wait 15 s";
  EXPECT_TRUE(Silent());
}

TEST_F(AdsStreamTest, AnOpenCatalogServesEveryName) {
  catalog_ = Catalog({.open = true, .policy = {}});
  Hear(Request(kListenerType, {"anything"}));
  EXPECT_EQ(MustNext().resources_size(), 1);
  Hear(Request(kClusterType, {"anything"}));
  EXPECT_EQ(MustNext().resources_size(), 1);
}

TEST_F(AdsStreamTest, AnOpenCatalogRefusesNamesThatCrashClients) {
  catalog_ = Catalog({.open = true, .policy = {}});
  Hear(Request(kListenerType, {"any\"thing"}));
  EXPECT_EQ(MustNext().resources_size(), 0);
}

TEST_F(AdsStreamTest, AWithdrawnListenerIsTakenFromItsClients) {
  catalog_.Declare("a", "a", {});
  Hear(Request(kListenerType, {"a"}));
  EXPECT_EQ(MustNext().resources_size(), 1);
  catalog_.Withdraw("a");
  now_ += milliseconds(500);
  EXPECT_EQ(MustNext().resources_size(), 0);
}

TEST_F(AdsStreamTest, UnknownTypesAndTooManyNamesAreTurnedAway) {
  EXPECT_EQ(Hear(Request("type.googleapis.com/other", {"x"})), AdsStream::Heard::kUnknownType);
  std::vector<std::string> names;
  for (size_t i = 0; i <= AdsStream::kNamesMax; ++i) names.push_back("n" + std::to_string(i));
  EXPECT_EQ(stream_.OnRequest(Request(kEndpointType, names)).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(stream_.OnRequest(Request(kEndpointType, {std::string(2000, 'x')})).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(AdsStreamTest, LargeSetsAreSpreadOverSeveralResponses) {
  std::vector<std::string> addresses;
  for (int i = 0; i < 10'000; ++i) {
    addresses.push_back("10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1) +
                        ":443");
  }
  std::vector<std::string> names;
  for (int i = 0; i < 10; ++i) {
    names.push_back("s" + std::to_string(i));
    catalog_.SetEndpoints(names.back(), Set(addresses));
  }
  Hear(Request(kEndpointType, names));
  int resources = 0;
  int responses = 0;
  DiscoveryResponse response;
  while (stream_.Next(now_, &response)) {
    EXPECT_LT(response.ByteSizeLong(), 4u << 20);
    resources += response.resources_size();
    ++responses;
  }
  EXPECT_EQ(resources, 10);
  EXPECT_GT(responses, 1);
}

TEST(EndpointSetTest, BadAndDuplicateAddressesAreLeftOutAndNamed) {
  std::vector<EndpointSet::Skipped> skipped;
  const EndpointSet set = EndpointSet::FromAddresses(
      {"10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3", "[::1]:80", "::1:80", "host:80",
       "10.0.0.4:0", "10.0.0.5:99999", "0.0.0.0:80", ":80", "", "10.0.0.6:8x", "[::]:1", "[::1",
       "[0:0:0:0:0:0:0:1]:80", "10.0.0.7:+5"},
      &skipped);
  std::vector<std::string> good;
  for (const Endpoint& endpoint : set.endpoints()) good.push_back(endpoint.ToString());
  EXPECT_THAT(good, ElementsAre("10.0.0.1:80", "10.0.0.2:80", "[::1]:80"));
  EXPECT_EQ(skipped.size(), 14u);
  for (const auto& entry : skipped) EXPECT_FALSE(entry.reason.empty()) << entry.address;
}

TEST(ResourcesTest, RetriesAreInTheRouteOnlyWhenAskedFor) {
  for (const uint32_t retries : {0u, 3u}) {
    Listener listener;
    ASSERT_TRUE(
        listener.ParseFromString(ListenerResource("l", "c", {.retries_max = retries}).value()));
    HttpConnectionManager manager;
    ASSERT_TRUE(manager.ParseFromString(listener.api_listener().api_listener().value()));
    const RouteAction& action = manager.route_config().virtual_hosts(0).routes(0).route();
    EXPECT_EQ(action.has_retry_policy(), retries > 0);
    EXPECT_EQ(action.retry_policy().num_retries().value(), retries);
  }
}

}  // namespace
}  // namespace conclave::xds
