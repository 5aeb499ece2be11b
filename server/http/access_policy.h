// AccessPolicy: whom browsers may call, and in whose name.
#pragma once

#include <functional>
#include <set>
#include <string>

namespace conclave::http {

// "*": everybody.
struct AccessPolicy {
  std::set<std::string, std::less<>> origins{"*"};  // of pages that may read our answers
  // That a request may name as its host: a page whose own host name leads to us, by a trick with
  // the DNS, names another one.
  std::set<std::string, std::less<>> hosts{"*"};
};

}  // namespace conclave::http
