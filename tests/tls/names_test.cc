#include "conclave/server/tls/names.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace conclave::tls {
namespace {

using ::testing::HasSubstr;

TEST(VersionTest, KnowsTwoAndTheDefault) {
  EXPECT_EQ(*ParseVersion(""), Version::kAny);
  EXPECT_EQ(*ParseVersion("TLS1.2"), Version::kTls12);
  EXPECT_EQ(*ParseVersion("TLS1.3"), Version::kTls13);
}

TEST(VersionTest, RefusesOthersAndSaysWhatIsRight) {
  const auto version = ParseVersion("TLS1.1");
  ASSERT_FALSE(version.ok());
  EXPECT_THAT(version.status().message(), HasSubstr("unexpected TLS version \"TLS1.1\""));
  EXPECT_THAT(version.status().message(), HasSubstr("TLS1.2"));
}

TEST(SuitesTest, TranslatesGosNames) {
  const auto suites = ParseSuites(
      {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"});
  ASSERT_TRUE(suites.ok()) << suites.status();
  EXPECT_EQ(suites->tls12, "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305");
  EXPECT_EQ(suites->tls13, DefaultSuites().tls13);
}

TEST(SuitesTest, KeepsTls13Apart) {
  const auto suites = ParseSuites({"TLS_AES_256_GCM_SHA384"});
  ASSERT_TRUE(suites.ok()) << suites.status();
  EXPECT_EQ(suites->tls13, "TLS_AES_256_GCM_SHA384");
  EXPECT_EQ(suites->tls12, DefaultSuites().tls12);
}

TEST(SuitesTest, NoneMeansTheDefault) { EXPECT_EQ(ParseSuites({})->tls12, DefaultSuites().tls12); }

// All that Go 1.19 has, but the ones that OpenSSL 3 has dropped.
TEST(SuitesTest, KnowsWhatGoOffersByDefault) {
  for (const char* name :
       {"TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_RSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"}) {
    EXPECT_TRUE(ParseSuites({name}).ok()) << name;
  }
}

TEST(SuitesTest, RefusesTheUnknownAndTheWeak) {
  const auto unknown = ParseSuites({"TLS_NO_SUCH_THING"});
  ASSERT_FALSE(unknown.ok());
  EXPECT_THAT(unknown.status().message(),
              HasSubstr("unexpected TLS cipher suite \"TLS_NO_SUCH_THING\""));
  const auto weak = ParseSuites({"TLS_RSA_WITH_RC4_128_SHA"});
  ASSERT_FALSE(weak.ok());
  EXPECT_THAT(weak.status().message(), HasSubstr("TLS_RSA_WITH_RC4_128_SHA"));
}

}  // namespace
}  // namespace conclave::tls
