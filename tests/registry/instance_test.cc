// The stored form of an instance: the bytes that Go writes, and the texts that Go reads.
#include "conclave/registry/instance.h"

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "conclave/registry/go_json.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

TEST(InstanceTest, APlainAddressIsEtcdsNamingValue) {
  EXPECT_EQ(EncodeNamingValue({.address = "1.2.3.4:80"}),
            R"({"Op":0,"Addr":"1.2.3.4:80","Metadata":null})");
}

TEST(InstanceTest, MetadataHoldsWhatIsSetWithSortedKeys) {
  Instance instance{.id = "i-1",
                    .address = "h:1",
                    .version = "1.4.2",
                    .zone = "eu-1a",
                    .weight = 100,
                    .tags = {"canary", "b<a"},
                    .state = InstanceState::kDraining,
                    .attrs = {{"proto", "h2"}, {"a", "b"}}};
  const std::string value = EncodeNamingValue(instance);
  EXPECT_EQ(value,
            R"({"Op":0,"Addr":"h:1","Metadata":{"attrs":{"a":"b","proto":"h2"},"id":"i-1",)"
            R"("state":"draining","tags":["canary","b\u003ca"],"version":"1.4.2","weight":100,)"
            R"("zone":"eu-1a"}})");
  absl::StatusOr<Instance> back = DecodeNamingValue(value);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, instance);
}

TEST(InstanceTest, ReadsWhatTheNamingGuideWrites) {
  absl::StatusOr<Instance> instance = DecodeNamingValue(R"({"Addr":"1.2.3.4","Metadata":"..."})");
  ASSERT_TRUE(instance.ok()) << instance.status();
  EXPECT_EQ(instance->address, "1.2.3.4");
  EXPECT_EQ(instance->raw_metadata, "\"...\"");
}

TEST(InstanceTest, MemberNamesMatchInAnyCaseAndTheLastWins) {
  absl::StatusOr<Instance> instance = DecodeNamingValue(
      R"({"oP":1,"ADDR":"a:1","addr":"b:2","extra":[1,{"x":2}],"metadata":{"ZONE":"z","n":1}})");
  ASSERT_TRUE(instance.ok()) << instance.status();
  EXPECT_EQ(instance->address, "b:2");
  EXPECT_EQ(instance->zone, "z");
}

TEST(InstanceTest, SaysWhatIsWrongWithAValue) {
  for (const char* bad : {"", "{", "[]", "1.2.3.4:80", "{}", R"({"Addr":1})", R"({"Addr":""})",
                          R"({"Addr":null})", "\xff\xfe", R"({"Addr":"a)"}) {
    EXPECT_EQ(DecodeNamingValue(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  std::string deep(100000, '[');
  EXPECT_FALSE(DecodeNamingValue(deep).ok());
  EXPECT_FALSE(DecodeNamingValue(R"({"Addr":"a:1","Metadata":)" + std::string(200, '[') +
                                 std::string(200, ']') + "}")
                   .ok());
}

TEST(InstanceTest, ServiceNames) {
  for (const char* good : {"a", "my-service", "team/greeter", "ünï", "a b"}) {
    EXPECT_TRUE(ValidateServiceName(good).ok()) << good;
  }
  for (const char* bad : {"", "/a", "a/", "a//b", "a\nb"}) {
    EXPECT_FALSE(ValidateServiceName(bad).ok()) << bad;
  }
}

TEST(InstanceTest, Addresses) {
  for (const char* good : {"1.2.3.4:80", "host:65535", "[::1]:1", "a.b.c:08"}) {
    EXPECT_TRUE(ValidateAddress(good).ok()) << good;
  }
  for (const char* bad : {"",
                          "host",
                          "host:",
                          ":80",
                          "host:0",
                          "host:65536",
                          "host:-1",
                          "host:+1",
                          "::1:80",
                          "0.0.0.0:80",
                          "[::]:80",
                          "a b:80",
                          "a/b:80",
                          "host:80x",
                          "[0:0::0]:80",
                          "[::ffff:0.0.0.0]:80",
                          "0:80",
                          "*:80",
                          "[fe80::1%eth0]:80",
                          "[host]:80",
                          "[]:80",
                          "[:80",
                          "]:80",
                          "h]:80",
                          "\xff:80",
                          "host:99999999999999999999"}) {
    EXPECT_FALSE(ValidateAddress(bad).ok()) << bad;
  }
  EXPECT_NE(ValidateAddress("[fe80::1%eth0]:80").message().find("scope"), std::string::npos);
  // However long, bad or unprintable the address is, the message stays short and printable.
  const std::string message(ValidateAddress(std::string(65536, '\xfe') + ":80").message());
  EXPECT_LT(message.size(), 600u);
  EXPECT_EQ(message.find('\xfe'), std::string::npos);
}

TEST(InstanceTest, WhatCannotBeStoredIsRefusedWithAReason) {
  const Instance good{.service = "s", .address = "h:1"};
  EXPECT_TRUE(ValidateInstance(good).ok());
  const auto refused = [&good](auto change) {
    Instance bad = good;
    change(bad);
    return absl::IsInvalidArgument(ValidateInstance(bad));
  };
  EXPECT_TRUE(refused([](Instance& i) { i.service = std::string(65536, 'a'); }));
  EXPECT_TRUE(refused([](Instance& i) { i.service = "a\xff"; }));
  EXPECT_TRUE(refused([](Instance& i) { i.id = "a/b"; }));
  EXPECT_TRUE(refused([](Instance& i) { i.id = "a\xff"; }));
  EXPECT_TRUE(refused([](Instance& i) { i.id = std::string(257, 'a'); }));
  EXPECT_TRUE(refused([](Instance& i) { i.weight = -1; }));
  EXPECT_TRUE(refused([](Instance& i) { i.attrs["a"] = std::string(size_t{1} << 20, 'x'); }));
  EXPECT_TRUE(refused([](Instance& i) { i.tags.assign(2, std::string(40000, 'x')); }));
  EXPECT_TRUE(refused([](Instance& i) { i.raw_metadata = "{\"half\":"; }));
  EXPECT_FALSE(refused([](Instance& i) { i.raw_metadata = "{\"whole\":[1]}"; }));
}

// Go itself is the oracle of the bytes: encode odd texts there and here.
TEST(InstanceTest, StringsComeOutAsFromGo) {
  const char* kGo = "/usr/lib/go-1.19/bin/go";
  if (access(kGo, X_OK) != 0) GTEST_SKIP() << "no Go at " << kGo << " (package golang-go)";
  std::vector<std::string> texts = {"plain",
                                    "<a&b>",
                                    "tab\tnl\ncr\r",
                                    "\b\f\v\x01\x1f",
                                    "quote\"back\\",
                                    "\x7f",
                                    "ü€😀",
                                    "\xe2\x80\xa8\xe2\x80\xa9",
                                    "\xff",
                                    "a\xc0\xaf",
                                    "\xed\xa0\x80",
                                    "\xf4\x90\x80\x80",
                                    "cut\xe2\x82",
                                    "/slash/",
                                    ""};
  std::string list;
  for (const std::string& text : texts) {
    list += "\"";
    for (unsigned char c : text) {
      char hex[5];
      std::snprintf(hex, sizeof(hex), "\\x%02x", c);
      list += hex;
    }
    list += "\",\n";
  }
  const std::string directory = ::testing::TempDir();
  const std::string path = directory + "conclave_go_json_" + std::to_string(getpid()) + ".go";
  std::ofstream(path) << "package main\nimport (\"encoding/json\";\"fmt\")\n"
                         "type Update struct { Op int; Addr string; Metadata interface{} }\n"
                         "func main() { for _, s := range []string{\n"
                      << list
                      << "} { b, _ := json.Marshal(Update{0, s, map[string]interface{}{\"id\": s, "
                         "\"attrs\": map[string]string{s: s}}}); fmt.Println(string(b)) } }\n";
  absl::StatusOr<std::string> output =
      testing::RunCommand({"env", "GO111MODULE=off", "GOTOOLCHAIN=local", "GOROOT=/usr/lib/go-1.19",
                           "GOCACHE=" + directory + "conclave-go-cache", kGo, "run", path},
                          absl::Seconds(90));
  std::remove(path.c_str());
  ASSERT_TRUE(output.ok()) << output.status();
  std::string ours;
  for (const std::string& text : texts) {
    nlohmann::json metadata;
    metadata["id"] = text;
    metadata["attrs"][text] = text;
    ours += "{\"Op\":0,\"Addr\":" + GoJsonString(text) + ",\"Metadata\":" + EncodeGoJson(metadata) +
            "}\n";
  }
  EXPECT_EQ(ours, *output);
}

}  // namespace
}  // namespace conclave
