// What the server shows when it asks itself: it may do everything, whoever has turned
// authentication on.
#pragma once

#include "conclave/server/node/io.h"

namespace conclave::node {

const CredentialsRef& ServerItself();

}  // namespace conclave::node
