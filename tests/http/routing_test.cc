// Where requests of HTTP go, whichever version brought them.
#include "conclave/server/http/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace conclave::http {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Not;
using testing::Pair;

struct Asked {
  std::string method = "GET";
  std::string target = "/health";
  std::string host = "good.example:2379";
  bool is_tls = false;
  std::map<std::string, std::string, std::less<>> fields{};
  Serves serves = Serves::kAll;
  AccessPolicy access{};
  bool is_upgrade = false;
};

Routed RouteOf(const Asked& asked) {
  RequestHead head{
      asked.method, asked.target, asked.host, asked.is_tls, [&](std::string_view name) {
        const auto found = asked.fields.find(name);
        return found == asked.fields.end() ? std::string_view() : std::string_view(found->second);
      }};
  return Route(head, asked.serves, asked.access, asked.is_upgrade);
}

int StatusOf(const Asked& asked) {
  const Routed routed = RouteOf(asked);
  const auto* response = std::get_if<Response>(&routed.to);
  return response == nullptr ? 0 : response->status;
}

TEST(RoutingTest, PagesAndTheGatewayAreToldApartByThePath) {
  EXPECT_TRUE(std::holds_alternative<PageTarget>(RouteOf({}).to));
  EXPECT_TRUE(std::holds_alternative<PageTarget>(RouteOf({.target = "/v3"}).to));
  for (const char* path : {"/v3/kv/range", "/v3beta/kv/range", "/v3/kv/range?pretty"}) {
    const Routed routed = RouteOf({.method = "POST", .target = path});
    const auto* call = std::get_if<GatewayTarget>(&routed.to);
    ASSERT_NE(call, nullptr) << path;
    EXPECT_EQ(call->method->path, "/etcdserverpb.KV/Range");
  }
  EXPECT_EQ(StatusOf({.method = "POST", .target = "/v3/kv/nothing"}), 404);
  EXPECT_EQ(StatusOf({.target = "/v3/kv/range"}), 405);
  EXPECT_EQ(StatusOf({.target = "/v3/watch", .is_upgrade = true}), 0) << "a WebSocket's GET";
}

TEST(RoutingTest, OnlySomeFieldsArePassedOn) {
  const Routed routed = RouteOf({.method = "POST",
                                 .target = "/v3/kv/range",
                                 .fields = {{"authorization", "Bearer t.1"},
                                            {"grpc-metadata-hasleader", "true"},
                                            {"cookie", "secret"},
                                            {"grpc-timeout", "500m"}}});
  const auto& call = std::get<GatewayTarget>(routed.to);
  EXPECT_THAT(call.metadata, ElementsAre(Pair("authorization", "t.1"), Pair("hasleader", "true")));
  EXPECT_EQ(call.timeout, std::chrono::milliseconds(500));
}

TEST(RoutingTest, WhatCannotBePassedOnIsRefused) {
  for (const auto& [name, value] : std::map<std::string, std::string>{{"authorization", "a\nb"},
                                                                      {"token", "\xff"},
                                                                      {"grpc-timeout", "soon"},
                                                                      {"grpc-timeout", "-1S"}}) {
    EXPECT_EQ(StatusOf({.method = "POST", .target = "/v3/kv/range", .fields = {{name, value}}}),
              400)
        << name;
  }
}

TEST(RoutingTest, AHostThatIsNoneOfOursIsMisdirected) {
  const AccessPolicy access{.hosts = {"good.example", "::1"}};
  EXPECT_EQ(StatusOf({.access = access}), 0);
  EXPECT_EQ(StatusOf({.host = "[::1]:2379", .access = access}), 0);
  EXPECT_EQ(StatusOf({.host = "bad.example", .access = access}), 421);
  EXPECT_EQ(StatusOf({.host = "", .access = access}), 421);
  EXPECT_EQ(StatusOf({.host = "bad.example", .is_tls = true, .access = access}), 0);
  EXPECT_EQ(StatusOf({.host = "bad.example", .serves = Serves::kMetrics, .access = access}), 0);
}

TEST(RoutingTest, OriginsMayReadWhatTheyAreAllowedTo) {
  EXPECT_THAT(RouteOf({}).cors, Contains(Pair("Access-Control-Allow-Origin", "*")));
  const AccessPolicy access{.origins = {"http://app.example"}};
  EXPECT_THAT(RouteOf({.access = access}).cors, IsEmpty());
  EXPECT_THAT(RouteOf({.fields = {{"origin", "http://bad.example"}}, .access = access}).cors,
              IsEmpty());
  EXPECT_THAT(RouteOf({.fields = {{"origin", "http://app.example"}}, .access = access}).cors,
              Contains(Pair("Access-Control-Allow-Origin", "http://app.example")));
  EXPECT_EQ(StatusOf({.method = "OPTIONS", .target = "/v3/nothing"}), 200);
}

TEST(RoutingTest, ThePortOfMetricsHasFewPages) {
  for (const char* path :
       {"/metrics", "/health?serializable=true", "/livez", "/readyz/non_learner"}) {
    EXPECT_EQ(StatusOf({.target = path, .serves = Serves::kMetrics}), 0) << path;
  }
  for (const char* path : {"/version", "/v3/kv/range", "/debug/vars", "/"}) {
    EXPECT_EQ(StatusOf({.method = "POST", .target = path, .serves = Serves::kMetrics}), 404)
        << path;
  }
}

TEST(RoutingTest, AnswersSayWhatTheyAre) {
  EXPECT_THAT(
      FieldsOf({.status = 200, .body = "four"}),
      ElementsAre(Pair("Content-Type", HasSubstr("text/plain")), Pair("Content-Length", "4")));
  const Fields refused = FieldsOf({.status = 405, .allow = "GET", .grpc = true});
  EXPECT_THAT(refused, Contains(Pair("Allow", "GET")));
  EXPECT_THAT(refused, Contains(Key("X-Content-Type-Options")));
  EXPECT_THAT(refused, Contains(Key("Grpc-Metadata-Content-Type")));
  EXPECT_THAT(StreamFields(), Not(Contains(Key("Content-Length"))));
}

}  // namespace
}  // namespace conclave::http
