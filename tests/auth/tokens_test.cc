// Simple tokens, signed tokens, and passwords.
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <memory>
#include <string>

#include "conclave/server/auth/jwt.h"
#include "conclave/server/auth/password.h"
#include "conclave/server/auth/simple_tokens.h"

namespace conclave::auth {
namespace {

using std::chrono::seconds;

constexpr int64_t kUnix = 1'700'000'000;

// ---- Simple tokens

TEST(SimpleTokensTest, ATokenIsItsLettersAndItsIndex) {
  SimpleTokens tokens(seconds(10));
  const Instant now{};
  tokens.Assign(7, DigestOf("abcdefghijklmnop"), "ann", now);
  ASSERT_NE(tokens.Use("abcdefghijklmnop.7", now), nullptr);
  EXPECT_EQ(*tokens.Use("abcdefghijklmnop.7", now), "ann");
  for (const char* other : {"abcdefghijklmnop.8", "abcdefghijklmnoq.7", "abcdefghijklmnop.07x",
                            "abcdefghijklmnop.", "abcdefghijklmnop", "", ".7", "x.7",
                            "abcdefghijklmnop.-7", "abcdefghijklmnop.99999999999999999999999"}) {
    EXPECT_EQ(tokens.Use(other, now), nullptr) << other;
  }
  EXPECT_EQ(SimpleTokens::IndexOf("abcdefghijklmnop.12"), 12u);
  EXPECT_EQ(SimpleTokens::IndexOf("abcdefghijklmnop.+12"), std::nullopt);
}

TEST(SimpleTokensTest, AUseProlongsAndSilenceEnds) {
  SimpleTokens tokens(seconds(10));
  Instant now{};
  tokens.Assign(1, DigestOf("abcdefghijklmnop"), "ann", now);
  for (int i = 0; i < 5; ++i) {
    now += seconds(9);
    ASSERT_NE(tokens.Use("abcdefghijklmnop.1", now), nullptr);
  }
  now += seconds(10);
  EXPECT_EQ(tokens.Use("abcdefghijklmnop.1", now), nullptr);
  EXPECT_EQ(tokens.size(), 0u);
}

TEST(SimpleTokensTest, AUsersTokensDieTogetherAndTheExpiredAreSweptOut) {
  SimpleTokens tokens(seconds(10));
  Instant now{};
  tokens.Assign(1, DigestOf("aaaaaaaaaaaaaaaa"), "ann", now);
  tokens.Assign(2, DigestOf("bbbbbbbbbbbbbbbb"), "bob", now);
  tokens.Assign(3, DigestOf("cccccccccccccccc"), "ann", now);
  tokens.ForgetUser("ann");
  EXPECT_EQ(tokens.Use("aaaaaaaaaaaaaaaa.1", now), nullptr);
  EXPECT_EQ(tokens.Use("cccccccccccccccc.3", now), nullptr);
  EXPECT_NE(tokens.Use("bbbbbbbbbbbbbbbb.2", now), nullptr);
  for (uint64_t index = 10; index < 1010; ++index) {
    now += seconds(1);
    tokens.Assign(index, DigestOf("dddddddddddddddd"), "eve", now);
  }
  EXPECT_LE(tokens.size(), 30u);
}

// ---- Passwords

PasswordJob Hash(std::string_view password) {
  PasswordJob job;
  job.password = Secret(password);
  job.cost = kBcryptCostMin;
  return job;
}

PasswordOutcome Compare(std::string_view password, std::string hash) {
  PasswordJob job;
  job.kind = PasswordJob::Kind::kCompare;
  job.password = Secret(password);
  job.hash = std::move(hash);
  job.cost = kBcryptCostMin;
  return RunPasswordJob(job, nullptr, kUnix, RandomBytes{1, 2, 3});
}

TEST(PasswordTest, TheRightOneIsEqualAndNoOther) {
  const PasswordOutcome made = RunPasswordJob(Hash("secret"), nullptr, kUnix, RandomBytes{9});
  ASSERT_TRUE(made.ok);
  EXPECT_EQ(made.hash.substr(0, 7), "$2b$04$");
  EXPECT_EQ(made.hash.find("secret"), std::string::npos);
  EXPECT_TRUE(Compare("secret", made.hash).ok);
  EXPECT_FALSE(Compare("Secret", made.hash).ok);
  EXPECT_FALSE(Compare("", made.hash).ok);
  EXPECT_FALSE(Compare(std::string_view("secret\0more", 11), made.hash).ok);
}

TEST(PasswordTest, TheSameInputsGiveTheSameHashAndAnotherSaltAnother) {
  const std::string first = RunPasswordJob(Hash("p"), nullptr, kUnix, RandomBytes{1}).hash;
  EXPECT_EQ(first, RunPasswordJob(Hash("p"), nullptr, kUnix, RandomBytes{1}).hash);
  EXPECT_NE(first, RunPasswordJob(Hash("p"), nullptr, kUnix, RandomBytes{2}).hash);
}

TEST(PasswordTest, WhatGoAndOthersHaveHashedIsUnderstood) {
  // "secret", by other implementations of bcrypt: the three names of one algorithm.
  const std::string made = RunPasswordJob(Hash("secret"), nullptr, kUnix, RandomBytes{5}).hash;
  for (const char* prefix : {"$2a$", "$2b$", "$2y$"}) {
    EXPECT_TRUE(Compare("secret", prefix + made.substr(4)).ok) << prefix;
  }
  for (const char* broken : {"", "x", "$2b$", "$1$salt$hash",
                             "plain text that is sixty characters long, and so is no bcrypt"}) {
    EXPECT_FALSE(Compare("secret", broken).ok) << broken;
  }
}

TEST(PasswordTest, LongOnesAndZeroBytesAreNotHashable) {
  EXPECT_TRUE(HashablePassword(std::string(72, 'x')));
  EXPECT_FALSE(HashablePassword(std::string(73, 'x')));
  EXPECT_FALSE(HashablePassword(std::string_view("a\0b", 3)));
}

// ---- Signed tokens

struct KeyPair {
  std::string public_pem;
  std::string private_pem;
};

std::string Text(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

KeyPair Make(std::string_view method) {
  EVP_PKEY* key = nullptr;
  if (method.substr(0, 2) == "RS" || method.substr(0, 2) == "PS") key = EVP_RSA_gen(2048);
  if (method == "ES256") key = EVP_EC_gen("P-256");
  if (method == "ES384") key = EVP_EC_gen("P-384");
  if (method == "ES512") key = EVP_EC_gen("P-521");
  if (method == "EdDSA") key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  if (key == nullptr) return {"", "a secret for HMAC"};
  KeyPair pair;
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PUBKEY(bio, key);
  pair.public_pem = Text(bio);
  BIO_free(bio);
  bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  pair.private_pem = Text(bio);
  BIO_free(bio);
  EVP_PKEY_free(key);
  return pair;
}

class JwtTest : public ::testing::TestWithParam<const char*> {};

TEST_P(JwtTest, WhatIsSignedIsVerifiedByThePublicHalfUntilItExpires) {
  const KeyPair pair = Make(GetParam());
  const auto provider = MakeJwtProvider(GetParam(), pair.public_pem, pair.private_pem, seconds(60));
  ASSERT_TRUE(provider.ok()) << provider.status();
  const std::string token = provider->signer->Sign("ann", 42, kUnix);
  ASSERT_FALSE(token.empty());
  const auto claims = provider->verifier->Verify(token, kUnix + 59);
  ASSERT_TRUE(claims.has_value());
  EXPECT_EQ(claims->who.user, "ann");
  EXPECT_EQ(claims->who.revision, 42u);
  EXPECT_TRUE(claims->who.bound);
  EXPECT_EQ(claims->expires, kUnix + 60);
  EXPECT_FALSE(provider->verifier->Verify(token, kUnix + 60).has_value());
}

TEST_P(JwtTest, NoByteOfATokenCanBeChanged) {
  const KeyPair pair = Make(GetParam());
  const auto provider = MakeJwtProvider(GetParam(), pair.public_pem, pair.private_pem, seconds(60));
  ASSERT_TRUE(provider.ok()) << provider.status();
  const std::string token = provider->signer->Sign("ann", 42, kUnix);
  // The last letter of a part holds spare bits, so it may change without changing a byte.
  const size_t signature = token.rfind('.');
  for (size_t i = 0; i + 1 < token.size(); i += 7) {
    if (i + 1 == signature || token[i] == '.' || token[i + 1] == '.') continue;
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(provider->verifier->Verify(changed, kUnix).has_value()) << i;
  }
  for (const std::string& broken : {token.substr(0, signature), token.substr(0, signature + 1),
                                    token + "." + token, std::string("..")}) {
    EXPECT_FALSE(provider->verifier->Verify(broken, kUnix).has_value());
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, JwtTest,
                         ::testing::Values("RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
                                           "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384",
                                           "HS512"),
                         [](const auto& info) { return std::string(info.param); });

TEST(JwtKeysTest, AnotherMethodThanTheConfiguredIsRefused) {
  const KeyPair pair = Make("RS256");
  const auto rsa = MakeJwtProvider("RS256", pair.public_pem, pair.private_pem, seconds(60));
  ASSERT_TRUE(rsa.ok());
  // The public key as an HMAC secret: the classical confusion.
  const auto confused = MakeJwtProvider("HS256", "", pair.public_pem, seconds(60));
  ASSERT_TRUE(confused.ok());
  EXPECT_FALSE(rsa->verifier->Verify(confused->signer->Sign("root", 1, kUnix), kUnix).has_value());
  // {"alg":"none","typ":"JWT"} . {"username":"root","revision":1,"exp":9999999999} .
  EXPECT_FALSE(rsa->verifier
                   ->Verify("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0."
                            "eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MSwiZXhwIjo5OTk5OTk5OTk5fQ.",
                            kUnix)
                   .has_value());
}

TEST(JwtKeysTest, KeysThatDoNotFitAreRefused) {
  const KeyPair rsa = Make("RS256");
  const KeyPair other = Make("RS256");
  const KeyPair curve = Make("ES256");
  EXPECT_FALSE(MakeJwtProvider("ES256", "", rsa.private_pem, seconds(60)).ok());
  EXPECT_FALSE(MakeJwtProvider("RS256", "", curve.private_pem, seconds(60)).ok());
  EXPECT_FALSE(MakeJwtProvider("ES384", "", curve.private_pem, seconds(60)).ok());
  EXPECT_FALSE(MakeJwtProvider("RS256", rsa.public_pem, other.private_pem, seconds(60)).ok());
  EXPECT_FALSE(MakeJwtProvider("RS256", "no key", "", seconds(60)).ok());
  EXPECT_FALSE(MakeJwtProvider("RS256", "", "", seconds(60)).ok());
  EXPECT_FALSE(MakeJwtProvider("none", "", "x", seconds(60)).ok());
  const auto checks_only = MakeJwtProvider("RS256", rsa.public_pem, "", seconds(60));
  ASSERT_TRUE(checks_only.ok());
  EXPECT_EQ(checks_only->signer, nullptr);
}

TEST(JwtSpecTest, SaysWhatIsWrong) {
  const auto spec = ParseJwtSpec("pub-key=a.pub,priv-key=b.key,sign-method=PS512,ttl=10m");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->public_key_file, "a.pub");
  EXPECT_EQ(spec->private_key_file, "b.key");
  EXPECT_EQ(spec->method, "PS512");
  EXPECT_EQ(spec->time_to_live, std::chrono::minutes(10));
  for (const char* bad : {"", "sign-method=XX", "sign-method=RS256,ttl=0",
                          "sign-method=RS256,ttl=x", "sign-method=RS256,colour=red", "pub-key=a"}) {
    EXPECT_FALSE(ParseJwtSpec(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace conclave::auth
