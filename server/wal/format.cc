#include "conclave/server/wal/format.h"

#include "absl/strings/str_format.h"
#include "conclave/base/concat.h"
#include "conclave/base/crc32c.h"

namespace conclave::wal {
namespace {

// Where the fields stand in the header of a segment.
enum HeaderAt : size_t {
  kVersionAt = 8,
  kHeaderSizeAt = 12,
  kClusterAt = 16,
  kMemberAt = 24,
  kSequenceAt = 32,
  kPreviousEndAt = 40,
  kPreviousCrcAt = 48,
  kLastIndexAt = 56,
  kLastTermAt = 64,
  kHardStateAt = 72,
  kSyncBatchAt = 96,
  kZeroedAt = 104,
};

// And in the head of a record.
enum HeadAt : size_t {
  kHeadCrcAt = 0,
  kPayloadCrcAt = 4,
  kRecordSyncBatchAt = 8,
  kBatchStartAt = 16,
  kLengthAt = 20,
  kFirstAt = 24,
  kEntryCountAt = 32,
  kFlagsAt = 36,
  kUnusedAt = 38,
};

// And in the head of an entry.
enum EntryAt : size_t {
  kEntryTermAt = 0,
  kEntryLengthAt = 8,
  kEntryTypeAt = 12,
};

void StoreHardState(const raft::HardState& state, char* out) {
  StoreLittle(out, state.term.value());
  StoreLittle(out + 8, state.vote.value());
  StoreLittle(out + 16, state.commit.value());
}

raft::HardState LoadHardState(const char* at) {
  return {.term = raft::Term(LoadLittle<uint64_t>(at)),
          .vote = raft::NodeId(LoadLittle<uint64_t>(at + 8)),
          .commit = raft::Index(LoadLittle<uint64_t>(at + 16))};
}

uint32_t HeadCrc(uint32_t seed, uint64_t offset, const char* head) {
  char offset_bytes[8];
  StoreLittle(offset_bytes, offset);
  const uint32_t crc = Crc32cExtend(seed, {offset_bytes, sizeof(offset_bytes)});
  return Crc32cExtend(crc, {head + kPayloadCrcAt, kHeadBytes - kPayloadCrcAt});
}

// The entries' lengths must fill the payload exactly.
bool EntriesFit(const RecordHead& head, std::string_view payload) {
  const char* entry = payload.data() + head.fixed_bytes() - head.entry_count * kEntryHeadBytes;
  uint64_t bytes = head.fixed_bytes();
  for (uint32_t i = 0; i < head.entry_count; ++i, entry += kEntryHeadBytes) {
    bytes += LoadLittle<uint32_t>(entry + kEntryLengthAt);
    if (static_cast<unsigned char>(entry[kEntryTypeAt]) >
        static_cast<unsigned char>(raft::EntryType::kConfChange)) {
      return false;
    }
  }
  return bytes == payload.size();
}

}  // namespace

bool operator==(const SegmentHeader& a, const SegmentHeader& b) {
  return EncodeSegmentHeader(a) == EncodeSegmentHeader(b);
}

std::string EncodeSegmentHeader(const SegmentHeader& header) {
  std::string bytes(kHeaderBytes, '\0');
  kMagic.copy(bytes.data(), kMagic.size());
  StoreLittle(&bytes[kVersionAt], kFormatVersion);
  StoreLittle(&bytes[kHeaderSizeAt], static_cast<uint32_t>(kHeaderBytes));
  StoreLittle(&bytes[kClusterAt], header.cluster_id);
  StoreLittle(&bytes[kMemberAt], header.member_id.value());
  StoreLittle(&bytes[kSequenceAt], header.sequence);
  StoreLittle(&bytes[kPreviousEndAt], header.previous_end);
  StoreLittle(&bytes[kPreviousCrcAt], header.previous_crc);
  StoreLittle(&bytes[kLastIndexAt], header.last.index.value());
  StoreLittle(&bytes[kLastTermAt], header.last.term.value());
  StoreHardState(header.hard_state, &bytes[kHardStateAt]);
  StoreLittle(&bytes[kSyncBatchAt], header.sync_batch);
  StoreLittle(&bytes[kZeroedAt], static_cast<uint32_t>(header.zeroed ? 1 : 0));
  StoreLittle(&bytes[kHeaderCrcAt], Crc32c(std::string_view(bytes).substr(0, kHeaderCrcAt)));
  return bytes;
}

absl::StatusOr<SegmentHeader> DecodeSegmentHeader(std::string_view bytes) {
  if (bytes.size() < kHeaderBytes) return absl::DataLossError("the header is cut off");
  if (bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError("it does not start as a log segment does");
  }
  if (SegmentSeed(bytes) != Crc32c(bytes.substr(0, kHeaderCrcAt))) {
    return absl::DataLossError("the header's checksum is wrong");
  }
  const auto version = LoadLittle<uint32_t>(&bytes[kVersionAt]);
  if (version != kFormatVersion) {
    return absl::FailedPreconditionError(
        Concat("its format version is ", version, ", this program reads version ", kFormatVersion));
  }
  return SegmentHeader{
      .cluster_id = LoadLittle<uint64_t>(&bytes[kClusterAt]),
      .member_id = raft::NodeId(LoadLittle<uint64_t>(&bytes[kMemberAt])),
      .sequence = LoadLittle<uint64_t>(&bytes[kSequenceAt]),
      .previous_end = LoadLittle<uint64_t>(&bytes[kPreviousEndAt]),
      .previous_crc = LoadLittle<uint32_t>(&bytes[kPreviousCrcAt]),
      .last = {.index = raft::Index(LoadLittle<uint64_t>(&bytes[kLastIndexAt])),
               .term = raft::Term(LoadLittle<uint64_t>(&bytes[kLastTermAt]))},
      .hard_state = LoadHardState(&bytes[kHardStateAt]),
      .sync_batch = LoadLittle<uint64_t>(&bytes[kSyncBatchAt]),
      .zeroed = LoadLittle<uint32_t>(&bytes[kZeroedAt]) == 1,
  };
}

uint32_t SegmentSeed(std::string_view header_bytes) {
  return LoadLittle<uint32_t>(&header_bytes[kHeaderCrcAt]);
}

std::string SegmentName(uint64_t sequence, raft::Index first) {
  return absl::StrFormat("%016x-%016x%s", sequence, first.value(), kSegmentSuffix.data());
}

std::optional<ParsedName> ParseSegmentName(std::string_view name) {
  if (name.size() != 33 + kSegmentSuffix.size() || name[16] != '-' ||
      name.substr(33) != kSegmentSuffix) {
    return std::nullopt;
  }
  uint64_t numbers[2] = {0, 0};
  for (size_t i = 0; i < 33; ++i) {
    if (i == 16) continue;
    const char c = name[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return std::nullopt;
    uint64_t& number = numbers[i < 16 ? 0 : 1];
    number = number << 4 | static_cast<uint64_t>(digit);
  }
  return ParsedName{.sequence = numbers[0], .first = raft::Index(numbers[1])};
}

uint32_t EncodeRecordHead(const RecordHead& head, uint32_t seed, uint64_t offset, char* out) {
  StoreLittle(out + kPayloadCrcAt, head.payload_crc);
  StoreLittle(out + kRecordSyncBatchAt, head.sync_batch);
  StoreLittle(out + kBatchStartAt, head.batch_start);
  StoreLittle(out + kLengthAt, head.length);
  StoreLittle(out + kFirstAt, head.first.value());
  StoreLittle(out + kEntryCountAt, head.entry_count);
  StoreLittle(out + kFlagsAt, head.flags);
  StoreLittle(out + kUnusedAt, uint16_t{0});
  const uint32_t crc = HeadCrc(seed, offset, out);
  StoreLittle(out + kHeadCrcAt, crc);
  return crc;
}

std::optional<RecordHead> DecodeRecordHead(std::string_view segment, uint64_t offset,
                                           uint32_t seed) {
  if (offset > segment.size() || segment.size() - offset < kHeadBytes) return std::nullopt;
  const char* at = segment.data() + offset;
  // The cheap question first: nearly everything that is no record fails here.
  const auto batch_start = LoadLittle<uint32_t>(at + kBatchStartAt);
  if (batch_start < kRecordsStart || batch_start > offset || batch_start % kAlignment != 0) {
    return std::nullopt;
  }
  const auto head_crc = LoadLittle<uint32_t>(at + kHeadCrcAt);
  if (HeadCrc(seed, offset, at) != head_crc) return std::nullopt;
  const RecordHead head{
      .head_crc = head_crc,
      .payload_crc = LoadLittle<uint32_t>(at + kPayloadCrcAt),
      .sync_batch = LoadLittle<uint64_t>(at + kRecordSyncBatchAt),
      .batch_start = batch_start,
      .length = LoadLittle<uint32_t>(at + kLengthAt),
      .first = raft::Index(LoadLittle<uint64_t>(at + kFirstAt)),
      .entry_count = LoadLittle<uint32_t>(at + kEntryCountAt),
      .flags = LoadLittle<uint16_t>(at + kFlagsAt),
  };
  if ((head.flags & ~kRecordFlagsAll) != 0 || LoadLittle<uint16_t>(at + kUnusedAt) != 0 ||
      head.fixed_bytes() > head.length || head.length > kRecordBytesMax) {
    return std::nullopt;
  }
  return head;
}

std::optional<Record> DecodeRecord(std::string_view segment, uint64_t offset, uint32_t seed) {
  const std::optional<RecordHead> head = DecodeRecordHead(segment, offset, seed);
  if (!head.has_value() || head->length > segment.size() - offset - kHeadBytes) return std::nullopt;
  const std::string_view payload = segment.substr(offset + kHeadBytes, head->length);
  if (Crc32c(payload) != head->payload_crc || !EntriesFit(*head, payload)) return std::nullopt;
  return Record{
      .head = *head, .payload = payload, .end = AlignUp(offset + kHeadBytes + head->length)};
}

std::optional<Position> Record::reset() const {
  if (!head.has(kHasReset)) return std::nullopt;
  return Position{.index = raft::Index(LoadLittle<uint64_t>(payload.data())),
                  .term = raft::Term(LoadLittle<uint64_t>(payload.data() + 8))};
}

std::optional<raft::HardState> Record::hard_state() const {
  if (!head.has(kHasHardState)) return std::nullopt;
  return LoadHardState(payload.data() + (head.has(kHasReset) ? kResetBytes : 0));
}

void Record::ForEachEntry(absl::FunctionRef<void(const EntryView&)> each) const {
  const char* entry = payload.data() + head.fixed_bytes() - head.entry_count * kEntryHeadBytes;
  uint64_t at = head.fixed_bytes();
  for (uint32_t i = 0; i < head.entry_count; ++i, entry += kEntryHeadBytes) {
    const auto length = LoadLittle<uint32_t>(entry + kEntryLengthAt);
    each({.term = raft::Term(LoadLittle<uint64_t>(entry + kEntryTermAt)),
          .index = head.first + i,
          .type = static_cast<raft::EntryType>(entry[kEntryTypeAt]),
          .payload = payload.substr(at, length)});
    at += length;
  }
}

std::optional<uint64_t> FindProofBehind(std::string_view segment, uint64_t bad, uint32_t seed) {
  for (uint64_t at = AlignUp(bad + 1); at + kHeadBytes <= segment.size(); at += kAlignment) {
    if (LoadLittle<uint32_t>(segment.data() + at + kBatchStartAt) <= bad) continue;
    if (DecodeRecordHead(segment, at, seed).has_value()) return at;
  }
  return std::nullopt;
}

size_t EncodeFixed(const LogBatch& batch, char* out) {
  char* at = out;
  if (batch.reset.has_value()) {
    StoreLittle(at, batch.reset->index.value());
    StoreLittle(at + 8, batch.reset->term.value());
    at += kResetBytes;
  }
  if (batch.hard_state.has_value()) {
    StoreHardState(*batch.hard_state, at);
    at += kHardStateBytes;
  }
  for (const raft::Entry& entry : batch.entries) {
    StoreLittle(at + kEntryTermAt, entry.term.value());
    StoreLittle(at + kEntryLengthAt, static_cast<uint32_t>(entry.payload.size()));
    StoreLittle(at + kEntryTypeAt, static_cast<uint32_t>(entry.type));
    at += kEntryHeadBytes;
  }
  return static_cast<size_t>(at - out);
}

}  // namespace conclave::wal
