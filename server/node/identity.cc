#include "conclave/server/node/identity.h"

#include "conclave/base/concat.h"
#include "conclave/base/crc32c.h"
#include "conclave/base/little_endian.h"
#include "conclave/base/status.h"

namespace conclave::node {
namespace {

constexpr std::string_view kMagic = "CNCLVMEM";
constexpr uint32_t kFormatVersion = 1;
constexpr std::string_view kUnfinishedName = "identity.unfinished";

// Where the fields stand.
enum At : size_t {
  kVersionAt = 8,
  kSizeAt = 12,
  kClusterAt = 16,
  kMemberAt = 24,
  kCrcAt = 60,
  kBytes = 64,
};

}  // namespace

std::string EncodeIdentity(const Identity& identity) {
  std::string bytes(kBytes, '\0');
  kMagic.copy(bytes.data(), kMagic.size());
  StoreLittle(&bytes[kVersionAt], kFormatVersion);
  StoreLittle(&bytes[kSizeAt], static_cast<uint32_t>(kBytes));
  StoreLittle(&bytes[kClusterAt], identity.cluster_id);
  StoreLittle(&bytes[kMemberAt], identity.member_id.value());
  StoreLittle(&bytes[kCrcAt], Crc32c(std::string_view(bytes).substr(0, kCrcAt)));
  return bytes;
}

absl::StatusOr<Identity> DecodeIdentity(std::string_view bytes) {
  // The magic, the version's place and the checksum's are those of every version.
  if (bytes.size() != kBytes || bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError("it is not what this program writes there");
  }
  if (LoadLittle<uint32_t>(&bytes[kCrcAt]) != Crc32c(bytes.substr(0, kCrcAt))) {
    return absl::DataLossError("its checksum is wrong");
  }
  const auto version = LoadLittle<uint32_t>(&bytes[kVersionAt]);
  if (version != kFormatVersion) {
    return absl::FailedPreconditionError(
        Concat("its format version is ", version, ", this program reads version ", kFormatVersion));
  }
  return Identity{.cluster_id = LoadLittle<uint64_t>(&bytes[kClusterAt]),
                  .member_id = raft::NodeId(LoadLittle<uint64_t>(&bytes[kMemberAt]))};
}

absl::StatusOr<std::optional<Identity>> ReadIdentity(env::Disk& disk) {
  auto file = disk.Open(kIdentityName, env::OpenMode::kRead);
  if (absl::IsNotFound(file.status())) return std::nullopt;
  CONCLAVE_RETURN_IF_ERROR(file.status());
  // One byte more than it may have.
  std::string bytes(kBytes + 1, '\0');
  CONCLAVE_ASSIGN_OR_RETURN(const size_t size, (*file)->Read(0, bytes));
  bytes.resize(size);
  auto identity = DecodeIdentity(bytes);
  if (identity.ok()) return *identity;
  return absl::Status(identity.status().code(), Concat(disk.Describe(), "/", kIdentityName, ": ",
                                                       identity.status().message()));
}

absl::Status WriteIdentity(env::Disk& disk, const Identity& identity) {
  CONCLAVE_ASSIGN_OR_RETURN(auto file, disk.Open(kUnfinishedName, env::OpenMode::kCreateOrReset));
  CONCLAVE_RETURN_IF_ERROR(file->Write(0, EncodeIdentity(identity)));
  CONCLAVE_RETURN_IF_ERROR(file->Sync());
  file.reset();
  CONCLAVE_RETURN_IF_ERROR(disk.Rename(kUnfinishedName, kIdentityName));
  return disk.SyncDirectory("");
}

}  // namespace conclave::node
