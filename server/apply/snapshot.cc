#include "conclave/server/apply/snapshot.h"

#include <algorithm>
#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/reader.h"
#include "conclave/api/wire/writer.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/status.h"
#include "conclave/server/apply/auth_image.h"

namespace conclave::apply {
namespace {

constexpr std::string_view kMagic("CONCSTAT\x01", 9);
// Longer blocks are no blocks: one holds about as much as a piece, or a single record.
constexpr uint64_t kBlockBytesMax = INT_MAX;

// So many records a block may name; a turn has time for that.
constexpr uint64_t kNamesMax = 4096;

enum BlockType : uint8_t {
  kHead = 1,
  kCluster = 2,
  kLeases = 3,
  kRecords = 4,
  kEnd = 5,
  kNames = 6,
};

// Their order in the stream.
int PlaceOf(uint8_t type) { return type == kNames ? 2 * kLeases + 1 : 2 * type; }

absl::Status Corrupt(const char* what) {
  return absl::DataLossError(absl::StrCat("snapshot of the state: ", what));
}

// Length, type, content.
std::string Framed(BlockType type, std::string_view content) {
  const uint64_t length = content.size() + 1;
  std::string block(wire::VarintSize(length), '\0');
  wire::WriteVarint(block.data(), length);
  block.reserve(block.size() + length);
  block.push_back(static_cast<char>(type));
  return block.append(content);
}

// Fields: 1 cluster id; 2 version; 3 member (etcdserverpb.Member), repeated; 4 alarm (1 member, 2
// type, 3 index since which the member is refilled, if it is), repeated; 5 id of a member that was
// removed, repeated; 8 users and roles (auth_image.cc), if there ever were any; 15 target of a
// downgrade.
constexpr uint32_t kAuthField = 8;
constexpr uint32_t kDowngradeField = 15;
std::string EncodeCluster(const Membership& membership, std::string_view version,
                          const absl::btree_set<Alarm>& alarms,
                          const absl::btree_map<uint64_t, uint64_t>& refills,
                          const auth::AuthStore& auth, std::string_view downgrade_target) {
  wire::Builder builder;
  builder.AppendNumber(1, membership.cluster_id());
  builder.AppendText(2, version);
  for (const auto& [id, member] : membership.members()) {
    wire::AppendMember(&builder, 3,
                       {id, member.name, member.peer_urls, member.client_urls,
                        member.is_learner || (MUTANT("promotion-lost-in-snapshots") &&
                                              id % 2 == 1 && !member.name.empty())});
  }
  for (const Alarm& alarm : alarms) {
    const size_t begin = builder.BeginMessage(4);
    builder.AppendNumber(1, alarm.member_id);
    builder.AppendNumber(2, int64_t{alarm.type});
    if (alarm.type == static_cast<int32_t>(wire::AlarmType::kCorrupt)) {
      const auto refill = refills.find(alarm.member_id);
      if (refill != refills.end()) builder.AppendNumber(3, refill->second);
    }
    builder.EndMessage(begin);
  }
  for (const uint64_t id : membership.removed()) builder.AppendNumber(5, id);
  if (!auth.pristine() && !MUTANT("snapshot-without-users"))
    builder.AppendElement(kAuthField, EncodeAuthStore(auth));
  builder.AppendText(kDowngradeField, downgrade_target);
  return std::string(builder.view());
}

bool DecodeAlarm(std::string_view encoded, StateParts* cluster) {
  Alarm alarm;
  uint64_t refilled_since = 0;
  wire::Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        alarm.member_id = reader.Varint();
        break;
      case wire::VarintTag(2):
        alarm.type = reader.Int32();
        break;
      case wire::VarintTag(3):
        refilled_since = reader.Varint();
        break;
      default:
        reader.Skip(3);
    }
  }
  cluster->alarms.insert(alarm);
  if (refilled_since > 0) cluster->refills[alarm.member_id] = refilled_since;
  return reader.ok();
}

bool DecodeCluster(std::string_view encoded, StateParts* cluster) {
  wire::Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        cluster->cluster_id = reader.Varint();
        break;
      case wire::LengthTag(2):
        cluster->cluster_version = reader.String();
        break;
      case wire::LengthTag(3): {
        Member member;
        if (!DecodeMember(reader.Bytes(), &member)) reader.Fail();
        if (!cluster->members.empty() && member.id <= cluster->members.back().id) reader.Fail();
        cluster->members.push_back(std::move(member));
        break;
      }
      case wire::LengthTag(4): {
        if (!DecodeAlarm(reader.Bytes(), cluster)) reader.Fail();
        break;
      }
      case wire::VarintTag(5):
        cluster->removed.insert(reader.Varint());
        break;
      case wire::LengthTag(kAuthField):
        if (!DecodeAuthStore(reader.Bytes(), &cluster->auth)) reader.Fail();
        break;
      case wire::LengthTag(kDowngradeField):
        cluster->downgrade_target = reader.String();
        break;
      default:
        reader.Skip(5);
    }
  }
  return reader.ok();
}

}  // namespace

// ---- Writing ------------------------------------------------------------------------------------

SnapshotTask::SnapshotTask(StateMachine* state)
    : applied_index_(state->applied_index_),
      applied_term_(state->applied_term_),
      cluster_(EncodeCluster(state->membership_, state->cluster_version_, state->alarms_,
                             state->refills_, state->auth_, state->downgrade_target_)),
      leases_(state->lessor_.Export()),
      cursor_(state->store_.get()) {}

SnapshotTask::~SnapshotTask() = default;

Bytes SnapshotTask::Next(size_t bytes) {
  if (Bytes opening = NextOfOpening(bytes); !opening.empty()) return opening;
  if (stage_ == Stage::kDone) return {};
  std::string piece = NamesBlock(bytes);
  if (piece.empty()) {
    piece = RecordsBlock(bytes);
    covered_bytes_ += piece.size();
  }
  if (piece.empty()) {
    piece = EndBlock();
    stage_ = Stage::kDone;
  }
  return Bytes::Copy(piece);
}

Bytes SnapshotTask::NextOfOpening(size_t bytes) {
  std::string piece;
  if (stage_ == Stage::kHead) {
    piece = HeadBlocks();
    stage_ = Stage::kLeases;
  } else if (stage_ == Stage::kLeases) {
    piece = LeasesBlock(bytes);
    if (piece.empty()) stage_ = Stage::kRecords;
  }
  covered_bytes_ += piece.size();
  return Bytes::Copy(piece);
}

void SnapshotTask::ReaderHas(mvcc::Revision last) {
  CONCLAVE_CHECK(record_count_ == 0 && !next_record_, "records have been written");
  reader_has_ = last;
}

// Fields: 1 applied index; 2 applied term; 3 current revision; 4 compact revision; 5, 6 digest; 7
// lease clock, ms.
std::string SnapshotTask::HeadBlocks() {
  const mvcc::StoreImage& image = cursor_.image();
  wire::Builder head;
  head.AppendNumber(1, applied_index_);
  head.AppendNumber(2, applied_term_);
  head.AppendNumber(3, image.current_revision);
  head.AppendNumber(4, image.compact_revision);
  head.AppendNumber(5, image.digest.low);
  head.AppendNumber(6, image.digest.high);
  head.AppendNumber(7, leases_.clock_ms);
  return std::string(kMagic) + Framed(kHead, head.view()) + Framed(kCluster, cluster_);
}

// Fields: (1 id, 2 TTL in seconds, 3 remaining ms), repeated; an id begins the next lease.
std::string SnapshotTask::LeasesBlock(size_t bytes) {
  wire::Builder content;
  while (next_lease_ < leases_.leases.size() && (content.size() == 0 || content.size() < bytes)) {
    const lease::LeaseImage& lease = leases_.leases[next_lease_++];
    content.AppendNumber(1, lease.id);
    content.AppendNumber(2, lease.ttl_seconds);
    content.AppendNumber(
        3, MUTANT("snapshot-with-whole-leases") ? lease.ttl_seconds * 1000 : lease.remaining_ms);
  }
  return content.size() == 0 ? std::string() : Framed(kLeases, content.view());
}

std::string SnapshotTask::NamesBlock(size_t bytes) {
  if (reader_has_ == mvcc::Revision{}) return {};
  if (!next_record_) next_record_ = cursor_.Next();
  wire::Builder content;
  size_t named_bytes = 0;
  for (uint64_t i = 0; i < kNamesMax && named_bytes < bytes; ++i) {
    if (!next_record_ || next_record_->revision() > reader_has_) break;
    const mvcc::Revision revision = next_record_->revision();
    content.AppendVarint(static_cast<uint64_t>(revision.main - last_named_));
    content.AppendVarint(static_cast<uint64_t>(revision.sub));
    last_named_ = revision.main;
    named_bytes += mvcc::EncodedRecordSize(*next_record_);
    ++record_count_;
    next_record_ = cursor_.Next();
  }
  covered_bytes_ += named_bytes;
  if (content.size() > 0) return Framed(kNames, content.view());
  reader_has_ = {};
  return {};
}

std::string SnapshotTask::RecordsBlock(size_t bytes) {
  std::string content;
  if (!next_record_) next_record_ = cursor_.Next();
  while (next_record_) {
    const size_t size = content.size() + mvcc::EncodedRecordSize(*next_record_);
    if (!content.empty() && size > bytes) break;
    mvcc::EncodeRecord(*next_record_, &content);
    ++record_count_;
    next_record_ = cursor_.Next();
  }
  return content.empty() ? std::string() : Framed(kRecords, content);
}

std::string SnapshotTask::EndBlock() const {
  wire::Builder end;
  end.AppendNumber(1, uint64_t{leases_.leases.size()});
  end.AppendNumber(2, record_count_);
  return Framed(kEnd, end.view());
}

// ---- Reading ------------------------------------------------------------------------------------

RestoreTask::RestoreTask(const StateMachineOptions& options) : options_(options) {}

RestoreTask::~RestoreTask() = default;

void RestoreTask::Reuse(const mvcc::Store* store) {
  CONCLAVE_CHECK(!magic_seen_);
  source_ = store;
  owned_source_.reset();
  source_last_ = {.main = store->current_revision(), .sub = INT32_MAX};
}

void RestoreTask::Reuse(std::unique_ptr<RestoreTask> unfinished) {
  CONCLAVE_CHECK(!magic_seen_);
  const mvcc::Revision reached =
      unfinished->builder_.has_value() ? unfinished->builder_->last() : mvcc::Revision{};
  if (unfinished->source_last_ > std::max(reached, source_last_)) {
    source_ = unfinished->source_;
    owned_source_ = std::move(unfinished->owned_source_);
    source_last_ = unfinished->source_last_;
  } else if (reached > source_last_) {
    owned_source_ = unfinished->builder_->Release();
    source_ = owned_source_.get();
    source_last_ = reached;
  }
}

mvcc::Revision RestoreTask::reusable() const {
  if (source_ == nullptr || !builder_.has_value()) return {};
  // A source that is ahead is none of this history, or this stream will not be wanted.
  return source_last_.main > builder_->image().current_revision ? mvcc::Revision{} : source_last_;
}

absl::Status RestoreTask::Feed(std::string_view bytes, std::string* whole) {
  CONCLAVE_RETURN_IF_ERROR(failed_);
  if (pending_.empty()) {
    failed_ = TakeBlocks(&bytes, whole);
    pending_.assign(bytes);
    return failed_;
  }
  pending_.append(bytes);
  std::string_view input = pending_;
  failed_ = TakeBlocks(&input, whole);
  pending_.erase(0, pending_.size() - input.size());
  return failed_;
}

absl::Status RestoreTask::TakeBlocks(std::string_view* input, std::string* whole) {
  if (!magic_seen_) {
    if (input->substr(0, kMagic.size()) != kMagic.substr(0, input->size())) {
      return Corrupt("it does not begin as one, or is of another version");
    }
    if (input->size() < kMagic.size()) return absl::OkStatus();
    input->remove_prefix(kMagic.size());
    magic_seen_ = true;
    if (whole != nullptr) whole->append(kMagic);
  }
  while (!input->empty()) {
    wire::Reader reader(*input);
    const uint64_t length = reader.Varint();
    if (!reader.ok()) {
      // A length has ten bytes at most; so this one is either not all there yet, or none.
      if (input->size() >= 10) return Corrupt("a block without a length");
      return absl::OkStatus();
    }
    if (length == 0 || length > kBlockBytesMax) return Corrupt("a block of impossible length");
    const auto prefix = static_cast<size_t>(reader.position() - input->data());
    if (input->size() - prefix < length) return absl::OkStatus();
    const std::string_view block = input->substr(prefix, length);
    CONCLAVE_RETURN_IF_ERROR(TakeBlock(block, whole));
    if (whole != nullptr && block[0] != kNames) whole->append(input->substr(0, prefix + length));
    input->remove_prefix(prefix + length);
  }
  return absl::OkStatus();
}

absl::Status RestoreTask::TakeBlock(std::string_view block, std::string* whole) {
  const auto type = static_cast<uint8_t>(block[0]);
  const std::string_view content = block.substr(1);
  const bool repeats =
      type == last_block_ && (type == kLeases || type == kNames || type == kRecords);
  const bool follows =
      last_block_ < kCluster ? type == last_block_ + 1 : PlaceOf(type) > PlaceOf(last_block_);
  if (!repeats && !follows) return Corrupt("a block in the wrong place");
  last_block_ = type;
  switch (type) {
    case kHead:
      return TakeHead(content);
    case kCluster:
      cluster_ = content;
      return absl::OkStatus();
    case kLeases:
      return TakeLeases(content);
    case kNames:
      return TakeNames(content, whole);
    case kRecords:
      return TakeRecords(content);
    case kEnd:
      return TakeEnd(content);
    default:
      return Corrupt("a block of unknown type");
  }
}

absl::Status RestoreTask::TakeHead(std::string_view content) {
  mvcc::StoreImage image;
  wire::Reader reader(content);
  while (reader.Next()) {
    if ((reader.tag() & 7) != 0 || reader.field() > 7) {
      reader.Skip(7);
      continue;
    }
    const uint32_t field = reader.field();
    const uint64_t number = reader.Varint();
    switch (field) {
      case 1:
        applied_index_ = number;
        break;
      case 2:
        applied_term_ = number;
        break;
      case 3:
        image.current_revision = static_cast<int64_t>(number);
        break;
      case 4:
        image.compact_revision = static_cast<int64_t>(number);
        break;
      case 5:
        image.digest.low = number;
        break;
      case 6:
        image.digest.high = number;
        break;
      case 7:
        leases_.clock_ms = static_cast<int64_t>(number);
        break;
    }
  }
  if (!reader.ok() || image.current_revision < 1 || image.compact_revision < -1 ||
      image.compact_revision > image.current_revision || leases_.clock_ms < 0) {
    return Corrupt("an impossible head");
  }
  builder_.emplace(image);
  return absl::OkStatus();
}

absl::Status RestoreTask::TakeLeases(std::string_view content) {
  wire::Reader reader(content);
  while (reader.Next()) {
    if (reader.tag() == wire::VarintTag(1)) {
      leases_.leases.push_back({reader.Int64(), 0, 0});
    } else if (reader.tag() == wire::VarintTag(2) && !leases_.leases.empty()) {
      leases_.leases.back().ttl_seconds = reader.Int64();
    } else if (reader.tag() == wire::VarintTag(3) && !leases_.leases.empty()) {
      leases_.leases.back().remaining_ms = reader.Int64();
    } else {
      reader.Skip(3);
    }
  }
  return reader.ok() ? absl::OkStatus() : Corrupt("leases that are none");
}

absl::Status RestoreTask::TakeNames(std::string_view content, std::string* whole) {
  if (reusable() == mvcc::Revision{}) return Corrupt("records are named that nobody has");
  reused_ = true;
  std::string records;
  for (uint64_t count = 0; !content.empty(); ++count) {
    wire::Reader reader(content);
    const uint64_t distance = reader.Varint();
    const uint64_t sub = reader.Varint();
    if (!reader.ok() || count >= kNamesMax || sub > INT32_MAX ||
        distance > static_cast<uint64_t>(INT64_MAX - last_named_)) {
      return Corrupt("names of records that are none");
    }
    content.remove_prefix(static_cast<size_t>(reader.position() - content.data()));
    last_named_ += static_cast<int64_t>(distance);
    CONCLAVE_ASSIGN_OR_RETURN(
        const mvcc::Record* record,
        builder_->Share(*source_, {.main = last_named_, .sub = static_cast<int64_t>(sub)}));
    if (whole != nullptr) mvcc::EncodeRecord(*record, &records);
    ++record_count_;
  }
  if (whole != nullptr) whole->append(Framed(kRecords, records));
  return absl::OkStatus();
}

absl::Status RestoreTask::TakeRecords(std::string_view content) {
  while (!content.empty()) {
    mvcc::RecordFields fields;
    CONCLAVE_RETURN_IF_ERROR(mvcc::DecodeRecord(&content, &fields));
    CONCLAVE_RETURN_IF_ERROR(builder_->Add(fields));
    ++record_count_;
  }
  return absl::OkStatus();
}

absl::Status RestoreTask::TakeEnd(std::string_view content) {
  uint64_t leases = 0;
  uint64_t records = 0;
  wire::Reader reader(content);
  while (reader.Next()) {
    if (reader.tag() == wire::VarintTag(1)) {
      leases = reader.Varint();
    } else if (reader.tag() == wire::VarintTag(2)) {
      records = reader.Varint();
    } else {
      reader.Skip(2);
    }
  }
  if (!reader.ok() || leases != leases_.leases.size() || records != record_count_) {
    return Corrupt("something is missing");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StateMachine>> RestoreTask::Finish() {
  CONCLAVE_RETURN_IF_ERROR(failed_);
  if (last_block_ != kEnd || !pending_.empty()) return Corrupt("it does not end");
  failed_ = absl::FailedPreconditionError("a snapshot is restored once");

  StateParts parts;
  if (!DecodeCluster(cluster_, &parts)) return Corrupt("a cluster that is none");
  CONCLAVE_ASSIGN_OR_RETURN(parts.store, builder_->Finish());
  parts.applied_index = applied_index_;
  parts.applied_term = applied_term_;
  parts.leases = std::move(leases_);
  return AssembleState(options_, std::move(parts));
}

absl::StatusOr<std::unique_ptr<StateMachine>> AssembleState(const StateMachineOptions& options,
                                                            StateParts parts) {
  auto state = std::make_unique<StateMachine>(options);
  state->store_ = std::move(parts.store);
  CONCLAVE_RETURN_IF_ERROR(state->lessor_.Import(parts.leases));
  absl::Status attached;
  state->store_->ForEach(mvcc::KeyRange::All(), mvcc::kLatest, [&](const mvcc::Record& record) {
    if (record.lease() == lease::kNoLease) return true;
    attached = state->lessor_.Attach(record.key(), record.lease());
    return attached.ok();
  });
  if (!attached.ok()) return Corrupt("a key of a lease that is not there");
  if (!parts.members.empty() || parts.cluster_id != 0) {
    state->membership_.Bootstrap(parts.cluster_id, std::move(parts.members),
                                 std::move(parts.removed));
  }
  state->cluster_version_ = std::move(parts.cluster_version);
  state->downgrade_target_ = std::move(parts.downgrade_target);
  state->alarms_ = std::move(parts.alarms);
  state->refills_ = std::move(parts.refills);
  state->auth_ = std::move(parts.auth);
  state->applied_index_ = parts.applied_index;
  state->applied_term_ = parts.applied_term;
  return state;
}

}  // namespace conclave::apply
