#include "conclave/tests/sim/clients.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/base/check.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

namespace pb = etcdserverpb;
using node::Method;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kPatience = seconds(12);
constexpr Duration kProgressDue = milliseconds(700);
constexpr milliseconds kLastMoment(30);  // before a lease ends
constexpr Duration kRenewalPatience = seconds(8);

template <typename Response>
Response Parse(const node::Reply& reply) {
  Response response;
  CONCLAVE_CHECK(response.ParseFromArray(reply.body.data(), static_cast<int>(reply.body.size())));
  return response;
}

// Whether an error says that the request had no effect.
Outcome OutcomeOf(const node::Reply* reply) {
  if (reply == nullptr) return Outcome::kUnknown;
  if (reply->error == nullptr) return Outcome::kDone;
  const auto code = static_cast<wire::Code>(reply->error->code);
  return code == wire::Code::kUnavailable || code == wire::Code::kDeadlineExceeded
             ? Outcome::kUnknown
             : Outcome::kRefused;
}

SeenKey Seen(const mvccpb::KeyValue& kv) {
  return {kv.key(), kv.value(), kv.create_revision(), kv.mod_revision(), kv.version()};
}

// One call at a time, with a timeout, from a member that is changed when it fails.
class Caller {
 public:
  explicit Caller(Simulation* simulation)
      : simulation_(simulation), member_(simulation->prng().Below(simulation->member_count())) {}

  // `done` is called exactly once.
  void Call(Method method, const std::string& request, Simulation::Answer done) {
    const uint64_t call = ++call_;
    done_ = std::move(done);
    simulation_->Call(member_, method, request, [this, call](const node::Reply* reply) {
      if (call == call_) Finish(reply);
    });
    simulation_->schedule().After(kPatience, [this, call] {
      if (call == call_) Finish(nullptr);
    });
  }
  size_t member() const { return member_; }
  void UseMember(size_t member) { member_ = member; }
  void ChangeMember() { member_ = simulation_->prng().Below(simulation_->member_count()); }

 private:
  void Finish(const node::Reply* reply) {
    ++call_;
    // A learner serves nobody.
    const bool refused = reply != nullptr && reply->error != nullptr &&
                         reply->error->message == wire::kErrNotSupportedForLearner.message;
    if (OutcomeOf(reply) == Outcome::kUnknown || refused || simulation_->prng().Chance(1, 20)) {
      ChangeMember();
    }
    std::exchange(done_, nullptr)(reply);
  }

  Simulation* const simulation_;
  size_t member_;
  uint64_t call_ = 0;
  Simulation::Answer done_;
};

// ---- Keys and values ----------------------------------------------------------------------------

class KvClient : public Client {
 public:
  KvClient(Simulation* simulation, int number, Duration think)
      : simulation_(simulation),
        number_(number),
        think_(think),
        bulky_(simulation->prng().Chance(1, 2)),
        caller_(simulation) {
    Rest();
  }

  // KV operations are checked all together.
  Complaints Check(const TrueHistory&) const override { return {}; }

 private:
  static constexpr uint64_t kKeys = 8;
  static constexpr uint64_t kReadsElsewhereOneIn = 4;  // after a write
  static constexpr int64_t kNoSuchLease = 4711;
  // Some values are larger than a disk's sector.
  static constexpr uint64_t kBulkyOneIn = 16;
  static constexpr int64_t kBulkyMax = 3000;

  std::string Key() { return absl::StrCat("k", simulation_->prng().Below(kKeys)); }
  std::string Value() {
    std::string value = absl::StrCat("v", number_, ".", ++values_);
    if (bulky_ && simulation_->prng().Chance(1, kBulkyOneIn)) {
      value.resize(static_cast<size_t>(simulation_->prng().Between(500, kBulkyMax)), '.');
    }
    return value;
  }

  void Rest() {
    const Duration rest = Duration(simulation_->prng().Between(0, 2 * think_.count()));
    simulation_->schedule().After(rest, [this] {
      if (!simulation_->ending()) Work();
    });
  }

  KvOperation NewOperation(std::string key) const {
    KvOperation op;
    op.client = number_;
    op.invoked = simulation_->schedule().now();
    op.returned = kNever;
    op.key = std::move(key);
    return op;
  }

  void Work() {
    KvOperation op = NewOperation(Key());
    switch (simulation_->prng().Below(12)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return Put(std::move(op));
      case 4:
        return Delete(std::move(op));
      case 5:
      case 6:
        return Swap(std::move(op));
      case 7:
        return Past(std::move(op));
      case 8:
        return Doomed(std::move(op));
      default:
        return Range(std::move(op));
    }
  }

  void Put(KvOperation op) {
    op.kind = KvOperation::Kind::kPut;
    op.value = Value();
    pb::PutRequest request;
    request.set_key(op.key);
    request.set_value(op.value);
    Send(std::move(op), Method::kPut, request.SerializeAsString(),
         [](KvOperation& op, const node::Reply& reply) {
           op.revision = Parse<pb::PutResponse>(reply).header().revision();
         });
  }

  void Delete(KvOperation op) {
    op.kind = KvOperation::Kind::kDelete;
    pb::DeleteRangeRequest request;
    request.set_key(op.key);
    Send(std::move(op), Method::kDeleteRange, request.SerializeAsString(),
         [](KvOperation& op, const node::Reply& reply) {
           const auto response = Parse<pb::DeleteRangeResponse>(reply);
           op.revision = response.header().revision();
           op.deleted = response.deleted();
         });
  }

  void Swap(KvOperation op) {
    op.kind = KvOperation::Kind::kSwap;
    op.value = Value();
    op.second_key = absl::StrCat("s", simulation_->prng().Below(kKeys));
    const auto known = mods_.find(op.key);
    op.expected_mod = known == mods_.end() ? 0 : known->second;
    pb::TxnRequest request;
    pb::Compare* compare = request.add_compare();
    compare->set_key(op.key);
    compare->set_target(pb::Compare::MOD);
    compare->set_result(pb::Compare::EQUAL);
    compare->set_mod_revision(op.expected_mod);
    for (const std::string& key : {op.key, op.second_key}) {
      pb::PutRequest* put = request.add_success()->mutable_request_put();
      put->set_key(key);
      put->set_value(op.value);
    }
    request.add_failure()->mutable_request_range()->set_key(op.key);
    Send(std::move(op), Method::kTxn, request.SerializeAsString(),
         [this](KvOperation& op, const node::Reply& reply) {
           const auto response = Parse<pb::TxnResponse>(reply);
           op.revision = response.header().revision();
           op.succeeded = response.succeeded();
           if (op.succeeded) {
             mods_[op.key] = op.revision;
             return;
           }
           for (const auto& kv : response.responses(0).response_range().kvs()) {
             op.keys.push_back(Seen(kv));
           }
           mods_[op.key] = op.keys.empty() ? 0 : op.keys[0].mod_revision;
         });
  }

  void Range(KvOperation op) {
    op.serializable = simulation_->prng().Chance(1, 4);
    if (simulation_->prng().Chance(1, 3)) {
      op.key = "k";
      op.range_end = "t";
    }
    Read(std::move(op));
  }

  void Read(KvOperation op) {
    op.kind = KvOperation::Kind::kRange;
    pb::RangeRequest request;
    request.set_key(op.key);
    request.set_range_end(op.range_end);
    request.set_serializable(op.serializable);
    Send(std::move(op), Method::kRange, request.SerializeAsString(),
         [this](KvOperation& op, const node::Reply& reply) {
           const auto response = Parse<pb::RangeResponse>(reply);
           op.revision = response.header().revision();
           for (const auto& kv : response.kvs()) {
             op.keys.push_back(Seen(kv));
             mods_[kv.key()] = kv.mod_revision();
           }
         });
  }

  // Some revision that was seen, or the next one; it may be compacted. What is written along must
  // depend on nothing else.
  void Past(KvOperation op) {
    op.kind = KvOperation::Kind::kPast;
    op.expected_mod = std::max<int64_t>(1, newest_ - simulation_->prng().Between(-1, 60));
    pb::TxnRequest request;
    pb::RangeRequest* range = request.add_success()->mutable_request_range();
    range->set_key(op.key);
    range->set_revision(op.expected_mod);
    if (simulation_->prng().Chance(1, 3)) {
      op.value = Value();
      pb::PutRequest* put = request.add_success()->mutable_request_put();
      put->set_key(op.key);
      put->set_value(op.value);
    }
    Send(std::move(op), Method::kTxn, request.SerializeAsString(),
         [](KvOperation& op, const node::Reply& reply) {
           const auto response = Parse<pb::TxnResponse>(reply);
           op.revision = response.header().revision();
           for (const auto& kv : response.responses(0).response_range().kvs()) {
             op.keys.push_back(Seen(kv));
           }
         });
  }

  void Doomed(KvOperation op) {
    op.kind = KvOperation::Kind::kDoomed;
    op.value = Value();
    pb::TxnRequest request;
    pb::PutRequest* put = request.add_success()->mutable_request_put();
    put->set_key(op.key);
    put->set_value(op.value);
    pb::PutRequest* never = request.add_success()->mutable_request_put();
    never->set_key(absl::StrCat("s", simulation_->prng().Below(kKeys)));
    never->set_lease(kNoSuchLease);
    Send(std::move(op), Method::kTxn, request.SerializeAsString(),
         [](KvOperation&, const node::Reply&) {});
  }

  using Reader = std::function<void(KvOperation& op, const node::Reply& reply)>;
  void Send(KvOperation op, Method method, const std::string& request, Reader read) {
    std::vector<KvOperation>& all = simulation_->operations();
    const size_t at = all.size();
    all.push_back(std::move(op));
    caller_.Call(method, request, [this, at, read](const node::Reply* reply) {
      KvOperation& op = simulation_->operations()[at];
      op.outcome = OutcomeOf(reply);
      if (op.outcome != Outcome::kUnknown) op.returned = simulation_->schedule().now();
      if (op.outcome == Outcome::kDone) read(op, *reply);
      newest_ = std::max(newest_, op.revision);
      const bool wrote = op.outcome == Outcome::kDone && IsWrite(op);
      if (!wrote || !simulation_->prng().Chance(1, kReadsElsewhereOneIn)) return Rest();
      ReadElsewhere(op.key);
    });
  }

  static bool IsWrite(const KvOperation& op) {
    return op.kind == KvOperation::Kind::kPut || op.kind == KvOperation::Kind::kDelete ||
           (op.kind == KvOperation::Kind::kSwap && op.succeeded);
  }

  // What was written here is there for whoever is asked next, at once.
  void ReadElsewhere(const std::string& key) {
    caller_.ChangeMember();
    Read(NewOperation(key));
  }

  Simulation* const simulation_;
  const int number_;
  const Duration think_;
  const bool bulky_;
  Caller caller_;
  uint64_t values_ = 0;
  std::map<std::string, int64_t> mods_;
  int64_t newest_ = 1;  // revision that was seen
};

// ---- Watching -----------------------------------------------------------------------------------

// The first wants to hear of progress, the second of previous versions, the third begins in the
// future: one watch after the other does, and ends when it has heard a little.
class WatchClient : public Client {
 public:
  WatchClient(Simulation* simulation, int number) : simulation_(simulation), number_(number) {
    Begin(number_ == 2 ? simulation_->prng().Between(20, 300) : 2);
    slow_ = simulation_->prng().Chance(1, 3);
    if (slow_) simulation_->faults().Add(Fault::kSlowReader);
    Open();
  }

  void Finish() override {
    slow_ = false;
    finished_ = true;
  }

  Complaints Check(const TrueHistory& truth) const override {
    Complaints complaints;
    for (const WatchHistory& ended : ended_) {
      if (complaints.empty()) complaints = CheckWatch(truth, ended);
    }
    WatchHistory history = history_;
    history.must_be_complete = true;
    if (complaints.empty()) complaints = CheckWatch(truth, history);
    // Two intervals fit into every stream, and many streams into the calm.
    if (number_ == 0 && simulation_->progress_interval() < kProgressDue && unasked_ == 0) {
      complaints.push_back("hears of no progress when nothing happens");
    }
    for (std::string& complaint : complaints) {
      complaint = absl::StrCat("watcher ", number_, ": ", complaint);
    }
    return complaints;
  }

 private:
  static constexpr int64_t kFutureMax = 200;  // revisions
  static constexpr int64_t kHeardMax = 20;    // events of one watch of the future

  void Begin(int64_t revision) {
    history_ = {};
    history_.key = "k";
    history_.range_end = "t";
    history_.start_revision = next_ = revision;
    heard_enough_ = static_cast<size_t>(simulation_->prng().Between(1, kHeardMax));
  }

  // The next watch of the future, on another stream.
  void BeginAgain() {
    const int64_t revision = next_ + simulation_->prng().Between(0, kFutureMax);
    ended_.push_back(std::move(history_));
    Begin(revision);
    simulation_->CloseStream(stream_);
    OpenLater();
  }

  void Open() {
    const size_t member = simulation_->prng().Below(simulation_->member_count());
    const Duration read_delay =
        slow_ ? milliseconds(simulation_->prng().Between(1, 300)) : Duration{};
    const uint64_t attempt = ++attempt_;
    stream_ = simulation_->OpenStream(member, node::StreamKind::kWatch,
                                      {.message =
                                           [this, attempt](const std::string& message) {
                                             if (attempt == attempt_) Hear(message);
                                           },
                                       .end =
                                           [this, attempt] {
                                             if (attempt == attempt_) OpenLater();
                                           }},
                                      read_delay);
    pb::WatchRequest request;
    request.mutable_create_request()->set_key(history_.key);
    request.mutable_create_request()->set_range_end(history_.range_end);
    request.mutable_create_request()->set_start_revision(next_);
    request.mutable_create_request()->set_progress_notify(number_ == 0);
    request.mutable_create_request()->set_prev_kv(number_ == 1);
    asked_ = false;
    simulation_->Say(stream_, request.SerializeAsString());
    // A member may be cut off from the others for long: try another one now and then, as clients do
    // that ask for progress; and always when all is quiet.
    simulation_->schedule().After(seconds(simulation_->prng().Between(2, 8)), [this, attempt] {
      if (attempt != attempt_) return;
      if (simulation_->prng().Chance(1, 2)) {
        asked_ = true;
        pb::WatchRequest progress;
        progress.mutable_progress_request();
        simulation_->Say(stream_, progress.SerializeAsString());
      }
      simulation_->schedule().After(seconds(2), [this, attempt] {
        if (attempt != attempt_) return;
        simulation_->CloseStream(stream_);
        OpenLater();
      });
    });
  }

  void OpenLater() {
    ++attempt_;
    simulation_->schedule().After(milliseconds(simulation_->prng().Between(1, 50)),
                                  [this] { Open(); });
  }

  void Hear(const std::string& message) {
    pb::WatchResponse response;
    CONCLAVE_CHECK(response.ParseFromString(message));
    if (response.compact_revision() > 0) {
      next_ = std::max(next_, response.compact_revision());
      history_.notes.push_back(
          {.kind = WatchHistory::Note::Kind::kCompacted, .heard = {}, .revision = next_});
    }
    for (const mvccpb::Event& event : response.events()) {
      const mvccpb::KeyValue& kv = event.kv();
      WatchHistory::Heard heard;
      heard.revision = kv.mod_revision();
      heard.write = {kv.key(),     kv.value(), kv.create_revision(),
                     kv.version(), kv.lease(), event.type() == mvccpb::Event::DELETE};
      if (event.has_prev_kv()) {
        heard.previous_mod = event.prev_kv().mod_revision();
        heard.previous_value = event.prev_kv().value();
      }
      next_ = heard.revision + 1;
      history_.notes.push_back(
          {.kind = WatchHistory::Note::Kind::kEvent, .heard = std::move(heard)});
    }
    if (response.events().empty() && !response.created() && !response.canceled()) {
      if (finished_ && !asked_) ++unasked_;
      history_.notes.push_back({.kind = WatchHistory::Note::Kind::kProgress,
                                .heard = {},
                                .revision = response.header().revision()});
    }
    if (response.canceled()) {
      simulation_->CloseStream(stream_);
      return OpenLater();
    }
    if (number_ == 2 && !finished_ && history_.notes.size() >= heard_enough_) BeginAgain();
  }

  Simulation* const simulation_;
  const int number_;
  std::vector<WatchHistory> ended_;
  WatchHistory history_;
  size_t heard_enough_ = 0;
  int64_t next_ = 0;
  bool slow_ = false;
  bool finished_ = false;
  bool asked_ = false;    // for progress, on this stream
  uint64_t unasked_ = 0;  // words of progress when nothing happened any more
  uint64_t stream_ = 0;
  uint64_t attempt_ = 0;
};

// ---- Leases -------------------------------------------------------------------------------------

class LeaseClient : public Client {
 public:
  LeaseClient(Simulation* simulation, int number)
      : simulation_(simulation), number_(number), caller_(simulation) {
    Later(milliseconds(simulation_->prng().Between(1, 500)), [this] { Grant(); });
  }

  Complaints Check(const TrueHistory& truth) const override {
    Complaints complaints;
    for (LeaseHistory lease : leases_) {
      lease.calm = simulation_->healed_at();
      lease.must_be_gone = true;
      for (const std::string& complaint : CheckLease(truth, lease)) {
        complaints.push_back(absl::StrCat("lease client ", number_, ": ", complaint));
      }
    }
    return complaints;
  }

 private:
  void Later(Duration delay, Schedule::Action action) {
    simulation_->schedule().After(delay, std::move(action));
  }

  void Grant() {
    if (simulation_->ending()) return;
    const int64_t ttl = simulation_->prng().Between(2, 6);
    const Instant sent = simulation_->schedule().now();
    pb::LeaseGrantRequest request;
    request.set_ttl(ttl);
    caller_.Call(Method::kLeaseGrant, request.SerializeAsString(),
                 [=, this](const node::Reply* reply) {
                   if (OutcomeOf(reply) != Outcome::kDone) {
                     Later(milliseconds(200), [this] { Grant(); });
                     return;
                   }
                   const auto response = Parse<pb::LeaseGrantResponse>(*reply);
                   LeaseHistory& lease = leases_.emplace_back();
                   lease.id = response.id();
                   lease.key = absl::StrCat("lease/", number_, "/", leases_.size());
                   lease.ttl = seconds(response.ttl());
                   lease.granted = sent;
                   lease.last_attempt = simulation_->schedule().now();
                   PutKey();
                 });
  }

  void PutKey() {
    LeaseHistory& lease = leases_.back();
    pb::PutRequest request;
    request.set_key(lease.key);
    request.set_value(lease.key);
    request.set_lease(lease.id);
    caller_.Call(Method::kPut, request.SerializeAsString(), [this](const node::Reply* reply) {
      leases_.back().key_written = OutcomeOf(reply) == Outcome::kDone;
      renewals_left_ = simulation_->prng().Between(0, 6);
      AskTimeToLive();
    });
  }

  void AskTimeToLive() {
    pb::LeaseTimeToLiveRequest request;
    request.set_id(leases_.back().id);
    request.set_keys(true);
    caller_.Call(Method::kLeaseTimeToLive, request.SerializeAsString(),
                 [this](const node::Reply* reply) {
                   if (OutcomeOf(reply) == Outcome::kDone) CheckTimeToLive(*reply);
                   Renew();
                 });
  }

  void CheckTimeToLive(const node::Reply& reply) {
    const auto response = Parse<pb::LeaseTimeToLiveResponse>(reply);
    const LeaseHistory& lease = leases_.back();
    const int64_t granted = std::chrono::duration_cast<seconds>(lease.ttl).count();
    const bool alive = simulation_->schedule().now() < lease.granted + lease.ttl;
    const bool right = response.ttl() == -1
                           ? !alive
                           : response.grantedttl() == granted && response.ttl() <= granted &&
                                 (!lease.key_written || response.keys_size() == 1);
    if (!right) simulation_->Complain(absl::StrCat("a wrong time to live of lease ", lease.id));
  }

  // Over a stream of its own each time; the member is another one now and then.
  void Renew() {
    const size_t which = leases_.size() - 1;
    if (simulation_->ending() || renewals_left_-- <= 0) {
      Later(milliseconds(simulation_->prng().Between(1, 1000)), [this] { Grant(); });
      return;
    }
    LeaseHistory& lease = leases_[which];
    const Instant sent = lease.last_attempt = simulation_->schedule().now();
    const uint64_t attempt = ++attempt_;
    const auto next = [this, attempt, which] {
      if (attempt != attempt_) return;
      ++attempt_;
      leases_[which].last_attempt = simulation_->schedule().now();
      simulation_->CloseStream(stream_);
      Later(UntilRenewal(leases_.back()), [this] { Renew(); });
    };
    ChooseMember();
    stream_ = simulation_->OpenStream(caller_.member(), node::StreamKind::kLeaseKeepAlive,
                                      {.message =
                                           [=, this](const std::string& message) {
                                             if (attempt != attempt_) return;
                                             pb::LeaseKeepAliveResponse response;
                                             CONCLAVE_CHECK(response.ParseFromString(message));
                                             NoteRenewal(&leases_[which], sent, response.ttl());
                                             next();
                                           },
                                       .end = next},
                                      Duration{});
    pb::LeaseKeepAliveRequest request;
    request.set_id(lease.id);
    simulation_->Say(stream_, request.SerializeAsString());
    const Duration patience = simulation_->prng().Chance(1, 2)
                                  ? kRenewalPatience
                                  : milliseconds(simulation_->prng().Between(1000, 8000));
    Later(patience, next);
  }

  // Who leads answers by itself.
  void ChooseMember() {
    caller_.ChangeMember();
    const auto leader = simulation_->Leader();
    if (leader.has_value() && simulation_->prng().Chance(1, 2)) caller_.UseMember(*leader);
  }

  void NoteRenewal(LeaseHistory* lease, Instant sent, int64_t ttl) const {
    if (ttl > 0) {
      lease->renewed.push_back(sent);
    } else {
      lease->told_gone = std::min(lease->told_gone, simulation_->schedule().now());
    }
  }

  // In good time; or at the last moment, when the end of the lease may be on its way: what is
  // acknowledged then counts all the same.
  Duration UntilRenewal(const LeaseHistory& lease) {
    Prng& prng = simulation_->prng();
    const Instant renewed = lease.renewed.empty() ? lease.granted : lease.renewed.back();
    const Duration left = renewed + lease.ttl - simulation_->schedule().now();
    if (left > seconds(1) && prng.Chance(1, 3)) {
      return left + milliseconds(prng.Between(-kLastMoment.count(), kLastMoment.count() / 2));
    }
    const Duration third = lease.ttl / 3;
    return Duration(prng.Between(third.count() / 4, third.count() * 2));
  }

  Simulation* const simulation_;
  const int number_;
  Caller caller_;
  std::vector<LeaseHistory> leases_;
  int64_t renewals_left_ = 0;
  uint64_t stream_ = 0;
  uint64_t attempt_ = 0;
};

// ---- Compaction ---------------------------------------------------------------------------------

class Compactor : public Client {
 public:
  explicit Compactor(Simulation* simulation) : simulation_(simulation), caller_(simulation) {
    Rest();
  }
  Complaints Check(const TrueHistory&) const override { return {}; }

 private:
  void Rest() {
    simulation_->schedule().After(milliseconds(simulation_->prng().Between(500, 8000)), [this] {
      if (simulation_->ending()) return;
      pb::RangeRequest request;
      request.set_key("k");
      caller_.Call(Method::kRange, request.SerializeAsString(), [this](const node::Reply* reply) {
        if (OutcomeOf(reply) != Outcome::kDone) return Rest();
        const int64_t newest = Parse<pb::RangeResponse>(*reply).header().revision();
        if (simulation_->prng().Chance(1, 2)) return TidyUp();
        Compact(std::max<int64_t>(1, newest - simulation_->prng().Between(0, 100)));
      });
    });
  }

  // As who leaves: deletes what is his, and has that compacted away.
  void TidyUp() {
    pb::PutRequest put;
    put.set_key("tidy");
    caller_.Call(Method::kPut, put.SerializeAsString(), [this](const node::Reply* reply) {
      if (OutcomeOf(reply) != Outcome::kDone) return Rest();
      pb::DeleteRangeRequest request;
      request.set_key("tidy");
      caller_.Call(Method::kDeleteRange, request.SerializeAsString(),
                   [this](const node::Reply* reply) {
                     if (OutcomeOf(reply) != Outcome::kDone) return Rest();
                     Compact(Parse<pb::DeleteRangeResponse>(*reply).header().revision());
                   });
    });
  }

  void Compact(int64_t revision) {
    pb::CompactionRequest request;
    request.set_revision(revision);
    caller_.Call(Method::kCompact, request.SerializeAsString(),
                 [this](const node::Reply*) { Rest(); });
  }

  Simulation* const simulation_;
  Caller caller_;
};

// ---- What nobody is to notice -------------------------------------------------------------------

// When all is well again, the leadership is handed over all the time.
class Mover : public Client {
 public:
  explicit Mover(Simulation* simulation) : simulation_(simulation) {}

  void Heal() override {
    simulation_->schedule().After(kSettle, [this] { Move(); });
  }
  void Finish() override { end_ = simulation_->schedule().now() + kGoesOn; }
  Complaints Check(const TrueHistory&) const override { return {}; }

 private:
  static constexpr Duration kSettle = seconds(4);
  // Longer than a lease that nobody renews may last.
  static constexpr Duration kGoesOn = seconds(19);

  void Move() {
    if (simulation_->schedule().now() > end_) return;
    simulation_->schedule().After(milliseconds(simulation_->prng().Between(800, 2000)),
                                  [this] { Move(); });
    const auto leader = simulation_->Leader();
    const size_t to = simulation_->prng().Below(simulation_->member_count());
    if (!leader.has_value() || to == *leader) return;
    pb::MoveLeaderRequest request;
    request.set_targetid(simulation_->member(to).options().id.value());
    simulation_->Call(*leader, Method::kMoveLeader, request.SerializeAsString(),
                      [](const node::Reply*) {});
  }

  Simulation* const simulation_;
  Instant end_ = kNever;
};

// In the end, reads one at a time, while the members' network loses a frame now and then: each is
// served by asking again, for no other read comes to its help.
class LonelyReader : public Client {
 public:
  explicit LonelyReader(Simulation* simulation) : simulation_(simulation) {}

  void Finish() override {
    simulation_->schedule().After(kSettle, [this] {
      simulation_->network().set_quality({.loss_permille = kLossPermille});
      Read();
    });
  }
  Complaints Check(const TrueHistory&) const override { return complaints_; }

 private:
  static constexpr Duration kSettle = seconds(1);
  static constexpr uint32_t kLossPermille = 50;
  static constexpr int kReads = 20;
  static constexpr Duration kAnswerDue = seconds(2);

  void Read() {
    if (reads_++ == kReads) return simulation_->network().set_quality({});
    const size_t member = simulation_->prng().Below(simulation_->member_count());
    const int read = reads_;
    pb::RangeRequest request;
    request.set_key("alive");
    simulation_->Call(member, Method::kRange, request.SerializeAsString(),
                      [this, read](const node::Reply*) { End(read); });
    simulation_->schedule().After(kAnswerDue, [this, read, member] {
      if (read != reads_ || ended_ == read) return;
      complaints_.push_back(absl::StrCat("a read of member ", member, " waits for ever"));
      End(read);
    });
  }

  void End(int read) {
    if (read != reads_ || ended_ == read) return;
    ended_ = read;
    simulation_->schedule().After(milliseconds(simulation_->prng().Between(1, 100)),
                                  [this] { Read(); });
  }

  Simulation* const simulation_;
  int reads_ = 0;
  int ended_ = 0;  // the last read that was served, or given up
  Complaints complaints_;
};

}  // namespace

std::unique_ptr<Client> MakeKvClient(Simulation* simulation, int number, Duration think) {
  return std::make_unique<KvClient>(simulation, number, think);
}
std::unique_ptr<Client> MakeWatchClient(Simulation* simulation, int number) {
  return std::make_unique<WatchClient>(simulation, number);
}
std::unique_ptr<Client> MakeLeaseClient(Simulation* simulation, int number) {
  return std::make_unique<LeaseClient>(simulation, number);
}
std::unique_ptr<Client> MakeCompactor(Simulation* simulation) {
  return std::make_unique<Compactor>(simulation);
}
std::unique_ptr<Client> MakeMover(Simulation* simulation) {
  return std::make_unique<Mover>(simulation);
}
std::unique_ptr<Client> MakeLonelyReader(Simulation* simulation) {
  return std::make_unique<LonelyReader>(simulation);
}

}  // namespace conclave::sim
