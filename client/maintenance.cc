#include "conclave/client/maintenance.h"

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/base/status.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/admin_calls.h"
#include "conclave/client/core/download.h"
#include "conclave/client/snapshot_part.h"

namespace conclave {
namespace {

// Blobs that wait for the disk.
constexpr size_t kWaitingBytesMax = 8 << 20;
// How often a stop, the deadline and a stall are looked for while nothing comes.
constexpr auto kLookInterval = std::chrono::milliseconds(200);

absl::Status NotAnEndpoint(std::string_view endpoint) {
  return absl::InvalidArgumentError(
      absl::StrCat("not an endpoint of this client: ", std::string(endpoint)));
}

// A call of one member.
template <typename Result, typename Start>
absl::StatusOr<Result> AskMember(const Client& client, std::string_view endpoint,
                                 const CallOptions& call, Start start) {
  const std::shared_ptr<ClientImpl>& impl = client.impl();
  return WaitForCall<Result>(
      *impl, call,
      [name = std::string(endpoint), deadline = impl->DeadlineOf(call), start = std::move(start)](
          Engine& engine, calls::Done<Result> done) mutable -> CallId {
        if (std::optional<size_t> id = engine.pool().Find(name)) {
          return start(engine, *id, deadline, std::move(done));
        }
        engine.Defer([name, done = std::move(done)]() mutable { done(NotAnEndpoint(name)); });
        return 0;
      });
}

// A call of any member.
template <typename Result, typename Start>
absl::StatusOr<Result> Ask(const Client& client, const CallOptions& call, Start start) {
  const std::shared_ptr<ClientImpl>& impl = client.impl();
  return WaitForCall<Result>(*impl, call,
                             [deadline = impl->DeadlineOf(call), start = std::move(start)](
                                 Engine& engine, calls::Done<Result> done) mutable {
                               return start(engine, deadline, std::move(done));
                             });
}

// What comes from the loop's thread for the one that writes it down.
class Transfer : public std::enable_shared_from_this<Transfer> {
 public:
  explicit Transfer(std::shared_ptr<ClientImpl> impl) : impl_(std::move(impl)) {}

  void Start(const std::string& endpoint) {
    impl_->loop().Post([self = shared_from_this(), endpoint](Engine& engine) {
      const std::optional<size_t> id = engine.pool().Find(endpoint);
      if (!id.has_value()) return self->Ended(NotAnEndpoint(endpoint));
      Download::Callbacks callbacks;
      Transfer* const transfer = self.get();  // outlives its download
      callbacks.message = [transfer](std::string_view message) { transfer->Take(message); };
      callbacks.end = [transfer](absl::Status status) { transfer->Ended(std::move(status)); };
      self->download_ =
          std::make_unique<Download>(engine, *id, "/etcdserverpb.Maintenance/Snapshot",
                                     std::string_view(), std::move(callbacks));
    });
  }
  void Stop() {
    impl_->loop().Post([self = shared_from_this()](Engine&) { self->download_.reset(); });
  }

  // The next blob; empty at the end, if that was a good one. The other errors are the caller's
  // patience: its stop token, `deadline`, `stall`.
  absl::StatusOr<std::string> Next(const CallOptions& call, Instant deadline, Duration stall) {
    const Instant stalled = impl_->loop().Now() + stall;
    std::unique_lock lock(mutex_);
    while (blobs_.empty() && !end_.has_value()) {
      if (call.stop.stop_requested()) return absl::CancelledError("stop was requested");
      const Instant now = impl_->loop().Now();
      if (now >= deadline) return absl::DeadlineExceededError("the snapshot is not complete yet");
      if (now >= stalled) return absl::DeadlineExceededError("the server sends nothing any more");
      bell_.wait_for(lock, kLookInterval);
    }
    if (blobs_.empty()) {
      if (!end_->ok()) return *end_;
      return std::string();
    }
    std::string blob = std::move(blobs_.front());
    blobs_.pop_front();
    waiting_bytes_ -= blob.size();
    if (paused_ && waiting_bytes_ <= kWaitingBytesMax / 2) {
      paused_ = false;
      impl_->loop().Post([self = shared_from_this()](Engine&) {
        if (self->download_ != nullptr) self->download_->Pause(false);
      });
    }
    return blob;
  }

  std::string version() {
    std::lock_guard lock(mutex_);
    return version_;
  }

 private:
  void Take(std::string_view message) {
    etcdserverpb::SnapshotResponse response;
    std::lock_guard lock(mutex_);
    if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      end_ = absl::InternalError("the answer is not of the protocol");
    } else if (!end_.has_value() && !response.blob().empty()) {
      version_ = response.version();
      waiting_bytes_ += response.blob().size();
      blobs_.push_back(std::move(*response.mutable_blob()));
      if (waiting_bytes_ > kWaitingBytesMax && !std::exchange(paused_, true)) {
        download_->Pause(true);
      }
    }
    bell_.notify_one();
  }
  void Ended(absl::Status status) {
    std::lock_guard lock(mutex_);
    if (!end_.has_value()) end_ = std::move(status);
    bell_.notify_one();
  }

  const std::shared_ptr<ClientImpl> impl_;
  std::unique_ptr<Download> download_;  // on the loop's thread only
  std::mutex mutex_;
  std::condition_variable bell_;
  // Guarded by mutex_.
  std::deque<std::string> blobs_;
  size_t waiting_bytes_ = 0;
  bool paused_ = false;
  std::string version_;
  std::optional<absl::Status> end_;
};

}  // namespace

// ---- Maintenance --------------------------------------------------------------------------------

absl::StatusOr<std::vector<Alarm>> Maintenance::Alarms(const CallOptions& call) const {
  return Ask<std::vector<Alarm>>(client_, call, calls::Alarms);
}

absl::StatusOr<std::vector<Alarm>> Maintenance::Disarm(const Alarm& alarm,
                                                       const CallOptions& call) const {
  return Ask<std::vector<Alarm>>(client_, call,
                                 [alarm](Engine& engine, Instant deadline, auto done) {
                                   return calls::Disarm(engine, alarm, deadline, std::move(done));
                                 });
}

absl::StatusOr<std::vector<Alarm>> Maintenance::DisarmAll(const CallOptions& call) const {
  CONCLAVE_ASSIGN_OR_RETURN(const std::vector<Alarm> alarms, Alarms(call));
  std::vector<Alarm> ended;
  for (const Alarm& alarm : alarms) {
    CONCLAVE_ASSIGN_OR_RETURN(const std::vector<Alarm> one, Disarm(alarm, call));
    ended.insert(ended.end(), one.begin(), one.end());
  }
  return ended;
}

absl::Status Maintenance::Defragment(std::string_view endpoint, const CallOptions& call) const {
  return AskMember<bool>(client_, endpoint, call, calls::Defragment).status();
}

absl::StatusOr<HashKvResult> Maintenance::HashKv(std::string_view endpoint,
                                                 const HashKvOptions& options,
                                                 const CallOptions& call) const {
  return AskMember<HashKvResult>(
      client_, endpoint, call,
      [revision = options.revision](Engine& engine, size_t member, Instant deadline, auto done) {
        return calls::HashKv(engine, member, revision, deadline, std::move(done));
      });
}

absl::Status Maintenance::MoveLeader(uint64_t member_id, const CallOptions& call) const {
  absl::Status last = absl::UnavailableError("none of the endpoints is the leader's");
  for (const std::string& endpoint : client_.endpoints()) {
    const absl::StatusOr<MemberStatus> status = client_.Status(endpoint, call);
    if (!status.ok()) {
      last = status.status();
      continue;
    }
    if (status->leader == 0 || status->leader != status->member_id) continue;
    return AskMember<bool>(client_, endpoint, call,
                           [member_id](Engine& engine, size_t leader, Instant deadline, auto done) {
                             return calls::MoveLeader(engine, leader, member_id, deadline,
                                                      std::move(done));
                           })
        .status();
  }
  return last;
}

absl::StatusOr<std::string> Maintenance::Downgrade(DowngradeAction action, std::string_view version,
                                                   const CallOptions& call) const {
  return Ask<std::string>(
      client_, call,
      [action, version = std::string(version)](Engine& engine, Instant deadline, auto done) {
        return calls::Downgrade(engine, action, version, deadline, std::move(done));
      });
}

absl::StatusOr<SnapshotSaved> Maintenance::SaveSnapshot(std::string_view endpoint,
                                                        const std::string& path,
                                                        const SaveSnapshotOptions& options,
                                                        const CallOptions& call) const {
  // Is it there? And a client's token, which a download cannot wait for, is brought up to date.
  CONCLAVE_RETURN_IF_ERROR(client_.Status(endpoint, call).status());
  const std::shared_ptr<ClientImpl>& impl = client_.impl();
  const Instant deadline = impl->PatientDeadlineOf(call);
  const Duration stall = absl::ToChronoNanoseconds(options.stall_timeout);
  CONCLAVE_ASSIGN_OR_RETURN(const std::unique_ptr<SnapshotPart> part, SnapshotPart::Create(path));
  const auto transfer = std::make_shared<Transfer>(impl);
  transfer->Start(std::string(endpoint));
  absl::Status failed;
  while (failed.ok()) {
    absl::StatusOr<std::string> blob = transfer->Next(call, deadline, stall);
    failed = blob.status();
    if (!blob.ok() || blob->empty()) break;
    failed = part->Append(*blob);
  }
  transfer->Stop();
  CONCLAVE_RETURN_IF_ERROR(failed);
  CONCLAVE_RETURN_IF_ERROR(part->Finish());
  return SnapshotSaved{.bytes = part->bytes(), .version = transfer->version()};
}

// ---- Cluster ------------------------------------------------------------------------------------

absl::StatusOr<std::vector<Member>> Cluster::MemberList(const MemberListOptions& options,
                                                        const CallOptions& call) const {
  return Ask<std::vector<Member>>(
      client_, call,
      [linearizable = options.linearizable](Engine& engine, Instant deadline, auto done) {
        return calls::MemberList(engine, linearizable, deadline, std::move(done));
      });
}

absl::StatusOr<MemberAdded> Cluster::MemberAdd(const std::vector<std::string>& peer_urls,
                                               const MemberAddOptions& options,
                                               const CallOptions& call) const {
  return Ask<MemberAdded>(
      client_, call,
      [peer_urls, learner = options.learner](Engine& engine, Instant deadline, auto done) {
        return calls::MemberAdd(engine, peer_urls, learner, deadline, std::move(done));
      });
}

absl::StatusOr<std::vector<Member>> Cluster::MemberRemove(uint64_t id,
                                                          const CallOptions& call) const {
  return Ask<std::vector<Member>>(client_, call, [id](Engine& engine, Instant deadline, auto done) {
    return calls::MemberRemove(engine, id, deadline, std::move(done));
  });
}

absl::StatusOr<std::vector<Member>> Cluster::MemberUpdate(uint64_t id,
                                                          const std::vector<std::string>& peer_urls,
                                                          const CallOptions& call) const {
  return Ask<std::vector<Member>>(
      client_, call, [id, peer_urls](Engine& engine, Instant deadline, auto done) {
        return calls::MemberUpdate(engine, id, peer_urls, deadline, std::move(done));
      });
}

absl::StatusOr<std::vector<Member>> Cluster::MemberPromote(uint64_t id,
                                                           const CallOptions& call) const {
  return Ask<std::vector<Member>>(client_, call, [id](Engine& engine, Instant deadline, auto done) {
    return calls::MemberPromote(engine, id, deadline, std::move(done));
  });
}

}  // namespace conclave
