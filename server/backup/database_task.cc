#include "conclave/server/backup/database_task.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/writer.h"
#include "conclave/base/check.h"
#include "conclave/server/backup/schema.h"
#include "conclave/server/mvcc/wire.h"

namespace conclave::backup {
namespace {

using nlohmann::ordered_json;

// Names and URLs that are no UTF-8 do not exist, but must not end a server either.
std::string Dump(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string EncodeMember(const apply::Member& member) {
  ordered_json json;
  json["id"] = member.id;
  json["peerURLs"] = member.peer_urls;
  if (member.is_learner) json["isLearner"] = true;
  if (!member.name.empty()) json["name"] = member.name;
  if (!member.client_urls.empty()) json["clientURLs"] = member.client_urls;
  return Dump(json);
}

std::string EncodeConfState(const apply::Membership& membership) {
  ordered_json json;
  for (const auto& [id, member] : membership.members()) {
    json[member.is_learner ? "learners" : "voters"].push_back(id);
  }
  json["auto_leave"] = false;
  return Dump(json);
}

std::string EncodeAlarm(const apply::Alarm& alarm) {
  wire::Builder builder;
  builder.AppendNumber(1, alarm.member_id);
  builder.AppendNumber(2, int64_t{alarm.type});
  return std::string(builder.view());
}

std::vector<std::pair<std::string, std::string>> Members(const apply::Membership& membership) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& [id, member] : membership.members()) {
    pairs.emplace_back(absl::StrCat(absl::Hex(id)), EncodeMember(member));
  }
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

using Pairs = std::vector<std::pair<std::string, std::string>>;

Pairs RemovedMembers(const apply::Membership& membership) {
  Pairs pairs;
  for (const uint64_t id : membership.removed()) {
    pairs.emplace_back(absl::StrCat(absl::Hex(id)), "removed");
  }
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

Pairs AuthOf(const auth::AuthStore& auth) {
  if (auth.pristine()) return {};
  return {{std::string(kAuthEnabledKey), std::string(1, auth.enabled() ? '\1' : '\0')},
          {std::string(kAuthRevisionKey), EncodeU64(auth.revision())}};
}

Pairs RolesOf(const auth::AuthStore& auth) {
  Pairs pairs;
  for (const auto& [name, role] : auth.roles()) pairs.emplace_back(name, EncodeRole(name, role));
  return pairs;
}

Pairs UsersOf(const auth::AuthStore& auth) {
  Pairs pairs;
  for (const auto& [name, user] : auth.users()) pairs.emplace_back(name, EncodeUser(name, user));
  return pairs;
}

}  // namespace

DatabaseTask::DatabaseTask(apply::StateMachine* state)
    : version_(state->cluster_version()),
      leases_(state->ExportLeases().leases),
      cursor_(&state->store()) {
  Pairs alarms;
  for (const apply::Alarm& alarm : state->raised_alarms()) {
    // Of a member that is being refilled: of the data that is saved here nothing is wrong.
    if (alarm.type == static_cast<int32_t>(wire::AlarmType::kCorrupt) &&
        state->refills().contains(alarm.member_id)) {
      continue;
    }
    alarms.emplace_back(EncodeAlarm(alarm), "");
  }
  std::sort(alarms.begin(), alarms.end());
  Pairs cluster;
  if (!version_.empty()) cluster.emplace_back(kClusterVersionKey, version_);
  if (const std::string target(state->downgrade_target()); !target.empty()) {
    cluster.emplace_back(kDowngradeKey, Dump({{"target-version", target}, {"enabled", true}}));
  }
  front_ = {{kAlarmBucket, std::move(alarms)},
            {kAuthBucket, AuthOf(state->auth())},
            {kAuthRolesBucket, RolesOf(state->auth())},
            {kAuthUsersBucket, UsersOf(state->auth())},
            {kClusterBucket, std::move(cluster)}};

  Pairs meta = {{std::string(kConfStateKey), EncodeConfState(state->membership())},
                {std::string(kConsistentIndexKey), EncodeU64(state->applied_index())},
                {std::string(kTermKey), EncodeU64(state->applied_term())}};
  if (const int64_t compacted = cursor_.image().compact_revision; compacted >= 0) {
    const std::string revision = EncodeRevision({.main = compacted, .sub = 0});
    meta.emplace_back(kFinishedCompactKey, revision);
    meta.emplace_back(kScheduledCompactKey, revision);
  }
  if (!version_.empty()) meta.emplace_back(kStorageVersionKey, version_);
  std::sort(meta.begin(), meta.end());
  back_ = {{kMembersBucket, Members(state->membership())},
           {kMembersRemovedBucket, RemovedMembers(state->membership())},
           {kMetaBucket, std::move(meta)}};

  std::sort(leases_.begin(), leases_.end(), [](const auto& a, const auto& b) {
    return static_cast<uint64_t>(a.id) < static_cast<uint64_t>(b.id);
  });
}

bool DatabaseTask::AddKeys(bbolt::Writer* writer, size_t* budget, size_t bytes) {
  while (writer->output_size() < bytes) {
    if (*budget == 0) return false;
    --*budget;
    const mvcc::RecordRef record = cursor_.Next();
    if (record) {
      last_revision_ = record->mod_revision();
      const std::string key = EncodeRevision(record->revision(), record->tombstone());
      if (record->tombstone()) {
        wire::Builder tombstone;
        tombstone.AppendText(1, record->key());
        writer->Add(key, tombstone.view());
      } else {
        writer->Add(key, mvcc::KeyValueSize(*record),
                    [&](char* at) { mvcc::WriteKeyValue(*record, at); });
      }
      continue;
    }
    // The store may stand beyond its last record: a restore has raised its revision. etcd's tools
    // say so by a record of nothing; where the compaction says it, none is needed.
    const mvcc::StoreImage& image = cursor_.image();
    if (last_revision_ < image.current_revision && image.current_revision > 1 &&
        image.compact_revision < image.current_revision) {
      writer->Add(EncodeRevision({.main = image.current_revision, .sub = 0}), "");
    }
    return true;
  }
  return false;
}

bool DatabaseTask::AddLeases(bbolt::Writer* writer, size_t* budget, size_t bytes) {
  while (next_lease_ < leases_.size()) {
    if (*budget == 0 || writer->output_size() >= bytes) return false;
    --*budget;
    const lease::LeaseImage& lease = leases_[next_lease_++];
    writer->Add(EncodeU64(static_cast<uint64_t>(lease.id)),
                EncodeLease({.id = lease.id, .ttl_seconds = lease.ttl_seconds}));
  }
  return true;
}

bool DatabaseTask::Advance(bbolt::Writer* writer, size_t* budget, size_t bytes) {
  const auto add_all = [writer](const auto& buckets) {
    for (const auto& [name, pairs] : buckets) {
      writer->BeginBucket(name);
      for (const auto& [key, value] : pairs) writer->Add(key, value);
    }
  };
  switch (stage_) {
    case Stage::kFront:
      cursor_.Rewind();
      last_revision_ = 0;
      next_lease_ = 0;
      add_all(front_);
      writer->BeginBucket(kKeyBucket);
      stage_ = Stage::kKeys;
      [[fallthrough]];
    case Stage::kKeys:
      if (!AddKeys(writer, budget, bytes)) return false;
      writer->BeginBucket(kLeaseBucket);
      stage_ = Stage::kLeases;
      [[fallthrough]];
    case Stage::kLeases:
      if (!AddLeases(writer, budget, bytes)) return false;
      stage_ = Stage::kBack;
      [[fallthrough]];
    case Stage::kBack:
      add_all(back_);
      stage_ = Stage::kDone;
      [[fallthrough]];
    case Stage::kDone:
      break;
  }
  return true;
}

bool DatabaseTask::Measure(size_t* budget) {
  if (layout_.has_value()) return true;
  if (!Advance(&measure_, budget, SIZE_MAX)) return false;
  layout_ = measure_.Finish();
  write_.emplace(*layout_);
  stage_ = Stage::kFront;
  return true;
}

bool DatabaseTask::Write(size_t* budget, size_t bytes, std::string* out) {
  CONCLAVE_CHECK(layout_.has_value(), "a file that was not measured");
  if (!write_.has_value()) return false;
  const bool last = Advance(&*write_, budget, bytes);
  if (last) write_->Finish();
  out->append(write_->TakeOutput());
  if (last) write_.reset();
  return true;
}

}  // namespace conclave::backup
