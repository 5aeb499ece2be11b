#include "conclave/tests/sim/recipes/process.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"
#include "conclave/server/node/method_name.h"

namespace conclave::sim {
namespace {

namespace pb = etcdserverpb;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kKeepAlive = seconds(13);
constexpr int kMethodsEnd = 128;
constexpr int64_t kMillion = 1'000'000;

WireStatus Unavailable(const char* why, bool sent) {
  return {.code = static_cast<int>(absl::StatusCode::kUnavailable), .message = why, .sent = sent};
}

std::string_view NameOf(std::string_view method) { return method.substr(method.rfind('/') + 1); }

node::Method MethodOf(std::string_view name) {
  for (int i = 1; i < kMethodsEnd; ++i) {
    const auto method = static_cast<node::Method>(i);
    if (node::MethodName(method) == name) return method;
  }
  CONCLAVE_CHECK(false, "no method ", name);
}

}  // namespace

Process::Process(Simulation* simulation, RecipeHistory* history, int number, int64_t drift_ppm)
    : simulation_(simulation),
      history_(history),
      number_(number),
      drift_ppm_(drift_ppm),
      local_zero_(Instant(std::chrono::hours(1 + number))),
      links_(simulation->member_count()) {}

Process::~Process() {
  // The world is going: nobody hears of it any more.
  ++life_;
  streams_.clear();
  calls_.clear();
  if (alive()) engine_->Shutdown();
}

// ---- The process -------------------------------------------------------------------------------

Instant Process::ToLocal(Instant world) const {
  const Duration elapsed = world.time_since_epoch();
  return local_zero_ + elapsed + elapsed * drift_ppm_ / kMillion;
}

Instant Process::ToWorld(Instant local) const {
  if (local == kNever) return kNever;
  Instant world{(local - local_zero_) / (kMillion + drift_ppm_) * kMillion};
  while (ToLocal(world) < local) {
    world += std::max(Duration(1), (local - ToLocal(world)) * 9 / 10);
  }
  return world;
}

void Process::Boot() {
  CONCLAVE_CHECK(!alive());
  ++life_;
  paused_ = false;
  planned_ = kNever;
  at_rest_ = nullptr;
  flying_.reset();
  failing_.clear();
  unheard_.clear();
  EngineOptions options{.seed = simulation_->prng().Next()};
  for (size_t i = 0; i < links_.size(); ++i) options.endpoints.push_back(absl::StrCat("m", i));
  engine_ = std::make_unique<Engine>(std::move(options), static_cast<Transport&>(*this));
  engine_->Advance(LocalNow());
}

void Process::Crash() {
  std::map<WireId, Stream> streams = std::exchange(streams_, {});
  for (const auto& [id, stream] : streams) {
    if (stream.simulated != 0) simulation_->CloseStream(stream.simulated);
  }
  calls_.clear();
  inbox_.clear();
  for (Link& link : links_) link.held.clear();
  ++life_;  // callbacks of the old one are void from here on
  std::unique_ptr<Engine> engine = std::move(engine_);
  engine->Shutdown();
  engine.reset();
  kept_.clear();
}

void Process::Resume() {
  if (!paused_) return;
  paused_ = false;
  if (!alive()) return;
  std::deque<std::function<void(Engine&)>> inbox = std::exchange(inbox_, {});
  Run([](Engine&) {});
  const int life = life_;
  for (auto& work : inbox) {
    if (life == life_) Run(std::move(work));
  }
}

void Process::Run(std::function<void(Engine&)> work) {
  if (!alive()) return;
  if (paused_) {
    inbox_.push_back(std::move(work));
    return;
  }
  engine_->Advance(LocalNow());
  work(*engine_);
  engine_->Advance(LocalNow());
  if (flying_.has_value()) return;
  PlanWake();
  if (at_rest_) at_rest_();
}

void Process::RunOut(const std::function<bool()>& ended) {
  paused_ = false;
  flying_ = LocalNow();
  calls_.clear();
  for (const WireId id : unheard_) {
    failing_.emplace_back(id, Unavailable("connection reset", true));
  }
  for (const auto& [id, stream] : std::exchange(streams_, {})) {
    if (stream.simulated != 0) simulation_->CloseStream(stream.simulated);
  }
  while (!ended()) {
    if (failing_.empty()) {
      CONCLAVE_CHECK(engine_->NextDeadline() != kNever, "it waits for ever");
      flying_ = std::max(*flying_, engine_->NextDeadline());
    }
    Run([this, failing = std::exchange(failing_, {})](Engine& engine) {
      for (const auto& [id, status] : failing) {
        unheard_.erase(id);
        engine.OnUnaryDone(id, status, "");
      }
    });
  }
}

void Process::RunAfter(Duration delay, std::function<void(Engine&)> work) {
  simulation_->schedule().After(delay, [this, life = life_, work = std::move(work)] {
    if (life == life_) Run(work);
  });
}

void Process::PlanWake() {
  const Instant at = std::max(ToWorld(engine_->NextDeadline()), simulation_->schedule().now());
  if (at >= planned_ || at == kNever) return;
  planned_ = at;
  simulation_->schedule().At(at, [this, at, life = life_] {
    if (life != life_ || planned_ != at) return;
    planned_ = kNever;
    Run([](Engine&) {});
  });
}

// ---- Its connections ---------------------------------------------------------------------------

void Process::Through(size_t member, std::function<void()> transfer) {
  Link& link = links_[member];
  if (!link.cut) return transfer();
  if (!link.holds) return;
  link.held.push_back([this, life = life_, transfer = std::move(transfer)] {
    if (life == life_) transfer();
  });
}

void Process::Arrive(size_t member, std::function<void()> transfer) {
  Link& link = links_[member];
  const Instant now = simulation_->schedule().now();
  link.last_arrival = std::max(link.last_arrival, now + link.delay);
  if (link.last_arrival <= now) return Through(member, std::move(transfer));
  simulation_->schedule().At(link.last_arrival,
                             [this, member, life = life_, transfer = std::move(transfer)] {
                               if (life == life_) Through(member, transfer);
                             });
}

void Process::Cut(size_t member) {
  Link& link = links_[member];
  if (link.cut) return;
  link.cut = true;
  link.holds = simulation_->prng().Chance(1, 2);
  ++link.cuts;
  simulation_->schedule().After(kKeepAlive, [this, member, cuts = link.cuts] {
    if (!links_[member].cut || links_[member].cuts != cuts) return;
    links_[member].holds = false;
    Reset(member);
  });
}

void Process::Heal(size_t member) {
  Link& link = links_[member];
  if (!link.cut) return;
  link.cut = false;
  if (!link.holds) return Reset(member);
  std::deque<std::function<void()>> held = std::exchange(link.held, {});
  for (auto& transfer : held) transfer();
}

void Process::HealAll() {
  for (size_t i = 0; i < links_.size(); ++i) {
    Slow(i, {});
    Heal(i);
  }
}

bool Process::cut_off() const {
  const auto cut = std::count_if(links_.begin(), links_.end(), [](const Link& l) { return l.cut; });
  return static_cast<size_t>(cut) * 2 >= links_.size();
}

void Process::Reset(size_t member) {
  links_[member].held.clear();
  std::vector<WireId> calls;
  for (const auto& [id, call] : calls_) {
    if (call.member == member) calls.push_back(id);
  }
  for (WireId id : calls) EndCall(id, Unavailable("connection reset", true), "");
  std::vector<WireId> streams;
  for (const auto& [id, stream] : streams_) {
    if (stream.member == member) streams.push_back(id);
  }
  for (WireId id : streams) EndStream(id, "connection reset");
}

// ---- Calls -------------------------------------------------------------------------------------

void Process::StartUnary(const Unary& unary) {
  const WireId id = unary.id;
  unheard_.insert(id);
  if (flying_.has_value()) {
    failing_.emplace_back(id, Unavailable("cannot connect", false));
    return;
  }
  Call& call = calls_[id];
  call.member = unary.endpoint;
  call.method = NameOf(unary.method);
  call.request = unary.request;
  call.sent = simulation_->schedule().now();
  const size_t member = call.member;
  if (!simulation_->up(member) && !links_[member].cut) {
    RunAfter(milliseconds(1),
             [this, id](Engine&) { EndCall(id, Unavailable("cannot connect", false), ""); });
    return;
  }
  NoteRequest(call);
  if (unary.timeout < kNever - simulation_->schedule().now()) {
    simulation_->schedule().After(unary.timeout, [this, id, life = life_] {
      if (life != life_) return;
      EndCall(id,
              {.code = static_cast<int>(absl::StatusCode::kDeadlineExceeded),
               .message = "no answer in time"},
              "");
    });
  }
  Through(member, [this, id] { SendCall(id); });
}

void Process::SendCall(WireId id) {
  const auto found = calls_.find(id);
  // What was given up meanwhile was on its way already, and arrives all the same.
  if (found == calls_.end()) return;
  const Call& call = found->second;
  simulation_->Call(call.member, MethodOf(call.method), call.request,
                    [this, id, member = call.member, life = life_](const node::Reply* reply) {
                      if (life != life_) return;
                      std::shared_ptr<node::Reply> copy;
                      if (reply != nullptr) {
                        copy = std::make_shared<node::Reply>();
                        copy->body = reply->body;
                        if (reply->error != nullptr) {
                          copy->error = std::make_unique<node::CallError>(*reply->error);
                        }
                      }
                      Arrive(member, [this, id, copy] { OnAnswer(id, copy.get()); });
                    });
}

void Process::OnAnswer(WireId id, const node::Reply* reply) {
  if (!calls_.contains(id)) return;
  if (reply == nullptr) return EndCall(id, Unavailable("connection reset", true), "");
  if (reply->error != nullptr) {
    return EndCall(id, {.code = reply->error->code, .message = reply->error->message}, "");
  }
  const std::string body(reply->body.view());
  NoteAnswer(calls_.at(id), body);
  EndCall(id, {}, body);
}

void Process::EndCall(WireId id, const WireStatus& status, const std::string& body) {
  if (calls_.erase(id) == 0) return;
  // Never from within the engine's own call.
  simulation_->schedule().After(Duration(0), [this, id, status, body, life = life_] {
    if (life != life_) return;
    Run([this, id, status, body](Engine& engine) {
      unheard_.erase(id);
      engine.OnUnaryDone(id, status, body);
    });
  });
}

void Process::CancelUnary(WireId id) {
  const WireStatus cancelled{.code = static_cast<int>(absl::StatusCode::kCancelled),
                             .message = "cancelled"};
  if (flying_.has_value()) {
    for (auto& [call, status] : failing_) {
      if (call == id) status = cancelled;
    }
    return;
  }
  EndCall(id, cancelled, "");
}

// ---- Streams -----------------------------------------------------------------------------------

void Process::OpenStream(WireId id, size_t member, std::string_view method) {
  if (flying_.has_value()) return;
  Stream& stream = streams_[id];
  stream.member = member;
  stream.renews = NameOf(method) != "Watch";
  if (!simulation_->up(member) && !links_[member].cut) {
    RunAfter(milliseconds(1), [this, id](Engine&) { EndStream(id, "cannot connect"); });
    return;
  }
  Through(member, [this, id] {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    const size_t at = found->second.member;
    const auto kind =
        found->second.renews ? node::StreamKind::kLeaseKeepAlive : node::StreamKind::kWatch;
    Simulation::StreamHandler handler;
    handler.message = [this, id, at, life = life_](const std::string& message) {
      if (life != life_) return;
      Arrive(at, [this, id, message] {
        if (!streams_.contains(id)) return;
        NoteRenewed(id, message);
        Run([id, message](Engine& engine) { engine.OnStreamMessage(id, message); });
      });
    };
    handler.end = [this, id, at, life = life_] {
      if (life != life_) return;
      Arrive(at, [this, id] {
        const auto ended = streams_.find(id);
        if (ended == streams_.end()) return;
        ended->second.simulated = 0;
        EndStream(id, "ended by the server");
      });
    };
    found->second.simulated = simulation_->OpenStream(at, kind, std::move(handler), Duration{});
  });
}

void Process::SendOnStream(WireId id, std::string_view message) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  NoteRenewal(found->second, message);
  Through(found->second.member, [this, id, text = std::string(message)] {
    const auto open = streams_.find(id);
    if (open != streams_.end() && open->second.simulated != 0) {
      simulation_->Say(open->second.simulated, text);
    }
  });
}

void Process::CloseStream(WireId id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  if (found->second.simulated != 0) simulation_->CloseStream(found->second.simulated);
  streams_.erase(found);
}

void Process::EndStream(WireId id, const char* why) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  if (found->second.simulated != 0) simulation_->CloseStream(found->second.simulated);
  streams_.erase(found);
  const WireStatus status = Unavailable(why, true);
  simulation_->schedule().After(Duration(0), [this, id, status, life = life_] {
    if (life != life_) return;
    Run([id, status](Engine& engine) { engine.OnStreamClosed(id, status); });
  });
}

// ---- What is seen on the wire ------------------------------------------------------------------

void Process::NoteRequest(const Call& call) {
  if (call.method != "LeaseRevoke") return;
  pb::LeaseRevokeRequest request;
  CONCLAVE_CHECK(request.ParseFromString(call.request));
  const auto lease = history_->leases.find(request.id());
  if (lease == history_->leases.end()) return;
  lease->second.revoked = std::min(lease->second.revoked, call.sent);
}

void Process::NoteAnswer(const Call& call, const std::string& body) {
  if (call.method != "LeaseGrant") return;
  pb::LeaseGrantResponse response;
  CONCLAVE_CHECK(response.ParseFromString(body));
  history_->leases[response.id()] = {.id = response.id(),
                                     .ttl = seconds(response.ttl()),
                                     .granted = call.sent,
                                     .last_attempt = call.sent};
}

void Process::NoteRenewal(Stream& stream, std::string_view message) {
  if (!stream.renews) return;
  pb::LeaseKeepAliveRequest request;
  CONCLAVE_CHECK(request.ParseFromArray(message.data(), static_cast<int>(message.size())));
  const Instant now = simulation_->schedule().now();
  stream.unanswered[request.id()].push_back(now);
  const auto lease = history_->leases.find(request.id());
  if (lease != history_->leases.end()) lease->second.last_attempt = now;
}

void Process::NoteRenewed(WireId id, const std::string& message) {
  Stream& stream = streams_.at(id);
  if (!stream.renews) return;
  pb::LeaseKeepAliveResponse response;
  CONCLAVE_CHECK(response.ParseFromString(message));
  std::deque<Instant>& unanswered = stream.unanswered[response.id()];
  CONCLAVE_CHECK(!unanswered.empty(), "an answer to no renewal");
  const Instant sent = unanswered.front();
  unanswered.pop_front();
  const auto lease = history_->leases.find(response.id());
  if (lease == history_->leases.end()) return;
  const Instant now = simulation_->schedule().now();
  if (response.ttl() > 0) {
    lease->second.renewals.push_back({sent, now});
  } else {
    lease->second.told_gone = std::min(lease->second.told_gone, now);
  }
}

}  // namespace conclave::sim
