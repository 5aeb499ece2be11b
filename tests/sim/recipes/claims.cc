// The workloads of locks and elections.
#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/contender.h"
#include "conclave/client/core/session_core.h"
#include "conclave/tests/sim/recipes/workloads.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kCallTimeout = seconds(5);
constexpr Duration kFencedWritesEvery = milliseconds(150);

struct Style {
  std::string kind;  // "lock", "election"
  uint64_t names = 1;
  Duration held_max{};
  bool proclaims = false;
};

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
  ClaimTrace& trace() { return world_.history->claims[claim_]; }

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
    SessionCore::Open(
        engine, request, engine.now() + kCallTimeout,
        [this](SessionHealth health, Instant deadline) {
          if (dead_) return;
          deadline_ = deadline;
          if (health == SessionHealth::kLost) OnSessionLost();
        },
        [this](absl::StatusOr<std::shared_ptr<SessionCore>> session) {
          if (dead_) return;
          opening_ = false;
          if (!session.ok()) return Later(seconds(1), [this] { OpenSession(); });
          session_ = *std::move(session);
          deadline_ = session_->deadline();
          PutMarks();
        });
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
    const std::string name = absl::StrCat(style_.kind, "/", prng().Below(style_.names));
    const bool only_try = !style_.proclaims && prng().Chance(1, 5);
    contender_ = std::make_shared<Contender>(
        session_,
        Contender::Request{.name = name,
                           .value = absl::StrCat("p", process_->identity(), ".", ++proclaimed_),
                           .only_try = only_try});
    claim_ = world_.history->claims.size();
    world_.history->claims.push_back({.process = process_->identity(),
                                      .name = name,
                                      .lease = session_->lease(),
                                      .asked = now()});
    contender_->Start(
        [this](absl::StatusOr<Contender::Outcome> outcome) { OnAnswer(std::move(outcome)); },
        [this](const absl::Status&) { OnLost(); });
    trace().key = contender_->key();
    if (prng().Chance(1, 3)) {
      const std::weak_ptr<Contender> asked = contender_;
      Later(seconds(3), [asked] {
        if (auto still = asked.lock()) still->Cancel(absl::DeadlineExceededError("not in time"));
      });
    }
  }

  void OnAnswer(absl::StatusOr<Contender::Outcome> outcome) {
    if (dead_) return;
    trace().answered = now();
    if (!outcome.ok() || !outcome->owns) {
      // Lost with the session: then the lease takes along what is there.
      if (outcome.ok() || !absl::IsAborted(outcome.status())) trace().over = now();
      return Rest();
    }
    trace().granted = true;
    trace().token = contender_->token();
    holding_ = true;
    const uint64_t hold = ++holds_;
    WriteFenced(hold);
    if (finishing_) return Release();
    Later(style_.held_max, [this, hold] {
      if (holding_ && hold == holds_) Release();
    });
  }

  // As the holder of a handle sees it: by the clock, and by what he was told.
  void Invalidate() {
    if (!std::exchange(holding_, false)) return;
    trace().invalid = std::min(now(), process_->ToWorld(deadline_));
  }

  void OnLost() {
    if (dead_) return;
    Invalidate();
    Rest();
  }

  void Release() {
    Invalidate();
    const size_t claim = claim_;
    const uint64_t hold = holds_;
    contender_->Release(process_->engine().now() + seconds(10),
                        [this, claim, hold](const absl::Status& left) {
                          if (dead_) return;
                          if (left.ok()) world_.history->claims[claim].over = now();
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
      contender_->Update(absl::StrCat("p", process_->identity(), ".", ++proclaimed_),
                         engine.now() + kCallTimeout, [](const absl::Status&) {});
    }
    const TxnRequest write{
        .conditions = {CreateRevision(trace().key) == trace().token},
        .success = {Put(absl::StrCat("fenced/", trace().name), absl::StrCat(trace().token))}};
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
  size_t claim_ = 0;
  bool holding_ = false;
  uint64_t holds_ = 0;
  uint64_t proclaimed_ = 0;
};

}  // namespace

std::unique_ptr<Workload> MakeLocker(const WorkloadWorld& world, Process* process) {
  return std::make_unique<Claimant>(
      world, process, Style{.kind = "lock", .names = 2, .held_max = milliseconds(1500)});
}

std::unique_ptr<Workload> MakeCandidate(const WorkloadWorld& world, Process* process) {
  return std::make_unique<Claimant>(
      world, process, Style{.kind = "election", .held_max = seconds(3), .proclaims = true});
}

}  // namespace conclave::sim
