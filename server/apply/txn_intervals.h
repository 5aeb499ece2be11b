// Whether a transaction may write the same key twice. A store's revision has one value per key; so
// one branch must not put a key twice, nor put what it also deletes, in whatever depth.
#pragma once

#include "conclave/api/wire/requests.h"

namespace conclave::apply {

// True if some branch of `txn` writes a key twice. As etcd judges it, quirks included: the two
// branches of a transaction exclude each other; deletes may overlap; the puts of a nested
// transaction are held against the deletes of its parent and of its earlier siblings, not of its
// later ones; a delete with range_end "\0" (or one not above its key) counts as covering nothing.
// `txn` must be valid.
[[nodiscard]] bool WritesOverlap(const wire::TxnRequest& txn);

}  // namespace conclave::apply
