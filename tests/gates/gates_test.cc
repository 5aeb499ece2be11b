// The gates at a size for every day, on our server. gates_run has the full size, and etcd's
// figures.
#include "conclave/tests/gates/gates.h"

#include <gtest/gtest.h>

namespace conclave::gates {
namespace {

class GateTest : public ::testing::TestWithParam<Gate> {};

TEST_P(GateTest, IsKept) {
  if (const auto binary = testing::ServerBinary(testing::ServerKind::kConclave); !binary.ok()) {
    GTEST_SKIP() << binary.status();
  }
  const absl::StatusOr<Result> result = GetParam().run(testing::ServerKind::kConclave, {});
  if (absl::IsUnimplemented(result.status())) GTEST_SKIP() << result.status();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->kept) << GetParam().promise << ": " << result->measured;
}

INSTANTIATE_TEST_SUITE_P(Gates, GateTest, ::testing::ValuesIn(AllGates()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace conclave::gates
