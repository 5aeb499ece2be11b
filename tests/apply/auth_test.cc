// Users and roles in the replicated state: what the log holds, and what a snapshot keeps.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/auth_image.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"

namespace conclave::apply {
namespace {

namespace pb = etcdserverpb;
using wire::Method;

class ApplyAuthTest : public ::testing::Test {
 protected:
  ApplyAuthTest() : state_(std::make_unique<StateMachine>(StateMachineOptions{.member_id = 1})) {}

  const wire::Error* Apply(const Bytes& payload) {
    ++index_;
    return state_->Apply({.index = index_, .entry_term = 1, .raft_term = 1}, payload).error;
  }
  template <typename Message>
  const wire::Error* Do(Method method, const Message& message) {
    const std::string encoded = message.SerializeAsString();
    char* out = nullptr;
    Bytes buffer = Bytes::Uninitialized(kCommandHeaderSize + encoded.size(), &out);
    encoded.copy(out + kCommandHeaderSize, encoded.size());
    return Apply(state_->Prepare(method, std::move(buffer), 1, 7, &prng_));
  }
  template <typename Message>
  const wire::Error* DoAs(const std::string& user, uint64_t revision, Method method,
                          const Message& message) {
    const std::string encoded = message.SerializeAsString();
    return Apply(EncodeOnBehalf(1, 7, {{user, revision}, method, encoded}));
  }
  void AddUser(const std::string& name) {
    pb::AuthUserAddRequest request;
    request.set_name(name);
    request.set_hashedpassword("hash of " + name);
    EXPECT_EQ(Do(Method::kUserAdd, request), nullptr);
  }
  void Enable() {
    AddUser("root");
    AddUser("ann");
    pb::AuthUserGrantRoleRequest grant;
    grant.set_user("root");
    grant.set_role("root");
    EXPECT_EQ(Do(Method::kUserGrantRole, grant), nullptr);
    pb::AuthRoleAddRequest role;
    role.set_name("r");
    EXPECT_EQ(Do(Method::kRoleAdd, role), nullptr);
    pb::AuthRoleGrantPermissionRequest permit;
    permit.set_name("r");
    permit.mutable_perm()->set_key("a");
    permit.mutable_perm()->set_permtype(authpb::Permission::READWRITE);
    EXPECT_EQ(Do(Method::kRoleGrantPermission, permit), nullptr);
    grant.set_user("ann");
    grant.set_role("r");
    EXPECT_EQ(Do(Method::kUserGrantRole, grant), nullptr);
    EXPECT_EQ(Do(Method::kAuthEnable, pb::AuthEnableRequest()), nullptr);
  }
  static pb::PutRequest Put(const std::string& key) {
    pb::PutRequest request;
    request.set_key(key);
    return request;
  }
  std::string Snapshot() {
    SnapshotTask task(state_.get());
    std::string all;
    for (Bytes piece = task.Next(1 << 20); !piece.empty(); piece = task.Next(1 << 20)) {
      all.append(piece.view());
    }
    return all;
  }

  std::unique_ptr<StateMachine> state_;
  uint64_t index_ = 0;
  Prng prng_{1};
};

TEST_F(ApplyAuthTest, AnEntryOfNobodyIsRefusedOnceAuthenticationIsOn) {
  EXPECT_EQ(Do(Method::kPut, Put("a")), nullptr);
  Enable();
  EXPECT_EQ(Do(Method::kPut, Put("a")), &wire::kErrUserEmpty);
  const uint64_t now = state_->auth().revision();
  EXPECT_EQ(DoAs("ann", now, Method::kPut, Put("a")), nullptr);
  EXPECT_EQ(DoAs("ann", now, Method::kPut, Put("b")), &wire::kErrPermissionDenied);
  EXPECT_EQ(DoAs("ann", now - 1, Method::kPut, Put("a")), &wire::kErrAuthOldRevision);
  EXPECT_EQ(DoAs("ghost", now, Method::kPut, Put("a")), &wire::kErrPermissionDenied);
  EXPECT_EQ(DoAs("ann", now, Method::kAuthDisable, pb::AuthDisableRequest()),
            &wire::kErrPermissionDenied);
  EXPECT_EQ(DoAs("root", now, Method::kAuthDisable, pb::AuthDisableRequest()), nullptr);
  // An entry that was proposed while it was on does what it says.
  EXPECT_EQ(DoAs("ann", now, Method::kPut, Put("b")), nullptr);
}

TEST_F(ApplyAuthTest, ALoginOfAnOlderRevisionIsLookedAtAgain) {
  Enable();
  const uint64_t now = state_->auth().revision();
  const auth::TokenDigest digest = auth::DigestOf("abcdefghijklmnop");
  EXPECT_EQ(Apply(EncodeLogin(1, 7, {"ann", now - 1, digest})), &wire::kErrAuthOldRevision);
  EXPECT_EQ(Apply(EncodeLogin(1, 7, {"ghost", now, digest})), &wire::kErrAuthFailed);
  EXPECT_EQ(Apply(EncodeLogin(1, 7, {"ann", now, digest})), nullptr);
  const std::string token = "abcdefghijklmnop." + std::to_string(index_);
  ASSERT_NE(state_->tokens().Use(token, Instant{}), nullptr);
  EXPECT_EQ(*state_->tokens().Use(token, Instant{}), "ann");
}

TEST_F(ApplyAuthTest, NeitherSnapshotNorLogEntryHoldsATokensLetters) {
  Enable();
  const Bytes entry =
      EncodeLogin(1, 7, {"ann", state_->auth().revision(), auth::DigestOf("abcdefghijklmnop")});
  EXPECT_EQ(entry.view().find("abcdefghijklmnop"), std::string_view::npos);
  EXPECT_EQ(Apply(entry), nullptr);
  EXPECT_EQ(Snapshot().find("abcdefghijklmnop"), std::string::npos);
}

TEST_F(ApplyAuthTest, ASnapshotKeepsUsersAndRoles) {
  const mvcc::Digest before = state_->digest();
  Enable();
  EXPECT_FALSE(state_->digest() == before);
  RestoreTask restore(StateMachineOptions{.member_id = 1});
  ASSERT_TRUE(restore.Feed(Snapshot()).ok());
  auto restored = restore.Finish();
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE((*restored)->digest() == state_->digest());
  EXPECT_TRUE((*restored)->auth().enabled());
  EXPECT_EQ((*restored)->auth().revision(), state_->auth().revision());
  EXPECT_EQ((*restored)->auth().users(), state_->auth().users());
  EXPECT_EQ((*restored)->auth().roles(), state_->auth().roles());
}

TEST_F(ApplyAuthTest, UsersThatAreNoneAreNotRestored) {
  auth::AuthStore store;
  EXPECT_FALSE(DecodeAuthStore("", &store));                  // no revision
  EXPECT_FALSE(DecodeAuthStore("\x08\x01\x10\x05", &store));  // enabled, and nobody is root
  EXPECT_FALSE(DecodeAuthStore("\x1a\x7f", &store));
  Enable();
  const std::string whole = EncodeAuthStore(state_->auth());
  EXPECT_TRUE(DecodeAuthStore(whole, &store));
  for (size_t cut = 1; cut < whole.size(); ++cut) {
    auth::AuthStore half;
    (void)DecodeAuthStore(std::string_view(whole).substr(0, cut), &half);
    EXPECT_TRUE(half.pristine() || half.FindUser("root") != nullptr || !half.enabled());
  }
}

}  // namespace
}  // namespace conclave::apply
