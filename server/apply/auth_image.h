// The AuthStore as bytes: in a snapshot, and under the digest. And etcd's errors for its refusals.
#pragma once

#include <string>
#include <string_view>

#include "conclave/api/wire/errors.h"
#include "conclave/server/auth/store.h"

namespace conclave::apply {

[[nodiscard]] std::string EncodeAuthStore(const auth::AuthStore& store);
// False if `encoded` is none; then *store is unchanged.
[[nodiscard]] bool DecodeAuthStore(std::string_view encoded, auth::AuthStore* store);

// Null for kNone.
[[nodiscard]] const wire::Error* ErrorOf(auth::Refusal refusal);

}  // namespace conclave::apply
