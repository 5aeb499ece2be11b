#include "conclave/server/snapshot/format.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_format.h"
#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/crc32c.h"
#include "conclave/base/status.h"

namespace conclave::snapshot {
namespace {

static_assert(std::endian::native == std::endian::little, "integers in files are little-endian");

constexpr std::string_view kMagic = "CNCLVSNP";
constexpr size_t kCrcBytes = 4;
// Cluster id, index, term, auto_leave, and four lengths.
constexpr size_t kFixedBytes = 8 + 8 + 8 + 4 + 4 * 4;

template <typename Integer>
void Put(Integer value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename Integer>
Integer Load(std::string_view bytes, size_t at) {
  Integer value;
  CONCLAVE_CHECK(at + sizeof(value) <= bytes.size());
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

}  // namespace

std::string EncodeHeader(const Header& header) {
  const raft::ConfState& conf = header.meta.conf;
  const std::vector<raft::NodeId>* const lists[] = {&conf.voters, &conf.voters_outgoing,
                                                    &conf.learners, &conf.learners_next};
  size_t ids = 0;
  for (const auto* list : lists) ids += list->size();
  const size_t size = kPrefixBytes + kFixedBytes + ids * 8 + kCrcBytes;
  CONCLAVE_CHECK(size <= kHeaderBytesMax, ids, " members");
  std::string out(kMagic);
  Put(kFormatVersion, &out);
  Put(static_cast<uint32_t>(size), &out);
  Put(header.cluster_id, &out);
  Put(header.meta.index.value(), &out);
  Put(header.meta.term.value(), &out);
  Put(uint32_t{conf.auto_leave ? 1u : 0u}, &out);
  for (const auto* list : lists) Put(static_cast<uint32_t>(list->size()), &out);
  for (const auto* list : lists) {
    for (raft::NodeId id : *list) Put(id.value(), &out);
  }
  Put(Crc32c(out), &out);
  CONCLAVE_CHECK(out.size() == size);
  return out;
}

absl::StatusOr<size_t> HeaderBytes(std::string_view prefix) {
  if (prefix.size() < kPrefixBytes || prefix.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError("it does not start as a snapshot does");
  }
  const auto size = Load<uint32_t>(prefix, 12);
  if (size < kPrefixBytes + kFixedBytes + kCrcBytes || size > kHeaderBytesMax) {
    return absl::DataLossError("the header's length is impossible");
  }
  return size;
}

absl::StatusOr<Header> DecodeHeader(std::string_view bytes) {
  CONCLAVE_ASSIGN_OR_RETURN(const size_t size, HeaderBytes(bytes));
  if (bytes.size() != size) return absl::DataLossError("the header is cut off");
  if (HeaderCrc(bytes) != Crc32c(bytes.substr(0, size - kCrcBytes))) {
    return absl::DataLossError("the header's checksum is wrong");
  }
  if (const auto version = Load<uint32_t>(bytes, 8); version != kFormatVersion) {
    return absl::FailedPreconditionError(
        Concat("its format version is ", version, ", this program reads version ", kFormatVersion));
  }
  size_t at = kPrefixBytes;
  Header header;
  header.cluster_id = Load<uint64_t>(bytes, at);
  header.meta.index = raft::Index(Load<uint64_t>(bytes, at + 8));
  header.meta.term = raft::Term(Load<uint64_t>(bytes, at + 16));
  const auto auto_leave = Load<uint32_t>(bytes, at + 24);
  header.meta.conf.auto_leave = auto_leave == 1;
  uint64_t ids = 0;
  for (size_t i = 0; i < 4; ++i) ids += Load<uint32_t>(bytes, at + 28 + 4 * i);
  if (auto_leave > 1 || ids * 8 != size - kPrefixBytes - kFixedBytes - kCrcBytes) {
    return absl::DataLossError("the header contradicts itself");
  }
  raft::ConfState& conf = header.meta.conf;
  std::vector<raft::NodeId>* const lists[] = {&conf.voters, &conf.voters_outgoing, &conf.learners,
                                              &conf.learners_next};
  size_t id_at = at + kFixedBytes;
  for (size_t i = 0; i < 4; ++i) {
    const auto count = Load<uint32_t>(bytes, at + 28 + 4 * i);
    for (uint32_t k = 0; k < count; ++k, id_at += 8) {
      lists[i]->push_back(raft::NodeId(Load<uint64_t>(bytes, id_at)));
    }
  }
  return header;
}

uint32_t HeaderCrc(std::string_view header_bytes) {
  return Load<uint32_t>(header_bytes, header_bytes.size() - kCrcBytes);
}

uint32_t ChunkCrc(uint32_t seed, uint64_t number, std::string_view bytes) {
  char place[12];
  const auto length = static_cast<uint32_t>(bytes.size());
  std::memcpy(place, &number, 8);
  std::memcpy(place + 8, &length, 4);
  return Crc32cExtend(Crc32cExtend(seed, {place, sizeof(place)}), bytes);
}

std::string EncodeTrailer(uint32_t seed, const Trailer& trailer) {
  std::string out;
  Put(uint32_t{0}, &out);
  Put(trailer.chunks, &out);
  Put(trailer.body_bytes, &out);
  out.append(trailer.hash.data(), trailer.hash.size());
  Put(Crc32cExtend(seed, out), &out);
  CONCLAVE_CHECK(out.size() == kTrailerBytes);
  return out;
}

absl::StatusOr<Trailer> DecodeTrailer(uint32_t seed, std::string_view bytes) {
  CONCLAVE_CHECK(bytes.size() == kTrailerBytes);
  if (Load<uint32_t>(bytes, 0) != 0 ||
      Load<uint32_t>(bytes, kTrailerBytes - kCrcBytes) !=
          Crc32cExtend(seed, bytes.substr(0, kTrailerBytes - kCrcBytes))) {
    return absl::DataLossError("the trailer's checksum is wrong");
  }
  Trailer trailer{
      .chunks = Load<uint64_t>(bytes, 4), .body_bytes = Load<uint64_t>(bytes, 12), .hash = {}};
  bytes.substr(20, kHashBytes).copy(trailer.hash.data(), kHashBytes);
  return trailer;
}

std::string FileName(const raft::SnapshotMeta& meta) {
  return absl::StrFormat("%016x-%016x%s", meta.index.value(), meta.term.value(), kSuffix.data());
}

bool IsFileName(std::string_view name) {
  return name.size() == 33 + kSuffix.size() && name[16] == '-' && name.ends_with(kSuffix) &&
         name.substr(0, 33).find_first_not_of("0123456789abcdef-") == std::string_view::npos;
}

}  // namespace conclave::snapshot
