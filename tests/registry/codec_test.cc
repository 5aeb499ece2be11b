// The formats of other projects: the bytes that each of them writes and reads, and what a hostile
// value does to a reader.
#include "conclave/registry/codec.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace conclave {
namespace {

constexpr Format kAll[] = {Format::kEtcdNaming, Format::kKratos,  Format::kKitex,
                           Format::kGoZero,     Format::kGoMicro, Format::kSkyDns};

Instance Full() {
  return {.service = "greeter.prod",
          .id = "i-1",
          .address = "10.0.0.1:80",
          .version = "1.4",
          .zone = "eu-1a",
          .weight = 7,
          .tags = {"canary", "blue"},
          .attrs = {{"proto", "h2"}}};
}

TEST(CodecTest, KeysStandWhereEachProjectLooks) {
  const Instance instance = Full();
  EXPECT_EQ(CodecFor(Format::kEtcdNaming).Key(instance, 26), "greeter.prod/10.0.0.1:80");
  EXPECT_EQ(CodecFor(Format::kKratos).Key(instance, 26), "/microservices/greeter.prod/i-1");
  EXPECT_EQ(CodecFor(Format::kKitex).Key(instance, 26),
            "kitex/registry-etcd/greeter.prod/10.0.0.1:80");
  EXPECT_EQ(CodecFor(Format::kGoZero).Key(instance, 26), "greeter.prod/26");
  EXPECT_EQ(CodecFor(Format::kGoMicro).Key(instance, 26), "/micro/registry/greeter.prod/i-1");
  EXPECT_EQ(CodecFor(Format::kSkyDns).Key(instance, 26), "/skydns/prod/greeter/i-1");
  EXPECT_EQ(CodecFor(Format::kSkyDns).Key({.service = "a", .address = "10.0.0.1:80"}, 26),
            "/skydns/a/10-0-0-1-80");
}

TEST(CodecTest, ValuesAreWhatEachProjectWrites) {
  const Instance plain{.service = "s", .address = "10.0.0.1:80"};
  EXPECT_EQ(CodecFor(Format::kEtcdNaming).Encode(plain),
            R"({"Op":0,"Addr":"10.0.0.1:80","Metadata":null})");
  EXPECT_EQ(CodecFor(Format::kKratos).Encode(plain),
            R"({"id":"10.0.0.1:80","name":"s","version":"","metadata":null,)"
            R"("endpoints":["grpc://10.0.0.1:80"]})");
  EXPECT_EQ(CodecFor(Format::kKitex).Encode(plain),
            R"({"network":"tcp","address":"10.0.0.1:80","weight":0,"tags":null})");
  EXPECT_EQ(CodecFor(Format::kGoZero).Encode(plain), "10.0.0.1:80");
  EXPECT_EQ(CodecFor(Format::kGoMicro).Encode(plain),
            R"({"name":"s","version":"","metadata":null,"endpoints":null,)"
            R"("nodes":[{"id":"10.0.0.1:80","address":"10.0.0.1:80","metadata":null}]})");
  EXPECT_EQ(CodecFor(Format::kSkyDns).Encode(plain), R"({"host":"10.0.0.1","port":80})");
  EXPECT_EQ(
      CodecFor(Format::kKratos).Encode(Full()),
      R"({"id":"i-1","name":"greeter.prod","version":"1.4","metadata":{"proto":"h2",)"
      R"("tags":"canary,blue","weight":"7","zone":"eu-1a"},"endpoints":["grpc://10.0.0.1:80"]})");
  EXPECT_EQ(
      CodecFor(Format::kKitex).Encode(Full()),
      R"({"network":"tcp","address":"10.0.0.1:80","weight":7,"tags":{"id":"i-1","proto":"h2",)"
      R"("tags":"canary,blue","version":"1.4","zone":"eu-1a"}})");
}

TEST(CodecTest, WhatIsWrittenIsReadBack) {
  for (Format format : kAll) {
    const Codec& codec = CodecFor(format);
    EXPECT_EQ(codec.format(), format);
    const Instance instance = Full();
    const std::string key = codec.Key(instance, 26);
    EXPECT_EQ(key.rfind(codec.Prefix(instance.service), 0), 0u) << key;
    auto back = codec.Decode(instance.service, key, codec.Encode(instance));
    ASSERT_TRUE(back.ok()) << FormatName(format) << back.status();
    EXPECT_EQ(back->service, instance.service);
    EXPECT_EQ(back->address, instance.address);
    if (format == Format::kGoZero) continue;
    EXPECT_EQ(back->weight, instance.weight) << FormatName(format);
    if (format == Format::kSkyDns) continue;
    EXPECT_EQ(*back, instance) << FormatName(format);
  }
}

TEST(CodecTest, IPv6KeepsItsBrackets) {
  for (Format format : kAll) {
    const Codec& codec = CodecFor(format);
    const Instance instance{.service = "s", .address = "[2001:db8::1]:80"};
    auto back = codec.Decode("s", codec.Key(instance, 1), codec.Encode(instance));
    ASSERT_TRUE(back.ok()) << FormatName(format) << back.status();
    EXPECT_EQ(back->address, instance.address) << FormatName(format);
  }
  EXPECT_EQ(CodecFor(Format::kSkyDns).Encode({.service = "s", .address = "[2001:db8::1]:80"}),
            R"({"host":"2001:db8::1","port":80})");
}

TEST(CodecTest, ReadsWhatTheProjectsThemselvesWrite) {
  auto kratos =
      CodecFor(Format::kKratos)
          .Decode("web", "/microservices/web/host-1",
                  R"({"id":"host-1","name":"web","version":"v1","metadata":{"kind":"http"},)"
                  R"("endpoints":["http://10.0.0.5:8000?isSecure=false","grpc://10.0.0.5:9000"]})");
  ASSERT_TRUE(kratos.ok()) << kratos.status();
  EXPECT_EQ(kratos->address, "10.0.0.5:9000");
  EXPECT_EQ(kratos->attrs.at("kind"), "http");
  auto http_only = CodecFor(Format::kKratos)
                       .Decode("web", "/microservices/web/h",
                               R"({"id":"h","name":"web","endpoints":["http://10.0.0.5:8000"]})");
  ASSERT_TRUE(http_only.ok());
  EXPECT_EQ(http_only->address, "10.0.0.5:8000");
  auto kitex =
      CodecFor(Format::kKitex)
          .Decode("echo", "kitex/registry-etcd/echo/127.0.0.1:8888",
                  R"({"network":"tcp","address":"127.0.0.1:8888","weight":10,"tags":null})");
  ASSERT_TRUE(kitex.ok());
  EXPECT_EQ(kitex->weight, 10);
  auto zero = CodecFor(Format::kGoZero)
                  .Decode("user.rpc", "user.rpc/7587870460981677828", "192.168.0.9:8080");
  ASSERT_TRUE(zero.ok());
  EXPECT_EQ(zero->address, "192.168.0.9:8080");
  auto micro =
      CodecFor(Format::kGoMicro)
          .Decode("helloworld", "/micro/registry/helloworld/helloworld-3a1",
                  R"({"name":"helloworld","version":"latest","metadata":null,"endpoints":[)"
                  R"({"name":"Helloworld.Call","request":{"name":"Request"}}],"nodes":[{"id":)"
                  R"("helloworld-3a1","address":"10.1.1.1:40000","metadata":{"server":"grpc"}}]})");
  ASSERT_TRUE(micro.ok()) << micro.status();
  EXPECT_EQ(micro->id, "helloworld-3a1");
  EXPECT_EQ(micro->attrs.at("server"), "grpc");
  auto dns = CodecFor(Format::kSkyDns)
                 .Decode("east.rails.local", "/skydns/local/rails/east/1",
                         R"({"host":"service1.example.com","port":8080,"priority":20,"ttl":60})");
  ASSERT_TRUE(dns.ok()) << dns.status();
  EXPECT_EQ(dns->address, "service1.example.com:8080");
}

TEST(CodecTest, AnotherServicesInstanceIsNotOurs) {
  // Under the prefix of "team", but of the service "team/greeter".
  const Codec& naming = CodecFor(Format::kEtcdNaming);
  const Instance nested{.service = "team/greeter", .address = "h:1"};
  const std::string key = naming.Key(nested, 0);
  EXPECT_TRUE(absl::IsNotFound(naming.Decode("team", key, naming.Encode(nested)).status()));
  EXPECT_TRUE(naming.Decode("team/greeter", key, naming.Encode(nested)).ok());
  // Go's manager takes any key under the service's prefix.
  EXPECT_TRUE(naming.Decode("team", "team/a/b", naming.Encode(nested)).ok());
  EXPECT_TRUE(naming.Decode("team", "team/h:1", naming.Encode(nested)).ok());
  for (Format format : {Format::kKratos, Format::kGoMicro}) {
    const Codec& codec = CodecFor(format);
    EXPECT_TRUE(absl::IsNotFound(codec.Decode("team", key, codec.Encode(nested)).status()));
  }
}

TEST(CodecTest, HostileValuesAreRefusedWithAReason) {
  std::string deep = R"({"metadata":)" + std::string(100000, '[');
  const std::vector<std::string> values = {"",
                                           "{",
                                           "[]",
                                           "null",
                                           "\"x\"",
                                           "\xff\xfe",
                                           "{}",
                                           deep,
                                           std::string(size_t{1} << 20, '{'),
                                           R"({"endpoints":{}})",
                                           R"({"name":"s","endpoints":[1,{}]})",
                                           R"({"name":"s","endpoints":["x"]})",
                                           R"({"address":7})",
                                           R"({"name":"s","nodes":[]})",
                                           R"({"name":"s","nodes":[7]})",
                                           R"({"name":"s","nodes":[{"id":"x"}]})",
                                           R"({"host":1,"port":1})",
                                           R"({"host":"h","port":"1"})",
                                           R"({"host":"h","port":0})",
                                           R"({"host":"h","port":1e300})",
                                           R"({"host":"h","port":99999999999999999999})",
                                           R"({"Addr":1})"};
  for (Format format : kAll) {
    for (const std::string& value : values) {
      const absl::Status status = CodecFor(format).Decode("s", "s/1", value).status();
      EXPECT_TRUE(absl::IsInvalidArgument(status) || absl::IsNotFound(status))
          << FormatName(format) << ": " << value.substr(0, 60) << " -> " << status;
      EXPECT_FALSE(status.message().empty());
    }
  }
}

TEST(CodecTest, WrongTypesInTheMapOfTextsAreSkipped) {
  auto kitex = CodecFor(Format::kKitex)
                   .Decode("s", "k", R"({"address":"h:1","weight":"7","tags":{"zone":1,"a":"b"}})");
  ASSERT_TRUE(kitex.ok());
  EXPECT_EQ(kitex->weight, std::nullopt);
  EXPECT_EQ(kitex->zone, "");
  EXPECT_EQ(kitex->attrs.at("a"), "b");
}

TEST(CodecTest, WhatCannotBeADomainNameIsNotForSkyDns) {
  const Codec& codec = CodecFor(Format::kSkyDns);
  EXPECT_TRUE(codec.Validate({.service = "a-1.b_2.c", .address = "h:1"}).ok());
  for (const char* bad : {"a/b", "a..b", ".a", "a b", "a."}) {
    EXPECT_TRUE(absl::IsInvalidArgument(codec.Validate({.service = bad, .address = "h:1"}))) << bad;
  }
  EXPECT_FALSE(codec.Validate({.service = std::string(64, 'a'), .address = "h:1"}).ok());
}

}  // namespace
}  // namespace conclave
