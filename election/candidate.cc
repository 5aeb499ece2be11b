#include "conclave/election/candidate.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/patience.h"
#include "conclave/client/waiting_thread.h"
#include "conclave/election/candidate_note.h"
#include "conclave/election/election.h"
#include "conclave/election/succession.h"

namespace conclave {
namespace {

constexpr Duration kRetryBase = std::chrono::milliseconds(100);
constexpr Duration kRetryCap = std::chrono::seconds(5);
constexpr Duration kLookTimeout = std::chrono::seconds(2);
constexpr absl::Duration kGoingTimeout = absl::Seconds(1);  // to resign, when the candidate goes
constexpr absl::Duration kMarkTtlMin = absl::Seconds(2);
constexpr size_t kHostNameMax = 256;

uint64_t Chance() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

std::string UniqueId() {
  char host[kHostNameMax] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return absl::StrCat(absl::string_view(host).substr(0, kHostNameMax / 2), "-", getpid(), "-",
                      absl::Hex(Chance() & 0xffffffff, absl::kZeroPad8));
}

absl::Status Check(std::string_view election, const CandidateOptions& options,
                   const Candidate::Term& term) {
  if (election.empty()) return absl::InvalidArgumentError("an election's name is not empty");
  if (!term) return absl::InvalidArgumentError("a candidate wants a function for its terms");
  if (options.id.size() > kCandidateIdMax) {
    return absl::InvalidArgumentError("a candidate's id has 1 to 256 bytes");
  }
  if (options.ttl < absl::Seconds(1)) {
    return absl::InvalidArgumentError("a candidate's TTL is at least one second");
  }
  if (options.cooldown < absl::ZeroDuration() || options.settle < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("cooldown and settle are not negative");
  }
  return absl::OkStatus();
}

}  // namespace

struct Candidate::Rep {
  Rep(const Client& client_of, std::string_view name, const CandidateOptions& given, Term function)
      : client(client_of),
        election(client_of, name),
        name(name),
        options(given),
        term(std::move(function)) {}

  enum class End {
    kReturned,    // the function, with OK
    kFailed,      // the function, with an error
    kMadeWay,     // for another candidate, which is before us now
    kNotElected,  // the campaign failed
  };

  void Run(const std::stop_token& stop);
  End Lead(const Session& session, const std::stop_token& stop);
  End Serve(Leadership& leadership, const std::stop_token& stop);
  void Warn(std::string_view what, const absl::Status& status) const;
  bool Leads() const;  // with mutex held
  absl::Status AwaitLeader(const std::string& key, Patience& patience);

  const Client client;
  const Election election;
  const std::string name;
  const CandidateOptions options;
  const Term term;
  mutable std::mutex mutex;
  mutable std::condition_variable_any bell;
  Leadership* leadership = nullptr;  // guarded by mutex; while it lasts
  std::thread::id runner;            // guarded by mutex; while the function runs
  int64_t terms = 0;                 // guarded by mutex; begun so far
  bool gone = false;                 // guarded by mutex
};

// ---- The handle
// ------------------------------------------------------------------------------------

absl::StatusOr<Candidate> Candidate::Start(const Client& client, std::string_view election,
                                           const CandidateOptions& options, Term term) {
  if (absl::Status valid = Check(election, options, term); !valid.ok()) return valid;
  CandidateOptions complete = options;
  if (complete.id.empty()) complete.id = UniqueId();
  if (complete.proposal.empty()) complete.proposal = complete.id;
  auto rep = std::make_shared<Rep>(client, election, complete, std::move(term));
  return Candidate(rep, std::jthread([rep](const std::stop_token& stop) { rep->Run(stop); }));
}

Candidate::Candidate(std::shared_ptr<Rep> rep, std::jthread thread)
    : rep_(std::move(rep)), thread_(std::move(thread)) {}
Candidate::Candidate(Candidate&&) noexcept = default;
Candidate& Candidate::operator=(Candidate&& other) noexcept {
  std::swap(rep_, other.rep_);
  std::swap(thread_, other.thread_);
  return *this;
}
Candidate::~Candidate() { Stop(); }

void Candidate::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  if (thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();  // it ends when the function returns; it owns all that it uses
  } else {
    thread_.join();
  }
}

const std::string& Candidate::id() const { return rep_->options.id; }

bool Candidate::IsLeader() const {
  std::lock_guard lock(rep_->mutex);
  return rep_->Leads();
}

std::optional<int64_t> Candidate::term() const {
  std::lock_guard lock(rep_->mutex);
  if (!rep_->Leads()) return std::nullopt;
  return rep_->leadership->term();
}

absl::Status Candidate::Await(const CallOptions& call) const {
  const std::shared_ptr<ClientImpl>& impl = rep_->client.impl();
  const WaitingThread waiting(impl, impl->PatientDeadlineOf(call), [this] {
    { std::lock_guard lock(rep_->mutex); }  // it either has not looked yet, or is waiting
    rep_->bell.notify_all();
  });
  std::unique_lock lock(rep_->mutex);
  // A term that has begun and ended meanwhile counts as well.
  const auto led = [this, before = rep_->terms] { return rep_->Leads() || rep_->terms != before; };
  rep_->bell.wait(lock, call.stop, [&] { return rep_->gone || led() || waiting.expired(); });
  if (led()) return absl::OkStatus();
  if (call.stop.stop_requested()) return absl::CancelledError("stop was requested");
  if (rep_->gone) return absl::CancelledError("the candidate is gone");
  return absl::DeadlineExceededError("this candidate does not lead yet");
}

absl::StatusOr<std::vector<LeaderInfo>> Candidate::Participants(const CallOptions& call) const {
  return rep_->election.Participants(call);
}

absl::Status Candidate::TransferTo(std::string_view id, const CallOptions& call) {
  if (id.empty()) return absl::InvalidArgumentError("to whom? The id is empty");
  std::optional<Compare> still_leader;
  bool within = false;
  {
    std::lock_guard lock(rep_->mutex);
    if (!rep_->Leads()) return absl::FailedPreconditionError("this candidate does not lead");
    still_leader = rep_->leadership->StillLeader();
    within = rep_->runner == std::this_thread::get_id();
  }
  if (id == rep_->options.id) return absl::OkStatus();
  const std::shared_ptr<ClientImpl>& impl = rep_->client.impl();
  const CallOptions bounded = Patience::Bounded(*impl, call);
  const absl::Duration time =
      std::min(bounded.timeout.value_or(absl::InfiniteDuration()), bounded.deadline - absl::Now());
  Patience patience(impl, nullptr, bounded);
  absl::StatusOr<std::vector<LeaderInfo>> all = rep_->election.Participants(patience.ForCall());
  if (!all.ok()) return all.status();
  auto heir = std::find_if(all->begin(), all->end(),
                           [id](const LeaderInfo& each) { return each.id == id; });
  if (heir == all->end()) {
    return absl::NotFoundError(
        absl::StrCat("no candidate \"", absl::string_view(id.data(), id.size()), "\""));
  }
  // The mark outlives us if need be, but not the transfer by much.
  absl::StatusOr<GrantResult> lease =
      rep_->client.Grant(std::max(time, kMarkTtlMin), {}, patience.ForCall());
  if (!lease.ok()) return lease.status();
  absl::StatusOr<TxnResult> marked =
      rep_->client.Txn()
          .If(*still_leader)
          .Then(Put(NextKey(rep_->name), std::string(id), {.lease = lease->id}))
          .Commit(patience.ForCall());
  if (marked.ok() && marked->succeeded && within) return absl::OkStatus();
  absl::Status status = marked.status();
  if (marked.ok() && !marked->succeeded) status = absl::AbortedError("we do not lead any more");
  if (status.ok()) status = rep_->AwaitLeader(heir->key, patience);
  (void)rep_->client.Revoke(lease->id, {.timeout = kGoingTimeout});
  return status;
}

absl::Status Candidate::Rep::AwaitLeader(const std::string& key, Patience& patience) {
  const KeyRange candidates = Prefix(CandidatePrefix(name));
  const TxnRequest look{.success = {Range(candidates, {.limit = 1,
                                                       .sort_order = SortOrder::kAscend,
                                                       .sort_target = SortTarget::kCreateRevision}),
                                    conclave::Get(key)}};
  for (;;) {
    absl::StatusOr<TxnResult> looked = patience.Read(look);
    if (!looked.ok()) return looked.status();
    const KeyValue* leader = looked->get(0);
    if (leader != nullptr && leader->key == key) return absl::OkStatus();
    if (looked->get(1) == nullptr) {
      return absl::NotFoundError("the candidate has gone meanwhile");
    }
    absl::Status changed = patience.WaitForChange(
        {.range = candidates, .after_revision = looked->revision, .no_puts = true});
    if (!changed.ok()) return changed;
  }
}

// ---- Its thread
// ------------------------------------------------------------------------------------

bool Candidate::Rep::Leads() const { return leadership != nullptr && leadership->leading(); }

void Candidate::Rep::Warn(std::string_view what, const absl::Status& status) const {
  client.impl()->Log(
      LogLevel::kWarning,
      absl::StrCat("election ", name, ", candidate ", options.id, ": ",
                   absl::string_view(what.data(), what.size()), ": ", status.ToString()));
}

void Candidate::Rep::Run(const std::stop_token& stop) {
  Session session;
  Patience pace(client.impl(), nullptr, {.stop = stop});
  while (!stop.stop_requested()) {
    if (!session.alive()) {
      absl::StatusOr<Session> opened = client.OpenSession({.ttl = options.ttl}, {.stop = stop});
      if (!opened.ok()) {
        if (!stop.stop_requested()) Warn("no session", opened.status());
        (void)pace.Pause(kRetryBase, kRetryCap);
        continue;
      }
      session = *std::move(opened);  // the old one closes here
    }
    switch (Lead(session, stop)) {
      case End::kReturned:
        pace.Succeeded();
        (void)pace.Rest(absl::ToChronoNanoseconds(options.cooldown));
        break;
      case End::kMadeWay:
        pace.Succeeded();
        break;
      case End::kFailed:
        (void)pace.Rest(absl::ToChronoNanoseconds(options.cooldown));
        (void)pace.Pause(kRetryBase, kRetryCap);
        break;
      case End::kNotElected:
        (void)pace.Pause(kRetryBase, kRetryCap);
        break;
    }
  }
  std::lock_guard lock(mutex);
  gone = true;
  bell.notify_all();
}

// From candidate to leader to the end of it.
Candidate::Rep::End Candidate::Rep::Lead(const Session& session, const std::stop_token& stop) {
  absl::StatusOr<Leadership> elected =
      Election(client, name)
          .CampaignAs(
              session,
              {.id = options.id, .proposal = options.proposal, .priority = options.priority},
              {.stop = stop});
  if (!elected.ok()) {
    if (!stop.stop_requested()) Warn("not elected", elected.status());
    return End::kNotElected;
  }
  const End end = Serve(*elected, stop);
  CallOptions resigning;
  if (stop.stop_requested()) resigning.timeout = kGoingTimeout;
  absl::Status resigned = elected->Resign(resigning);  // or it was lost: either way it is over
  if (!resigned.ok() && !absl::IsAborted(resigned)) Warn("resigning", resigned);
  return end;
}

Candidate::Rep::End Candidate::Rep::Serve(Leadership& elected, const std::stop_token& stop) {
  ClientImpl& impl = *client.impl();
  std::stop_source ended;
  auto made_way = std::make_shared<std::atomic<bool>>(false);
  Succession::Self self{.key = elected.StillLeader().range.key,
                        .note = {.id = options.id, .priority = options.priority}};
  if (options.settle < absl::Hours(24 * 365)) {
    self.settle = absl::ToChronoNanoseconds(options.settle);
  }
  using Heir = std::optional<Succession::Heir>;
  auto succession = std::make_shared<std::shared_ptr<Succession>>();  // on the loop's thread
  absl::StatusOr<Heir> heir = WaitForCall<Heir>(
      impl, {},
      [this, succession, self, made_way, ended, &impl](
          Engine& engine, absl::AnyInvocable<void(absl::StatusOr<Heir>)> done) -> CallId {
        *succession = std::make_shared<Succession>(engine, name, self);
        (*succession)
            ->Start(
                engine.now() + kLookTimeout,
                [done = std::move(done)](Heir found) mutable { done(std::move(found)); },
                [made_way, ended, &impl](const Succession::Heir&) {
                  *made_way = true;
                  impl.signals().Run([ended]() mutable { ended.request_stop(); });
                });
        return 0;
      });
  if (heir.ok() && heir->has_value()) return End::kMadeWay;
  absl::Status status;
  {
    std::stop_callback on_stop(stop, [&ended] { ended.request_stop(); });
    std::stop_callback on_lost(elected.stop_token(), [&ended] { ended.request_stop(); });
    {
      std::lock_guard lock(mutex);
      leadership = &elected;
      ++terms;
      runner = std::this_thread::get_id();
      bell.notify_all();
    }
    status = term(elected, ended.get_token());
    std::lock_guard lock(mutex);
    leadership = nullptr;
    runner = std::thread::id();
  }
  impl.loop().Post([succession](Engine&) { (*succession)->Stop(); });
  if (*made_way) return End::kMadeWay;
  if (status.ok()) return End::kReturned;
  Warn("its term", status);
  return End::kFailed;
}

}  // namespace conclave
