#include "conclave/server/mvcc/digest_check.h"

namespace conclave::mvcc {

DigestCheck::DigestCheck(Store* store)
    : cursor_(store->OpenRange(KeyRange::All(), kLatest)), expected_(store->live_digest_) {}

bool DigestCheck::Advance(size_t records, size_t bytes) {
  size_t seen = 0;
  for (; records > 0 && seen < bytes; --records) {
    const RecordRef record = cursor_.Next();
    if (!record) return false;
    sum_ += HashRecord(*record);
    seen += record->memory();
  }
  return true;
}

}  // namespace conclave::mvcc
