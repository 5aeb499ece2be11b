// The workloads of locks and elections.
#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/contender.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/core/turn_rule.h"
#include "conclave/lock/core/rw_rule.h"
#include "conclave/lock/core/semaphore_rule.h"
#include "conclave/lock/naming.h"
#include "conclave/tests/sim/recipes/workloads.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kCallTimeout = seconds(5);
constexpr Duration kFencedWritesEvery = milliseconds(150);
constexpr Duration kMarginLeast = milliseconds(50);

constexpr int64_t kPermits = 4;
constexpr uint64_t kWritersOf = 3;  // one in so many claims of an RWMutex writes

struct Style {
  std::string kind;  // "lock", "election": the names' beginning
  uint64_t names = 1;
  Duration held_max{};
  bool proclaims = false;
  bool several = false;  // names at a time
  LockKind lock = LockKind::kAlone;
};

// A request to a Contender, as the blocking face of that kind of lock makes it.
struct Wish {
  Contender::Request request{};
  std::vector<std::string> names{};  // one for each key
  LockKind kind = LockKind::kAlone;
  int64_t wanted = 1;
  int64_t parts = 1;
};

Wish WishAlone(const std::string& name, std::string value, bool only_try) {
  return {.request = {.name = name, .value = std::move(value), .only_try = only_try},
          .names = {name}};
}

Wish WishSeveral(std::vector<std::string> names, LeaseId lease, std::string value, bool only_try) {
  Wish wish{.request = {.value = value,
                        .only_try = only_try,
                        .rule = std::make_shared<OneAtATime>(OneAtATime::Options{
                            .names = names, .heed_hold = true, .holder = value})},
            .names = std::move(names)};
  for (const std::string& name : wish.names) {
    wish.request.keys.push_back(LeaseKey(name, lease));
    wish.request.local_queues.push_back(name + "/");
    wish.request.companions.push_back(ReleaseMarkerKey(name));
  }
  return wish;
}

Wish WishShared(const std::string& name, bool write, SessionCore& session, std::string value,
                bool only_try) {
  Wish wish{.request = {.value = std::move(value), .only_try = only_try},
            .names = {name},
            .kind = LockKind::kShared,
            .wanted = write ? kReadersMax : 1,
            .parts = kReadersMax};
  if (write) {
    wish.request.rule = std::make_shared<WriteRule>(name);
  } else {
    wish.request.rule = std::make_shared<ReadRule>(name);
  }
  wish.request.keys = {absl::StrCat(write ? WritePrefix(name) : ReadPrefix(name),
                                    absl::Hex(session.lease()), "-",
                                    absl::Hex(session.NextNumber()))};
  return wish;
}

Wish WishPermits(const std::string& name, int64_t wanted, SessionCore& session, std::string value,
                 bool only_try) {
  return {
      .request = {.value = std::move(value),
                  .only_try = only_try,
                  .rule = std::make_shared<SemaphoreRule>(name, kPermits, wanted),
                  .keys = {absl::StrCat(QueuePrefix(name), absl::Hex(session.lease()), "-",
                                        absl::Hex(session.NextNumber()), PermitsSuffix(wanted))}},
      .names = {name},
      .kind = LockKind::kPermits,
      .wanted = wanted,
      .parts = kPermits};
}

// One claim after the other, on one session after the other.
class Claimant : public Workload {
 public:
  Claimant(const WorkloadWorld& world, Process* process, Style style)
      : world_(world), process_(process), style_(std::move(style)) {
    Later(milliseconds(500), [this] { OpenSession(); });
  }

  void Finish() override {
    finishing_ = true;
    process_->Run([this](Engine& engine) {
      if (contender_ == nullptr) return CloseSession();
      if (holding_) return Release();
      contender_->Cancel(absl::CancelledError("the end"));
      (void)engine;
    });
  }

  void Died() override {
    Invalidate();
    dead_ = true;
  }

 private:
  Prng& prng() { return world_.simulation->prng(); }
  Instant now() const { return world_.simulation->schedule().now(); }
  // Of the claim under way: one trace for each of its names.
  template <typename Change>
  void Note(const Change& change) {
    for (size_t i = claim_; i < claim_ + names_; ++i) change(world_.history->claims[i]);
  }
  const ClaimTrace& trace() const { return world_.history->claims[claim_]; }
  // Whose holder may write to what it guards.
  bool Exclusive() const { return trace().wanted == trace().parts && !trace().downgraded; }

  void Later(Duration up_to, std::function<void()> work) {
    process_->RunAfter(Duration(prng().Between(0, up_to.count())),
                       [work = std::move(work)](Engine&) { work(); });
  }

  // ---- The session

  void OpenSession() {
    if (finishing_ || session_ != nullptr || opening_) return;
    opening_ = true;
    Engine& engine = process_->engine();
    SessionCore::Request request;
    request.ttl_seconds = prng().Between(2, 6);
    // More than clocks may differ by in that time.
    if (prng().Chance(1, 2)) request.margin = kMarginLeast;
    SessionCore::Open(
        engine, request, engine.now() + kCallTimeout,
        [this](SessionHealth health, Instant deadline) {
          if (dead_) return;
          deadline_ = deadline;
          if (health == SessionHealth::kLost) return OnSessionLost();
          NoteBelief();
        },
        [this](absl::StatusOr<std::shared_ptr<SessionCore>> session) {
          if (dead_) return;
          opening_ = false;
          if (!session.ok()) return Later(seconds(1), [this] { OpenSession(); });
          session_ = *std::move(session);
          deadline_ = session_->deadline();
          NoteBelief();
          PutMarks();
        });
  }

  void NoteBelief() {
    std::vector<LeaseTrace::Belief>& beliefs = world_.history->leases.at(session_->lease()).beliefs;
    beliefs.push_back({now(), process_->ToWorld(deadline_)});
  }

  void OnSessionLost() {
    session_ = nullptr;
    if (!finishing_) Later(milliseconds(500), [this] { OpenSession(); });
  }

  void PutMarks() {
    const int64_t lease = session_->lease();
    const std::vector<std::string> marks = {absl::StrCat("mark/", lease, "/a"),
                                            absl::StrCat("mark/", lease, "/b")};
    TxnRequest put;
    for (const std::string& mark : marks) put.success.push_back(Put(mark, "", {.lease = lease}));
    Engine& engine = process_->engine();
    calls::Txn(engine, put, engine.now() + kCallTimeout,
               [this, lease, marks](absl::StatusOr<TxnResult> result) {
                 if (dead_) return;
                 if (result.ok()) world_.history->leases.at(lease).marks = marks;
                 Ask();
               });
  }

  void CloseSession() {
    if (session_ == nullptr) return;
    std::shared_ptr<SessionCore> session = session_;
    session->Close(process_->engine().now() + seconds(30), [](const absl::Status&) {});
  }

  // ---- Claims

  void Ask() {
    if (finishing_) return CloseSession();
    if (session_ == nullptr || contender_ != nullptr) return;
    if (prng().Chance(1, 12)) return CloseSession();  // and open another one
    const Wish wish = MakeWish();
    contender_ = std::make_shared<Contender>(session_, wish.request);
    const std::vector<std::string>& keys = contender_->keys();
    claim_ = world_.history->claims.size();
    names_ = wish.names.size();
    const int together = names_ == 1 ? 0 : static_cast<int>(claim_) + 1;
    for (size_t i = 0; i < names_; ++i) {
      world_.history->claims.push_back({.process = process_->identity(),
                                        .name = wish.names[i],
                                        .kind = wish.kind,
                                        .wanted = wish.wanted,
                                        .parts = wish.parts,
                                        .key = keys[i],
                                        .lease = session_->lease(),
                                        .together = together,
                                        .asked = now()});
    }
    contender_->Start(
        [this](absl::StatusOr<Contender::Outcome> outcome) { OnAnswer(std::move(outcome)); },
        [this](const absl::Status&) { OnLost(); });
    if (prng().Chance(1, 3)) {
      const std::weak_ptr<Contender> asked = contender_;
      Later(seconds(3), [asked] {
        if (auto still = asked.lock()) still->Cancel(absl::DeadlineExceededError("not in time"));
      });
    }
  }

  Wish MakeWish() {
    const std::string name = absl::StrCat(style_.kind, "/", prng().Below(style_.names));
    const bool only_try = !style_.proclaims && prng().Chance(1, 5);
    std::string value = NextValue();
    switch (style_.lock) {
      case LockKind::kShared:
        return WishShared(name, prng().Chance(1, kWritersOf), *session_, std::move(value),
                          only_try);
      case LockKind::kPermits:
        return WishPermits(name, prng().Between(1, kPermits), *session_, std::move(value),
                           only_try);
      case LockKind::kAlone:
        break;
    }
    if (!style_.several) return WishAlone(name, std::move(value), only_try);
    std::vector<std::string> names;
    for (uint64_t i = 0; i < style_.names; ++i) {
      const std::string each = absl::StrCat(style_.kind, "/", i);
      if (each == name || prng().Chance(2, 3)) names.push_back(each);
    }
    return WishSeveral(std::move(names), session_->lease(), std::move(value), only_try);
  }

  std::string NextValue() { return absl::StrCat("p", process_->identity(), ".", ++proclaimed_); }

  void OnAnswer(absl::StatusOr<Contender::Outcome> outcome) {
    if (dead_) return;
    Note([this](ClaimTrace& trace) { trace.answered = now(); });
    if (!outcome.ok() || !outcome->owns) {
      // Lost with the session: then the lease takes along what is there.
      if (outcome.ok() || !absl::IsAborted(outcome.status())) {
        Note([this](ClaimTrace& trace) { trace.over = now(); });
      }
      return Rest();
    }
    Note([this](ClaimTrace& trace) {
      trace.granted = true;
      trace.token = contender_->token();
    });
    Hold();
    if (finishing_) return Release();
    const bool downgrades = trace().kind == LockKind::kShared && Exclusive() && prng().Chance(1, 3);
    Later(style_.held_max, [this, hold = holds_, downgrades] {
      if (!holding_ || hold != holds_) return;
      if (downgrades) return Downgrade();
      Release();
    });
  }

  void Hold() {
    holding_ = true;
    ++holds_;
    if (Exclusive()) WriteFenced(holds_);
  }

  // A writer becomes a reader: his handle is that of a writer no more, and after the answer that of
  // a reader.
  void Downgrade() {
    Invalidate();
    ClaimTrace reader = trace();
    reader.wanted = 1;
    reader.downgraded = true;
    reader.asked = now();
    reader.answered = reader.invalid = kNever;
    reader.granted = false;
    claim_ = world_.history->claims.size();
    world_.history->claims.push_back(std::move(reader));
    contender_->Update(contender_->value(), process_->engine().now() + kCallTimeout,
                       [this, hold = ++holds_](const absl::Status& downgraded) {
                         if (dead_ || hold != holds_) return;
                         Note([this](ClaimTrace& trace) { trace.answered = now(); });
                         if (!downgraded.ok()) return Release();
                         Note([](ClaimTrace& trace) { trace.granted = true; });
                         Hold();
                         if (finishing_) return Release();
                         Later(style_.held_max, [this, held = holds_] {
                           if (holding_ && held == holds_) Release();
                         });
                       });
  }

  // As the holder of a handle sees it: by the clock, and by what he was told.
  void Invalidate() {
    if (!std::exchange(holding_, false)) return;
    const Instant invalid = std::min(now(), process_->ToWorld(deadline_));
    Note([invalid](ClaimTrace& trace) { trace.invalid = invalid; });
  }

  void OnLost() {
    if (dead_) return;
    Invalidate();
    Rest();
  }

  void Release() {
    Invalidate();
    contender_->Release(
        process_->engine().now() + seconds(10),
        [this, begin = claim_, end = claim_ + names_, hold = holds_](const absl::Status& left) {
          if (dead_) return;
          for (size_t i = begin; left.ok() && i < end; ++i) world_.history->claims[i].over = now();
          if (hold == holds_) Rest();
        });
  }

  void Rest() {
    ++holds_;
    contender_ = nullptr;
    if (finishing_) return CloseSession();
    Later(seconds(1), [this] { Ask(); });
  }

  // A holder writes, and believes in its lock; the store looks after the rest.
  void WriteFenced(uint64_t hold) {
    if (!holding_ || hold != holds_) return;
    Engine& engine = process_->engine();
    if (style_.proclaims) {
      contender_->Update(NextValue(), engine.now() + kCallTimeout, [](const absl::Status&) {});
    }
    TxnRequest write;
    Note([&write](const ClaimTrace& trace) {
      write.conditions.push_back(CreateRevision(trace.key) == trace.token);
      write.success.push_back(Put(absl::StrCat("fenced/", trace.name), absl::StrCat(trace.token)));
    });
    calls::Txn(engine, write, engine.now() + kCallTimeout, [](const absl::StatusOr<TxnResult>&) {});
    process_->RunAfter(kFencedWritesEvery, [this, hold](Engine&) { WriteFenced(hold); });
  }

  const WorkloadWorld world_;
  Process* const process_;
  const Style style_;
  bool finishing_ = false;
  bool dead_ = false;  // the engine's shutdown still calls back
  bool opening_ = false;
  std::shared_ptr<SessionCore> session_;
  Instant deadline_{};  // by the process's own clock
  std::shared_ptr<Contender> contender_;
  size_t claim_ = 0;  // the first one of
  size_t names_ = 0;
  bool holding_ = false;
  uint64_t holds_ = 0;
  uint64_t proclaimed_ = 0;
};

}  // namespace

std::unique_ptr<Workload> MakeLocker(const WorkloadWorld& world, Process* process, Locking what) {
  Style style{.kind = "lock", .names = 2, .held_max = milliseconds(1500)};
  switch (what) {
    case Locking::kMutex:
      break;
    case Locking::kMultiLock:
      style.names = 3;
      style.several = true;
      break;
    case Locking::kRWMutex:
      style.kind = "rw";
      style.names = 1;
      style.lock = LockKind::kShared;
      break;
    case Locking::kSemaphore:
      style.kind = "permits";
      style.names = 1;
      style.lock = LockKind::kPermits;
      break;
  }
  return std::make_unique<Claimant>(world, process, std::move(style));
}

std::unique_ptr<Workload> MakeCandidate(const WorkloadWorld& world, Process* process) {
  return std::make_unique<Claimant>(
      world, process, Style{.kind = "election", .held_max = seconds(3), .proclaims = true});
}

}  // namespace conclave::sim
