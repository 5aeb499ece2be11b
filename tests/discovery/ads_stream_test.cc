// The ADS stream's state machine and the catalog behind it: requests in, responses out, no network.
#include "conclave/discovery/xds/ads_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/prng.h"
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
  DiscoveryRequest late = Request(kEndpointType, {"s"}, first.nonce());
  late.mutable_error_detail()->set_message("of no interest any more");
  EXPECT_EQ(Hear(late), AdsStream::Heard::kStale);
  EXPECT_TRUE(Silent());
  Acknowledge(second, {"s"});
}

TEST_F(AdsStreamTest, ANameDroppedAndTakenUpWhileAResponseIsOnItsWayIsSentAgain) {
  catalog_.SetEndpoints("a", Set({"10.0.0.1:1"}));
  catalog_.SetEndpoints("b", Set({"10.0.0.2:1"}));
  Hear(Request(kEndpointType, {"a", "b"}));
  const DiscoveryResponse first = MustNext();
  now_ += milliseconds(500);
  catalog_.SetEndpoints("b", Set({"10.0.0.3:1"}));
  EXPECT_EQ(MustNext().resources_size(), 1) << "b only; the client has not heard of it yet";
  Hear(Request(kEndpointType, {"b"}, first.nonce()));
  Hear(Request(kEndpointType, {"a", "b"}, first.nonce()));
  const DiscoveryResponse third = MustNext();
  ASSERT_EQ(third.resources_size(), 1);
  EXPECT_THAT(Addresses(third.resources(0)), ElementsAre("10.0.0.1:1"));
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

// A client that behaves as gRPC's does, and a wire to it that takes its time in both directions. It
// drops and takes up names, acknowledges or refuses, and what it says and hears crosses on the way.
class DistantClient {
 public:
  DistantClient(AdsStream* stream, Prng* random) : stream_(stream), random_(random) {}

  void Want(std::set<std::string> names) {
    names_ = std::move(names);
    std::erase_if(known_, [this](const auto& entry) { return !names_.contains(entry.first); });
    Say(false);
  }
  // The stream's response sets out.
  void Send(DiscoveryResponse response) { to_client_.push_back(std::move(response)); }

  // One message arrives, if one is on the way.
  void ArriveAtServer() {
    if (to_server_.empty()) return;
    ASSERT_TRUE(stream_->OnRequest(to_server_.front()).ok());
    to_server_.pop_front();
  }
  void ArriveAtClient() {
    if (to_client_.empty()) return;
    const DiscoveryResponse response = std::move(to_client_.front());
    to_client_.pop_front();
    nonce_ = response.nonce();
    for (const auto& resource : response.resources()) {
      ClusterLoadAssignment assignment;
      ASSERT_TRUE(assignment.ParseFromString(resource.value()));
      if (names_.contains(assignment.cluster_name())) {
        known_[assignment.cluster_name()] = Addresses(resource);
      }
    }
    // Refusing says that something was wrong with it; what was right is taken nevertheless.
    Say(random_->Chance(1, 10));
  }
  bool idle() const { return to_server_.empty() && to_client_.empty(); }
  const std::map<std::string, std::vector<std::string>>& known() const { return known_; }
  const std::set<std::string>& names() const { return names_; }

 private:
  void Say(bool refuse) {
    DiscoveryRequest request;
    request.set_type_url(std::string(kEndpointType));
    for (const std::string& name : names_) request.add_resource_names(name);
    request.set_response_nonce(nonce_);
    if (refuse) request.mutable_error_detail()->set_message("no");
    to_server_.push_back(std::move(request));
  }

  AdsStream* stream_;
  Prng* random_;
  std::set<std::string> names_;
  std::string nonce_;
  std::deque<DiscoveryRequest> to_server_;
  std::deque<DiscoveryResponse> to_client_;
  std::map<std::string, std::vector<std::string>> known_;
};

TEST(AdsStreamPropertyTest, AClientEndsUpWithWhatTheCatalogSays) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    Prng random(seed);
    Catalog catalog({.open = true, .policy = {}});
    AdsStream stream(&catalog, milliseconds(10));
    DistantClient client(&stream, &random);
    Instant now{std::chrono::seconds(1)};
    std::map<std::string, std::vector<std::string>> truth;
    const auto name = [&random] { return "s" + std::to_string(random.Below(4)); };
    const auto pump = [&] {
      DiscoveryResponse response;
      if (stream.Next(now, &response)) client.Send(std::move(response));
    };
    client.Want({name()});
    for (int step = 0; step < 200; ++step) {
      switch (random.Below(6)) {
        case 0: {
          const std::string service = name();
          truth[service].clear();
          for (uint64_t i = random.Below(4); i > 0; --i) {
            truth[service].push_back("10.0.0." + std::to_string(i) + ":80");
          }
          std::sort(truth[service].begin(), truth[service].end());
          catalog.SetEndpoints(service, Set(truth[service]));
          break;
        }
        case 1:
          client.Want({name(), name()});
          break;
        case 2:
          client.ArriveAtServer();
          break;
        case 3:
          client.ArriveAtClient();
          break;
        case 4:
          now += milliseconds(random.Below(15));
          break;
        default:
          pump();
      }
    }
    // Quiet: all that is on the way arrives, all that is due is sent.
    int rounds = 0;
    while (!client.idle() || stream.NextDeadline() != kNever) {
      ASSERT_LT(++rounds, 1000) << "client and stream never come to rest";
      client.ArriveAtServer();
      client.ArriveAtClient();
      if (stream.NextDeadline() != kNever) now = std::max(now, stream.NextDeadline());
      pump();
    }
    for (const std::string& service : client.names()) {
      if (!truth.contains(service)) {
        EXPECT_FALSE(client.known().contains(service)) << service;
      } else {
        ASSERT_TRUE(client.known().contains(service)) << service << " was never sent";
        EXPECT_EQ(client.known().at(service), truth[service]) << service;
      }
    }
  }
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
