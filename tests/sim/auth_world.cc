#include "conclave/tests/sim/auth_world.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/base/check.h"
#include "conclave/tests/sim/auth_checker.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

namespace pb = etcdserverpb;
using node::Method;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kPatience = seconds(12);
constexpr uint64_t kUsers = 3;
constexpr uint64_t kRoles = 3;
constexpr uint64_t kKeys = 6;  // "a" to "f"

std::string KeyOf(uint64_t number) { return std::string(1, static_cast<char>('a' + number)); }
KeyPermission Reads(const std::string& key, const std::string& end = "") {
  return {.reads = true, .key = key, .range_end = end};
}
KeyPermission Writes(const std::string& key) { return {.writes = true, .key = key}; }

template <typename Response>
Response Parse(const node::Reply& reply) {
  Response response;
  CONCLAVE_CHECK(response.ParseFromArray(reply.body.data(), static_cast<int>(reply.body.size())));
  return response;
}

// Somebody with a name, a password and a token, who does one thing after the other.
class Person {
 public:
  Person(Simulation* simulation, std::string name) : simulation_(simulation), name_(name) {}
  virtual ~Person() = default;

  const std::string& name() const { return name_; }

 protected:
  Prng& prng() { return simulation_->prng(); }
  Instant now() const { return simulation_->schedule().now(); }
  void Later(Duration up_to, Schedule::Action action) {
    simulation_->schedule().After(Duration(prng().Between(0, up_to.count())), std::move(action));
  }

  node::CredentialsRef Shown() const {
    if (token_.empty()) return nullptr;
    node::Credentials credentials;
    credentials.token = token_;
    return std::make_shared<const node::Credentials>(std::move(credentials));
  }

  // `done` is called once. A token that is not good any more is forgotten.
  void Ask(Method method, const std::string& request, Simulation::Answer done) {
    const uint64_t call = ++call_;
    const auto finish = [this, call, done = std::move(done)](const node::Reply* reply) {
      if (call != call_) return;
      ++call_;
      if (reply != nullptr && reply->error != nullptr &&
          reply->error->message == wire::kErrInvalidAuthToken.message) {
        token_.clear();
      }
      switched_off_ = reply != nullptr && reply->error != nullptr &&
                      reply->error->message == wire::kErrAuthNotEnabled.message;
      done(reply);
    };
    simulation_->Call(prng().Below(simulation_->member_count()), method, request, finish, Shown());
    simulation_->schedule().After(kPatience, [finish] { finish(nullptr); });
  }

  void LogIn(const std::string& password, std::function<void()> done) {
    pb::AuthenticateRequest request;
    request.set_name(name_);
    request.set_password(password);
    token_.clear();
    Ask(Method::kAuthenticate, request.SerializeAsString(), [this, done](const node::Reply* reply) {
      if (reply != nullptr && reply->error == nullptr) {
        token_ = Parse<pb::AuthenticateResponse>(*reply).token();
      }
      done();
    });
  }

  Simulation* const simulation_;
  const std::string name_;
  std::string token_;
  bool switched_off_ = false;  // authentication, as the last answer said

 private:
  uint64_t call_ = 0;
};

// The operator.
class Root : public Person {
 public:
  explicit Root(Simulation* simulation) : Person(simulation, "root") {
    Later(milliseconds(300), [this] { Work(); });
  }

  uint64_t changes() const { return changes_; }
  // When he last heard what had become of a change.
  Instant last() const { return last_; }

 private:
  void Work() {
    if (simulation_->ending()) return;
    if (switched_off_) begun_ = false;
    if (begun_ && token_.empty() && prng().Chance(3, 4)) {
      return LogIn("root's", [this] { Rest(); });
    }
    if (!begun_ || prng().Chance(1, 25)) return Begin(0);
    const std::string user = absl::StrCat("u", prng().Below(kUsers));
    const std::string role = absl::StrCat("r", prng().Below(kRoles));
    switch (prng().Below(12)) {
      case 0:
        return UserAdd(user, "secret");
      case 1: {
        if (prng().Chance(3, 4)) return Rest();
        pb::AuthUserDeleteRequest request;
        request.set_name(user);
        return Change(Method::kUserDelete, request.SerializeAsString());
      }
      case 2: {
        pb::AuthRoleAddRequest request;
        request.set_name(role);
        return Change(Method::kRoleAdd, request.SerializeAsString());
      }
      case 3: {
        if (prng().Chance(3, 4)) return Rest();
        if (prng().Chance(1, 3)) return Change(Method::kAuthDisable, "");
        pb::AuthRoleDeleteRequest request;
        request.set_role(role);
        return Change(Method::kRoleDelete, request.SerializeAsString());
      }
      case 4:
      case 5:
      case 6: {
        pb::AuthUserGrantRoleRequest request;
        request.set_user(user);
        request.set_role(role);
        return Change(Method::kUserGrantRole, request.SerializeAsString());
      }
      case 7: {
        pb::AuthUserRevokeRoleRequest request;
        request.set_name(user);
        request.set_role(role);
        return Change(Method::kUserRevokeRole, request.SerializeAsString());
      }
      case 8:
        return Revoke(role);
      default:
        return Grant(role);
    }
  }

  // Everything that is needed to switch it on; what is there already is refused, and that is fine.
  void Begin(int step) {
    const auto next = [this, step] { Begin(step + 1); };
    if (step == 0) return UserAdd("root", "root's", next);
    if (step == 1) {
      pb::AuthRoleAddRequest request;
      request.set_name("root");
      return Change(Method::kRoleAdd, request.SerializeAsString(), next);
    }
    if (step == 2) {
      pb::AuthUserGrantRoleRequest request;
      request.set_user("root");
      request.set_role("root");
      return Change(Method::kUserGrantRole, request.SerializeAsString(), next);
    }
    if (step < 3 + static_cast<int>(kUsers)) {
      return UserAdd(absl::StrCat("u", step - 3), "secret", next);
    }
    begun_ = true;
    Change(Method::kAuthEnable, "");
  }

  void UserAdd(const std::string& name, const std::string& password,
               std::function<void()> then = nullptr) {
    pb::AuthUserAddRequest request;
    request.set_name(name);
    request.set_password(password);
    Change(Method::kUserAdd, request.SerializeAsString(), std::move(then));
  }

  void Grant(const std::string& role) {
    pb::AuthRoleGrantPermissionRequest request;
    request.set_name(role);
    const uint64_t from = prng().Below(kKeys);
    request.mutable_perm()->set_key(KeyOf(from));
    if (prng().Chance(1, 2))
      request.mutable_perm()->set_range_end(KeyOf(from + 1 + prng().Below(3)));
    if (prng().Chance(1, 12)) request.mutable_perm()->set_range_end(std::string(1, '\0'));
    request.mutable_perm()->set_permtype(static_cast<authpb::Permission::Type>(prng().Below(3)));
    Change(Method::kRoleGrantPermission, request.SerializeAsString());
  }

  // One that it has: by what is known of it now.
  void Revoke(const std::string& role) {
    const AuthHistory& history = simulation_->auth_history();
    if (history.empty()) return Rest();
    const auto found = history.back().permissions_of.find(role);
    if (found == history.back().permissions_of.end() || found->second.empty()) return Rest();
    const KeyPermission& permission = found->second[prng().Below(found->second.size())];
    pb::AuthRoleRevokePermissionRequest request;
    request.set_role(role);
    request.set_key(permission.key);
    request.set_range_end(permission.range_end);
    Change(Method::kRoleRevokePermission, request.SerializeAsString());
  }

  void Change(Method method, const std::string& request, std::function<void()> then = nullptr) {
    Ask(method, request, [this, then = std::move(then)](const node::Reply* reply) {
      const bool done = reply != nullptr && reply->error == nullptr;
      if (done) ++changes_;
      // What a change does not find is found missing when it comes out of the log.
      if (done || (reply != nullptr && !switched_off_ &&
                   reply->error->code == static_cast<int>(wire::Code::kFailedPrecondition))) {
        last_ = now();
      }
      if (then) return Later(milliseconds(50), then);
      Rest();
    });
  }

  void Rest() {
    Later(milliseconds(250), [this] { Work(); });
  }

  bool begun_ = false;
  uint64_t changes_ = 0;
  Instant last_{};
};

class User : public Person {
 public:
  User(Simulation* simulation, const std::string& name, std::vector<AuthDeed>* deeds)
      : Person(simulation, name), deeds_(*deeds) {
    Later(milliseconds(300), [this] { Work(); });
    Later(milliseconds(500), [this] { Watch(); });
  }

 private:
  void Work() {
    if (simulation_->ending()) return;
    if (token_.empty() && prng().Chance(2, 3)) {
      return LogIn("secret", [this] { Rest(); });
    }
    switch (prng().Below(5)) {
      case 0:
      case 1:
        return Read();
      case 2:
        return Put();
      case 3:
        return Transact();
      default:
        return Lease();
    }
  }
  void Rest() {
    Later(milliseconds(60), [this] { Work(); });
  }

  // What an answer with success proves is compared with what he could do meanwhile.
  void Try(Method method, const std::string& request, std::string what,
           std::vector<KeyPermission> needs,
           std::function<void(const node::Reply&, AuthDeed*)> look = nullptr) {
    // Without a token he is nobody, whoever he is.
    AuthDeed deed{.user = token_.empty() ? "" : name(),
                  .what = std::move(what),
                  .begin = now(),
                  .needs = std::move(needs)};
    Ask(method, request,
        [this, deed = std::move(deed), look = std::move(look)](const node::Reply* reply) mutable {
          if (reply != nullptr && reply->error == nullptr) {
            deed.end = now();
            if (look) look(*reply, &deed);
            deeds_.push_back(std::move(deed));
          }
          Rest();
        });
  }

  void Read() {
    pb::RangeRequest request;
    const uint64_t from = prng().Below(kKeys);
    request.set_key(KeyOf(from));
    if (prng().Chance(1, 2)) request.set_range_end(KeyOf(from + 1 + prng().Below(3)));
    if (prng().Chance(1, 20)) request.set_range_end(std::string(1, '\0'));
    Try(Method::kRange, request.SerializeAsString(), absl::StrCat("reads from ", KeyOf(from)),
        {Reads(request.key(), request.range_end())});
  }

  void Put() {
    pb::PutRequest request;
    request.set_key(KeyOf(prng().Below(kKeys)));
    request.set_value(absl::StrCat(name(), ".", ++values_));
    request.set_prev_kv(prng().Chance(1, 2));
    if (lease_ != 0 && prng().Chance(1, 3)) request.set_lease(lease_);
    Try(Method::kPut, request.SerializeAsString(), absl::StrCat("writes ", request.key()),
        {Writes(request.key())}, [](const node::Reply& reply, AuthDeed* deed) {
          const auto response = Parse<pb::PutResponse>(reply);
          if (response.has_prev_kv()) deed->needs.push_back(Reads(response.prev_kv().key()));
        });
  }

  // All of it must be allowed, whichever branch is taken.
  void Transact() {
    pb::TxnRequest request;
    const std::string compared = KeyOf(prng().Below(kKeys));
    const std::string written = KeyOf(prng().Below(kKeys));
    const std::string read = KeyOf(prng().Below(kKeys));
    pb::Compare* compare = request.add_compare();
    compare->set_key(compared);
    compare->set_target(pb::Compare::VERSION);
    compare->set_result(pb::Compare::GREATER);
    compare->set_version(prng().Between(0, 20));
    pb::PutRequest* put = request.add_success()->mutable_request_put();
    put->set_key(written);
    put->set_value(absl::StrCat(name(), ".", ++values_));
    request.add_failure()->mutable_request_range()->set_key(read);
    Try(Method::kTxn, request.SerializeAsString(),
        absl::StrCat("compares ", compared, ", writes ", written, " or reads ", read),
        {Reads(compared), Writes(written), Reads(read)});
  }

  void Lease() {
    if (lease_ == 0 || prng().Chance(1, 8)) {
      pb::LeaseGrantRequest request;
      request.set_ttl(prng().Between(2, 6));
      return Try(Method::kLeaseGrant, request.SerializeAsString(), "has a lease", {},
                 [this](const node::Reply& reply, AuthDeed*) {
                   lease_ = Parse<pb::LeaseGrantResponse>(reply).id();
                 });
    }
    pb::LeaseTimeToLiveRequest request;
    request.set_id(lease_);
    request.set_keys(true);
    Try(Method::kLeaseTimeToLive, request.SerializeAsString(), "sees the keys of a lease", {},
        [](const node::Reply& reply, AuthDeed* deed) {
          const auto response = Parse<pb::LeaseTimeToLiveResponse>(reply);
          for (const std::string& key : response.keys()) deed->needs.push_back(Reads(key));
        });
  }

  // ---- Watching

  void Watch() {
    if (simulation_->ending()) return;
    const uint64_t attempt = ++attempt_;
    const std::string user = token_.empty() ? "" : name();
    const uint64_t from = prng().Below(kKeys);
    const auto again = [this, attempt] {
      if (attempt != attempt_) return;
      ++attempt_;
      simulation_->CloseStream(stream_);
      Later(milliseconds(400), [this] { Watch(); });
    };
    stream_ =
        simulation_->OpenStream(prng().Below(simulation_->member_count()), node::StreamKind::kWatch,
                                {.message =
                                     [this, attempt, user, again](const std::string& message) {
                                       if (attempt == attempt_ && Hear(message, user)) again();
                                     },
                                 .end = again},
                                Duration{}, Shown());
    pb::WatchRequest request;
    request.mutable_create_request()->set_key(KeyOf(from));
    request.mutable_create_request()->set_range_end(KeyOf(from + 1 + prng().Below(3)));
    simulation_->Say(stream_, request.SerializeAsString());
    simulation_->schedule().After(milliseconds(prng().Between(500, 8000)), again);
  }

  // True: it has ended.
  bool Hear(const std::string& message, const std::string& user) {
    pb::WatchResponse response;
    CONCLAVE_CHECK(response.ParseFromString(message));
    for (const mvccpb::Event& event : response.events()) {
      deeds_.push_back({.user = user,
                        .what = absl::StrCat("hears of ", event.kv().key(), " at revision ",
                                             event.kv().mod_revision()),
                        .begin = simulation_->AppliedAt(event.kv().mod_revision()),
                        .end = now(),
                        .needs = {Reads(event.kv().key())}});
    }
    return response.canceled();
  }

  std::vector<AuthDeed>& deeds_;
  uint64_t values_ = 0;
  int64_t lease_ = 0;
  uint64_t stream_ = 0;
  uint64_t attempt_ = 0;
};

class AuthWorld : public Client {
 public:
  explicit AuthWorld(Simulation* simulation) : simulation_(simulation), root_(simulation) {
    for (uint64_t i = 0; i < kUsers; ++i) {
      for (int hands = 0; hands < 2; ++hands) {
        users_.push_back(std::make_unique<User>(simulation, absl::StrCat("u", i), &deeds_));
      }
    }
  }

  Complaints Check(const TrueHistory&) const override {
    Complaints complaints = CheckAuth(simulation_->auth_history(), deeds_);
    if (root_.last() < simulation_->healed_at()) {
      complaints.push_back("the operator gets nothing done after healing");
    }
    return complaints;
  }
  void Count(AuthCounts* counts) const override {
    counts->changes += root_.changes();
    counts->deeds += deeds_.size();
  }

 private:
  Simulation* const simulation_;
  Root root_;
  std::vector<AuthDeed> deeds_;
  std::vector<std::unique_ptr<User>> users_;
};

}  // namespace

std::unique_ptr<Client> MakeAuthWorld(Simulation* simulation) {
  return std::make_unique<AuthWorld>(simulation);
}

}  // namespace conclave::sim
