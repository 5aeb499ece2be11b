#include "conclave/server/auth/store.h"

#include <gtest/gtest.h>

namespace conclave::auth {
namespace {

const std::string kOpen(1, '\0');

// Authentication is on; root is root.
AuthStore Enabled() {
  AuthStore store;
  EXPECT_EQ(store.AddUser("root", "hash", false), Refusal::kNone);
  EXPECT_EQ(store.GrantRole("root", "root"), Refusal::kNone);
  EXPECT_EQ(store.Enable(), Refusal::kNone);
  return store;
}

Identity Now(const AuthStore& store, std::string user) {
  return {std::move(user), store.revision()};
}

TEST(AuthStoreTest, EnablingNeedsRootWithItsRole) {
  AuthStore store;
  EXPECT_EQ(store.Enable(), Refusal::kRootUserMissing);
  EXPECT_EQ(store.AddUser("root", "hash", false), Refusal::kNone);
  EXPECT_EQ(store.Enable(), Refusal::kRootRoleMissing);
  EXPECT_EQ(store.GrantRole("root", "root"), Refusal::kNone);  // the role needs not exist
  EXPECT_EQ(store.Enable(), Refusal::kNone);
  EXPECT_EQ(store.Enable(), Refusal::kNone);
  EXPECT_TRUE(store.enabled());
}

TEST(AuthStoreTest, RootStaysRootWhileEnabled) {
  AuthStore store = Enabled();
  EXPECT_EQ(store.AddRole("root"), Refusal::kNone);
  EXPECT_EQ(store.DeleteUser("root"), Refusal::kInvalidManagement);
  EXPECT_EQ(store.DeleteRole("root"), Refusal::kInvalidManagement);
  EXPECT_EQ(store.RevokeRole("root", "root"), Refusal::kInvalidManagement);
  store.Disable();
  EXPECT_EQ(store.RevokeRole("root", "root"), Refusal::kNone);
  EXPECT_EQ(store.DeleteRole("root"), Refusal::kNone);
  EXPECT_EQ(store.DeleteUser("root"), Refusal::kNone);
}

TEST(AuthStoreTest, EveryChangeMovesTheRevisionAndNothingElseDoes) {
  AuthStore store;
  EXPECT_EQ(store.revision(), 1u);
  EXPECT_EQ(store.AddUser("", "h", false), Refusal::kUserEmpty);
  EXPECT_EQ(store.AddRole(""), Refusal::kRoleEmpty);
  EXPECT_EQ(store.DeleteUser("u"), Refusal::kUserNotFound);
  EXPECT_EQ(store.revision(), 1u);
  EXPECT_EQ(store.AddUser("u", "h", false), Refusal::kNone);
  EXPECT_EQ(store.AddUser("u", "h", false), Refusal::kUserExists);
  EXPECT_EQ(store.revision(), 2u);
  EXPECT_EQ(store.AddRole("r"), Refusal::kNone);
  EXPECT_EQ(store.AddRole("r"), Refusal::kRoleExists);
  EXPECT_EQ(store.GrantRole("u", "nosuch"), Refusal::kRoleNotFound);
  EXPECT_EQ(store.GrantRole("nosuch", "r"), Refusal::kUserNotFound);
  EXPECT_EQ(store.GrantRole("u", "r"), Refusal::kNone);
  EXPECT_EQ(store.revision(), 4u);
  EXPECT_EQ(store.GrantRole("u", "r"), Refusal::kNone);  // he has it already
  EXPECT_EQ(store.revision(), 4u);
  EXPECT_EQ(store.RevokeRole("u", "other"), Refusal::kRoleNotGranted);
  EXPECT_EQ(store.ChangePassword("u", "h2"), Refusal::kNone);
  EXPECT_EQ(store.ChangePassword("nosuch", "h2"), Refusal::kUserNotFound);
  EXPECT_EQ(store.revision(), 5u);
}

TEST(AuthStoreTest, ADeletedRoleIsTakenFromItsUsers) {
  AuthStore store;
  EXPECT_EQ(store.AddUser("u", "h", false), Refusal::kNone);
  EXPECT_EQ(store.AddRole("r"), Refusal::kNone);
  EXPECT_EQ(store.GrantRole("u", "r"), Refusal::kNone);
  EXPECT_EQ(store.DeleteRole("r"), Refusal::kNone);
  EXPECT_FALSE(store.HasRole("u", "r"));
}

TEST(AuthStoreTest, PermissionsAreReplacedByRangeAndRevokedByRange) {
  AuthStore store;
  EXPECT_EQ(store.AddRole("r"), Refusal::kNone);
  EXPECT_EQ(store.GrantPermission("nosuch", {PermissionType::kRead, "a", ""}),
            Refusal::kRoleNotFound);
  EXPECT_EQ(store.GrantPermission("r", {PermissionType::kRead, "", ""}),
            Refusal::kInvalidManagement);
  EXPECT_EQ(store.GrantPermission("r", {PermissionType::kRead, "b", "a"}),
            Refusal::kInvalidManagement);
  EXPECT_EQ(store.GrantPermission("r", {PermissionType::kRead, "b", ""}), Refusal::kNone);
  EXPECT_EQ(store.GrantPermission("r", {PermissionType::kWrite, "b", ""}), Refusal::kNone);
  EXPECT_EQ(store.GrantPermission("r", {PermissionType::kRead, "a", kOpen}), Refusal::kNone);
  ASSERT_EQ(store.FindRole("r")->permissions.size(), 2u);
  EXPECT_EQ(store.FindRole("r")->permissions[0].key, "a");
  EXPECT_EQ(store.FindRole("r")->permissions[1].type, PermissionType::kWrite);
  EXPECT_EQ(store.RevokePermission("r", "a", ""), Refusal::kPermissionNotGranted);
  EXPECT_EQ(store.RevokePermission("r", "a", kOpen), Refusal::kNone);
}

TEST(AuthStoreTest, NothingIsAskedWhileDisabled) {
  AuthStore store;
  EXPECT_EQ(store.CheckUser({}), Refusal::kNone);
  EXPECT_EQ(store.CheckRoot({}), Refusal::kNone);
  EXPECT_EQ(store.CheckRead({}, "a", ""), Refusal::kNone);
  EXPECT_EQ(store.CheckWrite({}, "a", kOpen), Refusal::kNone);
}

TEST(AuthStoreTest, NobodyMayDoAnything) {
  const AuthStore store = Enabled();
  EXPECT_EQ(store.CheckUser({}), Refusal::kUserEmpty);
  EXPECT_EQ(store.CheckRoot({}), Refusal::kUserEmpty);
  EXPECT_EQ(store.CheckRead({}, "a", ""), Refusal::kUserEmpty);
  EXPECT_EQ(store.CheckWrite({}, "a", ""), Refusal::kUserEmpty);
  EXPECT_EQ(store.CheckRead(Now(store, "ghost"), "a", ""), Refusal::kPermissionDenied);
  EXPECT_EQ(store.CheckRead({"root", store.revision() - 1}, "a", ""), Refusal::kOldRevision);
}

TEST(AuthStoreTest, AUserMayWhatHisRolesMayTogether) {
  AuthStore store = Enabled();
  EXPECT_EQ(store.AddUser("u", "h", false), Refusal::kNone);
  for (const char* role : {"r1", "r2"}) {
    EXPECT_EQ(store.AddRole(role), Refusal::kNone);
    EXPECT_EQ(store.GrantRole("u", role), Refusal::kNone);
  }
  EXPECT_EQ(store.GrantPermission("r1", {PermissionType::kRead, "a", "b"}), Refusal::kNone);
  EXPECT_EQ(store.CheckRead(Now(store, "u"), "a", "b"), Refusal::kNone);
  EXPECT_EQ(store.CheckWrite(Now(store, "u"), "a", ""), Refusal::kPermissionDenied);
  EXPECT_EQ(store.CheckRead(Now(store, "u"), "a", "c"), Refusal::kPermissionDenied);
  EXPECT_EQ(store.GrantPermission("r2", {PermissionType::kReadWrite, "b", "c"}), Refusal::kNone);
  EXPECT_EQ(store.CheckRead(Now(store, "u"), "a", "c"), Refusal::kNone);
  EXPECT_EQ(store.CheckWrite(Now(store, "u"), "b", ""), Refusal::kNone);
  EXPECT_EQ(store.CheckWrite(Now(store, "u"), "a", "c"), Refusal::kPermissionDenied);
  EXPECT_EQ(store.RevokeRole("u", "r1"), Refusal::kNone);
  EXPECT_EQ(store.CheckRead(Now(store, "u"), "a", ""), Refusal::kPermissionDenied);
  EXPECT_EQ(store.CheckRoot(Now(store, "u")), Refusal::kPermissionDenied);
  EXPECT_EQ(store.GrantRole("u", "root"), Refusal::kNone);
  EXPECT_EQ(store.CheckRoot(Now(store, "u")), Refusal::kNone);
  EXPECT_EQ(store.CheckWrite(Now(store, "u"), kOpen, kOpen), Refusal::kNone);
}

}  // namespace
}  // namespace conclave::auth
