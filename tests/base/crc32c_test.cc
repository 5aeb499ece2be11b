#include "conclave/base/crc32c.h"

#include <gtest/gtest.h>

#include <string>

#include "conclave/base/prng.h"

namespace conclave {
namespace {

// RFC 3720, appendix B.4.
TEST(Crc32c, AgreesWithTheVectorsOfRfc3720) {
  std::string ascending(32, '\0');
  std::string descending(32, '\0');
  for (int i = 0; i < 32; ++i) {
    ascending[i] = static_cast<char>(i);
    descending[i] = static_cast<char>(31 - i);
  }
  const std::string read_command = {
      '\x01', '\xc0', 0, 0, 0, 0, 0,      0, 0,      0, 0, 0,      0, 0, 0, 0,
      '\x14', 0,      0, 0, 0, 0, '\x04', 0, 0,      0, 0, '\x14', 0, 0, 0, '\x18',
      '\x28', 0,      0, 0, 0, 0, 0,      0, '\x02', 0, 0, 0,      0, 0, 0, 0};
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(Crc32c(ascending), 0x46dd794eu);
  EXPECT_EQ(Crc32c(descending), 0x113fdb5cu);
  EXPECT_EQ(Crc32c(read_command), 0xd9963a56u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(Crc32c, TableAndHardwareAgreeForEverySizeAndCut) {
  if (!crc32c_internal::HardwareAvailable()) GTEST_SKIP() << "no CRC instruction here";
  Prng prng(1);
  std::string bytes(20000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(prng.Next());
  for (int round = 0; round < 500; ++round) {
    const size_t from = prng.Below(64);
    const size_t size = round < 100 ? round : prng.Below(bytes.size() - from);
    const std::string_view part = std::string_view(bytes).substr(from, size);
    const uint32_t seed = static_cast<uint32_t>(prng.Next());
    const uint32_t expected = crc32c_internal::ExtendByTable(seed, part);
    ASSERT_EQ(crc32c_internal::ExtendByHardware(seed, part), expected) << size;
    const size_t cut = prng.Below(size + 1);
    ASSERT_EQ(Crc32cExtend(Crc32cExtend(seed, part.substr(0, cut)), part.substr(cut)), expected)
        << size << " cut at " << cut;
  }
}

}  // namespace
}  // namespace conclave
