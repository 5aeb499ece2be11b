// The response in a node's reply, which must be no error.
#pragma once

#include <gtest/gtest.h>

#include "conclave/server/node/io.h"

namespace conclave::node {

template <typename Response>
Response Parsed(const Reply& reply) {
  EXPECT_EQ(reply.error, nullptr) << reply.error->message;
  Response response;
  EXPECT_TRUE(response.ParseFromArray(reply.body.data(), static_cast<int>(reply.body.size())));
  return response;
}

}  // namespace conclave::node
