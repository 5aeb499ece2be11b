#include "conclave/coordination/group.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/coordination_metrics.h"
#include "conclave/coordination/names.h"

namespace conclave {
namespace {

std::string PrefixOf(const std::string& name) { return name + "/"; }

}  // namespace

// ---- Membership
// ------------------------------------------------------------------------------------

struct Membership::Rep {
  Client client;
  std::string group;
  std::shared_ptr<SessionRep> session;
  LeaseId lease = 0;
  std::stop_token stop;
  std::string id;
  std::string key;
  int64_t revision = 0;
  bool left = false;

  TxnRequest LeaveRequest() const {
    return {.conditions = {CreateRevision(key) == revision}, .success = {Delete(key)}};
  }
};

Membership::Membership(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Membership::Membership(Membership&&) noexcept = default;
Membership& Membership::operator=(Membership&& other) noexcept {
  std::swap(rep_, other.rep_);
  return *this;
}
Membership::~Membership() {
  if (rep_ == nullptr || rep_->left) return;
  CountEvent(rep_->client.impl()->metrics(), "group", rep_->group, "left");
  // If this fails the lease takes the key along.
  rep_->client.TxnAsync(rep_->LeaveRequest(), {}, [](const absl::StatusOr<TxnResult>&) {});
}

const std::string& Membership::id() const { return rep_->id; }
int64_t Membership::revision() const { return rep_->revision; }
Compare Membership::StillMember() const { return CreateRevision(rep_->key) == rep_->revision; }
bool Membership::alive() const { return rep_ != nullptr && !rep_->left && rep_->session->alive(); }
std::stop_token Membership::stop_token() const { return rep_->stop; }

absl::Status Membership::Update(std::string_view data, const CallOptions& call) {
  if (data.size() > Group::kDataMax) {
    return absl::InvalidArgumentError("a member's data is larger than 64 KiB");
  }
  if (!alive()) return absl::AbortedError("not a member any more");
  absl::StatusOr<TxnResult> updated = rep_->client.Txn()
                                          .If(StillMember())
                                          .Then(Put(rep_->key, data, {.lease = rep_->lease}))
                                          .Commit(call);
  if (!updated.ok()) return updated.status();
  if (!updated->succeeded) return absl::AbortedError("not a member any more");
  return absl::OkStatus();
}

absl::Status Membership::Leave(const CallOptions& call) {
  if (rep_->left) return absl::OkStatus();
  absl::StatusOr<TxnResult> left = rep_->client.Commit(rep_->LeaveRequest(), call);
  rep_->left = left.ok();
  if (left.ok()) CountEvent(rep_->client.impl()->metrics(), "group", rep_->group, "left");
  return left.status();
}

// ---- GroupWatch
// ------------------------------------------------------------------------------------

GroupWatch::GroupWatch() = default;
GroupWatch::GroupWatch(conclave::Watch watch) : watch_(std::move(watch)) {}
GroupWatch::GroupWatch(GroupWatch&&) noexcept = default;
GroupWatch& GroupWatch::operator=(GroupWatch&&) noexcept = default;
GroupWatch::~GroupWatch() = default;

// ---- Group
// -----------------------------------------------------------------------------------------

Group::Group(const Client& client, std::string_view name) : client_(client), name_(name) {}

absl::StatusOr<Membership> Group::Join(const Session& session, std::string_view id,
                                       std::string_view data, const CallOptions& call) {
  if (absl::Status valid = CheckName("a group", name_); !valid.ok()) return valid;
  if (absl::Status valid = CheckId("a member", id); !valid.ok()) return valid;
  if (data.size() > kDataMax) {
    return absl::InvalidArgumentError("a member's data is larger than 64 KiB");
  }
  if (!session.alive()) return absl::AbortedError("the session is lost");
  const std::string key = PrefixOf(name_) + std::string(id);
  const LeaseId lease = session.lease_id();
  const Op put = Put(key, data, {.lease = lease});
  absl::StatusOr<TxnResult> joined =
      client_.Txn().If(Absent(key)).Then(put).Else(Get(key)).Commit(call);
  if (!joined.ok()) return joined.status();
  int64_t revision = joined->revision;
  if (!joined->succeeded) {
    const KeyValue* there = joined->get(0);
    if (there == nullptr || there->lease != lease) {
      return absl::AlreadyExistsError(
          absl::StrCat("another session is member \"",
                       absl::CEscape(absl::string_view(id.data(), id.size())), "\" of ", name_));
    }
    // From an earlier membership, or an earlier try. A leave of that may still be on its way: it
    // names the revision, so it cannot end this membership if this has a key of its own.
    absl::StatusOr<TxnResult> removed = client_.Txn()
                                            .If(CreateRevision(key) == there->create_revision)
                                            .Then(Delete(key))
                                            .Commit(call);
    if (!removed.ok()) return removed.status();
    joined = client_.Txn().If(Absent(key)).Then(put).Commit(call);
    if (!joined.ok()) return joined.status();
    if (!joined->succeeded) return absl::AbortedError("somebody else has joined meanwhile");
    revision = joined->revision;
  }
  auto rep = std::make_unique<Membership::Rep>(Membership::Rep{.client = client_,
                                                               .group = name_,
                                                               .session = session.rep(),
                                                               .lease = lease,
                                                               .stop = session.stop_token(),
                                                               .id = std::string(id),
                                                               .key = key,
                                                               .revision = revision});
  CountEvent(client_.impl()->metrics(), "group", name_, "joined");
  return Membership(std::move(rep));
}

absl::StatusOr<std::vector<GroupMember>> Group::Members(const CallOptions& call) const {
  if (absl::Status valid = CheckName("a group", name_); !valid.ok()) return valid;
  absl::StatusOr<RangeResult> range = client_.Range(Prefix(PrefixOf(name_)), {}, call);
  if (!range.ok()) return range.status();
  return GroupTable(PrefixOf(name_))
      .Apply({.revision = range->revision, .resynced = true, .state = std::move(range->kvs)})
      .members;
}

absl::Status Group::WaitForMembers(int64_t count, const CallOptions& call) const {
  if (absl::Status valid = CheckName("a group", name_); !valid.ok()) return valid;
  if (count < 0) return absl::InvalidArgumentError("the number of members is not negative");
  const KeyRange range = Prefix(PrefixOf(name_));
  Patience patience(client_.impl(), nullptr, call);
  for (;;) {
    absl::StatusOr<TxnResult> look =
        patience.Read({.success = {Range(range, {.count_only = true})}});
    if (!look.ok()) return look.status();
    if (look->range(0).count >= count) return absl::OkStatus();
    absl::Status changed = patience.WaitForChange(
        {.range = range, .after_revision = look->revision, .no_deletes = true});
    if (!changed.ok()) return changed;
  }
}

GroupWatch Group::Watch(absl::AnyInvocable<void(const GroupChange&)> callback) const {
  if (absl::Status valid = CheckName("a group", name_); !valid.ok()) {
    client_.RunOnCallbackThread([callback = std::move(callback), valid]() mutable {
      callback(GroupChange{.status = valid});
    });
    return GroupWatch();
  }
  return GroupWatch(
      client_.Watch(Prefix(PrefixOf(name_)), {.list_first = true},
                    [table = GroupTable(PrefixOf(name_)), first = true,
                     callback = std::move(callback)](const WatchBatch& batch) mutable {
                      const GroupChange change = table.Apply(batch);
                      if (first || !change.empty() || !change.status.ok()) callback(change);
                      first = false;
                    }));
}

}  // namespace conclave
