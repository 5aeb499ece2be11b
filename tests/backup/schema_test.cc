// What etcd keeps in its database, as bytes: some of them written by hand, as etcd has them.
#include "conclave/server/backup/schema.h"

#include "gtest/gtest.h"

namespace conclave::backup {
namespace {

TEST(Schema, RevisionsAreInTheOrderOfTheirBytes) {
  const std::string revision = EncodeRevision({.main = 258, .sub = 3});
  EXPECT_EQ(revision, std::string("\0\0\0\0\0\0\1\2_\0\0\0\0\0\0\0\3", 17));
  EXPECT_EQ(EncodeRevision({.main = 258, .sub = 3}, /*tombstone=*/true), revision + "t");
  for (const bool tombstone : {false, true}) {
    const auto decoded = DecodeRevision(EncodeRevision({.main = 7, .sub = 1}, tombstone));
    ASSERT_TRUE(decoded.has_value());
    EXPECT_EQ(decoded->revision, (mvcc::Revision{.main = 7, .sub = 1}));
    EXPECT_EQ(decoded->tombstone, tombstone);
  }
  for (const std::string& wrong :
       {std::string(), revision + "x", revision.substr(1), std::string(17, '\xff'),
        std::string("\xff\0\0\0\0\0\0\0_\0\0\0\0\0\0\0\0", 17)}) {
    EXPECT_FALSE(DecodeRevision(wrong).has_value()) << wrong.size();
  }
}

TEST(Schema, LeasesAreMessages) {
  const std::string encoded = EncodeLease({.id = 7, .ttl_seconds = 60});
  EXPECT_EQ(encoded, "\x08\x07\x10\x3c");
  const auto decoded = DecodeLease("\x08\x07\x10\x3c\x18\x0a");
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->remaining_seconds, 10);
  EXPECT_FALSE(DecodeLease("\x08").has_value());
}

TEST(Schema, UsersKeepPasswordAndRoles) {
  auth::User user;
  user.password_hash = "$2a$10$hash";
  user.roles = {"one", "two"};
  user.no_password = true;
  const std::string encoded = EncodeUser("name", user);
  EXPECT_EQ(encoded, "\x0a\x04name\x12\x0b$2a$10$hash\x1a\x03one\x1a\x03two\x22\x02\x08\x01");
  auth::User decoded;
  ASSERT_TRUE(DecodeUser(encoded, &decoded));
  EXPECT_EQ(decoded, user);
  EXPECT_FALSE(DecodeUser("\x1a\xff", &decoded));
}

TEST(Schema, RolesKeepTheirPermissions) {
  auth::Role role;
  role.permissions = {{.type = auth::PermissionType::kRead, .key = "a", .range_end = ""},
                      {.type = auth::PermissionType::kReadWrite, .key = "b", .range_end = "c"}};
  const std::string encoded = EncodeRole("role", role);
  EXPECT_EQ(encoded, std::string("\x0a\x04role\x12\x03\x12\x01") + "a\x12\x08\x08\x02\x12\x01" +
                         "b\x1a\x01" + "c");
  auth::Role decoded;
  ASSERT_TRUE(DecodeRole(encoded, &decoded));
  EXPECT_EQ(decoded, role);
  EXPECT_FALSE(DecodeRole("\x12\x02\x08\x03", &decoded));  // there is no such type
}

}  // namespace
}  // namespace conclave::backup
