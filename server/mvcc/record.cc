#include "conclave/server/mvcc/record.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "conclave/base/check.h"

namespace conclave::mvcc {

RecordRef MakeRecord(const RecordFields& fields) {
  CONCLAVE_CHECK(fields.key.size() <= UINT32_MAX && fields.value.size() <= UINT32_MAX);
  CONCLAVE_CHECK(fields.revision.sub >= 0 && fields.revision.sub < Record::kTombstone);
  void* memory = std::malloc(sizeof(Record) + fields.key.size() + fields.value.size());
  CONCLAVE_CHECK(memory != nullptr, "out of memory for a record");
  Record* record = new (memory) Record;
  record->key_size_ = static_cast<uint32_t>(fields.key.size());
  record->value_size_ = static_cast<uint32_t>(fields.value.size());
  record->sub_ =
      static_cast<uint32_t>(fields.revision.sub) | (fields.tombstone ? Record::kTombstone : 0);
  record->main_ = fields.revision.main;
  record->create_revision_ = fields.create_revision;
  record->version_ = fields.version;
  record->lease_ = fields.lease;
  char* data = reinterpret_cast<char*>(record + 1);
  if (!fields.key.empty()) std::memcpy(data, fields.key.data(), fields.key.size());
  if (!fields.value.empty()) {
    std::memcpy(data + fields.key.size(), fields.value.data(), fields.value.size());
  }
  return RecordRef::Adopt(record);
}

void Record::Destroy(const Record* record) {
  record->~Record();
  std::free(const_cast<Record*>(record));
}

}  // namespace conclave::mvcc
