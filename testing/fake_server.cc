#include "conclave/testing/fake_server.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/client/client_impl.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/testing/client_loop.h"
#include "conclave/testing/world.h"

namespace conclave::testing {
namespace {

constexpr char kEndpoint[] = "fake.invalid:2379";
// A cluster of one elects itself within two election timeouts.
constexpr Duration kStartMax = std::chrono::seconds(30);

// By the machine's clock.
constexpr auto kThreadPatience = std::chrono::milliseconds(500);

KeyValue KeyValueOf(const mvcc::Record& record) {
  KeyValue kv;
  kv.key = std::string(record.key());
  kv.value = std::string(record.value());
  kv.create_revision = record.create_revision();
  kv.mod_revision = record.mod_revision();
  kv.version = record.version();
  kv.lease = record.lease();
  return kv;
}

}  // namespace

class FakeServer::Impl {
 public:
  explicit Impl(const Options& options)
      : world_(std::make_shared<World>(
            Member::Settings{.seed = options.seed, .quota_bytes = options.quota_bytes},
            options.auto_advance)),
        own_(Make({}, /*privileged=*/true)) {
    Start();
  }
  ~Impl() { world_->Abandon(); }

  World& world() { return *world_; }
  const Client& own() const { return own_; }
  Client Connect(ConnectOptions options) { return Make(std::move(options), /*privileged=*/false); }

  void Start() {
    world_->RunAndWait([this] {
      if (world_->member().up()) return;
      const absl::Status status = world_->member().Start(world_->now());
      CONCLAVE_CHECK(status.ok(), status.ToString());
    });
    const Instant limit = world_->now() + kStartMax;
    while (!Ready()) CONCLAVE_CHECK(world_->Step(limit), "the fake server does not start");
  }

  // What the server's own client may be asked for.
  absl::Status Serving() {
    absl::Status status;
    world_->RunAndWait([this, &status] {
      if (!world_->member().up()) {
        status = absl::FailedPreconditionError("the fake server is killed: Start it first");
      } else if (world_->paused()) {
        status = absl::FailedPreconditionError("the fake server is paused: Resume it first");
      }
    });
    return status;
  }

  // On the world's thread: the loop of a client of this server's.
  ClientLoop& LoopOf(const Client& client) {
    const std::vector<ClientLoop*>& all = world_->loops();
    auto found = std::find(all.begin(), all.end(), &client.impl()->loop());
    CONCLAVE_CHECK(found != all.end(), "not a client of this server");
    return **found;
  }
  void ForEachLoop(absl::FunctionRef<void(ClientLoop&)> work) {
    world_->RunAndWait([this, work] {
      for (ClientLoop* loop : world_->loops()) work(*loop);
    });
  }

  void AddFault(Fault fault) {
    world_->RunAndWait([this, &fault] { world_->AddFault(std::move(fault)); });
  }

 private:
  bool Ready() {
    bool ready = false;
    world_->RunAndWait([this, &ready] { ready = world_->member().ready(); });
    return ready;
  }

  Client Make(ConnectOptions options, bool privileged) {
    options.endpoints = {kEndpoint};
    ClientLoop* made = nullptr;
    std::shared_ptr<ClientImpl> impl =
        ClientImpl::Make(std::move(options), {kEndpoint}, [&](EngineOptions engine) {
          auto loop = std::make_unique<ClientLoop>(world_, std::move(engine), privileged);
          made = loop.get();
          return loop;
        });
    world_->RunAndWait([made, &impl] { made->set_client(impl); });
    return Client(std::move(impl));
  }

  const std::shared_ptr<World> world_;
  const Client own_;
};

FakeServer::FakeServer() : FakeServer(Options()) {}
FakeServer::FakeServer(const Options& options) : impl_(std::make_unique<Impl>(options)) {}
FakeServer::~FakeServer() = default;

Client FakeServer::Connect(ConnectOptions options) { return impl_->Connect(std::move(options)); }

// ---- Time --------------------------------------------------------------------------------------

absl::Duration FakeServer::elapsed() const {
  return absl::FromChrono(impl_->world().now() - World::kBeginning);
}

void FakeServer::Advance(absl::Duration duration) {
  impl_->world().Advance(absl::ToChronoNanoseconds(duration));
}

bool FakeServer::AdvanceUntil(absl::FunctionRef<bool()> condition, absl::Duration limit) {
  impl_->world().Advance(Duration(0));
  const Instant end = impl_->world().now() + absl::ToChronoNanoseconds(limit);
  while (!condition()) {
    if (impl_->world().Step(end)) continue;
    // Time is over; but threads of the test's own may be behind it.
    const auto patience = std::chrono::steady_clock::now() + kThreadPatience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() >= patience) return false;
      impl_->world().Advance(Duration(0));
      std::this_thread::yield();
    }
  }
  return true;
}

// ---- The network -------------------------------------------------------------------------------

void FakeServer::Partition() {
  impl_->ForEachLoop([](ClientLoop& loop) { loop.Cut(); });
}

void FakeServer::Partition(const Client& client) {
  impl_->world().RunAndWait([this, &client] { impl_->LoopOf(client).Cut(); });
}

void FakeServer::Heal() {
  impl_->ForEachLoop([](ClientLoop& loop) { loop.Heal(); });
}

void FakeServer::BreakConnections() {
  impl_->ForEachLoop([](ClientLoop& loop) { loop.Reset(); });
}

void FakeServer::FailNext(std::string_view method, const absl::Status& status, int count) {
  CONCLAVE_CHECK(!status.ok(), "OK is no failure");
  for (int i = 0; i < count; ++i) {
    impl_->AddFault({.kind = Fault::Kind::kFail, .method = std::string(method), .status = status});
  }
}

void FakeServer::DropNext(std::string_view method, int passing) {
  impl_->AddFault({.kind = Fault::Kind::kDrop, .method = std::string(method), .passing = passing});
}

void FakeServer::LoseAnswer(std::string_view method, int passing) {
  impl_->AddFault(
      {.kind = Fault::Kind::kLoseAnswer, .method = std::string(method), .passing = passing});
}

void FakeServer::ForgetFaults() {
  impl_->world().RunAndWait([this] { impl_->world().ForgetFaults(); });
}

// ---- Processes ---------------------------------------------------------------------------------

void FakeServer::Kill() {
  impl_->world().RunAndWait([this] { impl_->world().KillMember(); });
}

void FakeServer::Start() { impl_->Start(); }

void FakeServer::Restart() {
  Kill();
  Start();
}

void FakeServer::Pause() {
  impl_->world().RunAndWait([this] { impl_->world().PauseMember(); });
}

void FakeServer::Resume() {
  impl_->world().RunAndWait([this] { impl_->world().ResumeMember(); });
}

void FakeServer::Freeze(const Client& client) {
  impl_->world().RunAndWait([this, &client] { impl_->LoopOf(client).set_frozen(true); });
}

void FakeServer::Thaw(const Client& client) {
  impl_->world().RunAndWait([this, &client] { impl_->LoopOf(client).set_frozen(false); });
}

// ---- The hands of others -----------------------------------------------------------------------

absl::Status FakeServer::Put(std::string_view key, std::string_view value) {
  if (absl::Status status = impl_->Serving(); !status.ok()) return status;
  return impl_->own().Put(key, value).status();
}

absl::Status FakeServer::DeleteKey(std::string_view key) {
  if (absl::Status status = impl_->Serving(); !status.ok()) return status;
  return impl_->own().Delete(key).status();
}

absl::Status FakeServer::RevokeLease(LeaseId lease) {
  if (absl::Status status = impl_->Serving(); !status.ok()) return status;
  return impl_->own().Revoke(lease);
}

absl::Status FakeServer::ExpireLease(LeaseId lease) {
  if (absl::Status status = impl_->Serving(); !status.ok()) return status;
  const auto lives = [this, lease] {
    absl::StatusOr<std::vector<LeaseId>> all = impl_->own().Leases();
    return all.ok() && std::find(all->begin(), all->end(), lease) != all->end();
  };
  if (!lives()) return absl::NotFoundError(absl::StrCat("no lease ", lease));
  absl::StatusOr<TimeToLiveResult> left = impl_->own().TimeToLive(lease);
  if (!left.ok()) return left.status();
  impl_->world().RunAndWait([this, lease] { impl_->world().Mute(lease); });
  const absl::Duration limit = left->granted + absl::Minutes(1);
  if (!AdvanceUntil([&lives] { return !lives(); }, limit)) {
    return absl::InternalError(absl::StrCat("lease ", lease, " does not run out"));
  }
  return absl::OkStatus();
}

absl::Status FakeServer::Compact(int64_t revision) {
  if (absl::Status status = impl_->Serving(); !status.ok()) return status;
  return impl_->own().Compact(revision == 0 ? this->revision() : revision, {.physical = true});
}

// ---- What is in it -----------------------------------------------------------------------------

std::vector<KeyValue> FakeServer::Keys(std::string_view prefix) const {
  std::vector<KeyValue> keys;
  World& world = impl_->world();
  world.RunAndWait([&world, &keys, prefix] {
    const apply::StateMachine* state = world.member().state();
    if (state == nullptr) return;
    state->store().ForEach(mvcc::KeyRange::FromRequest(prefix, mvcc::PrefixEnd(prefix)),
                           mvcc::kLatest, [&](const mvcc::Record& record) {
                             keys.push_back(KeyValueOf(record));
                             return true;
                           });
  });
  return keys;
}

std::optional<std::string> FakeServer::Value(std::string_view key) const {
  std::optional<std::string> value;
  World& world = impl_->world();
  world.RunAndWait([&world, &value, key] {
    const apply::StateMachine* state = world.member().state();
    const mvcc::Record* record = state == nullptr ? nullptr : state->store().Get(key);
    if (record != nullptr) value = std::string(record->value());
  });
  return value;
}

int64_t FakeServer::revision() const {
  int64_t revision = 0;
  World& world = impl_->world();
  world.RunAndWait([&world, &revision] {
    const apply::StateMachine* state = world.member().state();
    if (state != nullptr) revision = state->store().current_revision();
  });
  return revision;
}

absl::StatusOr<std::vector<FakeServer::LeaseInfo>> FakeServer::Leases() const {
  if (absl::Status status = impl_->Serving(); !status.ok()) return status;
  absl::StatusOr<std::vector<LeaseId>> ids = impl_->own().Leases();
  if (!ids.ok()) return ids.status();
  std::sort(ids->begin(), ids->end());
  std::vector<LeaseInfo> leases;
  for (LeaseId id : *ids) {
    absl::StatusOr<TimeToLiveResult> lease = impl_->own().TimeToLive(id, {.keys = true});
    if (!lease.ok() || !lease->exists()) continue;  // it has ended meanwhile
    leases.push_back({.id = id,
                      .granted_ttl = lease->granted,
                      .remaining_ttl = lease->remaining,
                      .keys = lease->keys});
  }
  return leases;
}

}  // namespace conclave::testing
