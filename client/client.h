// The client: KV, transactions, leases, watches and sessions over a cluster that speaks etcd v3.
//
//   absl::StatusOr<conclave::Client> client =
//       conclave::Client::Connect({.endpoints = {"127.0.0.1:2379"}});
//   absl::StatusOr<std::optional<conclave::KeyValue>> kv = client->Get("config/rate");
//
// A Client is a handle: copies share the connections, one IO thread and one thread for callbacks.
// The threads end with the last handle, be it a Client, a Watch or a Session. All of it is
// thread-safe.
//
// Callbacks run one at a time on the callback thread, never on the IO thread, so they may block and
// may call this library; while one runs, the others wait. After the destructor of a Watch or a
// Session has returned, none of its callbacks runs or will run; a handle may be destroyed inside
// its own callback.
//
// Retries: reads go on to another member when one is gone, hung or without a leader, until the
// deadline. A write is sent again only when it provably did not happen; else the call fails with a
// status whose ErrorDetail says Outcome::kUnknown. Nothing throws.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/auth.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/log.h"
#include "conclave/client/core/retry_budget.h"
#include "conclave/client/core/tls_options.h"
#include "conclave/client/core/types.h"
#include "conclave/client/pages.h"
#include "conclave/client/stm.h"

namespace prometheus {
class Registry;
}

namespace conclave {

class ClientImpl;  // the threads and the engine behind a Client
class SessionRep;  // what a Session and the recipes on it share
class Client;

struct ConnectOptions {
  // "host:port", "http://host:port", "unix:///path"; with TLS "https://host:port",
  // "unixs:///path"; IPv6 in brackets. At least one. Or "srv://example.com": the
  // SRV records of _etcd-client._tcp.example.com, asked for now and at every auto_sync_interval
  // (a minute if that is 0); with "?name=prod" those of _etcd-client-prod._tcp, with
  // "?dns=10.0.0.53:53" from that server. Until the DNS has answered, calls wait.
  std::vector<std::string> endpoints{};
  // Speak TLS with all of them. Set by an endpoint with https:// or unixs:// too, which believes
  // the machine's own list of authorities then.
  std::optional<TlsOptions> tls{};
  // "/prod/": the client sees only the keys that begin with this, and sees them without it. Holds
  // for everything on the client: KV, watches, the keys of leases, locks, elections, registrations.
  std::string name_space{};
  // Who the client is, if the cluster asks for it. The client logs in by itself, and again when
  // its token has ended. A cluster without authentication does not look at it.
  std::string user{};
  std::string password{};
  // For calls that name no timeout of their own.
  absl::Duration request_timeout = absl::Seconds(5);
  // A read that a member has not answered by then goes to another one as well as counting against
  // it.
  absl::Duration attempt_timeout = absl::Seconds(1);
  // A connection with calls on it is pinged this often and dropped when a ping stays unanswered.
  // Servers of the protocol punish pings more frequent than every 5 s, so less than 10 s is raised
  // to 10 s.
  absl::Duration keepalive_time = absl::Seconds(10);
  absl::Duration keepalive_timeout = absl::Seconds(3);
  // A watch stream that was silent this long is asked for a sign of life, and left for another
  // member if none comes within watch_answer_timeout.
  absl::Duration watch_silence = absl::Seconds(30);
  absl::Duration watch_answer_timeout = absl::Seconds(5);
  // Ask the cluster this often at which addresses its members are, beginning now, and use those
  // (see Client::SyncEndpoints). 0: never. Less than a second is raised to one.
  absl::Duration auto_sync_interval = absl::ZeroDuration();
  // Attempts beyond the first ones: a share of the calls and so many a second, for all of the
  // client.
  RetryBudgetOptions retry_budget{};
  // Takes the log lines of the client and of the recipes on it. Unset: warnings and errors go to
  // stderr, one line each.
  LogSink log_sink{};
  // Where the metrics of the client and of the recipes on it are registered (docs/client.md lists
  // them). Unset: nothing is counted, and nothing is spent.
  std::shared_ptr<prometheus::Registry> metrics{};
};

// If(conditions).Then(ops).Else(ops).Commit(). All-or-nothing on the server.
class TxnBuilder {
 public:
  template <typename... Conditions>
  TxnBuilder& If(Conditions&&... conditions) {
    (request_.conditions.push_back(std::forward<Conditions>(conditions)), ...);
    return *this;
  }
  template <typename... Ops>
  TxnBuilder& Then(Ops&&... ops) {
    (request_.success.push_back(std::forward<Ops>(ops)), ...);
    return *this;
  }
  template <typename... Ops>
  TxnBuilder& Else(Ops&&... ops) {
    (request_.failure.push_back(std::forward<Ops>(ops)), ...);
    return *this;
  }
  [[nodiscard]] absl::StatusOr<TxnResult> Commit(const CallOptions& call = {});

 private:
  friend class Client;
  TxnBuilder(std::shared_ptr<ClientImpl> impl, std::shared_ptr<const std::vector<Compare>> fence)
      : impl_(std::move(impl)), fence_(std::move(fence)) {}

  std::shared_ptr<ClientImpl> impl_;
  std::shared_ptr<const std::vector<Compare>> fence_;
  TxnRequest request_;
};

// A watch that lives as long as this handle. It resumes by itself across connections and members
// from the revision behind the last one delivered.
class [[nodiscard]] Watch {
 public:
  Watch();  // watches nothing
  Watch(Watch&&) noexcept;
  Watch& operator=(Watch&&) noexcept;
  ~Watch();  // waits for a callback that runs, unless this is that callback

  void Cancel();  // as the destructor

  // How far it is behind. Any thread, also the callback's; does not wait.
  WatchLag lag() const;

 private:
  friend class Client;
  struct Rep;
  explicit Watch(std::shared_ptr<Rep> rep);
  std::shared_ptr<Rep> rep_;
};

using WatchCallback = absl::AnyInvocable<void(const WatchBatch&)>;

struct SessionOptions {
  absl::Duration ttl = absl::Seconds(10);  // rounded up to a second; the server may grant more
  // Taken off the local deadline, for clock drift and for stopping in time; default max(10 %, 500
  // ms).
  std::optional<absl::Duration> margin{};
  // On the callback thread.
  absl::AnyInvocable<void(SessionHealth)> on_health{};
  // Not 0: take over this lease, of an earlier life of this process, with all that it holds; its
  // TTL stays. NotFound if it is gone. Nobody else may be keeping it.
  LeaseId lease = 0;
};

// One lease, kept alive at a third of its TTL. Registrations, locks and elections of a process
// share it.
//
// The local deadline counts from the moment at which the last acknowledged renewal was *sent*, less
// a margin: when it passes, the stop token fires, before the server can give anything away that the
// lease held. A lost session stays lost: open another one.
class [[nodiscard]] Session {
 public:
  Session();  // no session; lost
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();  // as Close with one second

  LeaseId lease_id() const;
  absl::Duration ttl() const;  // as granted
  SessionHealth health() const;
  // True while the local deadline lies ahead: computed from the clock, so right even if this
  // process was stopped a moment ago and no thread of ours has run since.
  bool alive() const;
  std::stop_token stop_token() const;

  // Stops renewing and revokes the lease: everything it holds is gone at once. OK also if the lease
  // was gone before.
  absl::Status Close(const CallOptions& call = {});

  // For recipes.
  const std::shared_ptr<SessionRep>& rep() const { return rep_; }

 private:
  friend class Client;
  explicit Session(std::shared_ptr<SessionRep> rep);
  std::shared_ptr<SessionRep> rep_;
};

// What a client can be fenced by: a lock, a leadership, or anything that knows its condition.
template <typename Held>
concept Guard = requires(const Held& guard) {
  guard.StillHeld();
}
|| requires(const Held& guard) { guard.StillLeader(); };

class Client {
 public:
  // Checks the options; connects in the background. An unreachable cluster is not an error here.
  static absl::StatusOr<Client> Connect(ConnectOptions options);

  // ---- KV. An absent key is not an error.
  absl::StatusOr<std::optional<KeyValue>> Get(std::string_view key,
                                              const RangeOptions& options = {},
                                              const CallOptions& call = {}) const;
  absl::StatusOr<RangeResult> Range(const KeyRange& range, const RangeOptions& options = {},
                                    const CallOptions& call = {}) const;
  // The whole range at one revision, page by page: see pages.h.
  conclave::Pages Pages(const KeyRange& range, const PagesOptions& options = {},
                        const CallOptions& call = {}) const;
  absl::StatusOr<PutResult> Put(std::string_view key, std::string_view value,
                                const PutOptions& options = {}, const CallOptions& call = {}) const;
  absl::StatusOr<DeleteResult> Delete(const KeyRange& range, const DeleteOptions& options = {},
                                      const CallOptions& call = {}) const;
  [[nodiscard]] TxnBuilder Txn() const;
  absl::StatusOr<TxnResult> Commit(const TxnRequest& request, const CallOptions& call = {}) const;
  // Runs the function as one transaction, again for as long as others interfere and the call's
  // time allows: see stm.h. A commit of unknown outcome is not repeated but reported
  // (IsOutcomeUnknown), unless a marker settles it.
  absl::Status Atomically(absl::FunctionRef<absl::Status(Stm&)> transaction,
                          const AtomicallyOptions& options = {},
                          const CallOptions& call = {}) const;
  // Forgets all versions older than `revision` that are not the latest of their key.
  absl::Status Compact(int64_t revision, const CompactOptions& options = {},
                       const CallOptions& call = {}) const;

  // ---- A handle on the same client whose every write (Put, Delete, transactions) happens only
  // while the guard holds: its StillHeld() (a lock) or StillLeader() (a leadership) is a condition
  // of each. Else the write fails with Aborted, and nothing was written. Reads are not fenced;
  // Revoke and Compact, which cannot be, are refused (FailedPrecondition). Fences add up. Recipes
  // that are made from the handle are not fenced.
  template <Guard Held>
  Client Fenced(const Held& guard) const {
    if constexpr (requires { guard.StillHeld(); }) {
      return Fenced(guard.StillHeld());
    } else {
      return Fenced(guard.StillLeader());
    }
  }
  Client Fenced(const Compare& condition) const { return Fenced(std::vector<Compare>{condition}); }
  Client Fenced(const std::vector<Compare>& conditions) const;

  // ---- The same without waiting: `done` runs once, on the callback thread.
  template <typename Result>
  using Done = absl::AnyInvocable<void(absl::StatusOr<Result>)>;
  void RangeAsync(RangeRequest request, CallOptions call, Done<RangeResult> done) const;
  void PutAsync(PutRequest request, CallOptions call, Done<PutResult> done) const;
  void DeleteAsync(DeleteRequest request, CallOptions call, Done<DeleteResult> done) const;
  void TxnAsync(TxnRequest request, CallOptions call, Done<TxnResult> done) const;

  // ---- Leases, for those who keep them alive themselves. Others: OpenSession.
  absl::StatusOr<GrantResult> Grant(absl::Duration ttl, const GrantOptions& options = {},
                                    const CallOptions& call = {}) const;
  absl::Status Revoke(LeaseId lease, const CallOptions& call = {}) const;
  absl::StatusOr<TimeToLiveResult> TimeToLive(LeaseId lease, const TimeToLiveOptions& options = {},
                                              const CallOptions& call = {}) const;
  // Renews once; gives the TTL. NotFound if the lease is gone.
  absl::StatusOr<absl::Duration> KeepAliveOnce(LeaseId lease, const CallOptions& call = {}) const;
  absl::StatusOr<std::vector<LeaseId>> Leases(const CallOptions& call = {}) const;

  absl::StatusOr<Session> OpenSession(SessionOptions options = {},
                                      const CallOptions& call = {}) const;

  // ---- Watch. Returns at once; everything else comes to the callback.
  conclave::Watch Watch(const KeyRange& range, const WatchOptions& options,
                        WatchCallback callback) const;

  // ---- Cluster.
  absl::StatusOr<std::vector<Member>> MemberList(const CallOptions& call = {}) const;
  // Of one member; `endpoint` is one of endpoints().
  absl::StatusOr<MemberStatus> Status(std::string_view endpoint,
                                      const CallOptions& call = {}) const;
  // Those that are in use now: the members' own after a sync, then the ones given as a fallback.
  std::vector<std::string> endpoints() const;
  // Asks the members for their addresses and uses those from now on: of all who are no learners, if
  // they are plain http (with TLS: https). What was given to Connect stays as a fallback, used
  // while none of them answers. NotFound: there is no such address, and nothing was changed.
  absl::Status SyncEndpoints(const CallOptions& call = {}) const;

  // ---- Users and roles.
  conclave::Auth Auth() const { return conclave::Auth(impl_); }

  // Runs `work` on the callback thread, after what is already queued there.
  void RunOnCallbackThread(absl::AnyInvocable<void()> work) const;

  // For recipes.
  const std::shared_ptr<ClientImpl>& impl() const { return impl_; }
  explicit Client(std::shared_ptr<ClientImpl> impl) : impl_(std::move(impl)) {}

 private:
  friend class TxnBuilder;
  absl::Status RefuseIfFenced(std::string_view what) const;

  std::shared_ptr<ClientImpl> impl_;
  std::shared_ptr<const std::vector<Compare>> fence_;  // null: none
};

}  // namespace conclave
