// The cluster's own addresses become the endpoints; what was given stays as a fallback.
#include "conclave/client/core/endpoint_sync.h"

#include <string>
#include <vector>

#include "conclave/client/core/endpoint_name.h"
#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using Names = std::vector<std::string>;

class EndpointSyncTest : public testing::EngineFixture {
 protected:
  EndpointSyncTest() : testing::EngineFixture(EngineOptions{.endpoints = {"given:1"}, .seed = 7}) {}

  void Start(Duration interval) {
    sync_ = std::make_unique<EndpointSync>(
        engine_, Names{"given:1"}, interval, /*uses_tls=*/false,
        [this](const std::vector<EndpointPool::Endpoint>& endpoints) {
          now_known_.clear();
          for (const auto& each : endpoints) {
            now_known_.push_back(each.name + (each.fallback ? " (fallback)" : ""));
          }
        });
    engine_.Advance(now_);
  }
  void Sync() {
    sync_->Sync(now_ + seconds(5), [this](const absl::Status& status) { status_ = status; });
  }
  static etcdserverpb::MemberListResponse Members(const std::vector<Names>& urls) {
    etcdserverpb::MemberListResponse response;
    for (const Names& each : urls) {
      etcdserverpb::Member& member = *response.add_members();
      for (const std::string& url : each) member.add_clienturls(url);
    }
    return response;
  }

  std::unique_ptr<EndpointSync> sync_;
  Names now_known_;
  absl::Status status_ = absl::UnknownError("not yet");
};

TEST_F(EndpointSyncTest, TheMembersAddressesComeFirstAndTheGivenOnesStayAsAFallback) {
  Start(Duration(0));
  Sync();
  Answer(Members({{"http://a:2379"}, {"http://b:2379", "http://b2:2379"}}));
  EXPECT_TRUE(status_.ok()) << status_;
  EXPECT_EQ(now_known_, (Names{"a:2379", "b:2379", "b2:2379", "given:1 (fallback)"}));
  EXPECT_EQ(wire_.added.size(), 3u);
  EXPECT_TRUE(wire_.removed.empty());
}

TEST_F(EndpointSyncTest, LearnersMembersWithoutAddressesAndUselessAddressesAreLeftOut) {
  Start(Duration(0));
  Sync();
  etcdserverpb::MemberListResponse members = Members({{"http://a:2379"},
                                                      {},
                                                      {"http://learner:2379"},
                                                      {"https://tls:2379"},
                                                      {"unix:///run/etcd"},
                                                      {"http://0.0.0.0:2379", "http://[::]:2379"},
                                                      {"http://a:2379"},
                                                      {"nonsense"}});
  members.mutable_members(2)->set_islearner(true);
  Answer(members);
  EXPECT_TRUE(status_.ok()) << status_;
  EXPECT_EQ(now_known_, (Names{"a:2379", "given:1 (fallback)"}));
}

TEST_F(EndpointSyncTest, NothingUsableChangesNothingAndSaysSo) {
  Start(Duration(0));
  Sync();
  Answer(Members({{"https://tls:2379"}}));
  EXPECT_EQ(status_.code(), absl::StatusCode::kNotFound);
  Sync();
  Answer(Members({}));
  EXPECT_EQ(status_.code(), absl::StatusCode::kNotFound);
  Sync();
  FailCall(12, "unknown method");
  EXPECT_EQ(status_.code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(now_known_.empty());
  EXPECT_EQ(engine_.pool().size(), 1u);
}

TEST_F(EndpointSyncTest, AGivenOneThatIsAMembersOwnIsNoFallback) {
  Start(Duration(0));
  Sync();
  Answer(Members({{"http://given:1"}, {"http://b:2379"}}));
  EXPECT_EQ(now_known_, (Names{"given:1", "b:2379"}));
}

TEST_F(EndpointSyncTest, AMemberThatLeavesTheClusterLeavesTheEndpoints) {
  Start(Duration(0));
  Sync();
  Answer(Members({{"http://a:2379"}, {"http://b:2379"}}));
  Sync();
  Answer(Members({{"http://b:2379"}}));
  EXPECT_EQ(now_known_, (Names{"b:2379", "given:1 (fallback)"}));
  EXPECT_EQ(wire_.removed, (std::set<size_t>{1}));
}

TEST_F(EndpointSyncTest, AnIntervalAsksAtOnceAndAgainAndAgainWhateverTheAnswer) {
  Start(minutes(5));
  size_t asked = 0;
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(wire_.calls.size(), asked + 1) << i;
    EXPECT_EQ(LastCall().method, "/etcdserverpb.Cluster/MemberList");
    asked = wire_.calls.size();
    if (i % 2 == 0) {
      FailCall(12, "unknown method");
    } else {
      Answer(Members({{"http://a:2379"}}));
    }
    Go(minutes(4));
    EXPECT_EQ(wire_.calls.size(), asked);
    Go(i == 0 ? minutes(2) : minutes(1));
    if (wire_.calls.size() == asked) Go(minutes(1));
  }
  EXPECT_EQ(now_known_, (Names{"a:2379", "given:1 (fallback)"}));
}

TEST_F(EndpointSyncTest, ANewAnswerOfTheDnsReplacesTheFallback) {
  Start(Duration(0));
  sync_->SetGiven({"dns1:2379", "dns2:2379"});
  EXPECT_EQ(now_known_, (Names{"dns1:2379", "dns2:2379"}));
  Sync();
  Answer(Members({{"http://a:2379"}}));
  EXPECT_EQ(now_known_, (Names{"a:2379", "dns1:2379 (fallback)", "dns2:2379 (fallback)"}));
}

TEST_F(EndpointSyncTest, AThousandMembersAreCutToTheLimit) {
  Start(Duration(0));
  Sync();
  std::vector<Names> urls;
  for (int i = 0; i < 1000; ++i) urls.push_back({"http://m" + std::to_string(i) + ":2379"});
  Answer(Members(urls));
  EXPECT_EQ(engine_.pool().size(), EndpointSync::kEndpointsMax);
}

TEST(EndpointNameTest, WhatIsAnEndpoint) {
  for (const auto& [text, name] : std::vector<std::pair<std::string, std::string>>{
           {"h:1", "h:1"}, {"http://h:1/", "h:1"}, {"[::1]:2379", "[::1]:2379"}}) {
    EXPECT_EQ(*ParseEndpoint(text), name);
  }
  for (const char* text : {"", "h", ":1", "h:0", "h:65536", "h:x", "::1:2379", "https://h:1",
                           "h:1/a", "a b:1", "unixs:///x", "unix://"}) {
    EXPECT_EQ(ParseEndpoint(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(*ParseEndpoint("unix:///run/x"), "unix:/run/x");
}

TEST(EndpointNameTest, WithTlsTheOtherSchemesCount) {
  for (const auto& [text, name] : std::vector<std::pair<std::string, std::string>>{
           {"h:1", "h:1"}, {"https://h:1/", "h:1"}, {"unixs:///run/x", "unix:/run/x"}}) {
    EXPECT_EQ(*ParseEndpoint(text, /*uses_tls=*/true), name);
  }
  for (const char* text : {"http://h:1", "unix:///run/x"}) {
    EXPECT_EQ(ParseEndpoint(text, /*uses_tls=*/true).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
  EXPECT_TRUE(WantsTls("https://h:1") && WantsTls("unixs:///x"));
  EXPECT_FALSE(WantsTls("http://h:1") || WantsTls("unix:///x") || WantsTls("h:1"));
}

}  // namespace
}  // namespace conclave
