// Users, tokens and permissions through a whole node: what a client shows, what it is told, and
// what stands in the log.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/server/apply/access.h"
#include "conclave/server/auth/jwt.h"
#include "conclave/server/node/method_name.h"
#include "conclave/tests/node/solo.h"
#include "conclave/tests/node/trio.h"

namespace conclave::node {
namespace {

namespace pb = etcdserverpb;
using std::chrono::milliseconds;
using std::chrono::seconds;

CredentialsRef Shown(std::string token, int64_t unix_seconds = 0) {
  auto shown = std::make_shared<Credentials>();
  shown->token = std::move(token);
  shown->unix_seconds = unix_seconds;
  return shown;
}

CredentialsRef Certificate(std::string name) {
  auto shown = std::make_shared<Credentials>();
  shown->certificate_name = std::move(name);
  return shown;
}

std::string Put(std::string key, std::string value = "v") {
  pb::PutRequest request;
  request.set_key(std::move(key));
  request.set_value(std::move(value));
  return request.SerializeAsString();
}

std::string Range(std::string key, std::string end = "", bool serializable = false) {
  pb::RangeRequest request;
  request.set_key(std::move(key));
  request.set_range_end(std::move(end));
  request.set_serializable(serializable);
  return request.SerializeAsString();
}

std::string Named(std::string name) {
  pb::AuthUserGetRequest request;
  request.set_name(std::move(name));
  return request.SerializeAsString();
}

std::string Login(std::string name, std::string password) {
  pb::AuthenticateRequest request;
  request.set_name(std::move(name));
  request.set_password(std::move(password));
  return request.SerializeAsString();
}

std::string AddUser(std::string name, std::string password) {
  pb::AuthUserAddRequest request;
  request.set_name(std::move(name));
  request.set_password(std::move(password));
  return request.SerializeAsString();
}

std::string GrantRole(std::string user, std::string role) {
  pb::AuthUserGrantRoleRequest request;
  request.set_user(std::move(user));
  request.set_role(std::move(role));
  return request.SerializeAsString();
}

std::string Permit(std::string role, authpb::Permission::Type type, std::string key,
                   std::string end) {
  pb::AuthRoleGrantPermissionRequest request;
  request.set_name(std::move(role));
  request.mutable_perm()->set_permtype(type);
  request.mutable_perm()->set_key(std::move(key));
  request.mutable_perm()->set_range_end(std::move(end));
  return request.SerializeAsString();
}

std::string WatchCreate(std::string key, std::string end = "") {
  pb::WatchRequest request;
  request.mutable_create_request()->set_key(std::move(key));
  request.mutable_create_request()->set_range_end(std::move(end));
  return request.SerializeAsString();
}

std::string ErrorOf(const Reply& reply) {
  return reply.error == nullptr ? "" : reply.error->message;
}

const std::string kDenied(wire::kErrPermissionDenied.message);
const std::string kInvalidToken(wire::kErrInvalidAuthToken.message);
const std::string kNobody(wire::kErrUserEmpty.message);

// Either cluster of the tests, seen as "a member that is called".
class SoloAuth : public ::testing::Test {
 protected:
  explicit SoloAuth(Options options = Solo::DefaultOptions()) : solo_(std::move(options)) {}

  std::string Call(Method method, const std::string& request, CredentialsRef shown = nullptr) {
    last_ = solo_.Call(method, request, std::move(shown));
    return ErrorOf(last_);
  }
  CredentialsRef LogIn(const std::string& user, const std::string& password) {
    EXPECT_EQ(Call(Method::kAuthenticate, Login(user, password)), "");
    pb::AuthenticateResponse response;
    EXPECT_TRUE(response.ParseFromString(last_.body.ToString()));
    return Shown(response.token(), solo_.unix_seconds());
  }
  // root with password "root"; ann with "ann" may read and write a*, and read b.
  void Enable() {
    ASSERT_EQ(Call(Method::kUserAdd, AddUser("root", "root")), "");
    ASSERT_EQ(Call(Method::kUserGrantRole, GrantRole("root", "root")), "");
    ASSERT_EQ(Call(Method::kUserAdd, AddUser("ann", "ann")), "");
    ASSERT_EQ(Call(Method::kRoleAdd, Named("r")), "");
    ASSERT_EQ(
        Call(Method::kRoleGrantPermission, Permit("r", authpb::Permission::READWRITE, "a", "b")),
        "");
    ASSERT_EQ(Call(Method::kRoleGrantPermission, Permit("r", authpb::Permission::READ, "b", "")),
              "");
    ASSERT_EQ(Call(Method::kUserGrantRole, GrantRole("ann", "r")), "");
    ASSERT_EQ(Call(Method::kAuthEnable, ""), "");
    root_ = LogIn("root", "root");
    ann_ = LogIn("ann", "ann");
  }

  Solo solo_;
  Reply last_;
  CredentialsRef root_;
  CredentialsRef ann_;
};

TEST(AccessTable, EveryMethodHasItsNeed) {
  size_t methods = 0;
  for (int i = 1; i < 128; ++i) {
    const auto method = static_cast<Method>(i);
    if (MethodName(method) == "unknown") continue;
    ++methods;
    const apply::Need need = apply::NeedOf(method);  // CHECKs that it has one
    if (need != apply::Need::kKeys) continue;
    EXPECT_TRUE(apply::ForEachAccess(method, "", [](const apply::Access&) { return true; }))
        << MethodName(method) << " is not taken apart";
  }
  EXPECT_GE(methods, 38u);
}

TEST_F(SoloAuth, EnablingIsRefusedUntilRootIsThere) {
  EXPECT_EQ(Call(Method::kAuthEnable, ""), wire::kErrRootUserMissing.message);
  EXPECT_EQ(Call(Method::kAuthenticate, Login("root", "x")), wire::kErrAuthNotEnabled.message);
  ASSERT_EQ(Call(Method::kUserAdd, AddUser("root", "x")), "");
  EXPECT_EQ(Call(Method::kAuthEnable, ""), wire::kErrRootRoleMissing.message);
}

TEST_F(SoloAuth, EveryMethodRefusesNobodyAndBadTokens) {
  Enable();
  ASSERT_EQ(Call(Method::kPut, Put("a"), ann_), "");
  const std::map<Method, std::string> requests = {
      {Method::kRange, Range("a")},
      {Method::kPut, Put("a")},
      {Method::kDeleteRange, Range("a")},
      {Method::kTxn, ""},
      {Method::kCompact, ""},
      {Method::kLeaseGrant, ""},
      {Method::kLeaseRevoke, ""},
      {Method::kLeaseTimeToLive, ""},
      {Method::kLeaseLeases, ""},
      {Method::kMemberList, ""},
      {Method::kAlarm, ""},
      {Method::kStatus, ""},
      {Method::kDefragment, ""},
      {Method::kHash, ""},
      {Method::kHashKv, ""},
      {Method::kMoveLeader, ""},
      {Method::kAuthEnable, ""},
      {Method::kAuthDisable, ""},
      {Method::kUserAdd, AddUser("u", "p")},
      {Method::kUserGet, Named("ann")},
      {Method::kUserList, ""},
      {Method::kUserDelete, Named("ann")},
      {Method::kUserChangePassword, AddUser("ann", "p")},
      {Method::kUserGrantRole, GrantRole("ann", "root")},
      {Method::kUserRevokeRole, GrantRole("ann", "r")},
      {Method::kRoleAdd, Named("x")},
      {Method::kRoleGet, Named("r")},
      {Method::kRoleList, ""},
      {Method::kRoleDelete, Named("r")},
      {Method::kRoleGrantPermission, Permit("r", authpb::Permission::READ, "z", "")},
      {Method::kRoleRevokePermission, ""}};
  const uint64_t jobs = solo_.jobs_seen();
  for (const auto& [method, request] : requests) {
    EXPECT_EQ(Call(method, request), kNobody) << static_cast<int>(method);
    EXPECT_EQ(Call(method, request, Shown("nonsense")), kInvalidToken) << static_cast<int>(method);
    EXPECT_EQ(Call(method, request, Shown("abcdefghijklmnop.3")), kInvalidToken);
    const apply::Need need = apply::NeedOf(method);
    const bool for_root =
        need == apply::Need::kRoot || need == apply::Need::kSelf || need == apply::Need::kOwnRole;
    EXPECT_EQ(Call(method, request, Certificate("ghost")),
              for_root ? wire::kErrUserNotFound.message : kDenied)
        << static_cast<int>(method);
  }
  EXPECT_EQ(solo_.jobs_seen(), jobs) << "bcrypt was worked for nobody";
  EXPECT_EQ(Call(Method::kAuthStatus, ""), "");
}

TEST_F(SoloAuth, OnlyRootDoesWhatIsRoots) {
  Enable();
  const std::map<Method, std::string> requests = {
      {Method::kCompact, ""},
      {Method::kDefragment, ""},
      {Method::kHash, ""},
      {Method::kHashKv, ""},
      {Method::kMoveLeader, ""},
      {Method::kAuthDisable, ""},
      {Method::kUserAdd, AddUser("u", "p")},
      {Method::kUserList, ""},
      {Method::kUserDelete, Named("ann")},
      {Method::kUserGet, Named("root")},
      {Method::kUserChangePassword, AddUser("ann", "p")},
      {Method::kRoleList, ""},
      {Method::kRoleAdd, Named("x")},
      {Method::kRoleDelete, Named("r")},
      {Method::kRoleGet, Named("root")},
      {Method::kUserGrantRole, GrantRole("ann", "root")}};
  for (const auto& [method, request] : requests) {
    EXPECT_EQ(Call(method, request, ann_), kDenied) << static_cast<int>(method);
  }
  pb::AlarmRequest activate;
  activate.set_action(pb::AlarmRequest::ACTIVATE);
  activate.set_alarm(pb::NOSPACE);
  EXPECT_EQ(Call(Method::kAlarm, activate.SerializeAsString(), ann_), kDenied);
  for (const Method method : {Method::kStatus, Method::kMemberList, Method::kAlarm}) {
    EXPECT_EQ(Call(method, "", ann_), "") << static_cast<int>(method);
  }
  EXPECT_EQ(Call(Method::kUserGet, Named("ann"), ann_), "");
  EXPECT_EQ(Call(Method::kRoleGet, Named("r"), ann_), "");
  EXPECT_EQ(Call(Method::kUserList, "", root_), "");
  EXPECT_EQ(Call(Method::kUserList, "", Certificate("root")), "");
}

TEST_F(SoloAuth, KeysAreReadAndWrittenByPermissionOnly) {
  Enable();
  EXPECT_EQ(Call(Method::kPut, Put("a1"), ann_), "");
  EXPECT_EQ(Call(Method::kPut, Put("b"), ann_), kDenied);
  EXPECT_EQ(Call(Method::kRange, Range("b"), ann_), "");
  EXPECT_EQ(Call(Method::kRange, Range("b", "", true), ann_), "");
  EXPECT_EQ(Call(Method::kRange, Range("c", "", true), ann_), kDenied);
  EXPECT_EQ(Call(Method::kRange, Range("a", "c"), ann_), kDenied);
  EXPECT_EQ(Call(Method::kRange, Range("a", std::string(1, '\0')), ann_), kDenied);
  EXPECT_EQ(Call(Method::kRange, Range(std::string(1, '\0'), std::string(1, '\0')), ann_), kDenied);
  EXPECT_EQ(Call(Method::kRange, Range("a", std::string("b\0", 2)), ann_), "");
  EXPECT_EQ(Call(Method::kDeleteRange, Range("a", "b"), ann_), "");
  EXPECT_EQ(Call(Method::kDeleteRange, Range("b"), ann_), kDenied);
  EXPECT_EQ(Call(Method::kPut, Put("b"), root_), "");
}

TEST_F(SoloAuth, ATransactionIsTakenApartInEveryDepth) {
  Enable();
  // The forbidden thing stands in a branch that is not taken, three levels deep.
  const auto nested = [](const pb::RequestOp& op) {
    pb::TxnRequest txn;
    pb::TxnRequest* inner = txn.add_failure()->mutable_request_txn();
    *inner->add_success()->mutable_request_txn()->add_success() = op;
    return txn.SerializeAsString();
  };
  pb::RequestOp op;
  op.mutable_request_range()->set_key("b");
  EXPECT_EQ(Call(Method::kTxn, nested(op), ann_), "");
  op.mutable_request_range()->set_key("c");
  EXPECT_EQ(Call(Method::kTxn, nested(op), ann_), kDenied);
  op.mutable_request_put()->set_key("b");
  EXPECT_EQ(Call(Method::kTxn, nested(op), ann_), kDenied);
  op.mutable_request_delete_range()->set_key("b");
  EXPECT_EQ(Call(Method::kTxn, nested(op), ann_), kDenied);
  pb::TxnRequest compare;
  compare.add_compare()->set_key("secret");
  EXPECT_EQ(Call(Method::kTxn, compare.SerializeAsString(), ann_), kDenied);
  compare.mutable_compare(0)->set_key("b");
  EXPECT_EQ(Call(Method::kTxn, compare.SerializeAsString(), ann_), "");
}

TEST_F(SoloAuth, PreviousValuesNeedLeaveToRead) {
  Enable();
  ASSERT_EQ(
      Call(Method::kRoleGrantPermission, Permit("r", authpb::Permission::WRITE, "w", ""), root_),
      "");
  ASSERT_EQ(Call(Method::kPut, Put("w", "secret"), root_), "");
  pb::PutRequest put;
  put.set_key("w");
  EXPECT_EQ(Call(Method::kPut, put.SerializeAsString(), ann_), "");
  put.set_prev_kv(true);
  EXPECT_EQ(Call(Method::kPut, put.SerializeAsString(), ann_), kDenied);
  pb::DeleteRangeRequest range;
  range.set_key("w");
  range.set_prev_kv(true);
  EXPECT_EQ(Call(Method::kDeleteRange, range.SerializeAsString(), ann_), kDenied);
  pb::TxnRequest txn;
  *txn.add_success()->mutable_request_put() = put;
  EXPECT_EQ(Call(Method::kTxn, txn.SerializeAsString(), ann_), kDenied);
}

TEST_F(SoloAuth, ALeaseIsItsKeys) {
  Enable();
  const auto grant = [](int64_t id) {
    pb::LeaseGrantRequest request;
    request.set_id(id);
    request.set_ttl(100);
    return request.SerializeAsString();
  };
  const auto attach = [](std::string key, int64_t lease) {
    pb::PutRequest request;
    request.set_key(std::move(key));
    request.set_lease(lease);
    return request.SerializeAsString();
  };
  const auto about = [](int64_t id, bool keys) {
    pb::LeaseTimeToLiveRequest request;
    request.set_id(id);
    request.set_keys(keys);
    return request.SerializeAsString();
  };
  ASSERT_EQ(Call(Method::kLeaseGrant, grant(5), ann_), "");
  ASSERT_EQ(Call(Method::kPut, attach("a", 5), ann_), "");
  EXPECT_EQ(Call(Method::kLeaseTimeToLive, about(5, true), ann_), "");
  EXPECT_EQ(Call(Method::kLeaseLeases, "", ann_), "");
  ASSERT_EQ(Call(Method::kPut, attach("z", 5), root_), "");
  EXPECT_EQ(Call(Method::kLeaseTimeToLive, about(5, true), ann_), kDenied);
  EXPECT_EQ(Call(Method::kLeaseTimeToLive, about(5, false), ann_), "");
  EXPECT_EQ(Call(Method::kLeaseLeases, "", ann_), kDenied);
  EXPECT_EQ(Call(Method::kPut, attach("a2", 5), ann_), kDenied);
  EXPECT_EQ(Call(Method::kLeaseRevoke, about(5, false), ann_), kDenied);
  const auto keep = [&](CredentialsRef shown) {
    const uint64_t stream = solo_.OpenStream(StreamKind::kLeaseKeepAlive, false, std::move(shown));
    pb::LeaseKeepAliveRequest request;
    request.set_id(5);
    solo_.Say(stream, request.SerializeAsString());
    solo_.Settle();
    solo_.Advance(milliseconds(1000));
    const std::vector<StreamEffect> heard = solo_.Heard(stream);
    if (heard.empty()) return std::string("nothing");
    return heard[0].error == nullptr ? std::string() : heard[0].error->message;
  };
  EXPECT_EQ(keep(root_), "");
  EXPECT_EQ(keep(ann_), kDenied);
  EXPECT_EQ(keep(nullptr), kNobody);
  EXPECT_EQ(keep(Shown("nonsense")), kInvalidToken);
  EXPECT_EQ(Call(Method::kLeaseRevoke, about(5, false), root_), "");
}

class WatchAuth : public SoloAuth {
 protected:
  std::vector<pb::WatchResponse> Heard(uint64_t stream) {
    solo_.Settle();
    std::vector<pb::WatchResponse> responses;
    for (const StreamEffect& effect : solo_.Heard(stream)) {
      EXPECT_FALSE(effect.finish);
      EXPECT_TRUE(responses.emplace_back().ParseFromString(effect.prefix.ToString() +
                                                           effect.shared.ToString()));
    }
    return responses;
  }
  std::string Watch(std::string key, std::string end, CredentialsRef shown) {
    stream_ = solo_.OpenStream(StreamKind::kWatch, false, std::move(shown));
    solo_.Say(stream_, WatchCreate(std::move(key), std::move(end)));
    const auto heard = Heard(stream_);
    EXPECT_EQ(heard.size(), 1u);
    if (heard.empty()) return "nothing";
    EXPECT_TRUE(heard[0].created());
    EXPECT_EQ(heard[0].canceled(), heard[0].watch_id() == -1);
    return heard[0].cancel_reason();
  }

  uint64_t stream_ = 0;
};

TEST_F(WatchAuth, AWatcherIsRefusedByTheRangeThatItWouldHear) {
  Enable();
  const std::string denied = "rpc error: code = PermissionDenied desc = " + kDenied;
  EXPECT_EQ(Watch("a", "b", ann_), "");
  EXPECT_EQ(Watch("b", "", ann_), "");
  EXPECT_EQ(Watch("a", "c", ann_), denied);
  EXPECT_EQ(Watch("a", std::string(1, '\0'), ann_), denied);
  EXPECT_EQ(Watch("", "", ann_), denied);
  EXPECT_EQ(Watch("", std::string(1, '\0'), ann_), denied);
  EXPECT_EQ(Watch("", std::string(1, '\0'), root_), "");
  EXPECT_EQ(Watch("a", "", nullptr),
            "rpc error: code = InvalidArgument desc = etcdserver: user name is empty");
  EXPECT_EQ(Watch("a", "", Shown("nonsense")),
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token");
}

TEST_F(WatchAuth, AWatcherEndsWithItsPermissionAndHearsNothingAfterIt) {
  Enable();
  ASSERT_EQ(Watch("a", "b", ann_), "");
  ASSERT_EQ(Call(Method::kPut, Put("a1"), root_), "");
  EXPECT_EQ(Heard(stream_).size(), 1u);
  // Both in one turn.
  pb::AuthUserRevokeRoleRequest revoke;
  revoke.set_name("ann");
  revoke.set_role("r");
  solo_.Send(Method::kUserRevokeRole, revoke.SerializeAsString(), root_);
  solo_.Send(Method::kPut, Put("a2"), root_);
  const auto heard = Heard(stream_);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(heard[0].canceled());
  EXPECT_EQ(heard[0].events_size(), 0);
  EXPECT_EQ(heard[0].cancel_reason(), "rpc error: code = PermissionDenied desc = " + kDenied);
}

TEST_F(WatchAuth, ManyWatchersAreJudgedInSlicesAndNoneHearsWhatItMayNot) {
  constexpr int kWatchers = 9'000;
  Enable();
  ASSERT_EQ(Watch("a", "b", ann_), "");
  for (int i = 1; i < kWatchers; ++i) solo_.Say(stream_, WatchCreate("a", "b"));
  ASSERT_EQ(Heard(stream_).size(), size_t{kWatchers} - 1);
  pb::AuthUserRevokeRoleRequest revoke;
  revoke.set_name("ann");
  revoke.set_role("r");
  solo_.Send(Method::kUserRevokeRole, revoke.SerializeAsString(), root_);
  int most = 0;
  int over = 0;
  for (int turns = 0; over < kWatchers && turns < 100; ++turns) {
    solo_.Turn();
    int now = 0;
    for (const StreamEffect& effect : solo_.Heard(stream_)) {
      pb::WatchResponse response;
      ASSERT_TRUE(response.ParseFromString(effect.prefix.ToString() + effect.shared.ToString()));
      EXPECT_TRUE(response.canceled());
      EXPECT_EQ(response.events_size(), 0);
      ++now;
    }
    most = std::max(most, now);
    over += now;
  }
  EXPECT_EQ(over, kWatchers);
  EXPECT_LT(most, kWatchers / 2) << "no turn judges them all";
}

TEST_F(WatchAuth, WhoeverHasEventsIsJudgedBeforeItsTurn) {
  constexpr int kWatchers = 9'000;
  Enable();
  ASSERT_EQ(Watch("a", "b", root_), "");
  for (int i = 1; i < kWatchers; ++i) solo_.Say(stream_, WatchCreate("a", "b"));
  ASSERT_EQ(Heard(stream_).size(), size_t{kWatchers} - 1);
  const uint64_t of_root = stream_;
  // Behind all those of root's: its turn comes last.
  ASSERT_EQ(Watch("a1", "", ann_), "");
  pb::AuthUserRevokeRoleRequest revoke;
  revoke.set_name("ann");
  revoke.set_role("r");
  solo_.Send(Method::kUserRevokeRole, revoke.SerializeAsString(), root_);
  solo_.Send(Method::kPut, Put("a1"), root_);
  const auto heard = Heard(stream_);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(heard[0].canceled());
  EXPECT_EQ(heard[0].events_size(), 0);
  const auto root_heard = Heard(of_root);
  ASSERT_EQ(root_heard.size(), size_t{kWatchers});
  for (const pb::WatchResponse& response : root_heard) ASSERT_EQ(response.events_size(), 1);
}

TEST_F(WatchAuth, WatchersOfNobodyEndWhenAuthenticationBegins) {
  ASSERT_EQ(Watch("a", "b", nullptr), "");
  Enable();
  const auto heard = Heard(stream_);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(heard[0].canceled());
}

TEST_F(SoloAuth, TokensDieWithTheirReason) {
  Enable();
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), "");
  ASSERT_EQ(Call(Method::kUserChangePassword, AddUser("ann", "new"), root_), "");
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), kInvalidToken);
  EXPECT_EQ(Call(Method::kAuthenticate, Login("ann", "ann")), wire::kErrAuthFailed.message);
  ann_ = LogIn("ann", "new");
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), "");
  ASSERT_EQ(Call(Method::kUserDelete, Named("ann"), root_), "");
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), kInvalidToken);
  ASSERT_EQ(Call(Method::kAuthDisable, "", root_), "");
  EXPECT_EQ(Call(Method::kRange, Range("a")), "");
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), "");  // nobody asks
  ASSERT_EQ(Call(Method::kAuthEnable, ""), "");
  EXPECT_EQ(Call(Method::kRange, Range("a"), root_), kInvalidToken);
}

TEST_F(SoloAuth, ATokenThatIsNotUsedExpires) {
  Enable();
  for (int i = 0; i < 3; ++i) {
    solo_.Advance(seconds(299));
    EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), "");
  }
  solo_.Advance(seconds(301));
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), kInvalidToken);
}

TEST_F(SoloAuth, WrongPasswordsAndUnknownUsersAreOneAnswerAndTheSameWork) {
  Enable();
  const size_t before = solo_.jobs_seen();
  EXPECT_EQ(Call(Method::kAuthenticate, Login("ann", "wrong")), wire::kErrAuthFailed.message);
  EXPECT_EQ(Call(Method::kAuthenticate, Login("ghost", "wrong")), wire::kErrAuthFailed.message);
  EXPECT_EQ(Call(Method::kAuthenticate, Login("", "")), wire::kErrAuthFailed.message);
  EXPECT_EQ(solo_.jobs_seen(), before + 3);
}

TEST_F(SoloAuth, AUserWithoutPasswordLogsInByCertificateOnly) {
  Enable();
  pb::AuthUserAddRequest add;
  add.set_name("cert");
  add.mutable_options()->set_no_password(true);
  add.set_hashedpassword("$2b$04$................................................");  // ignored
  ASSERT_EQ(Call(Method::kUserAdd, add.SerializeAsString(), root_), "");
  ASSERT_EQ(Call(Method::kUserGrantRole, GrantRole("cert", "r"), root_), "");
  EXPECT_EQ(Call(Method::kAuthenticate, Login("cert", "")), wire::kErrNoPasswordUser.message);
  EXPECT_EQ(Call(Method::kPut, Put("a"), Certificate("cert")), "");
  EXPECT_EQ(Call(Method::kPut, Put("c"), Certificate("cert")), kDenied);
}

TEST_F(SoloAuth, BadPasswordsAreNotTaken) {
  EXPECT_EQ(Call(Method::kUserAdd, AddUser("u", std::string(73, 'x'))),
            wire::kErrBadPassword.message);
  EXPECT_EQ(Call(Method::kUserAdd, AddUser("u", std::string("a\0b", 3))),
            wire::kErrBadPassword.message);
}

TEST_F(SoloAuth, TheServerItselfMayDoEverything) {
  Enable();
  auto itself = std::make_shared<Credentials>();
  itself->server_itself = true;
  EXPECT_EQ(Call(Method::kRange, Range("z"), itself), "");
  EXPECT_EQ(Call(Method::kPut, Put("z"), itself), "");
  EXPECT_EQ(Call(Method::kDefragment, "", itself), "");
}

// ---- Signed tokens

Options JwtOptions(std::shared_ptr<const auth::TokenVerifier> verifier) {
  Options options = Solo::DefaultOptions();
  options.token_verifier = std::move(verifier);
  return options;
}

class JwtAuth : public SoloAuth {
 protected:
  JwtAuth() : JwtAuth(*auth::MakeJwtProvider("HS256", "", "a secret", seconds(60))) {}
  explicit JwtAuth(const auth::JwtProvider& provider) : SoloAuth(JwtOptions(provider.verifier)) {
    solo_.SignTokensWith(provider.signer);
  }
};

TEST_F(JwtAuth, ATokenHoldsUntilItExpiresOrUsersChange) {
  Enable();
  EXPECT_EQ(Call(Method::kPut, Put("a"), ann_), "");
  EXPECT_EQ(Call(Method::kPut, Put("c"), ann_), kDenied);
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), "");
  // Later by the wall clock.
  EXPECT_EQ(Call(Method::kRange, Range("a"), Shown(ann_->token, solo_.unix_seconds() + 61)),
            kInvalidToken);
  ASSERT_EQ(Call(Method::kRoleAdd, Named("other"), root_), "");
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), wire::kErrAuthOldRevision.message);
  EXPECT_EQ(Call(Method::kPut, Put("a"), ann_), wire::kErrAuthOldRevision.message);
  EXPECT_EQ(Call(Method::kUserList, "", root_), wire::kErrAuthOldRevision.message);
  ann_ = LogIn("ann", "ann");
  EXPECT_EQ(Call(Method::kRange, Range("a"), ann_), "");
  EXPECT_EQ(Call(Method::kRange, Range("a"), Shown("Bearer " + ann_->token, ann_->unix_seconds)),
            "");
  EXPECT_EQ(Call(Method::kRange, Range("a"), Shown(ann_->token + "x", ann_->unix_seconds)),
            kInvalidToken);
}

// ---- Three members

class TrioAuth : public ::testing::Test {
 protected:
  void SetUp() override {
    leader_ = *trio_.Leader();
    follower_ = (leader_ + 1) % 3;
    Expect("", follower_, Method::kUserAdd, AddUser("root", "root"));
    Expect("", leader_, Method::kUserGrantRole, GrantRole("root", "root"));
    Expect("", leader_, Method::kUserAdd, AddUser("ann", "ann"));
    Expect("", follower_, Method::kRoleAdd, Named("r"));
    Expect("", follower_, Method::kRoleGrantPermission,
           Permit("r", authpb::Permission::READWRITE, "a", "b"));
    Expect("", leader_, Method::kUserGrantRole, GrantRole("ann", "r"));
    Expect("", leader_, Method::kAuthEnable, "");
  }
  void Expect(std::string_view error, size_t member, Method method, const std::string& request,
              CredentialsRef shown = nullptr) {
    last_ = trio_.Call(member, method, request, std::move(shown));
    EXPECT_EQ(ErrorOf(last_), error) << "method " << static_cast<int>(method);
  }
  CredentialsRef LogIn(size_t member, const std::string& user) {
    Expect("", member, Method::kAuthenticate, Login(user, user));
    pb::AuthenticateResponse response;
    EXPECT_TRUE(response.ParseFromString(last_.body.ToString()));
    return Shown(response.token());
  }

  Trio trio_;
  size_t leader_ = 0;
  size_t follower_ = 0;
  Reply last_;
};

TEST_F(TrioAuth, ATokenHoldsAtEveryMemberAtOnce) {
  for (size_t member = 0; member < 3; ++member) {
    const CredentialsRef ann = LogIn(member, "ann");
    for (size_t other = 0; other < 3; ++other) {
      Expect("", other, Method::kPut, Put("a"), ann);
      Expect(kDenied, other, Method::kPut, Put("z"), ann);
      Expect("", other, Method::kRange, Range("a", "", /*serializable=*/true), ann);
    }
  }
}

TEST_F(TrioAuth, AMemberThatIsBehindWaitsForTheTokensEntry) {
  const size_t lagging = (leader_ + 2) % 3;
  trio_.CutOff(lagging);
  const CredentialsRef ann = LogIn(follower_, "ann");
  const uint64_t call = trio_.Send(lagging, Method::kRange, Range("a", "", true), ann);
  const uint64_t forged =
      trio_.Send(lagging, Method::kRange, Range("a", "", true), Shown("abcdefghijklmnop.1000000"));
  const uint64_t stream = trio_.OpenStream(lagging, StreamKind::kWatch, false, ann);
  trio_.Say(lagging, stream, WatchCreate("a"));
  trio_.Settle();
  EXPECT_FALSE(trio_.Take(call).has_value());
  EXPECT_TRUE(trio_.Heard(stream).empty());
  for (size_t other = 0; other < 3; ++other) {
    if (other == lagging) continue;
    trio_.Connect(lagging, other, true);
    trio_.Connect(other, lagging, true);
  }
  for (int i = 0; i < 300 && !trio_.Has(forged); ++i) trio_.Advance(milliseconds(20));
  const auto reply = trio_.Take(call);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(ErrorOf(*reply), "");
  const auto refused = trio_.Take(forged);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(ErrorOf(*refused), kInvalidToken);
  const auto heard = trio_.Heard(stream);
  ASSERT_EQ(heard.size(), 1u);
  pb::WatchResponse response;
  ASSERT_TRUE(response.ParseFromString(heard[0].prefix.ToString()));
  EXPECT_TRUE(response.created());
  EXPECT_FALSE(response.canceled());
}

TEST_F(TrioAuth, TheLeaderJudgesWhatAFollowerForwards) {
  const CredentialsRef root = LogIn(leader_, "root");
  const CredentialsRef ann = LogIn(leader_, "ann");
  pb::LeaseGrantRequest grant;
  grant.set_id(5);
  grant.set_ttl(100);
  Expect("", leader_, Method::kLeaseGrant, grant.SerializeAsString(), root);
  pb::PutRequest put;
  put.set_key("z");
  put.set_lease(5);
  Expect("", leader_, Method::kPut, put.SerializeAsString(), root);
  pb::LeaseTimeToLiveRequest about;
  about.set_id(5);
  about.set_keys(true);
  Expect(kDenied, follower_, Method::kLeaseTimeToLive, about.SerializeAsString(), ann);
  Expect("", follower_, Method::kLeaseTimeToLive, about.SerializeAsString(), root);
  Expect(kNobody, follower_, Method::kLeaseTimeToLive, about.SerializeAsString());
  const uint64_t stream = trio_.OpenStream(follower_, StreamKind::kLeaseKeepAlive, false, ann);
  pb::LeaseKeepAliveRequest keep;
  keep.set_id(5);
  trio_.Say(follower_, stream, keep.SerializeAsString());
  std::vector<StreamEffect> heard;
  for (int i = 0; i < 300 && heard.empty(); ++i) {
    trio_.Advance(milliseconds(20));
    heard = trio_.Heard(stream);
  }
  ASSERT_EQ(heard.size(), 1u);
  ASSERT_NE(heard[0].error, nullptr);
  EXPECT_EQ(heard[0].error->message, kDenied);
}

TEST_F(TrioAuth, MembersAgreeOnUsersAndRoles) {
  trio_.Advance(seconds(3));
  for (size_t member = 0; member < 3; ++member) {
    EXPECT_EQ(trio_.StatsOf(member)->divergences, 0u);
    EXPECT_EQ(trio_.StatsOf(member)->digest, trio_.StatsOf(0)->digest);
  }
}

}  // namespace
}  // namespace conclave::node
