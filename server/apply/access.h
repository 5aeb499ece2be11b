// What a request needs to be allowed: one table for the methods, and one function that takes a
// request apart into everything that it would touch.
//
// The requests are read by the same views (api/wire) that carry them out, so what is checked is
// what is done: nested transactions, previous values, compares, leases and their keys included.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "conclave/api/wire/method.h"

namespace conclave::apply {

enum class Need : uint8_t {
  kNothing,  // whoever comes
  kUser,     // somebody who has authenticated
  kRoot,     // role root
  kKeys,     // permission for each of its accesses
  kAlarm,    // kUser to look at alarms, kRoot to change them
  kSelf,     // kRoot, or about oneself
  kOwnRole,  // kRoot, or about a role that one has
};

// Every method has a case of its own: a new one does not compile until somebody has decided.
[[nodiscard]] Need NeedOf(wire::Method method);

struct Access {
  enum class Kind : uint8_t {
    kRead,          // keys
    kWrite,         // keys
    kWriteLease,    // to write all keys of a lease
    kReadLease,     // to read all keys of a lease
    kReadAllLeases  // to read all keys of all leases
  };
  Kind kind = Kind::kRead;
  // As they stand in the request: "" and "\0" keep their meaning.
  std::string_view key;
  std::string_view range_end;
  int64_t lease = 0;
};

// Visits the accesses of a request of a kKeys method until `visit` gives false. False if it did,
// or if the request is malformed.
[[nodiscard]] bool ForEachAccess(wire::Method method, std::string_view request,
                                 absl::FunctionRef<bool(const Access&)> visit);

}  // namespace conclave::apply
