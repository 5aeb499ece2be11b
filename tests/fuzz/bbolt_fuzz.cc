// Fuzzes the reader of bbolt files, and what makes a state of them: one file, as bytes.
//
// Input: one byte of flags, then the file. Flag 1 makes the checksums of both meta pages right.
// Whatever comes, reading must end with a status; a state that comes of it keeps its invariants.
#include <cstring>

#include "conclave/base/check.h"
#include "conclave/server/backup/restore.h"
#include "conclave/server/backup/schema.h"
#include "conclave/server/bbolt/reader.h"
#include "conclave/server/bbolt/writer.h"
#include "conclave/server/mvcc/wire.h"
#include "conclave/tests/bbolt/memory_source.h"
#include "conclave/tests/fuzz/fuzz.h"

namespace conclave::bbolt {
namespace {

constexpr uint8_t kFixMetas = 1;

void FixMeta(size_t at, std::string* file) {
  if (at + kPageHeaderBytes + kMetaBytes > file->size()) return;
  const size_t begin = at + kPageHeaderBytes;
  std::string sum;
  AppendU64(Fnv1a(std::string_view(*file).substr(begin, kMetaBytes - 8)), &sum);
  file->replace(begin + kMetaBytes - 8, 8, sum);
}

void CheckRefusal(const absl::Status& status) {
  CONCLAVE_CHECK(status.ok() || absl::IsDataLoss(status) || absl::IsInvalidArgument(status) ||
                     absl::IsOutOfRange(status) || absl::IsNotFound(status),
                 status.ToString());
}

void RunOne(std::string_view input) {
  if (input.empty()) return;
  std::string file(input.substr(1));
  if ((static_cast<uint8_t>(input[0]) & kFixMetas) != 0) {
    FixMeta(0, &file);
    FixMeta(kPageSize, &file);
  }
  MemorySource source(file);
  auto database = Database::Open(&source);
  CheckRefusal(database.status());
  if (!database.ok()) return;
  CheckRefusal(backup::Inspect(&*database).status());
  auto parts = backup::ReadState(&*database, {.bump_revision = 10, .mark_compacted = true});
  CheckRefusal(parts.status());
  if (!parts.ok()) return;
  parts->store->CheckInvariants();
  auto state = apply::AssembleState({}, *std::move(parts));
  CheckRefusal(state.status());
  if (state.ok()) (*state)->CheckInvariants();
}

template <typename Fill>
std::string FileOf(const Fill& fill) {
  Writer measure;
  fill(measure);
  Writer writer(measure.Finish());
  fill(writer);
  writer.Finish();
  return writer.TakeOutput();
}

}  // namespace
}  // namespace conclave::bbolt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  conclave::bbolt::RunOne({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  using namespace conclave;
  using namespace conclave::bbolt;
  std::vector<std::string> seeds;
  for (const int keys : {0, 3, 200}) {
    const std::string file = FileOf([keys](Writer& writer) {
      writer.BeginBucket(backup::kAlarmBucket);
      writer.Add("\x08\x07\x10\x01", "");
      writer.BeginBucket(backup::kKeyBucket);
      for (int i = 0; i < keys; ++i) {
        const std::string key = "key" + std::to_string(i);
        const mvcc::RecordRef record = mvcc::MakeRecord({.key = key,
                                                         .value = "value",
                                                         .revision = {.main = i + 2, .sub = 0},
                                                         .create_revision = i + 2,
                                                         .version = 1,
                                                         .lease = 7});
        writer.Add(backup::EncodeRevision(record->revision()), mvcc::KeyValueSize(*record),
                   [&](char* at) { mvcc::WriteKeyValue(*record, at); });
      }
      writer.BeginBucket(backup::kLeaseBucket);
      writer.Add(backup::EncodeU64(7), backup::EncodeLease({.id = 7, .ttl_seconds = 60}));
      writer.BeginBucket(backup::kMetaBucket);
      writer.Add(backup::kFinishedCompactKey, backup::EncodeRevision({.main = 2, .sub = 0}));
    });
    for (const char flags : {'\0', '\1'}) seeds.push_back(flags + file);
  }
  return seeds;
}
