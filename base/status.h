// Early returns for functions that give a Status or StatusOr.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define CONCLAVE_STATUS_CONCAT_(a, b) a##b
#define CONCLAVE_STATUS_CONCAT(a, b) CONCLAVE_STATUS_CONCAT_(a, b)

#define CONCLAVE_RETURN_IF_ERROR(expression)                  \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

// CONCLAVE_ASSIGN_OR_RETURN(auto value, MaybeValue());
#define CONCLAVE_ASSIGN_OR_RETURN(left, expression) \
  CONCLAVE_ASSIGN_OR_RETURN_(CONCLAVE_STATUS_CONCAT(status_or_, __LINE__), left, expression)
#define CONCLAVE_ASSIGN_OR_RETURN_(temporary, left, expression) \
  auto temporary = (expression);                                \
  if (!temporary.ok()) return std::move(temporary).status();    \
  left = *std::move(temporary)
