// Who asks for something: shared by all that wait on his behalf.
#pragma once

#include <memory>

#include "conclave/server/auth/store.h"
#include "conclave/server/node/io.h"

namespace conclave::node {

struct Asker {
  auth::Identity identity;
  CredentialsRef shown;  // what he was known by; null if another member knew him
};

// Null: nobody, or nobody cares because authentication is off.
using AskerRef = std::shared_ptr<const Asker>;

}  // namespace conclave::node
