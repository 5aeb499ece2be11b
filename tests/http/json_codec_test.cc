// The gateway's messages between JSON and protobuf, and the cutting of a body into messages.
#include "conclave/server/http/json_codec.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/api/rpc.pb.h"

namespace conclave::http {
namespace {

const GatewayMethod& Method(const std::string& path) {
  const GatewayMethod* method = FindGatewayMethod(path);
  EXPECT_NE(method, nullptr) << path;
  return *method;
}

etcdserverpb::RangeRequest Range(const std::string& json) {
  const auto wire = RequestOfJson(Method("/v3/kv/range"), json);
  EXPECT_TRUE(wire.ok()) << wire.status();
  etcdserverpb::RangeRequest request;
  EXPECT_TRUE(request.ParseFromString(wire.value_or("")));
  return request;
}

TEST(GatewayMethodTest, KnowsPathsAndTheirAliases) {
  EXPECT_EQ(Method("/v3/kv/range").path, "/etcdserverpb.KV/Range");
  EXPECT_EQ(Method("/v3beta/kv/range").path, "/etcdserverpb.KV/Range");
  EXPECT_EQ(Method("/v3/kv/lease/revoke").path, "/etcdserverpb.Lease/LeaseRevoke");
  EXPECT_EQ(Method("/v3/maintenance/transfer-leadership").path,
            "/etcdserverpb.Maintenance/MoveLeader");
  EXPECT_TRUE(Method("/v3/watch").client_streams);
  EXPECT_TRUE(Method("/v3/election/observe").server_streams);
  EXPECT_FALSE(Method("/v3/election/observe").client_streams);
  for (const char* path :
       {"/v3/", "/v3", "/v3/kv", "/v3/kv/range/", "/v3alpha/kv/range", "kv/range"}) {
    EXPECT_EQ(FindGatewayMethod(path), nullptr) << path;
  }
}

TEST(JsonTest, ReadsBothKindsOfNamesAndOfNumbers) {
  const auto request =
      Range(R"({"key":"Zm9v","rangeEnd":"AA==","limit":"5","revision":7,"sort_order":"DESCEND",
                "sortTarget":2,"keys_only":true,"no_such_field":[{"a":null}]})");
  EXPECT_EQ(request.key(), "foo");
  EXPECT_EQ(request.range_end(), std::string(1, '\0'));
  EXPECT_EQ(request.limit(), 5);
  EXPECT_EQ(request.revision(), 7);
  EXPECT_EQ(request.sort_order(), etcdserverpb::RangeRequest::DESCEND);
  EXPECT_EQ(request.sort_target(), etcdserverpb::RangeRequest::CREATE);
  EXPECT_TRUE(request.keys_only());
}

TEST(JsonTest, ReadsBase64OfEitherAlphabetWithAndWithoutPadding) {
  EXPECT_EQ(Range(R"({"key":"+/8="})").key(), "\xfb\xff");
  EXPECT_EQ(Range(R"({"key":"-_8"})").key(), "\xfb\xff");
}

TEST(JsonTest, WritesProtoNamesAndNumbersOf64BitsAsText) {
  etcdserverpb::LeaseTimeToLiveResponse response;
  response.mutable_header()->set_revision(3);
  response.set_id(INT64_MAX);
  response.set_ttl(-1);
  response.set_grantedttl(60);
  response.add_keys("foo");
  EXPECT_EQ(*JsonOfResponse(Method("/v3/lease/timetolive"), response.SerializeAsString()),
            R"({"header":{"revision":"3"},"ID":"9223372036854775807","TTL":"-1","grantedTTL":"60",)"
            R"("keys":["Zm9v"]})");
  EXPECT_EQ(*JsonOfResponse(Method("/v3/kv/range"), ""), "{}");
}

TEST(JsonTest, RefusesWhatIsNotOfTheType) {
  const GatewayMethod& method = Method("/v3/kv/range");
  for (const std::string& json :
       {std::string(R"({"key":5})"), std::string(R"({"key":"!!"})"),
        std::string(R"({"limit":1.5})"), std::string(R"({"limit":99999999999999999999})"),
        std::string(R"({"limit":"x"})"), std::string(R"({"key":{}})"), std::string(R"({key})"),
        std::string("{\"key\":\"\xff\xfe\"}")}) {
    EXPECT_EQ(RequestOfJson(method, json).status().code(), absl::StatusCode::kInvalidArgument)
        << json.substr(0, 40);
  }
}

TEST(JsonTextTest, EscapesWhatIsNotPrintable) {
  EXPECT_EQ(JsonText("a\"b\\c\n\x7f\xff"), R"("a\"b\\c\u000a\u007f\u00ff")");
}

std::vector<std::string> Split(const std::string& text, size_t piece_bytes) {
  JsonSplitter splitter;
  std::vector<std::string> objects;
  for (size_t i = 0; i < text.size(); i += piece_bytes) {
    EXPECT_TRUE(splitter.Feed(text.substr(i, piece_bytes), 1000).ok());
    while (auto object = splitter.Next()) objects.push_back(*object);
  }
  EXPECT_FALSE(splitter.in_object());
  EXPECT_EQ(splitter.bytes(), 0u);
  return objects;
}

TEST(JsonSplitterTest, CutsAtTheEndsOfObjectsHoweverTheyCome) {
  const std::vector<std::string> objects = {R"({"a":"}{\"","b":[{},[]]})", "{}", R"({"c":"\\"})"};
  const std::string text = " " + objects[0] + objects[1] + "\n\t" + objects[2] + "\r\n";
  for (size_t piece = 1; piece <= text.size(); ++piece) EXPECT_EQ(Split(text, piece), objects);
}

TEST(JsonSplitterTest, RefusesOtherValuesAndTooLargeOnes) {
  const std::string deep = "{\"x\":" + std::string(kJsonDepthMax, '[');
  for (const std::string& text :
       {std::string("[]"), std::string("5"), std::string("{}x"), std::string("\"\""), deep}) {
    JsonSplitter splitter;
    EXPECT_EQ(splitter.Feed(text, 1000).code(), absl::StatusCode::kInvalidArgument) << text;
  }
  JsonSplitter splitter;
  EXPECT_TRUE(splitter.Feed("{\"a\":\"", 10).ok());
  EXPECT_TRUE(splitter.in_object());
  EXPECT_EQ(splitter.Feed("12345", 10).code(), absl::StatusCode::kResourceExhausted);
  JsonSplitter whole;
  EXPECT_EQ(whole.Feed("{\"a\":\"12345\"}", 10).code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace conclave::http
