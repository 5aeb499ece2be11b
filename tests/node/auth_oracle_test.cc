// Random users, roles, permissions and requests against an oracle that knows nothing of how the
// server judges: a naive list of grants says which keys a user may read and write, one key at a
// time. Every key in a response or an event must be one that its reader may read; every change of
// the store and its leases, one that its writer may write; and what a user plainly may is done.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/tests/apply/request_generator.h"
#include "conclave/tests/node/solo.h"

namespace conclave::node {
namespace {

namespace pb = etcdserverpb;

constexpr int kSeeds = 10;
constexpr int kCasesPerSeed = 10'000;
constexpr int kUsers = 3;
constexpr int kRoles = 4;
constexpr int kCasesBetweenChanges = 25;
const std::string kOpen(1, '\0');

std::string UserName(uint64_t i) { return "u" + std::to_string(i); }
std::string RoleName(uint64_t i) { return "r" + std::to_string(i); }

struct Grant {
  int type = 0;  // authpb::Permission::Type
  std::string key;
  std::string range_end;

  bool Holds(const std::string& k) const {
    if (range_end.empty()) return k == key;
    return k >= key && (range_end == kOpen || k < range_end);
  }
};

struct Key {
  int64_t mod_revision = 0;
  int64_t lease = 0;
  bool operator==(const Key&) const = default;
};
using Store = std::map<std::string, Key>;

class World {
 public:
  explicit World(uint64_t seed) : generator_(seed, {}), prng_(seed + 1000) {
    Do(Method::kUserAdd, UserAdd("root"));
    Do(Method::kUserGrantRole, GrantRole("root", "root"));
    for (int i = 0; i < kUsers; ++i) Do(Method::kUserAdd, UserAdd(UserName(i)));
    for (int i = 0; i < kRoles; ++i) Do(Method::kRoleAdd, RoleAdd(RoleName(i)));
    Do(Method::kAuthEnable, "");
    for (int i = 0; i < 12; ++i) Change();
    before_ = Look();
  }

  void Run(int cases) {
    for (case_ = 0; case_ < cases && !::testing::Test::HasFailure(); ++case_) {
      SCOPED_TRACE(::testing::Message() << "case " << case_);
      if (case_ % kCasesBetweenChanges == 0) Change();
      const uint64_t kind = prng_.Below(40);
      if (kind == 0) OpenWatch();
      Step(kind < 6 ? "root" : UserName(prng_.Below(kUsers)));
      HearWatches();
    }
  }

  int answered() const { return answered_; }
  int denied() const { return denied_; }
  int events() const { return events_; }

 private:
  static std::string UserAdd(const std::string& name) {
    pb::AuthUserAddRequest request;
    request.set_name(name);
    request.mutable_options()->set_no_password(true);
    return request.SerializeAsString();
  }
  static std::string RoleAdd(const std::string& name) {
    pb::AuthRoleAddRequest request;
    request.set_name(name);
    return request.SerializeAsString();
  }
  static std::string GrantRole(const std::string& user, const std::string& role) {
    pb::AuthUserGrantRoleRequest request;
    request.set_user(user);
    request.set_role(role);
    return request.SerializeAsString();
  }
  static CredentialsRef As(const std::string& name) {
    auto shown = std::make_shared<Credentials>();
    shown->certificate_name = name;
    return shown;
  }

  Reply Do(Method method, const std::string& request) {
    return solo_.Call(method, request, As("root"));
  }

  // ---- Who may what

  bool May(const std::string& user, bool write, const std::string& key) const {
    if (user == "root") return true;
    const auto roles = roles_of_.find(user);
    if (roles == roles_of_.end()) return false;
    for (const std::string& role : roles->second) {
      const auto grants = grants_.find(role);
      if (grants == grants_.end()) continue;
      for (const Grant& grant : grants->second) {
        const bool fits = grant.type == authpb::Permission::READWRITE ||
                          (grant.type == authpb::Permission::WRITE) == write;
        if (fits && grant.Holds(key)) return true;
      }
    }
    return false;
  }
  bool MayRead(const std::string& user, const std::string& key) const {
    return May(user, false, key);
  }

  // Root changes who may what.
  void Change() {
    const std::string role = RoleName(prng_.Below(kRoles));
    const std::string user = UserName(prng_.Below(kUsers));
    switch (prng_.Below(5)) {
      case 0:
      case 1:
        return GrantPermission(role);
      case 2:
        return RevokePermission(role);
      case 3:
        if (Do(Method::kUserGrantRole, GrantRole(user, role)).error == nullptr) {
          roles_of_[user].insert(role);
        }
        return;
      default: {
        pb::AuthUserRevokeRoleRequest request;
        request.set_name(user);
        request.set_role(role);
        if (Do(Method::kUserRevokeRole, request.SerializeAsString()).error == nullptr) {
          roles_of_[user].erase(role);
        }
      }
    }
  }
  void GrantPermission(const std::string& role) {
    const pb::RangeRequest range = generator_.Range();
    Grant grant{static_cast<int>(prng_.Below(3)), range.key(), range.range_end()};
    pb::AuthRoleGrantPermissionRequest request;
    request.set_name(role);
    request.mutable_perm()->set_permtype(static_cast<authpb::Permission::Type>(grant.type));
    request.mutable_perm()->set_key(grant.key);
    request.mutable_perm()->set_range_end(grant.range_end);
    if (Do(Method::kRoleGrantPermission, request.SerializeAsString()).error != nullptr) return;
    std::vector<Grant>& grants = grants_[role];
    Forget(grant, &grants);
    grants.push_back(std::move(grant));
  }
  void RevokePermission(const std::string& role) {
    std::vector<Grant>& grants = grants_[role];
    if (grants.empty()) return;
    const Grant grant = grants[prng_.Below(grants.size())];
    pb::AuthRoleRevokePermissionRequest request;
    request.set_role(role);
    request.set_key(grant.key);
    request.set_range_end(grant.range_end);
    ASSERT_EQ(Do(Method::kRoleRevokePermission, request.SerializeAsString()).error, nullptr);
    Forget(grant, &grants);
  }
  static void Forget(const Grant& grant, std::vector<Grant>* grants) {
    std::erase_if(*grants, [&](const Grant& other) {
      return other.key == grant.key && other.range_end == grant.range_end;
    });
  }

  // ---- What a request did

  Store Look() {
    pb::RangeRequest all;
    all.set_key(kOpen);
    all.set_range_end(kOpen);
    pb::RangeResponse response;
    EXPECT_TRUE(
        response.ParseFromString(Do(Method::kRange, all.SerializeAsString()).body.ToString()));
    revision_ = response.header().revision();
    Store store;
    for (const mvccpb::KeyValue& kv : response.kvs()) {
      store[kv.key()] = {kv.mod_revision(), kv.lease()};
    }
    return store;
  }

  void Step(const std::string& user) {
    generator_.set_revision(revision_);
    std::string request;
    const Method method = Next(&request);
    const Reply reply = solo_.Call(method, request, As(user));
    const Store after = Look();
    if (reply.error != nullptr) {
      EXPECT_EQ(after, before_) << "a refused request changed something";
      denied_ += reply.error->message == wire::kErrPermissionDenied.message ? 1 : 0;
      if (reply.error->message == wire::kErrPermissionDenied.message) {
        EXPECT_NE(user, "root");
        EXPECT_FALSE(PlainlyMay(user, method, request)) << "refused for no reason";
      }
      return;
    }
    ++answered_;
    CheckChanges(user, after);
    CheckAnswer(user, method, request, reply.body.ToString());
    before_ = after;
  }

  Method Next(std::string* request) {
    const uint64_t kind = prng_.Below(100);
    if (kind < 30) return Encoded(Method::kPut, generator_.Put(), request);
    if (kind < 55) return Encoded(Method::kRange, generator_.Range(), request);
    if (kind < 65) return Encoded(Method::kDeleteRange, generator_.DeleteRange(), request);
    if (kind < 85) return Encoded(Method::kTxn, generator_.Txn(), request);
    if (kind < 91) {
      pb::LeaseGrantRequest grant;
      grant.set_id(generator_.Lease());
      grant.set_ttl(1'000'000);
      return Encoded(Method::kLeaseGrant, grant, request);
    }
    if (kind < 94) {
      pb::LeaseRevokeRequest revoke;
      revoke.set_id(generator_.Lease());
      return Encoded(Method::kLeaseRevoke, revoke, request);
    }
    if (kind < 98) {
      pb::LeaseTimeToLiveRequest ttl;
      ttl.set_id(generator_.Lease());
      ttl.set_keys(prng_.Chance(3, 4));
      return Encoded(Method::kLeaseTimeToLive, ttl, request);
    }
    return Encoded(Method::kLeaseLeases, pb::LeaseLeasesRequest(), request);
  }
  template <typename Message>
  static Method Encoded(Method method, const Message& message, std::string* request) {
    *request = message.SerializeAsString();
    return method;
  }

  // One key, and nothing that needs more than leave for it.
  bool PlainlyMay(const std::string& user, Method method, const std::string& request) const {
    if (method == Method::kPut) {
      pb::PutRequest put;
      put.ParseFromString(request);
      return put.lease() == 0 && !put.prev_kv() && May(user, true, put.key());
    }
    if (method == Method::kRange) {
      pb::RangeRequest range;
      range.ParseFromString(request);
      return range.range_end().empty() && MayRead(user, range.key());
    }
    if (method == Method::kDeleteRange) {
      pb::DeleteRangeRequest range;
      range.ParseFromString(request);
      return range.range_end().empty() && !range.prev_kv() && May(user, true, range.key());
    }
    return false;
  }

  void CheckChanges(const std::string& user, const Store& after) const {
    for (const auto& [key, was] : before_) {
      const auto found = after.find(key);
      if (found != after.end() && found->second == was) continue;
      EXPECT_TRUE(May(user, true, key)) << user << " changed " << key;
    }
    for (const auto& [key, now] : after) {
      const auto found = before_.find(key);
      if (found != before_.end() && found->second == now) continue;
      EXPECT_TRUE(May(user, true, key)) << user << " made " << key;
      // Who attaches a key to a lease may write all of the lease's keys.
      if (now.lease == 0 || (found != before_.end() && found->second.lease == now.lease)) continue;
      for (const auto& [other, was] : before_) {
        if (was.lease != now.lease) continue;
        EXPECT_TRUE(May(user, true, other)) << user << " joined the lease of " << other;
      }
    }
  }

  void CheckKv(const std::string& user, const mvccpb::KeyValue& kv) const {
    EXPECT_TRUE(MayRead(user, kv.key())) << user << " was shown " << kv.key();
  }
  void CheckRange(const std::string& user, const pb::RangeRequest& request,
                  const pb::RangeResponse& response) const {
    for (const mvccpb::KeyValue& kv : response.kvs()) CheckKv(user, kv);
    if (response.count() == 0 || request.revision() > 0) return;
    const Grant range{0, request.key(), request.range_end()};
    for (const auto& [key, was] : before_) {
      if (range.Holds(key)) {
        EXPECT_TRUE(MayRead(user, key)) << user << " counted " << key;
      }
    }
  }
  void CheckTxn(const std::string& user, const pb::TxnResponse& response) const {
    for (const pb::ResponseOp& op : response.responses()) {
      for (const mvccpb::KeyValue& kv : op.response_range().kvs()) CheckKv(user, kv);
      for (const mvccpb::KeyValue& kv : op.response_delete_range().prev_kvs()) CheckKv(user, kv);
      if (op.response_put().has_prev_kv()) CheckKv(user, op.response_put().prev_kv());
      if (op.has_response_txn()) CheckTxn(user, op.response_txn());
    }
  }
  // A compare tells something of every key that it looks at, whichever way it ends.
  void CheckCompares(const std::string& user, const pb::TxnRequest& request) const {
    for (const pb::Compare& compare : request.compare()) {
      const Grant range{0, compare.key(), compare.range_end()};
      for (const auto& [key, was] : before_) {
        if (range.Holds(key)) {
          EXPECT_TRUE(MayRead(user, key)) << user << " compared " << key;
        }
      }
    }
    for (const auto& ops : {request.success(), request.failure()}) {
      for (const pb::RequestOp& op : ops) {
        if (op.has_request_txn()) CheckCompares(user, op.request_txn());
      }
    }
  }

  void CheckAnswer(const std::string& user, Method method, const std::string& request,
                   const std::string& body) const {
    if (method == Method::kRange) {
      pb::RangeRequest range;
      pb::RangeResponse response;
      ASSERT_TRUE(range.ParseFromString(request) && response.ParseFromString(body));
      CheckRange(user, range, response);
    } else if (method == Method::kPut) {
      pb::PutResponse response;
      ASSERT_TRUE(response.ParseFromString(body));
      if (response.has_prev_kv()) CheckKv(user, response.prev_kv());
    } else if (method == Method::kDeleteRange) {
      pb::DeleteRangeResponse response;
      ASSERT_TRUE(response.ParseFromString(body));
      for (const mvccpb::KeyValue& kv : response.prev_kvs()) CheckKv(user, kv);
    } else if (method == Method::kTxn) {
      pb::TxnRequest txn;
      pb::TxnResponse response;
      ASSERT_TRUE(txn.ParseFromString(request) && response.ParseFromString(body));
      CheckCompares(user, txn);
      CheckTxn(user, response);
    } else if (method == Method::kLeaseTimeToLive) {
      pb::LeaseTimeToLiveResponse response;
      ASSERT_TRUE(response.ParseFromString(body));
      for (const std::string& key : response.keys()) EXPECT_TRUE(MayRead(user, key)) << user;
    } else if (method == Method::kLeaseLeases) {
      for (const auto& [key, was] : before_) {
        if (was.lease != 0) {
          EXPECT_TRUE(MayRead(user, key)) << user << " was told leases";
        }
      }
    }
  }

  // ---- Watches

  void OpenWatch() {
    const std::string user = UserName(prng_.Below(kUsers));
    const pb::RangeRequest range = generator_.Range();
    pb::WatchRequest request;
    pb::WatchCreateRequest* create = request.mutable_create_request();
    create->set_key(range.key());
    create->set_range_end(range.range_end());
    create->set_prev_kv(prng_.Chance(1, 2));
    if (prng_.Chance(1, 3)) create->set_start_revision(1 + prng_.Below(revision_));
    const uint64_t stream = solo_.OpenStream(StreamKind::kWatch, false, As(user));
    solo_.Say(stream, request.SerializeAsString());
    solo_.Settle();
    watches_[stream] = user;
    while (watches_.size() > kWatchesMax) watches_.erase(watches_.begin());
  }
  void HearWatches() {
    for (const auto& [stream, user] : watches_) {
      for (const StreamEffect& effect : solo_.Heard(stream)) {
        if (effect.finish) continue;
        pb::WatchResponse response;
        ASSERT_TRUE(response.ParseFromString(effect.prefix.ToString() + effect.shared.ToString()));
        for (const mvccpb::Event& event : response.events()) {
          ++events_;
          CheckKv(user, event.kv());
          if (event.has_prev_kv()) CheckKv(user, event.prev_kv());
        }
      }
    }
  }

  static constexpr size_t kWatchesMax = 20;

  Solo solo_;
  apply::RequestGenerator generator_;
  Prng prng_;
  int64_t revision_ = 1;
  int case_ = 0;
  int answered_ = 0;
  int denied_ = 0;
  int events_ = 0;
  Store before_;
  std::map<std::string, std::vector<Grant>> grants_;
  std::map<std::string, std::set<std::string>> roles_of_;
  std::map<uint64_t, std::string> watches_;
};

TEST(AuthOracle, NobodySeesOrChangesWhatIsNotHis) {
  int answered = 0;
  int denied = 0;
  int events = 0;
  for (int seed = 1; seed <= kSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    World world(seed);
    world.Run(kCasesPerSeed);
    answered += world.answered();
    denied += world.denied();
    events += world.events();
  }
  std::printf("%d answered, %d denied, %d events\n", answered, denied, events);
  EXPECT_GT(answered, kSeeds * kCasesPerSeed / 5);
  EXPECT_GT(denied, kSeeds * kCasesPerSeed / 10);
  EXPECT_GT(events, kSeeds * kCasesPerSeed / 100);
}

}  // namespace
}  // namespace conclave::node
