#include "conclave/client/client.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/endpoint_name.h"
#include "conclave/client/core/endpoint_sync.h"
#include "conclave/client/core/fence.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/client/dns/srv_lookup.h"

namespace conclave {
namespace {

constexpr size_t kNameSpaceMax = 1024;
constexpr absl::Duration kMinTtl = absl::Seconds(1);
constexpr absl::Duration kMaxTtl = absl::Seconds(kTtlSecondsMax);
constexpr absl::Duration kCloseTimeout = absl::Seconds(1);

// An asynchronous call of a user's: `done` moves to the callback thread, the stop token is heard.
template <typename Result>
void StartAsync(
    const std::shared_ptr<ClientImpl>& impl, CallOptions call,
    absl::AnyInvocable<CallId(Engine&, Instant, absl::AnyInvocable<void(absl::StatusOr<Result>)>)>
        start,
    absl::AnyInvocable<void(absl::StatusOr<Result>)> done) {
  struct Pending {
    CallId id = 0;  // on the loop's thread
    std::optional<std::stop_callback<absl::AnyInvocable<void()>>> on_stop;
  };
  const Instant deadline = impl->DeadlineOf(call);
  auto pending = std::make_shared<Pending>();
  impl->loop().Post([impl = impl.get(), pending, deadline, start = std::move(start),
                     done = std::move(done)](Engine& engine) mutable {
    pending->id =
        start(engine, deadline,
              [impl, pending, done = std::move(done)](absl::StatusOr<Result> result) mutable {
                impl->callbacks().Run(
                    [pending, done = std::move(done), result = std::move(result)]() mutable {
                      pending->on_stop.reset();
                      done(std::move(result));
                    });
              });
  });
  if (!call.stop.stop_possible()) return;
  // Set on the callback thread, where it is also taken away.
  impl->callbacks().Run([weak = std::weak_ptr<ClientImpl>(impl), pending, stop = call.stop] {
    pending->on_stop.emplace(stop, [weak, keep = std::weak_ptr<Pending>(pending)] {
      std::shared_ptr<ClientImpl> client = weak.lock();
      std::shared_ptr<Pending> alive = keep.lock();
      if (client == nullptr || alive == nullptr) return;
      client->loop().Post([alive](Engine& engine) { engine.Cancel(alive->id); });
    });
  });
}

absl::Status CheckTtl(absl::Duration ttl) {
  if (ttl >= kMinTtl && ttl <= kMaxTtl) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a TTL of ", absl::FormatDuration(ttl), ": it is at least 1 s and at most ",
                   kTtlSecondsMax, " s; fractions of a second are rounded up"));
}

absl::Status CheckTls(const TlsOptions& tls) {
  if (tls.cert_file.empty() != tls.key_file.empty()) {
    return absl::InvalidArgumentError("tls: cert_file and key_file are both set, or neither");
  }
  for (const std::string* path : {&tls.ca_file, &tls.cert_file, &tls.key_file}) {
    if (!path->empty() && !std::ifstream(*path)) {
      return absl::InvalidArgumentError(absl::StrCat("tls: cannot read ", *path));
    }
  }
  return absl::OkStatus();
}

absl::Status OnlyStatus(const absl::StatusOr<int64_t>& result) { return result.status(); }

}  // namespace

absl::StatusOr<Client> Client::Connect(ConnectOptions options) {
  if (options.endpoints.empty()) return absl::InvalidArgumentError("no endpoints");
  if (options.endpoints.size() > EndpointSync::kEndpointsMax) {
    return absl::InvalidArgumentError("more than 64 endpoints");
  }
  if (options.retry_budget.per_call < 0 || options.retry_budget.per_second <= 0 ||
      options.retry_budget.burst < 1) {
    return absl::InvalidArgumentError(
        "retry_budget: per_call is at least 0, per_second greater than 0, burst at least 1");
  }
  if (options.request_timeout <= absl::ZeroDuration() ||
      options.attempt_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("timeouts are greater than 0");
  }
  if (options.user.empty() && !options.password.empty()) {
    return absl::InvalidArgumentError("a password without a user");
  }
  if (options.name_space.size() > kNameSpaceMax) {
    return absl::InvalidArgumentError("name_space is longer than 1024 bytes");
  }
  const auto& texts = options.endpoints;
  if (!options.tls.has_value() && std::any_of(texts.begin(), texts.end(), WantsTls)) {
    options.tls.emplace();
  }
  if (options.tls.has_value()) {
    if (absl::Status bad = CheckTls(*options.tls); !bad.ok()) return bad;
  }
  std::vector<std::string> endpoints;
  for (const std::string& text : options.endpoints) {
    if (IsSrvTarget(text)) {
      if (absl::Status bad = ParseSrvTarget(text).status(); !bad.ok()) return bad;
      continue;  // the DNS is asked later
    }
    absl::StatusOr<std::string> endpoint = ParseEndpoint(text, options.tls.has_value());
    if (!endpoint.ok()) return endpoint.status();
    if (std::find(endpoints.begin(), endpoints.end(), *endpoint) == endpoints.end()) {
      endpoints.push_back(*std::move(endpoint));
    }
  }
  return Client(ClientImpl::Make(std::move(options), std::move(endpoints)));
}

std::vector<std::string> Client::endpoints() const { return impl_->endpoints(); }

absl::Status Client::SyncEndpoints(const CallOptions& call) const {
  return WaitForCall<bool>(*impl_, call,
                           [impl = impl_.get(), deadline = impl_->DeadlineOf(call)](
                               Engine&, calls::Done<bool> done) {
                             return impl->endpoint_sync().Sync(
                                 deadline, [done = std::move(done)](const absl::Status& s) mutable {
                                   if (s.ok()) return done(true);
                                   done(s);
                                 });
                           })
      .status();
}

void Client::RunOnCallbackThread(absl::AnyInvocable<void()> work) const {
  impl_->callbacks().Run(std::move(work));
}

// ---- KV
// --------------------------------------------------------------------------------------------

absl::StatusOr<RangeResult> Client::Range(const KeyRange& range, const RangeOptions& options,
                                          const CallOptions& call) const {
  return WaitForCall<RangeResult>(
      *impl_, call,
      [request = RangeRequest{range, options}, deadline = impl_->DeadlineOf(call)](
          Engine& engine, calls::Done<RangeResult> done) {
        return calls::Range(engine, request, deadline, std::move(done));
      });
}

absl::StatusOr<std::optional<KeyValue>> Client::Get(std::string_view key,
                                                    const RangeOptions& options,
                                                    const CallOptions& call) const {
  absl::StatusOr<RangeResult> result = Range(KeyRange(key), options, call);
  if (!result.ok()) return result.status();
  if (result->kvs.empty()) return std::optional<KeyValue>();
  return std::optional<KeyValue>(std::move(result->kvs.front()));
}

absl::StatusOr<PutResult> Client::Put(std::string_view key, std::string_view value,
                                      const PutOptions& options, const CallOptions& call) const {
  return WaitForCall<PutResult>(
      *impl_, call,
      [request = PutRequest{std::string(key), std::string(value), options}, fence = fence_,
       deadline = impl_->DeadlineOf(call)](Engine& engine, calls::Done<PutResult> done) {
        return fenced::Put(engine, fence, request, deadline, std::move(done));
      });
}

absl::StatusOr<DeleteResult> Client::Delete(const KeyRange& range, const DeleteOptions& options,
                                            const CallOptions& call) const {
  return WaitForCall<DeleteResult>(
      *impl_, call,
      [request = DeleteRequest{range, options}, fence = fence_, deadline = impl_->DeadlineOf(call)](
          Engine& engine, calls::Done<DeleteResult> done) {
        return fenced::Delete(engine, fence, request, deadline, std::move(done));
      });
}

TxnBuilder Client::Txn() const { return TxnBuilder(impl_, fence_); }

absl::StatusOr<TxnResult> TxnBuilder::Commit(const CallOptions& call) {
  Client client(impl_);
  client.fence_ = fence_;
  return client.Commit(request_, call);
}

Client Client::Fenced(const std::vector<Compare>& conditions) const {
  std::vector<Compare> all = conditions;
  if (fence_ != nullptr) all.insert(all.end(), fence_->begin(), fence_->end());
  Client client(impl_);
  client.fence_ = std::make_shared<const std::vector<Compare>>(std::move(all));
  return client;
}

absl::Status Client::RefuseIfFenced(std::string_view what) const {
  if (fence_ == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(absl::string_view(what.data(), what.size()),
                   " cannot be fenced: ask the client that this fenced one was made from"));
}

absl::StatusOr<TxnResult> Client::Commit(const TxnRequest& request, const CallOptions& call) const {
  return WaitForCall<TxnResult>(*impl_, call,
                                [request, fence = fence_, deadline = impl_->DeadlineOf(call)](
                                    Engine& engine, calls::Done<TxnResult> done) {
                                  return fenced::Txn(engine, fence, request, deadline,
                                                     std::move(done));
                                });
}

absl::Status Client::Compact(int64_t revision, const CompactOptions& options,
                             const CallOptions& call) const {
  if (absl::Status fenced = RefuseIfFenced("Compact"); !fenced.ok()) return fenced;
  return OnlyStatus(WaitForCall<int64_t>(
      *impl_, call,
      [revision, physical = options.physical, deadline = impl_->DeadlineOf(call)](
          Engine& engine, calls::Done<int64_t> done) {
        return calls::Compact(engine, revision, physical, deadline, std::move(done));
      }));
}

void Client::RangeAsync(RangeRequest request, CallOptions call, Done<RangeResult> done) const {
  StartAsync<RangeResult>(
      impl_, std::move(call),
      [request = std::move(request)](Engine& engine, Instant deadline,
                                     calls::Done<RangeResult> finished) {
        return calls::Range(engine, request, deadline, std::move(finished));
      },
      std::move(done));
}

void Client::PutAsync(PutRequest request, CallOptions call, Done<PutResult> done) const {
  StartAsync<PutResult>(
      impl_, std::move(call),
      [request = std::move(request), fence = fence_](Engine& engine, Instant deadline,
                                                     calls::Done<PutResult> finished) {
        return fenced::Put(engine, fence, request, deadline, std::move(finished));
      },
      std::move(done));
}

void Client::DeleteAsync(DeleteRequest request, CallOptions call, Done<DeleteResult> done) const {
  StartAsync<DeleteResult>(
      impl_, std::move(call),
      [request = std::move(request), fence = fence_](Engine& engine, Instant deadline,
                                                     calls::Done<DeleteResult> finished) {
        return fenced::Delete(engine, fence, request, deadline, std::move(finished));
      },
      std::move(done));
}

void Client::TxnAsync(TxnRequest request, CallOptions call, Done<TxnResult> done) const {
  StartAsync<TxnResult>(
      impl_, std::move(call),
      [request = std::move(request), fence = fence_](Engine& engine, Instant deadline,
                                                     calls::Done<TxnResult> finished) {
        return fenced::Txn(engine, fence, request, deadline, std::move(finished));
      },
      std::move(done));
}

// ---- Leases
// ----------------------------------------------------------------------------------------

absl::StatusOr<GrantResult> Client::Grant(absl::Duration ttl, const GrantOptions& options,
                                          const CallOptions& call) const {
  if (absl::Status bad = CheckTtl(ttl); !bad.ok()) return bad;
  const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(ttl, absl::Seconds(1)));
  return WaitForCall<GrantResult>(*impl_, call,
                                  [seconds, id = options.id, deadline = impl_->DeadlineOf(call)](
                                      Engine& engine, calls::Done<GrantResult> done) {
                                    return calls::Grant(engine, seconds, id, CallKind::kWrite,
                                                        deadline, std::move(done));
                                  });
}

absl::Status Client::Revoke(LeaseId lease, const CallOptions& call) const {
  if (absl::Status fenced = RefuseIfFenced("Revoke"); !fenced.ok()) return fenced;
  return OnlyStatus(WaitForCall<int64_t>(
      *impl_, call,
      [lease, deadline = impl_->DeadlineOf(call)](Engine& engine, calls::Done<int64_t> done) {
        return calls::Revoke(engine, lease, deadline, std::move(done));
      }));
}

absl::StatusOr<TimeToLiveResult> Client::TimeToLive(LeaseId lease, const TimeToLiveOptions& options,
                                                    const CallOptions& call) const {
  return WaitForCall<TimeToLiveResult>(
      *impl_, call,
      [lease, keys = options.keys, deadline = impl_->DeadlineOf(call)](
          Engine& engine, calls::Done<TimeToLiveResult> done) {
        return calls::TimeToLive(engine, lease, keys, deadline, std::move(done));
      });
}

absl::StatusOr<absl::Duration> Client::KeepAliveOnce(LeaseId lease, const CallOptions& call) const {
  return WaitForCall<absl::Duration>(*impl_, call,
                                     [lease, deadline = impl_->DeadlineOf(call)](
                                         Engine& engine, calls::Done<absl::Duration> done) {
                                       return calls::KeepAliveOnce(engine, lease, deadline,
                                                                   std::move(done));
                                     });
}

absl::StatusOr<std::vector<LeaseId>> Client::Leases(const CallOptions& call) const {
  return WaitForCall<std::vector<LeaseId>>(
      *impl_, call,
      [deadline = impl_->DeadlineOf(call)](Engine& engine, calls::Done<std::vector<LeaseId>> done) {
        return calls::Leases(engine, deadline, std::move(done));
      });
}

// ---- Sessions
// --------------------------------------------------------------------------------------

absl::StatusOr<Session> Client::OpenSession(SessionOptions options, const CallOptions& call) const {
  if (absl::Status bad = CheckTtl(options.ttl); !bad.ok()) return bad;
  SessionCore::Request request;
  request.ttl_seconds = absl::ToInt64Seconds(absl::Ceil(options.ttl, absl::Seconds(1)));
  request.lease = options.lease;
  if (options.margin.has_value()) {
    request.margin = absl::ToChronoNanoseconds(std::max(*options.margin, absl::ZeroDuration()));
  }
  auto rep = std::make_shared<SessionRep>(impl_, std::move(options.on_health));
  using Opened = std::shared_ptr<SessionCore>;
  absl::StatusOr<Opened> opened = WaitForCall<Opened>(
      *impl_, call,
      [rep, request, deadline = impl_->DeadlineOf(call)](Engine& engine, calls::Done<Opened> done) {
        return SessionCore::Open(
            engine, request, deadline,
            [weak = std::weak_ptr<SessionRep>(rep)](SessionHealth health, Instant renewed) {
              if (auto self = weak.lock()) self->OnHealth(self, health, renewed);
            },
            [rep, done = std::move(done)](absl::StatusOr<Opened> core) mutable {
              if (core.ok()) {
                rep->core_ = *core;
                rep->lease_ = (*core)->lease();
                rep->ttl_ = absl::FromChrono((*core)->ttl());
                rep->deadline_ = (*core)->deadline();
              }
              done(std::move(core));
            });
      });
  if (!opened.ok()) return opened.status();
  return Session(std::move(rep));
}

Session::Session() = default;
Session::Session(std::shared_ptr<SessionRep> rep) : rep_(std::move(rep)) {}
Session::Session(Session&&) noexcept = default;

Session& Session::operator=(Session&& other) noexcept {
  std::swap(rep_, other.rep_);
  return *this;
}

Session::~Session() {
  if (rep_ == nullptr) return;
  LastWord last_word;
  (void)Close({.timeout = kCloseTimeout});
}

LeaseId Session::lease_id() const { return rep_ == nullptr ? 0 : rep_->lease(); }

absl::Duration Session::ttl() const { return rep_ == nullptr ? absl::ZeroDuration() : rep_->ttl(); }

SessionHealth Session::health() const {
  return rep_ == nullptr ? SessionHealth::kLost : rep_->health();
}

bool Session::alive() const { return rep_ != nullptr && rep_->alive(); }

std::stop_token Session::stop_token() const {
  return rep_ == nullptr ? std::stop_token() : rep_->stop_token();
}

absl::Status Session::Close(const CallOptions& call) {
  return rep_ == nullptr ? absl::OkStatus() : rep_->Close(call);
}

// ---- Watch
// -----------------------------------------------------------------------------------------

struct Watch::Rep {
  Rep(std::shared_ptr<ClientImpl> client, WatchCallback function)
      : impl(std::move(client)), callback(std::move(function)) {}

  const std::shared_ptr<ClientImpl> impl;
  GuardedCallback<const WatchBatch&> callback;
  WatchHandle handle = 0;  // on the loop's thread
  const std::shared_ptr<WatchVitals> vitals = std::make_shared<WatchVitals>();
  std::atomic<int> waiting = 0;        // batches, for the callback thread
  std::atomic<int64_t> delivered = 0;  // revision of the last batch that the callback has had
};

conclave::Watch Client::Watch(const KeyRange& range, const WatchOptions& options,
                              WatchCallback callback) const {
  auto rep = std::make_shared<conclave::Watch::Rep>(impl_, std::move(callback));
  impl_->loop().Post([rep, range, options](Engine& engine) {
    rep->handle = engine.watches().Add(
        range, options,
        [weak = std::weak_ptr<conclave::Watch::Rep>(rep), &engine](WatchBatch batch) {
          std::shared_ptr<conclave::Watch::Rep> self = weak.lock();
          if (self == nullptr) return;
          ClientImpl& impl = *self->impl;
          impl.BatchQueued(engine);
          ++self->waiting;
          impl.callbacks().Run([self = std::move(self), batch = std::move(batch)] {
            self->callback.Run(batch);
            self->delivered = batch.revision;
            --self->waiting;
            self->impl->BatchDone();
          });
        },
        rep->vitals);
  });
  return conclave::Watch(std::move(rep));
}

Watch::Watch() = default;
Watch::Watch(std::shared_ptr<Rep> rep) : rep_(std::move(rep)) {}
Watch::Watch(Watch&&) noexcept = default;

Watch& Watch::operator=(Watch&& other) noexcept {
  std::swap(rep_, other.rep_);
  return *this;
}

Watch::~Watch() { Cancel(); }

void Watch::Cancel() {
  if (rep_ == nullptr) return;
  rep_->callback.Cancel();
  ClientImpl& impl = *rep_->impl;
  impl.loop().Post(
      [rep = std::move(rep_)](Engine& engine) { engine.watches().Remove(rep->handle); });
  rep_ = nullptr;
}

WatchLag Watch::lag() const {
  if (rep_ == nullptr) return {};
  ClientImpl& impl = *rep_->impl;
  // A batch may come between the looks at these: then it is behind by one batch more, not less.
  const bool none_waits = rep_->waiting == 0;
  WatchLag lag{.received = rep_->vitals->received, .connected = rep_->vitals->connected};
  // What was received without an event (a sign of life) needs no callback.
  lag.delivered = none_waits && rep_->waiting == 0 ? lag.received : rep_->delivered.load();
  lag.newest = std::max<int64_t>(impl.vitals().newest_revision, lag.received);
  const Instant heard = impl.vitals().watch_heard;
  if (heard != Instant{}) {
    lag.silence = absl::FromChrono(std::max(Duration(0), impl.loop().Now() - heard));
  }
  return lag;
}

// ---- Cluster
// ---------------------------------------------------------------------------------------

absl::StatusOr<std::vector<Member>> Client::MemberList(const CallOptions& call) const {
  return WaitForCall<std::vector<Member>>(
      *impl_, call,
      [deadline = impl_->DeadlineOf(call)](Engine& engine, calls::Done<std::vector<Member>> done) {
        return calls::MemberList(engine, deadline, std::move(done));
      });
}

absl::StatusOr<MemberStatus> Client::Status(std::string_view endpoint,
                                            const CallOptions& call) const {
  return WaitForCall<MemberStatus>(
      *impl_, call,
      [name = std::string(endpoint), deadline = impl_->DeadlineOf(call)](
          Engine& engine, calls::Done<MemberStatus> done) -> CallId {
        if (std::optional<size_t> id = engine.pool().Find(name)) {
          return calls::Status(engine, *id, deadline, std::move(done));
        }
        engine.Defer([name, done = std::move(done)]() mutable {
          done(absl::InvalidArgumentError(absl::StrCat("not an endpoint of this client: ", name)));
        });
        return 0;
      });
}

}  // namespace conclave
